"""Hostile, damaged and wrong files of every kind are refused by the command, with one sentence and nothing written."""

import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import UserError
from tests.full_disk import full_disk
from tests.workbench.artefacts import builders
from workbench.cli.imports import app


class RunsCode:
    """Its pickle calls the system's shell."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def run(*arguments: object) -> None:
    """The command, as it stands in `workbench import`."""
    app([str(argument) for argument in arguments], standalone_mode=False)


@dataclass(frozen=True)
class Kind:
    """One importer: how to write a good folder of it, its file with the numbers, and its form."""

    command: str
    write: Callable[[Path], Path]
    file: str
    form: str  # "pickle", "torch" or "safetensors"


KINDS = [
    Kind("caa", builders.write_caa, "sv.pkl", "pickle"),
    Kind("scores", builders.write_scores, "tf6_scores.pkl", "torch"),
    Kind("austeer", builders.write_austeer, "austeer.pkl", "pickle"),
    Kind("lora", builders.write_lora, "pytorch_lora_weights.safetensors", "safetensors"),
    Kind("token-embedding", builders.write_direction, "piano_direction.pt", "torch"),
    Kind(
        "sae", lambda folder: builders.write_sae(folder / "tf1.cross_attn"), "sae.safetensors", "safetensors"
    ),
]


def code_at_once(canary: Path) -> bytes:
    return pickle.dumps(RunsCode(canary))


def code_inside(canary: Path) -> bytes:
    return pickle.dumps(
        {(0, 0): {"tf0": [np.ones(8, np.float32), RunsCode(canary)]}, "tfidf": RunsCode(canary)}
    )


def code_in_an_archive(canary: Path) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({"direction": torch.ones(4), "tfidf": RunsCode(canary)}, buffer)
    return buffer.getvalue()


def zip_bomb(canary: Path) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("data.pkl", "data/0"):
            archive.writestr(f"archive/{name}", b"\0" * 5_000_000)
    return buffer.getvalue()


def giant_array(canary: Path) -> bytes:
    return pickle.dumps(np.ones(3, np.float32), 5).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")


def header_bomb(canary: Path) -> bytes:
    return struct.pack("<Q", 2**62) + b"{}"


def giant_tensor(canary: Path) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 16


def nothing(canary: Path) -> bytes:
    return b""


def no_such_form(canary: Path) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 14745600\n"


ATTACKS = [
    code_at_once,
    code_inside,
    code_in_an_archive,
    zip_bomb,
    giant_array,
    header_bomb,
    giant_tensor,
    nothing,
    no_such_form,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_hostile_bytes_are_refused(tmp_path: Path, kind: Kind, attack: Callable[[Path], bytes]) -> None:
    folder = kind.write(tmp_path / "source")
    canary = tmp_path / "canary"
    (folder / kind.file).write_bytes(attack(canary))
    refuse(kind, folder, tmp_path)
    assert not canary.exists()


def refuse(kind: Kind, folder: Path, tmp_path: Path) -> str:
    """Import the folder, which must fail with one sentence and leave the output folder as it was."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / "kept").write_text("as it was")
    with pytest.raises(UserError) as refused:
        run(kind.command, folder, "--out", out / "written")
    assert sorted(file.name for file in out.iterdir()) == ["kept"]
    told = str(refused.value)
    assert "\n" not in told
    assert told[-1].isalpha() or told[-1] in ".)"
    assert len(told) < 600
    return told


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_the_good_file_is_imported(tmp_path: Path, kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    """What the others differ from."""
    folder = kind.write(tmp_path / "source")
    run(kind.command, folder, "--out", tmp_path / "out" / "written")
    assert (tmp_path / "out" / "written").exists()
    printed = capsys.readouterr().out
    assert "SHA-256" in printed
    assert ("+ is" in printed and "− is" in printed) == (kind.command != "sae")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_truncated_files_are_refused(tmp_path: Path, kind: Kind, share: float) -> None:
    folder = kind.write(tmp_path / "source")
    data = (folder / kind.file).read_bytes()
    (folder / kind.file).write_bytes(data[: int(share * len(data))])
    refuse(kind, folder, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_a_folder_where_a_file_should_be_is_refused(tmp_path: Path, kind: Kind) -> None:
    folder = kind.write(tmp_path / "source")
    (folder / kind.file).unlink()
    (folder / kind.file).mkdir()
    assert "is a folder" in refuse(kind, folder, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_a_missing_file_is_refused(tmp_path: Path, kind: Kind) -> None:
    folder = kind.write(tmp_path / "source")
    (folder / kind.file).unlink()
    refuse(kind, folder, tmp_path)


@pytest.mark.parametrize("settings", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff\xfe"], ids=len)
@pytest.mark.parametrize("kind", ["caa", "austeer", "lora", "sae"])
def test_settings_that_are_no_settings_are_refused(tmp_path: Path, kind: str, settings: bytes) -> None:
    (which,) = (one for one in KINDS if one.command == kind)
    folder = which.write(tmp_path / "source")
    (config,) = folder.glob("*.json")
    config.write_bytes(settings)
    refuse(which, folder, tmp_path)
    config.unlink()
    refuse(which, folder, tmp_path)


def broken_caa(name: str) -> Any:
    held = builders.caa_vectors()
    vectors = held[1, 0]["tf0"]
    if name == "nan":
        vectors[0][3] = np.nan
    elif name == "infinite":
        vectors[0][3] = np.inf
    elif name == "width":
        vectors[0] = builders.unit(np.random.default_rng(0), 5)
    elif name == "2 axes":
        vectors[0] = vectors[0][None]
    elif name == "integers":
        vectors[0] = np.arange(8)
    elif name == "two vectors":
        vectors.append(vectors[0])
    elif name == "no vector":
        vectors.clear()
    elif name == "a missing step":
        del held[1, 0], held[1, 1]
    elif name == "a missing pass":
        del held[1, 1]
    elif name == "a missing site":
        del held[1, 0]["tf0"]
    elif name == "a third pass":
        held[0, 2] = held[0, 1]
    elif name == "a key of text":
        held["a", 0] = held[0, 1]  # type: ignore[index]
    elif name == "a truth for a step":
        held[True, 0] = held.pop((1, 0))
    elif name == "no dictionary":
        return [held]
    elif name == "nothing":
        return {}
    elif name == "sites that are no dictionary":
        held[0, 0] = [1]
    elif name == "a number":
        held[0, 0]["tf0"] = [1.0]
    return held


@pytest.mark.parametrize(
    "name",
    [
        "nan",
        "infinite",
        "width",
        "2 axes",
        "integers",
        "two vectors",
        "no vector",
        "a missing step",
        "a missing pass",
        "a missing site",
        "a third pass",
        "a key of text",
        "a truth for a step",
        "no dictionary",
        "nothing",
        "sites that are no dictionary",
        "a number",
    ],
)
def test_wrong_steering_vectors_are_refused(tmp_path: Path, name: str) -> None:
    folder = builders.write_caa(tmp_path / "source", broken_caa(name))
    refuse(KINDS[0], folder, tmp_path)


@pytest.mark.parametrize(("steps", "told"), [(30, "30"), ([3], "a list"), ("a\nb", "'a�b'")])
def test_vectors_of_other_steps_than_the_settings_say_are_refused(
    tmp_path: Path, steps: Any, told: str
) -> None:
    folder = builders.write_caa(tmp_path / "source", num_inference_steps=steps)
    assert f"its settings say {told}" in refuse(KINDS[0], folder, tmp_path)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf"), 10**400, True, "1"])
def test_a_slider_without_a_scale_is_refused(tmp_path: Path, alpha: Any) -> None:
    folder = builders.write_lora(tmp_path / "source")
    config = {"concept": "mood", "lora_config": {"r": 4, "lora_alpha": alpha}}
    builders.write_json(folder / "train_config.json", config)
    assert "positive number as lora_alpha" in refuse(KINDS[3], folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tfidf": torch.full((3, 12), torch.nan)}, "must have finite numbers"),
        ({"diff": torch.full((3, 12), torch.inf)}, "must have finite numbers"),
        ({"diff": torch.ones(3, 11)}, "one shape"),
        ({"mean_pos": torch.ones(12)}, "shape"),
        ({"mean_pos": torch.ones(3, 12, dtype=torch.int64)}, "floating-point"),
        ({"mean_pos": "text"}, "must be an array"),
        ({"mean_pos": None}, "must be an array"),
        ({"concept": "../../piano"}, "unknown concept"),
        ({"concept": torch.ones(2)}, "no concept given"),
    ],
)
def test_wrong_score_tables_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = builders.write_scores(tmp_path / "source", {**builders.score_tables(), **change})
    assert told in refuse(KINDS[1], folder, tmp_path)


def test_a_score_table_that_lacks_one_is_refused(tmp_path: Path) -> None:
    tables = builders.score_tables()
    del tables["diff"]
    folder = builders.write_scores(tmp_path / "source", tables)
    assert "lacks the tables diff" in refuse(KINDS[1], folder, tmp_path)


@pytest.mark.parametrize(
    ("step", "change", "told"),
    [
        (1, {"betas": np.full(8, np.nan), "scores": np.ones(8)}, "must have finite numbers"),
        (1, {"betas": np.ones(7), "scores": np.ones(7)}, "one shape"),
        (0, {"betas": np.ones(8), "scores": np.zeros(8)}, "must be from 0 to 1"),
        (0, {"betas": np.full(8, 2.0), "scores": np.full(8, 2.0)}, "must be from 0 to 1"),
        (0, {"betas": np.ones(8)}, "must be an array"),
        (2, [], "non-empty dict"),
    ],
)
def test_wrong_austeer_scores_are_refused(tmp_path: Path, step: int, change: Any, told: str) -> None:
    held = builders.austeer_scores()
    held[step]["tf0"] = change
    folder = builders.write_austeer(tmp_path / "source", held)
    assert told in refuse(KINDS[2], folder, tmp_path)


@pytest.mark.parametrize("layers", ["../../other", "a/b", "", ".hidden", "x" * 200])
def test_a_layer_set_cannot_lead_elsewhere(tmp_path: Path, layers: str) -> None:
    folder = builders.write_austeer(tmp_path / "source")
    builders.write_json(folder / "config.json", {"concept": "tempo", "layers": layers})
    assert "cannot be part of a file name" in refuse(KINDS[2], folder, tmp_path)


MODULE = "transformer_blocks.6.cross_attn.to_q"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({f"{MODULE}.lora_A.weight": torch.full((4, 8), torch.nan)}, "must have finite numbers"),
        ({f"{MODULE}.lora_A.weight": torch.ones(3, 8)}, "of one rank"),
        ({f"{MODULE}.lora_A.weight": torch.ones(4)}, "shape"),
        ({f"{MODULE}.lora_C.weight": torch.ones(4, 8)}, "not a LoRA factor"),
        ({f"{MODULE}_more.lora_A.weight": torch.ones(4, 8)}, "only one of the two LoRA factors"),
        ({"../../evil": torch.ones(4, 8)}, "not a LoRA factor"),
    ],
)
def test_wrong_sliders_are_refused(tmp_path: Path, change: dict[str, torch.Tensor], told: str) -> None:
    folder = builders.write_lora(tmp_path / "source", {**builders.lora_weights(), **change})
    assert told in refuse(KINDS[3], folder, tmp_path)


def test_a_slider_of_another_rank_than_it_says_is_refused(tmp_path: Path) -> None:
    folder = builders.write_lora(tmp_path / "source", builders.lora_weights(rank=8))
    assert "rank 8" in refuse(KINDS[3], folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"direction": torch.full((16,), torch.nan)}, "must have finite numbers"),
        ({"direction": torch.ones(2, 8)}, "shape"),
        ({"direction": torch.ones(8)}, "is 8, but its settings say 16"),
        ({"hidden_dim": torch.ones(2)}, "is 16, but its settings say a ndarray"),
        ({"direction": torch.full((16,), 1e300, dtype=torch.float64)}, "single precision"),
        ({"direction": None}, "must be an array"),
        ({"concept": "../piano"}, "unknown concept"),
    ],
)
def test_wrong_token_directions_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = builders.write_direction(tmp_path / "source", {**builders.direction(), **change})
    assert told in refuse(KINDS[4], folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"b_dec": torch.full((8,), torch.nan)}, "must have finite numbers"),
        ({"b_dec": torch.full((8,), -1e35)}, "b_dec has -1e+35, beyond the largest weight"),
        ({"W_dec": torch.ones(8, 24)}, "its settings say 24 features of 8 channels"),
        ({"encoder.bias": torch.ones(23)}, "its settings say"),
        ({"W_skip": torch.ones(8, 8)}, "must have the weights"),
        ({"b_dec": torch.ones(1, 8)}, "shape"),
    ],
)
def test_wrong_autoencoders_are_refused(tmp_path: Path, change: dict[str, torch.Tensor], told: str) -> None:
    folder = builders.write_sae(tmp_path / "tf1.cross_attn", {**builders.sae_weights(), **change})
    assert told in refuse(KINDS[5], folder, tmp_path)


