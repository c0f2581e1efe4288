"""What a user gets wrong: one clear sentence, exit code 2, no traceback, nothing half-written."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.e2e.cli import Outcome, Workbench, workbench
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.study import STUDY_VERSION
from workbench.studies.tracing import trace_study

__all__ = ["workbench"]


def assert_refused(outcome: Outcome, *words: str) -> None:
    text = " ".join(outcome.err.split())
    assert outcome.code == 2, outcome
    assert all(word in text for word in words), text
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def traced(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny study, not to be changed."""
    return trace_study(tmp_path_factory.mktemp("traced") / "study", study_spec(tiny), tiny).path


@pytest.fixture
def study(traced: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return shutil.copytree(traced, tmp_path / "study")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("no-such-model",),
            ("Unknown model 'no-such-model'", "organism-shared", "ACE-Step/acestep-v15-base"),
        ),
        (("nobody/nothing",), ("weights of 'nobody/nothing'", "hf download")),
        (("{tiny}", "--site", "tf9.cross_attn"), ("tf9 does not exist", "tf0 to tf1")),
        (("{tiny}", "--site", "cross_attn"), ("'cross_attn' is not a site", "tf6.cross_attn")),
        (("{tiny}", "--site", "tf0.cross_attn.k"), ("conditioning token",)),
        (("{tiny}", "--steps", "1,x"), ("got '1,x'",)),
        (("{tiny}", "--steps", "40"), ("from 0 to 7",)),
        (("{tiny}", "--n-prompts", "900"), ("got 900", "1 to 56")),
        (("{tiny}", "--prompts", "missing.yaml"), ("Unknown prompt set 'missing.yaml'",)),
        (("{tiny}", "--prompts", "{empty}"), ("templates",)),
        (("{tiny}", "--passes", "both"), ("'both'", "cond,null")),
        (("{tiny}", "--dtype", "int8"), ("'int8'", "bfloat16")),
        (("{folder}",), ("is not a pipeline", "model_index.json")),
        (("{tiny}", "--site", "tf0.block", "--site", "tf0.block"), ("'--site'", "given twice")),
        (("{tiny}", "--option", "shift=3", "--option", "shift=4"), ("each once", "shift=4")),
        (("{tiny}", "--site-dtype", "*.block=float32", "--site-dtype", "*.block=float16"), ("twice",)),
        (("{tiny}", "--seeds", "1", "--seeds", "2"), ("'--seeds'", "given twice")),
    ],
)
def test_trace_refuses(
    workbench: Workbench,
    tiny_folder: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    (tmp_path / "empty.yaml").write_text("templates: []\nconcepts: {}\n")
    (tmp_path / "folder").mkdir()
    names = {"tiny": tiny_folder, "empty": tmp_path / "empty.yaml", "folder": tmp_path / "folder"}
    outcome = workbench("trace", *(a.format(**names) for a in arguments), "--out", tmp_path / "new")
    assert_refused(outcome, *words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["take[3][old]", "mix [/final]", "[bold]x[/bold]", ":fire: 1", "[link=x]y", "C[0]\\["]
)
def test_brackets_and_colons_are_no_markup(workbench: Workbench, tmp_path: Path, name: str) -> None:
    assert_refused(workbench("probe", name), f"{name} is not a study")
    assert_refused(workbench("cache", "info", tmp_path / name), "is not an activation cache")
    (tmp_path / "prompts.yaml").write_text(f"templates: ['a {{x}} {name}']\nconcepts: {{y: {{a: a, b: b}}}}")
    assert_refused(
        workbench(
            "trace", "organism-shared", "--prompts", tmp_path / "prompts.yaml", "--out", tmp_path / "new"
        ),
        f"template 'a {{x}} {name}' must have slots",
    )


def test_a_table_shows_brackets_as_they_are(workbench: Workbench, study: Path, tmp_path: Path) -> None:
    study.rename(tmp_path / "take[3][old]")
    outcome = workbench("cache", "info", tmp_path / "take[3][old]")
    assert outcome.code == 0
    assert "take[3][old]" in "".join(outcome.out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seed", "-1"), ("'--seed'", "at least 0, not '-1'")),
        (("--n-prompts", "1.5"), ("whole number, not '1.5'",)),
        (("--duration", "nan"), ("finite number, not 'nan'",)),
        (("--guidance", "x"), ("it must be a number, not 'x'",)),
        (("--zstd", "99"), ("at most 22, not '99'",)),
        (("--duration", "inf"), ("'--duration'", "at most 3600", "not 'inf'")),
        (("--duration", "0"), ("duration must be above 0",)),
        (("--duration", "1e9"), ("'--duration'", "at most 3600", "not '1e9'")),
        (("--num-steps", "1000000000"), ("'--num-steps'", "at most 10000")),
        (
            ("--option", "cfg_interval_start=0.8", "--option", "cfg_interval_end=0.2"),
            ("interval is reversed",),
        ),
        (("--seed", "18446744073709551616"), ("at most 18446744073709551615",)),
        (("--seed", "18446744073709551615"), ("Give a smaller seed",)),
        (("--device", "cuda:99"), ("'cuda:99' not found",)),
        (("--device", "gpu"), ("Unknown device 'gpu'",)),
        (("--n-prompts", "99999999999999999999"), ("'--n-prompts'", "at most 10000000")),
        (("--seeds", "9999999999"), ("'--seeds'", "at most 10000000")),
        (("--tokens", "every ²"), ("got 'every ²'",)),
        (("--steps", "²"), ("got '²'",)),
        (("--job", "²/1"), ("'²/1' is not a job",)),
        (("--model-dtype", "int8"), ("'int8' is not one of 'float16'",)),
    ],
)
def test_options_are_refused_in_the_workbenchs_words(
    workbench: Workbench, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome = workbench("trace", "organism-shared", "--out", tmp_path / "new", *arguments)
    assert outcome.code == 2
    text = " ".join(outcome.err.replace("│", " ").split())
    assert all(word in text for word in words), text
    assert "Input should" not in text
    assert "Value error" not in text
    assert not (tmp_path / "new").exists()


def test_weights_missing_from_a_folder(workbench: Workbench, tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert_refused(workbench("trace", folder, "--out", tmp_path / "new"), "Cannot load", str(folder))
    assert not (tmp_path / "new").exists()


def test_no_room_on_the_disk(
    workbench: Workbench, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**6})())
    assert_refused(workbench("trace", tiny_folder, "--out", tmp_path / "new"), "1.0 MB free")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "command", ["patch", "probe", "dashboard", "export --figure patching", "sae train --site tf0.cross_attn"]
)
def test_commands_refuse_a_missing_study(workbench: Workbench, tmp_path: Path, command: str) -> None:
    assert_refused(workbench(*command.split(), tmp_path / "nowhere"), "is not a study", "workbench trace")


