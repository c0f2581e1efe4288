"""Mistakes with `workbench steer` and `workbench generate`: one clear sentence, exit code 2, nothing written."""

from pathlib import Path

import pytest

from analyses.steering.caa import caa
from analyses.steering.study_packs import save_pack
from tests.e2e.cli import Workbench, workbench
from tests.e2e.killed import tree
from tests.e2e.test_bad_input import assert_refused
from tests.workbench.studies.test_study import PROMPTS, study_spec
from workbench.models.ace_step import AceStep15
from workbench.studies.tracing import trace_study

__all__ = ["workbench"]

CONCEPT = ("--concept", "tempo")
SITES = (*CONCEPT, "--sites", "all")
PACK = ("--pack", "tempo", "--pairs", "1")
LADDER = (*SITES, "--fit-pairs", "1", "--pairs", "1")


@pytest.fixture(scope="module")
def study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny study with the pack tempo, not to be changed."""
    spec = study_spec(tiny)
    folder = trace_study(tmp_path_factory.mktemp("steered") / "study", spec, tiny).path
    sites = ["tf0.cross_attn", "tf1.cross_attn"]
    vector = caa(tiny, "tempo", sites, prompts=PROMPTS, pairs=1, settings=spec.settings)
    save_pack(folder, "tempo", vector)
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "--concept", "genre"), ("Unknown concept 'genre'", "tempo, drums")),
        (("fit", *CONCEPT), ("no map of blocks", "workbench patch", "--sites tf3+tf4")),
        (("fit", "--concept", "genre", "--sites", "all"), ("Unknown concept 'genre'", "tempo, drums")),
        (("fit", *CONCEPT, "--sites", "tf9"), ("tf9 does not exist", "tf0 to tf1")),
        (("fit", *CONCEPT, "--sites", "all-tf0+tf1"), ("leaves no block",)),
        (("fit", *CONCEPT, "--sites", "tf0+tf0"), ("'tf0+tf0' has a block twice",)),
        (("fit", *CONCEPT, "--sites", "tf0."), ("'tf0.' names no part",)),
        (("fit", *CONCEPT, "--sites", "tf0.ears", "--pairs", "1"), ("'tf0.ears' is not a site",)),
        (("fit", *SITES, "--pairs", "9"), ("from 1 to 2", "got 9")),
        (("fit", *SITES, "--pairs", "1", "--time", "99"), ("at most the", "got 99")),
        (("fit", *SITES, "--pairs", "1", "--time", "rhythm"), ("'rhythm'", "constant")),
        (("fit", *SITES, "--method", "austeer"), ("austeer needs k, the number of channels", "(--k)")),
        (("fit", *SITES, "--method", "sae-features"), ("sae-features needs k, the number of", "(--k)")),
        (("fit", *SITES, "--method", "caa", "--k", "4"), ("Invalid options of caa", "k")),
        (("fit", *SITES, "--method", "magic"), ("'magic'", "caa")),
        (("fit", *SITES, "--positive", "fast", "--negative", "fast"), ("must differ",)),
        (("fit", *SITES, "--positive", "quick"), ("Unknown value 'quick'", "slow, fast")),
        (("fit", *SITES, "--pass", "both"), ("Unknown pass 'both'", "--pass", "cond")),
        (("fit", *SITES, "--pairs", "1", "--name", "a/b"), ("letters, digits", "a/b")),
        (("fit", *SITES, "--pairs", "1", "--name", "-x"), ("not begin with -", "-x")),
        (("fit", *SITES, "--pairs", "1", "--name", "tempo"), ("has a vector 'tempo' already", "--name")),
        (("apply", "--pairs", "1"), ("--pack", "--method")),
        (("apply", *PACK, "--concept", "drums"), ("--concept is for methods", "Leave it out")),
        (("apply", *PACK, "--sites", "tf1"), ("--sites is for methods", "Leave it out")),
        (("apply", *SITES, "--method", "pci", "--keep-norm"), ("--keep-norm is for steering vectors",)),
        (("apply", *SITES, "--method", "pci", "--schedule", "early"), ("cannot be combined", "pci")),
        (("apply", "--sites", "all", "--method", "pci"), ("Give the concept", "--concept")),
        (("apply", *SITES, "--method", "magic"), ("Unknown method 'magic'", "pci")),
        (("apply", *SITES, "--method", "pci", "--strength", "1.5"), ("1.5", "whole")),
        (("apply", *SITES, "--method", "pci", "--strength", "9"), ("3", "9")),
        (
            ("apply", *PACK, "--method", "pci", "--concept", "drums", "--sites", "all"),
            ("same concept", "drums (towards with drums)", "tempo (towards slow)"),
        ),
        (("apply", "--pack", "mood"), ("mood", "cannot be read")),
        (("apply", *PACK, "--strength", "much"), ("strengths", "number")),
        (("apply", *PACK, "--strength", "0"), ("other than 0",)),
        (("apply", *PACK, "--strength", "1", "--strength", "1.0"), ("given twice",)),
        (("apply", *PACK, "--schedule", "sudden"), ("Unknown schedule 'sudden'",)),
        (("apply", *PACK, "--passes", "null_only"), ("no direction of the null pass",)),
        (("apply", *PACK, "--start-step", "3"), ("from 0 to 2", "got 3")),
        (("apply", *PACK, "--name", "a/b"), ("name", "letters, digits")),
        (("apply", "--pack", "tempo", "--pairs", "2"), ("from 1 to 1", "other prompts", "got 2")),
        (("apply", *PACK, "--scorer", "ears"), ("Unknown scorer 'ears'",)),
        (
            ("apply", *PACK, "--pack", "other/tempo.safetensors"),
            ("same name in results, 'tempo'", "rename one"),
        ),
        (("apply", "--slider", "a/b", "--slider", "c/b"), ("a/b and c/b", "same name in results")),
        (("ladder", "--concept", "genre", "--sites", "all"), ("Unknown concept 'genre'",)),
        (("ladder", *SITES, "--fit-pairs", "2", "--pairs", "1"), ("from 1 to 0", "other prompts")),
        (("ladder", *LADDER, "--strength", "-1"), ("above 0", "towards slow", "got -1")),
        (("ladder", *LADDER, "--pack", "mood"), ("mood", "cannot be read")),
        (
            ("ladder", *LADDER, "--pack", "tempo", "--positive", "fast"),
            ("towards fast", "tempo (towards slow)"),
        ),
        (("ladder", *LADDER, "--resample", "sigma"), ("--resample is for steering vectors",)),
    ],
)
def test_steer_refuses(
    workbench: Workbench, study: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = tree(study)
    command, *options = arguments
    if command == "fit" and "--name" not in options:
        options += ["--name", "new"]
    assert_refused(workbench("steer", command, study, *options), *words)
    assert {name for name in tree(study) if not name.startswith("locks")} == {
        name for name in before if not name.startswith("locks")
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "{out}.txt"), ("must end in", ".flac")),
        (
            ("--out", "{out}.flac", "--pack", "{pack}", "--strength", "1", "--strength", "2"),
            ("1 vector", "2 str"),
        ),
        (("--out", "{out}.flac", "--strength", "1"), ("0 vectors", "1 strength")),
        (("--out", "{out}.flac", "--start-step", "1"), ("--start-step is for steering vectors",)),
        (("--out", "{out}.flac", "--resample", "sigma"), ("--resample is for steering vectors",)),
        (("--out", "/proc/clip.flac"), ("/proc/clip.flac cannot be written",)),
        (("--out", "{out}.flac", "--over", "sigmas"), ("--over is for steering vectors",)),
        (("--out", "{out}.flac", "--pack", "{pack}", "--over", "sigmas"), ("follow sigmas",)),
        (("--out", "{out}.flac", "--pack", "missing.safetensors"), ("missing.safetensors", "cannot be read")),
        (("--out", "{out}.flac", "--pack", "{pack}", "--num-steps", "5"), ("3 steps", "5 steps")),
        (("--out", "{out}.flac", "--pack", "{pack}", "--duration", "-1"), ("duration",)),
        (("--out", "{out}.flac", "--pack", "{pack}", "--option", "shift"), ("name=value",)),
        (("--out", "{out}.flac", "--pack", "{pack}", "--strength", "nan"), ("strength", "finite")),
    ],
)
def test_generate_refuses(
    workbench: Workbench,
    study: Path,
    tiny: AceStep15,
    tmp_path: Path,
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    names = {"out": tmp_path / "clip", "pack": study / "packs" / "tempo.safetensors"}
    outcome = workbench(
        "generate", tiny.name, "--prompt", "a slow song", *(each.format(**names) for each in options)
    )
    assert_refused(outcome, *words)
    assert not list(tmp_path.iterdir())


def test_a_vector_of_another_model_is_refused(workbench: Workbench, study: Path, tmp_path: Path) -> None:
    pack = study / "packs" / "tempo.safetensors"
    outcome = workbench(
        "generate",
        "organism-shared",
        "--prompt",
        "a slow song",
        "--pack",
        pack,
        "--out",
        tmp_path / "clip.flac",
    )
    assert_refused(outcome, "was made on", "organism-shared")
    assert not list(tmp_path.iterdir())