@pytest.mark.parametrize("k", [0, -1, 25, "4", True, None])
def test_an_autoencoder_with_a_k_that_makes_no_sense_is_refused(tmp_path: Path, k: Any) -> None:
    folder = builders.write_sae(tmp_path / "tf1.cross_attn", k=k)
    assert "says k=" in refuse(KINDS[5], folder, tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        "",
        "a,b\n1,2\n",
        "model,concept,block,impact\nm,c,tf0,nonsense\n",
        "model,concept,block,impact\n",
        "model,concept,block,impact\n../x,c,tf0,1\n",
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, table: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(table)
    with pytest.raises(UserError):
        run(
            "localisation",
            file,
            "--out",
            tmp_path / "map.nc",
            *(["--model", "no"] if "../x" in table else []),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv"]


def test_exactly_one_place_to_write_to_is_needed(tmp_path: Path) -> None:
    folder = builders.write_caa(tmp_path / "source")
    with pytest.raises(UserError, match="either --out or --study"):
        run("caa", folder)
    with pytest.raises(UserError, match="either --out or --study"):
        run("caa", folder, "--out", tmp_path / "a", "--study", tmp_path)
    with pytest.raises(UserError, match="not a study"):
        run("caa", folder, "--study", tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        run("caa", folder, "--out", tmp_path)


def test_a_failure_while_writing_leaves_the_older_file(tmp_path: Path) -> None:
    folder = builders.write_caa(tmp_path / "source")
    out = tmp_path / "out" / "vectors.safetensors"
    run("caa", folder, "--out", out)
    before = out.read_bytes()

    with (
        full_disk(),
        pytest.raises(UserError, match=rf"{out.name} cannot be written .*Free some space"),
    ):
        run("caa", folder, "--out", out)
    assert out.read_bytes() == before
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_reading_never_unpickles_or_loads_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_call(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a file was given to a reader that runs what it says")

    for kind in KINDS:
        kind.write(tmp_path / kind.command)
    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (np, "load"),
    ):
        monkeypatch.setattr(module, name, refuse_call)
    for kind in KINDS:
        source = tmp_path / kind.command
        source = source / "tf1.cross_attn" if kind.command == "sae" else source
        run(kind.command, source, "--out", tmp_path / "out" / kind.command)
    assert "pickle" in sys.modules
