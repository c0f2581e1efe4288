"""A model's folder that is damaged gets a sentence, and nothing that lies in it is run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import UserError
from workbench.models import load_model
from workbench.models.folders import check_model_folder

DAMAGE = {
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "a list": b"[1]",
    "binary": b"\x89PNG\0\xff",
    "cut": b'{"_class_name": "Ace',
    "nothing": b"",
    "digits": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of a good pipeline's folder."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_the_good_folder_is_loaded(folder: Path) -> None:
    check_model_folder(folder)
    assert load_model(str(folder)).n_blocks == 2


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize(
    "name",
    ["model_index.json", "transformer/config.json", "tokenizer/tokenizer.json", "text_encoder/config.json"],
)
def test_damaged_configurations_get_a_sentence(folder: Path, name: str, text: bytes) -> None:
    (folder / name).write_bytes(text)
    with pytest.raises(UserError, match="Get the model again") as refused:
        load_model(str(folder))
    assert "\n" not in str(refused.value)


def test_a_pipe_in_the_folder_is_not_waited_for(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    os.mkfifo(folder / "vae" / "config.json")
    with pytest.raises(UserError, match="is not a regular file"):
        load_model(str(folder))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def part_of_its_own(folder: Path) -> None:
    edit(folder / "model_index.json", transformer=["evil", "Evil"])


def part_of_another_library(folder: Path) -> None:
    edit(folder / "model_index.json", transformer=["os", "system"])


def automatic_model(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "evil.Evil"}, model_type="evil")


def automatic_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})


@pytest.mark.parametrize(
    "change", [part_of_its_own, part_of_another_library, automatic_model, automatic_tokenizer]
)
def test_code_that_came_with_a_model_is_not_run(
    folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    canary = tmp_path / "canary"
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (place / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    change(folder)
    with pytest.raises(UserError, match="Python code in the model's folder"):
        load_model(str(folder))
    assert not canary.exists()


class Runs:
    """Its pickle calls the system's shell."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize(
    ("part", "name"), [("transformer", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")]
)
def test_pickled_weights_run_nothing(folder: Path, tmp_path: Path, part: str, name: str) -> None:
    for file in (folder / part).glob("*.safetensors"):
        file.unlink()
    torch.save({"a": Runs(tmp_path / "canary")}, folder / part / name)
    with pytest.raises(UserError, match=r"Cannot load|They were not loaded"):
        load_model(str(folder))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("text_encoder", None),
        ("transformer", {"num_hidden_layers": 10_000_000}),
        ("transformer", {"intermediate_size": 90_000_000}),
        ("text_encoder", {"vocab_size": 90_000_000}),
        ("text_encoder", {"num_hidden_layers": 10**12}),
        ("transformer", {"hidden_size": 10**40}),
        ("vae", {"decoder_channels": 50_000}),
        ("condition_encoder", {"num_lyric_encoder_hidden_layers": 5_000_000}),
    ],
)
def test_a_network_larger_than_its_weights_is_not_built(
    folder: Path, part: str, changes: dict[str, Any] | None
) -> None:
    file = folder / part / "config.json"
    if changes is None:
        file.write_text("{}")
    else:
        assert changes.keys() <= json.loads(file.read_text()).keys()
        edit(file, **changes)
    with pytest.raises(UserError, match="Get the model again") as refused:
        load_model(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae", "condition_encoder"])
@pytest.mark.parametrize("value", [0, -1, "a", None, [], 1e300])
def test_configurations_of_no_network_get_a_sentence(folder: Path, part: str, value: object) -> None:
    file = folder / part / "config.json"
    numbers = [name for name, given in json.loads(file.read_text()).items() if type(given) is int]
    edit(file, **dict.fromkeys(numbers, value))
    with pytest.raises(UserError) as refused:
        load_model(str(folder))
    assert "\n" not in str(refused.value)
