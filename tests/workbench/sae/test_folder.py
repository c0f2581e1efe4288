"""The folder of an autoencoder: what is saved is loaded, and what is damaged or of other arithmetic is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import UserError
from tests.workbench.sae.random_sae import random_kind, random_sae
from workbench.artefacts.sae_folder import read_sae
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.folder import load_folder, save_folder
from workbench.sae.gate import Gate, set_gate
from workbench.sae.identity import weights_hash
from workbench.sae.standard import StandardSAE


def test_saved_and_loaded_weights_are_bit_equal(tmp_path: Path) -> None:
    sae = random_sae()
    save_folder(sae, tmp_path / "sae")
    loaded = load_folder(tmp_path / "sae")
    assert loaded.config == sae.config
    for name, value in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert sorted(file.name for file in (tmp_path / "sae").iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
    ]


def test_the_folder_is_in_the_form_of_saelens(tmp_path: Path) -> None:
    save_folder(random_sae(), tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text()) == {
        "architecture": "topk",
        "d_in": 6,
        "d_sae": 20,
        "k": 3,
        "sae_lens_version": "6.0.0",
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"hook_name": "tf1.cross_attn"},
    }
    shapes = {
        name: tuple(value.shape) for name, value in load_file(tmp_path / "sae_weights.safetensors").items()
    }
    assert shapes == {"W_enc": (6, 20), "b_enc": (20,), "W_dec": (20, 6), "b_dec": (6,)}


def test_settings_and_weights_identify_it_and_what_was_measured_does_not() -> None:
    sae = random_sae(k=3)
    same, other = random_sae(k=3), random_sae(k=4)  # their weights are the same
    set_gate(same, Gate(steps=(0,), sigmas=(1.0,), explained_variance=(0.1,), loss_recovered=(None,)))
    assert weights_hash(same) == weights_hash(sae) != weights_hash(other)
    with torch.no_grad():
        same.b_dec[0] += 1
    assert weights_hash(same) != weights_hash(sae)


def test_the_files_have_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_folder(random_sae(), tmp_path / "sae")
    modes = {file.stat().st_mode for file in (tmp_path / "sae").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_an_interrupted_save_leaves_no_folder_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_folder(random_sae(), tmp_path)
    monkeypatch.setattr(
        "workbench.sae.folder.tensor_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        save_folder(random_sae(k=4), tmp_path)
    with pytest.raises(UserError, match=r"has no cfg\.json"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "matching_pursuit"),
        ("normalize_activations", "layer_norm"),
        ("reshape_activations", "hook_z"),
        ("apply_b_dec_to_input", 2),
    ],
)
def test_other_arithmetic_is_refused(tmp_path: Path, key: str, value: object) -> None:
    save_folder(random_sae(), tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    shown = f"not supported: '{value}'" if key == "architecture" else f"not supported: {key}={value!r}"
    with pytest.raises(UserError, match=shown):
        load_folder(tmp_path)


@pytest.mark.parametrize("architecture", ["matching_pursuit", "temporal", "skip_transcoder", "batchtopk"])
def test_other_architectures_of_saelens_are_not_damaged(tmp_path: Path, architecture: str) -> None:
    """They have neither k nor weights of these names; a BatchTopK one is a checkpoint of a training."""
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": architecture, "d_in": 4, "d_sae": 8}))
    save_file({"threshold": torch.zeros(8)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match=f"not supported: '{architecture}'"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match=f"not supported: '{architecture}'"):
        read_sae(str(tmp_path), "tf6.cross_attn")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_any_architecture_keeps_is_saved_and_loaded(tmp_path: Path, architecture: str) -> None:
    objective = ARCHITECTURES[architecture].objective.model_validate({})
    sae = objective.trained(random_kind(architecture))
    save_folder(sae, tmp_path)
    loaded = load_folder(tmp_path)
    assert type(loaded) is type(sae) is ARCHITECTURES[architecture].sae
    assert loaded.config == sae.config
    rows = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded.encode(rows), sae.encode(rows))
        assert torch.equal(loaded(rows), sae(rows))


def test_a_batch_topk_sae_names_its_training(tmp_path: Path) -> None:
    save_folder(random_kind("batchtopk"), tmp_path)
    stored = json.loads((tmp_path / "cfg.json").read_text())
    assert (stored["architecture"], stored["metadata"]["training_architecture"]) == ("jumprelu", "batchtopk")


OLD = {
    "d_in": 2,
    "d_sae": 3,
    "dtype": "torch.float32",
    "hook_point": "blocks.1.hook_mlp_out",
    "model_name": "small",
    "normalize_activations": False,
    "activation_fn_str": "relu",
}


def old_folder(folder: Path, weights: dict[str, torch.Tensor] | None = None, **settings: object) -> Path:
    (folder / "cfg.json").write_text(json.dumps({**OLD, **settings}))
    sizes = {"W_enc": (2, 3), "b_enc": (3,), "W_dec": (3, 2), "b_dec": (2,)}
    ones = {name: torch.ones(size) for name, size in sizes.items()}
    save_file({**ones, **(weights or {})}, folder / "sae_weights.safetensors")
    return folder


def test_a_folder_of_saelens_before_version_6_is_read(tmp_path: Path) -> None:
    sae = load_folder(old_folder(tmp_path, {"scaling_factor": torch.ones(3)}))
    assert isinstance(sae, StandardSAE)
    assert sae.config.metadata == {"hook_name": "blocks.1.hook_mlp_out", "model_name": "small"}
    # x - b_dec = (1, 2): pre-activations 1 + 2 + 1.
    assert sae.encode(torch.tensor([2.0, 3.0])).tolist() == [4.0, 4.0, 4.0]
    topk = load_folder(old_folder(tmp_path, activation_fn_str="topk", activation_fn_kwargs={"k": 2}))
    assert (topk.config.architecture, topk.config.settings) == ("topk", {"k": 2})


@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({"activation_fn_str": "tanh-relu"}, {}, "activation function is 'tanh-relu'"),
        ({}, {"scaling_factor": torch.tensor([1.0, 2.0, 1.0])}, "fine-tuned scales"),
        ({"normalize_activations": "expected_average_only_in"}, {}, "normalize_activations="),
    ],
    ids=["activation", "scales", "normalisation"],
)
def test_other_arithmetic_before_version_6_is_refused(
    tmp_path: Path, settings: dict[str, object], weights: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_folder(old_folder(tmp_path, weights, **settings))


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no cfg\.json"):
        load_folder(tmp_path / "nowhere")
    for damaged, content in (("sae_weights.safetensors", b"short"), ("cfg.json", b"{"), ("cfg.json", b"{}")):
        save_folder(random_sae(), tmp_path)
        (tmp_path / damaged).write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            load_folder(tmp_path)


def test_weights_of_another_size_are_told(tmp_path: Path) -> None:
    save_folder(random_sae(), tmp_path)
    save_file({"W_enc": torch.zeros(2, 2)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="W_enc has the shape 2 × 2, but its configuration says 6 × 20"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "changes", "fault"),
    [
        ("batchtopk", {"threshold": -torch.ones(20)}, "threshold has -1, but must be at least 0"),
        ("gated", {"r_mag": torch.full((20,), 90.0)}, "r_mag has 90, beyond the largest weight, 27.6"),
        ("gated", {"b_gate": torch.ones(2)}, "b_gate has the shape 2, but its configuration says 20"),
        ("standard", {"b_dec": torch.full((6,), torch.nan)}, "b_dec has numbers that are not finite"),
    ],
)
def test_weights_that_no_arithmetic_can_use_are_told(
    tmp_path: Path, architecture: str, changes: dict[str, torch.Tensor], fault: str
) -> None:
    save_folder(random_kind(architecture), tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    save_file({**load_file(file), **changes}, file)
    with pytest.raises(UserError, match=fault):
        load_folder(tmp_path)


def test_rows_of_zeros_are_not_rescaled(tmp_path: Path) -> None:
    weights = {"W_dec": torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])}
    with pytest.raises(UserError, match="W_dec has zeros only at feature 1"):
        load_folder(old_folder(tmp_path, weights, rescale_acts_by_decoder_norm=True))