def test_a_study_of_another_version(workbench: Workbench, study: Path) -> None:
    document = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(document | {"study_version": 7}))
    assert_refused(workbench("probe", study), "format 7", f"format {STUDY_VERSION}")


def test_a_half_written_study(workbench: Workbench, study: Path) -> None:
    manifest = study / "activations.zarr" / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))
    assert_refused(workbench("probe", study), "half-written")


@pytest.mark.parametrize(
    "command",
    [("probe", "--folds", "2"), ("sae train", "--site", "tf0.cross_attn", "--expansion", "1", "--k", "2")],
)
def test_a_corrupt_shard_is_found_by_its_checksum(
    workbench: Workbench, study: Path, command: tuple[str, ...]
) -> None:
    shard = sorted((study / "activations.zarr" / "tf0.cross_attn").glob("c.*"))[-1]
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    name, *options = command
    assert_refused(workbench(*name.split(), study, *options), "checksum", shard.relative_to(study).parts[1])
    assert not (study / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("patch", "--concept", "genre"), ("Unknown concept 'genre'", "tempo, drums")),
        (("patch", "--set", "3+4"), ("'3+4' is not a set of blocks", "tf3+tf4")),
        (("patch", "--set", "tf1"), ("at least two different",)),
        (("patch", "--block", "x"), ("'x' is not a block", "tf3")),
        (("patch", "--block", "tf2"), ("tf2 does not exist", "tf0 to tf1")),
        (("patch", "--direction", "up"), ("directions", "'sufficiency' or 'necessity'")),
        (("patch", "--null", "zero"), ("nulls", "'unrelated', 'random' or 'control'")),
        (("patch", "--ablation", "noise"), ("ablations", "'zero', 'mean' or 'resample'")),
        (("patch", "--question", "why"), ("'why'", "blocks")),
        (("patch", "--question", "custom"), ("custom needs arms", "--arms")),
        (("probe", "--step", "first"), ("steps", "whole number")),
        (("probe", "--C", "0"), ("C must be above 0",)),
        (("patch", "--name", "a/b"), ("Invalid map", "name", "letters, digits, and . + - _")),
        (("patch", "--set", "tf0+tf1", "--set", "tf1+tf0"), ("sets", "given twice")),
        (("patch", "--direction", "necessity", "--direction", "necessity"), ("'--direction'", "given twice")),
        (("patch", "--stop-top", "100"), ("less than the number of cells", "got 100")),
        (("sae train", "--site", "tf1.block", "--site", "tf1.block"), ("'--site'", "given twice")),
        (
            ("export", "--figure", "feature", "--option", "site=a", "--option", "site=b"),
            ("site is given twice",),
        ),
        (("patch", "--part", "mlp"), ("must be at cross_attn sites",)),
        (("patch", "--part", "ears", "--mode", "output"), ("'tf0.ears' is not a site",)),
        (
            ("patch", "--question", "steps", "--windows", "9"),
            ("got 9", "at most 3, the number of steps"),
        ),
        (
            ("patch", "--pairs", "1", "--question", "conditioning", "--segment", "verse"),
            ("segment 'verse'", "lyrics, timbre"),
        ),
        (
            ("patch", "--pairs", "1", "--screen", "velocity", "--direction", "necessity"),
            ("cannot be screened", "Leave out necessity"),
        ),
        (("patch", "--pairs-file", "missing.csv"), ("missing.csv",)),
        (("patch", "--pairs-file", "{broken}"), ("broken.json",)),
        (("patch", "--arms", "missing.json"), ("There is no file missing.json",)),
        (("patch", "--arms", "{broken}"), ("file of arms is not valid JSON",)),
        (("patch", "--arms", "{nothing}"), ("empty list",)),
        (("patch", "--arms", "{wrong}"), ("a list of edits",)),
        (("patch", "--set", "tf0+tf5"), ("tf5 does not exist",)),
        (("patch", "--scorer", "ears"), ("Unknown scorer 'ears'", "embedded")),
        (("patch", "--scorer", "clap"), ("music_audioset_epoch_15_esc_90.14.pt", "download")),
        (("patch", "--question", "seconds", "--windows", "99999999999"), ("'--windows'", "at most 10000")),
        (("patch", "--question", "paths", "--receiver", "ears"), ("'ears' is not a part", "self_attn")),
        (
            ("patch", "--question", "paths", "--block", "tf1", "--receiver", "self_attn"),
            ("paths has nothing to patch",),
        ),
        (("sae train", "--site", "tf1.block", "--expansion", "99999999"), ("'--expansion'", "at most 1024")),
        (("probe", "--concept", "genre"), ("genre", "tempo")),
        (("probe", "--folds", "2", "--site", "tf1.mlp"), ("tf1.mlp", "tf1.block")),
        (("sae train", "--site", "tf1.mlp"), ("tf1.mlp", "tf1.block")),
        (("export", "--figure", "portrait"), ("portrait", "patching")),
        (("export", "--figure", "feature", "--option", "site"), ("'site' is not an option",)),
        (("export", "--figure", "patching"), ("no result 'patching",)),
        (("export", "--figure", "patching", "--format", "gif"), ("'gif'", "pdf")),
    ],
)
def test_commands_refuse(
    workbench: Workbench, traced: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    texts = {"broken": "{", "nothing": "[]", "wrong": '[{"name": "x"}]'}
    files = {name: tmp_path / f"{name}.json" for name in texts}
    for name, file in files.items():
        file.write_text(texts[name])
    name, *options = (argument.format(**files) for argument in arguments)
    assert_refused(workbench(*name.split(), traced, *options), *words)
    assert not (traced / "results").exists()
    assert not (traced / "audio" / "patching").exists()


def test_a_file_in_the_place_of_a_folder(
    workbench: Workbench, tiny_folder: Path, traced: Path, tmp_path: Path
) -> None:
    file = tmp_path / "notes.py"
    file.write_text("kept")
    for command in (("trace", tiny_folder), ("export", traced, "--figure", "patching")):
        for out in (file, file / "below"):
            assert_refused(workbench(*command, "--out", out), "notes.py is a file. Give a folder")
    assert file.read_text() == "kept"


@pytest.mark.parametrize(
    "arguments",
    [
        ("pairs", "build", "a.csv", "--attribute", "x", "--attribute", "x"),
        ("cache", "merge", "{a}", "{a}", "--out", "{b}"),
        ("cache", "export", "{a}", "--site", "tf0.block", "--site", "tf0.block", "--out", "{b}"),
    ],
)
def test_the_same_value_twice_is_refused(
    workbench: Workbench, traced: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    names = {"a": traced / "activations.zarr", "b": tmp_path / "b"}
    outcome = workbench(*(argument.format(**names) for argument in arguments))
    assert outcome.code == 2
    assert "given twice" in " ".join(outcome.err.replace("│", " ").split())


def test_a_port_in_use(workbench: Workbench, traced: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert_refused(workbench("dashboard", traced, "--port", port), str(port), "in use")
