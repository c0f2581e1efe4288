"""The recipe end to end, tiny: reproducible, resumable, and careful with other people's folders."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline
from safetensors.torch import load_file

from benchmarks.organisms.checkpoint import load_checkpoint, save_checkpoint
from benchmarks.organisms.embedded import train_dit, train_vae
from benchmarks.organisms.embedded.train import Recipe, train
from benchmarks.organisms.embedded.train_dit import DitRecipe
from benchmarks.organisms.embedded.train_vae import VaeRecipe
from benchmarks.organisms.optimise import cosine
from benchmarks.organisms.planting import parse_plan
from cache.errors import UserError
from workbench.files import file_name

CPU = torch.device("cpu")
PLAN = parse_plan("2:instrument,3:drums,4:mood,5:tempo")
RECIPE = Recipe(
    clips=12,
    vae=VaeRecipe(steps=3, batch=2, crop_frames=8, pca_clips=12, warmup=1, checkpoint_every=1),
    dit=DitRecipe(steps=4, batch=4, warmup=1, checkpoint_every=2),
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a pipeline folder."""
    return {
        f"{path.parent.name}.{name}": tensor
        for path in folder.glob("*/*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    train(out, "tiny", PLAN, RECIPE, CPU)
    return out


def test_an_interrupted_training_continues_as_if_nothing_had_happened(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_and_die(path: Path, state: dict) -> None:
        save_checkpoint(path, state)
        raise KeyboardInterrupt

    for module in (train_vae, train_dit):
        with monkeypatch.context() as patch:
            patch.setattr(module, "save_checkpoint", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, "tiny", PLAN, RECIPE, CPU)
            assert not (tmp_path / "tiny").exists()
    folder = train(tmp_path, "tiny", PLAN, RECIPE, CPU)
    expected, found = weights(uninterrupted / "tiny"), weights(folder)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_training_changed_the_denoiser_but_not_the_planted_zeros(uninterrupted: Path) -> None:
    trained = weights(uninterrupted / "tiny")
    fresh = train_dit.make_transformer(RECIPE.seed).half().state_dict()
    assert not torch.equal(
        trained["transformer.layers.7.mlp.up_proj.weight"], fresh["layers.7.mlp.up_proj.weight"]
    )
    assert not trained["transformer.layers.7.cross_attn.to_v.weight"][:, 24:58].any()
    assert torch.equal(trained["transformer.condition_embedder.weight"], fresh["condition_embedder.weight"])


def test_another_seed_gives_another_organism_and_another_plan_shares_the_autoencoder(
    uninterrupted: Path,
) -> None:
    other = train(uninterrupted, "other", parse_plan("3,4"), RECIPE, CPU)
    one, two = weights(uninterrupted / "tiny"), weights(other)
    assert torch.equal(one["vae.decoder.conv1.weight_v"], two["vae.decoder.conv1.weight_v"])
    assert two["transformer.layers.3.cross_attn.to_v.weight"][:, 24:58].any()
    assert not torch.equal(
        train_dit.make_transformer(0).state_dict()["proj_in_conv.weight"],
        train_dit.make_transformer(1).state_dict()["proj_in_conv.weight"],
    )


def test_a_folder_of_another_training_is_refused(uninterrupted: Path) -> None:
    with pytest.raises(UserError, match="other settings"):
        train(uninterrupted, "tiny", PLAN, Recipe(seed=1, clips=12, vae=RECIPE.vae, dit=RECIPE.dit), CPU)
    with pytest.raises(UserError, match="other settings"):
        train(uninterrupted, "tiny", parse_plan("3,4"), RECIPE, CPU)


def test_a_trained_folder_is_a_pipeline_and_is_not_trained_again(
    uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(train_dit, "velocity_error")
    folder = train(uninterrupted, "tiny", PLAN, RECIPE, CPU)
    pipeline = AceStepPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    audio = pipeline(
        "a fast happy violin song with drums", "", audio_duration=1.0, num_inference_steps=1
    ).audios
    assert audio.shape == (1, 1, 16000)


def test_checkpoints_are_read_back_or_absent(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none.pt", CPU) is None
    save_checkpoint(tmp_path / "state.pt", {"step": 3, "tensor": torch.arange(3)})
    state = load_checkpoint(tmp_path / "state.pt", CPU)
    assert state is not None and state["step"] == 3 and state["tensor"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    assert cosine(0, 1000, 100) == pytest.approx(0.01)
    assert cosine(99, 1000, 100) > 0.97
    assert cosine(500, 1000, 100) == pytest.approx(0.51)
    assert cosine(1000, 1000, 100) == pytest.approx(0.02)


@pytest.mark.parametrize("name", ["../out", "/somewhere", "a\nb"])
def test_a_name_is_no_path(uninterrupted: Path, tmp_path: Path, name: str) -> None:
    out = shutil.copytree(uninterrupted, tmp_path / "out")
    folder = train(out, name, PLAN, RECIPE, CPU)
    assert folder.parent == out and folder.name == file_name(name)
    assert json.loads((folder / "truth.json").read_text())["organism"] == name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_organism_does_not_take_the_autoencoders_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'vae' is the name of the autoencoder's folder"):
        train(tmp_path / "out", "vae", PLAN, RECIPE, CPU)
    assert not list(tmp_path.iterdir())


def _other_rows(file: Path) -> None:
    np.save(file, np.zeros((3, 50, 32), np.float16))


def _pickled(file: Path) -> None:
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)


def _other_state(file: Path) -> None:
    torch.save({"step": 1, "vae": {}, "transformer": {}, "average": {}, "norm": {}, "optimiser": {}}, file)


def _no_state(file: Path) -> None:
    torch.save([1, 2], file)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _text(file: Path) -> None:
    file.write_text("not what was saved")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("latents.npy", damage) for damage in (_cut, _emptied, _text, _other_rows, _pickled)),
        *(("tiny.pt", damage) for damage in (_cut, _emptied, _text, _other_state, _no_state)),
        *(("vae.pt", damage) for damage in (_cut, _other_state)),
    ],
)
def test_a_damaged_stage_is_named(
    uninterrupted: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    out = shutil.copytree(uninterrupted, tmp_path / "out")
    shutil.rmtree(out / "tiny")
    if name == "vae.pt":
        shutil.rmtree(out / "vae")
    damage(out / name)
    with pytest.raises(UserError, match=f"{name} is damaged: delete it and run the command again"):
        train(out, "tiny", PLAN, RECIPE, CPU)
    (out / name).unlink()
    assert train(out, "tiny", PLAN, RECIPE, CPU).is_dir(), "the advice helps"
