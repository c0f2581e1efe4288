"""The folder of an autoencoder: what is saved is loaded, and what is damaged or of other arithmetic is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import UserError
from tests.workbench.sae.random_sae import random_sae
from workbench.artefacts import read_sae
from workbench.sae.folder import load_folder, save_folder


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
    [("architecture", "jumprelu"), ("normalize_activations", "layer_norm"), ("apply_b_dec_to_input", False)],
)
def test_other_arithmetic_is_refused(tmp_path: Path, key: str, value: object) -> None:
    save_folder(random_sae(), tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    shown = f"not supported: '{value}'" if key == "architecture" else f"not supported: {key}={value!r}"
    with pytest.raises(UserError, match=shown):
        load_folder(tmp_path)


@pytest.mark.parametrize("architecture", ["jumprelu", "gated", "standard", "matryoshka_batchtopk"])
def test_other_architectures_of_saelens_are_not_damaged(tmp_path: Path, architecture: str) -> None:
    """They have neither k nor weights of these names."""
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": architecture, "d_in": 4, "d_sae": 8}))
    save_file({"threshold": torch.zeros(8)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match=f"not supported: '{architecture}'"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match=f"not supported: '{architecture}'"):
        read_sae(str(tmp_path), "tf6.cross_attn")


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
    with pytest.raises(UserError, match="damaged"):
        load_folder(tmp_path)
