"""Training a concept slider: on every model, resumable, and without a trace in the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from analyses.steering import slider_training
from analyses.steering.concept_slider import concept_slider
from analyses.steering.slider import Slider
from cache.errors import UserError
from tests.resealed import resealed
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from workbench.engine.edits import Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.tensor_files import load_tensors

SETTINGS = GenerationSettings(duration=1.0, num_steps=3, guidance_scale=3.0)
OPTIONS: dict[str, Any] = {"settings": SETTINGS, "rank": 2, "learning_rate": 0.1, "pairs": 2}
SITE = "tf1.cross_attn"
PROJECTIONS = ("tf1.cross_attn.q", "tf1.cross_attn.k", "tf1.cross_attn.v", "tf1.cross_attn")
CLIP = Clip("a slow sad song", 3)


def trained(model: AceStep15, iterations: int, **options: Any) -> Slider:
    return concept_slider(model, "mood", SITE, iterations=iterations, **{**OPTIONS, **options})


def same(one: Slider, other: Slider) -> bool:
    return one.factors == other.factors and one.training["losses"] == other.training["losses"]


def test_every_model_can_be_trained_and_is_as_before(subject: Subject) -> None:
    model, settings = subject.single, subject.settings.model_copy(update={"num_steps": 2})
    clip, site = Clip("a slow sad song", 3), f"tf{subject.block}.self_attn"
    before = model.generate_batch([clip], settings).latents
    weights = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    sampling, flags = (
        model.sampling(settings),
        [weight.requires_grad for weight in model.denoiser.parameters()],
    )
    slider = concept_slider(
        model, "mood", ["*.cross_attn", site], iterations=1, **{**OPTIONS, "settings": settings}
    )
    assert set(slider.sites) >= {f"tf{subject.block}.cross_attn.v", site}
    assert len(slider.factors) == 4 * model.n_blocks + 4
    assert all(each.up.value.any() for each in slider.factors.values())
    assert model.denoiser.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.denoiser.state_dict().items())
    assert model.sampling(settings) == sampling
    assert [weight.requires_grad for weight in model.denoiser.parameters()] == flags
    made = model.generate_batch([clip, Run(clip, slider.at(1.0))], settings).latents
    assert_close(model.generate_batch([clip], settings).latents, before)
    assert difference(made[1], before[0]) > 1e-4


def test_the_loss_falls(tiny64: AceStep15) -> None:
    one_step = SETTINGS.model_copy(update={"num_steps": 2})
    losses = trained(tiny64, 12, pairs=1, settings=one_step).training["losses"]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_it_says_what_it_is(tiny64: AceStep15) -> None:
    slider = trained(tiny64, 2)
    assert (slider.concept, slider.positive, slider.negative) == ("mood", "happy", "sad")
    assert slider.model is not None
    assert slider.model["weights_hash"] == tiny64.weights_hash
    assert (slider.sites, slider.rank, slider.alpha) == (PROJECTIONS, 2, 1.0)
    assert slider.sigmas == tuple(tiny64.sigmas(SETTINGS))
    assert len(slider.training["losses"]) == 2
    assert all(
        "happy" in happy and happy.replace("happy", "sad") == sad for happy, sad in slider.training["prompts"]
    )
    assert "+ is happy, − is sad" in repr(slider)


def test_it_continues_where_it_was_killed(
    tiny64: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slider_training, "EVERY", 2)
    whole = trained(tiny64, 4)

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny64, 4, checkpoints=tmp_path / "state", progress=kill)
    half_written = tmp_path / "state" / f".part-{0:032x}.safetensors"
    half_written.touch()
    seen: list[tuple[int, int]] = []
    again = trained(tiny64, 4, checkpoints=tmp_path / "state", progress=lambda *done: seen.append(done))
    assert same(again, whole)
    assert not half_written.exists()
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert same(trained(tiny64, 4, checkpoints=tmp_path / "state"), whole)
    longer = trained(tiny64, 5, checkpoints=tmp_path / "state")
    assert longer.training["losses"][:4] == whole.training["losses"]
    assert longer.factors != whole.factors


def damaged(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    file = folder / "checkpoint.safetensors"
    old, texts = load_tensors(folder, file.name)
    new = {**old, **arrays}
    save_file(new, file, resealed(texts, new))


def test_one_changed_number_is_found(tiny64: AceStep15, tmp_path: Path) -> None:
    trained(tiny64, 2, checkpoints=tmp_path)
    arrays, texts = load_tensors(tmp_path, "checkpoint.safetensors")
    arrays["losses"][0] += 1
    save_file(arrays, tmp_path / "checkpoint.safetensors", texts)
    with pytest.raises(UserError, match="or damaged"):
        trained(tiny64, 2, checkpoints=tmp_path)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (None, {"seed": 1}, "another training"),
        (None, {"rank": 3}, "another --name"),
        (None, {"eta": 2.0}, "another training"),
        (None, {"iterations": 1}, "has only 1.*another --name"),
        ({"losses": np.zeros((2, 2))}, {}, "or damaged"),
        ({"layers.1.cross_attn.to_q.down": np.zeros((3, 3))}, {}, "or damaged"),
        ({"more": np.zeros(1)}, {}, "or damaged"),
    ],
)
def test_the_state_of_another_training_is_refused(
    tiny64: AceStep15, tmp_path: Path, change: Any, options: dict[str, Any], words: str
) -> None:
    trained(tiny64, 2, checkpoints=tmp_path)
    if change is not None:
        damaged(tmp_path, change)
    kept = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UserError, match=words):
        trained(tiny64, **{"iterations": 2, "checkpoints": tmp_path, **options})
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept


@pytest.mark.parametrize("options", [{"learning_rate": 1e300}, {"eta": 1e300}])
def test_a_training_that_kept_no_state_leaves_no_folder(
    tiny64: AceStep15, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="not finite"):
        trained(tiny64, 4, checkpoints=tmp_path / "sliders" / "mood.training", **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="not finite"):
        trained(tiny64, 4, checkpoints=tmp_path / "mine", **options)
    assert (tmp_path / "mine").is_dir(), "it was there before"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"rank": 33}, "rank must be at most 32.*tf1"),
        ({"rank": 10**30}, "rank must be at most"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "learning_rate must be"),
        ({"eta": float("nan")}, "eta must be"),
        ({"weight_decay": float("inf")}, "weight_decay must be"),
        ({"alpha": -1.0}, "alpha must be above 0"),
        ({"pairs": 0}, "number of pairs of mood must be from 1"),
        ({"positive": "loud"}, "Unknown value 'loud'"),
        ({"settings": SETTINGS.model_copy(update={"guidance_scale": 1.0})}, "guidance scale above 1"),
        ({"settings": SETTINGS.model_copy(update={"num_steps": 1})}, "at least 2 steps"),
    ],
)
def test_wrong_options_are_refused(tiny64: AceStep15, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        trained(tiny64, **{"iterations": 1, **options})


@pytest.mark.parametrize("site", ["tf1.mlp", "tf1.block", "tf1.cross_attn.heads", "tf9.cross_attn"])
def test_other_sites_are_refused(tiny64: AceStep15, site: str) -> None:
    with pytest.raises(UserError, match=r"A slider changes attentions|tf9 does not exist"):
        concept_slider(tiny64, "mood", ["tf0.cross_attn", site], iterations=1, **OPTIONS)


def test_a_loss_that_is_not_finite_ends_the_training(tiny64: AceStep15) -> None:
    with pytest.raises(UserError, match="not finite in iteration"):
        trained(tiny64, 3, eta=1e308)
    assert not hasattr(tiny64.denoiser, "peft_config")
