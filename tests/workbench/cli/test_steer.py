"""`workbench steer`: what it says of vectors, and one sentence for each mistake."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.steering.caa import caa
from analyses.steering.examples import Example
from analyses.steering.pack_summary import pack_facts, pack_sites
from analyses.steering.reliability import reliability
from analyses.steering.study_files import find_pack, pack_file, slider_file
from analyses.steering.study_packs import load_packs, save_pack
from analyses.steering.study_sliders import load_sliders
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.planted_study import make_planted_study
from tests.analyses.steering.checked import check_of
from tests.analyses.steering.test_demon import pack as write_pack
from tests.analyses.steering.test_published import published_austeer, published_caa
from tests.analyses.steering.test_vector import SITE, vector_of
from tests.dashboards.synthetic_steering import slider
from tests.e2e.cli import Workbench, runner
from tests.workbench.artefacts.test_hostile import RunsCode
from workbench.cli.main import main
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study


@pytest.fixture
def workbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workbench:
    return runner(main, monkeypatch, capsys)


@pytest.fixture
def vector() -> Vector:
    """One direction of norm 5, from pairs whose differences agree in part."""
    values = np.zeros((1, 3, 8))
    values[..., 0], values[..., 1] = 3.0, 4.0
    vector = vector_of(values, ("cond",))
    draw = np.random.default_rng(0).normal(0, 1, (4, 1, 3, 8))
    object.__setattr__(vector, "reliability", reliability({SITE: values + draw}, ["cond"], 4))
    return vector


def words(text: str) -> str:
    return " ".join(text.split())


def test_show_says_what_a_vector_is(vector: Vector, tmp_path: Path, workbench: Workbench) -> None:
    outcome = workbench("steer", "show", vector.save(tmp_path / "mood.safetensors"))
    assert (outcome.code, outcome.err) == (0, "")
    shown = words(outcome.out)
    for expected in (
        "concept mood",
        "+ is happy",
        "− is sad",
        "method caa",
        "adds to the cross_attn output",
        "strength 1 adds a mean difference",
        "along the clip constant",
        "steps 3, sigma 1 to 0.5",
        "tiny (weights ab",
        "guidance 3",
        "shift = 3.0",
        "4 pairs with seeds 0 to 3, such as 'a happy song 0' (happy) and 'a sad song 0' (sad)",
        f"{SITE} cond 8 5 ",
    ):
        assert expected in shown, expected
    assert "raw norms" not in shown and "adapters" not in shown, "what does not apply is left out"


def test_its_numbers_are_those_of_the_vector(vector: Vector) -> None:
    (row,) = pack_sites(vector).to_dict("records")
    of_site = vector.reliability.sel({"site": SITE, "pass": "cond"})
    mean = {
        name: f"{of_site[name].values.mean():.3g}"
        for name in ("split_half", "split_half_lo", "split_half_hi")
    }
    assert (
        row["split-half cosine"] == f"{mean['split_half']} [{mean['split_half_lo']}, {mean['split_half_hi']}]"
    )
    assert row["learning curve"] == ", ".join(
        f"{pairs}: {of_site['learning'].sel(pairs=pairs).values.mean():.3g}" for pairs in (1, 2)
    )
    steps = of_site["steps"].values
    assert row["between steps"] == f"{steps[~np.eye(3, dtype=bool)].mean():.3g}"


@pytest.mark.parametrize(
    ("descriptor", "value", "shown"),
    [
        ("brightness", 1262.0924788546918, "(1262 Hz)"),
        ("brightness", 12620.924788546918, "(12620 Hz)"),
        ("level", -23.456789, "(−23.46 dB)"),
        ("my_measure", 0.123456, "(0.1235)"),
    ],
)
def test_values_of_descriptors_have_four_digits_and_their_unit(
    vector: Vector, descriptor: str, value: float, shown: str
) -> None:
    example = Example(prompt="a song", lyrics="", seed=0, value=value, pair=None)
    measured = replace(vector, concept=descriptor, examples=(example,), checks=())
    assert pack_facts(measured)["made from"].endswith(f"'a song' {shown}")


def test_raw_norms_are_shown_if_the_directions_are_normalised(vector: Vector) -> None:
    raw = {SITE: vector.norms[SITE] * 2}
    object.__setattr__(vector, "raw_norms", raw)
    assert pack_facts(vector)["raw norms"] == "10 to 10"
    object.__setattr__(vector, "raw_norms", {SITE: vector.norms[SITE] * np.nan})
    assert pack_facts(vector)["raw norms"] == "unknown"


def test_texts_of_a_file_cannot_command_the_terminal(
    vector: Vector, tmp_path: Path, workbench: Workbench
) -> None:
    object.__setattr__(vector, "provenance", {**vector.provenance, "source": "\x1b]0;title\x07[red]mood"})
    outcome = workbench("steer", "show", vector.save(tmp_path / "mood.safetensors"))
    assert "�]0;title�[red]mood" in outcome.out and "\x1b" not in outcome.out


def test_list_names_the_vectors_of_a_study_and_what_is_damaged(
    vector: Vector, tmp_path: Path, workbench: Workbench
) -> None:
    study = make_planted_study(tmp_path / "study").path
    assert "has no steering vectors and no concept sliders" in words(workbench("steer", "list", study).out)
    save_pack(study, "mood", vector)
    save_pack(study, "A name", vector)
    pack_file(study, "bad").write_bytes(b"no vector")
    outcome = workbench("steer", "list", study)
    assert outcome.code == 0
    assert "mood mood happy sad caa" in words(outcome.out)
    assert words(outcome.out).count("not judged") == 2 and "Concept sliders" not in outcome.out
    assert len([line for line in outcome.out.splitlines() if " caa " in line]) == 2
    assert "bad.safetensors is not a vector, or is damaged" in words(outcome.err)


def test_list_and_show_say_what_judges_say(vector: Vector, tmp_path: Path, workbench: Workbench) -> None:
    study = make_planted_study(tmp_path / "study").path
    one, other = check_of(-0.4), check_of(0.4, 0.05, scorer="clap")
    file = save_pack(study, "one", replace(vector, checks=(one,)))
    save_pack(study, "two", replace(vector, checks=(one, other)))
    lines = workbench("steer", "list", study).out
    assert "inverted" in lines and "embedded" in lines and "not interpretable" in words(lines)
    assert (
        "judge embedded − raises the judge's score: inverted (change of the score from strength −1 to 1: "
        "−0.4 [−0.5, −0.3]; at −1: +0.2 [+0.1, +0.3], 1: −0.2 [−0.3, −0.1]; real prompts: +0.8 [+0.7, +0.9]; 6 pairs)"
    ) in words(workbench("steer", "show", file).out)


def test_list_and_show_know_sliders(tmp_path: Path, workbench: Workbench) -> None:
    study = make_planted_study(tmp_path / "study").path
    file = slider().save(study / "sliders" / "mine.safetensors")
    (study / "sliders" / "bad.safetensors").write_bytes(b"no slider")
    outcome = workbench("steer", "list", study)
    assert "mine tempo fast slow tf3.cross_attn 2 40" in words(outcome.out)
    assert "Steering vectors" not in outcome.out
    assert "bad.safetensors is not a slider, or is damaged" in words(outcome.err)
    shown = words(workbench("steer", "show", file).out)
    for expected in ("method concept_slider", "rank 2", "steps trained 40", "1 pair, such as 'a fast song'"):
        assert expected in shown
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-8])
    outcome = workbench("steer", "show", cut)
    assert outcome.code == 2 and "Give the file of a vector or slider." in words(outcome.err)
    plain = replace(slider(), model=None, training={"source": "a folder"}).save(tmp_path / "published")
    shown = words(workbench("steer", "show", plain).out)
    assert "unknown weights" in shown and "steps trained unknown" in shown and "source a folder" in shown


def test_a_slider_is_found_by_its_name_and_as_it_is_listed(tmp_path: Path) -> None:
    for name in ("mood", "With Drums", "a/b"):
        file = slider().save(slider_file(tmp_path, name))
        assert slider_file(tmp_path, name) == slider_file(tmp_path, file.stem) == file
        assert file.parent == tmp_path / "sliders"
    assert len(load_sliders(tmp_path)) == 3


def test_a_pack_is_found_by_its_name_and_as_it_is_listed(vector: Vector, tmp_path: Path) -> None:
    for name in ("mood", "With Drums"):
        file = save_pack(tmp_path, name, vector)
        assert find_pack(tmp_path, name) == find_pack(tmp_path, file.stem) == file
    outside = vector.save(tmp_path / "outside.safetensors")
    assert find_pack(tmp_path, "../outside") != outside and not find_pack(tmp_path, "../outside").exists()


def test_links_in_a_study_are_not_followed(vector: Vector, tmp_path: Path, workbench: Workbench) -> None:
    study = make_planted_study(tmp_path / "study").path
    elsewhere = vector.save(tmp_path / "elsewhere" / "mood.safetensors")
    (study / "packs").mkdir()
    (study / "packs" / "mood.safetensors").symlink_to(elsewhere)
    (found,) = load_packs(study).values()
    assert isinstance(found, UserError) and "it is a link" in str(found)
    (study / "packs" / "mood.safetensors").unlink()
    (study / "packs").rmdir()
    (study / "packs").symlink_to(elsewhere.parent)
    assert workbench("steer", "list", study).code == 2
    with pytest.raises(UserError, match="must be a folder; it is a link"):
        save_pack(study, "other", vector)
    assert [file.name for file in elsewhere.parent.iterdir()] == ["mood.safetensors"]


@pytest.mark.parametrize("kind", ["cut", "text", "missing", "folder"])
def test_other_files_are_refused_in_one_sentence(
    vector: Vector, tmp_path: Path, workbench: Workbench, kind: str
) -> None:
    file = tmp_path / "x.safetensors"
    if kind == "cut":
        file.write_bytes(vector.save(tmp_path / "whole").read_bytes()[:-100])
    elif kind == "text":
        file.write_text("a vector")
    elif kind == "folder":
        file.mkdir()
    outcome = workbench("steer", "show", file)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1


def test_vectors_of_other_steps_are_resampled_if_asked(
    tiny: AceStep15, tiny_folder: Path, tmp_path: Path, workbench: Workbench
) -> None:
    settings = GenerationSettings(duration=1.0, num_steps=2)
    made = caa(tiny, "mood", "tf0.cross_attn", pairs=1, settings=settings)
    file, out = made.save(tmp_path / "mood.safetensors"), tmp_path / "x.flac"
    command = (
        "generate",
        tiny_folder,
        "--prompt",
        "a sad song",
        "--out",
        out,
        "--pack",
        file,
        "--num-steps",
        3,
    )
    outcome = workbench(*command)
    assert outcome.code == 2 and "resample the vector" in words(outcome.err) and not out.exists()
    outcome = workbench(*command, "--resample", "sigma")
    assert outcome.code == 0, outcome.err
    assert "mood is resampled by the nearest sigma, from 2 steps (sigma 1 to 0.75) to 3" in words(outcome.err)
    assert "was made with" not in outcome.err
    outcome = workbench(*command, "--resample", "sigma", "--guidance", 7, "--option", "shift=2")
    assert outcome.code == 0, outcome.err
    expected = "mood was made with guidance_scale 3.0 and shift 3.0; this run has 7.0 and 2.0."
    assert expected in words(outcome.err)


# Import and export


@pytest.fixture
def demon(tmp_path: Path, tiny: AceStep15) -> Path:
    return write_pack(tmp_path / "bright.safetensors", tiny)


def test_a_pack_of_demon_becomes_a_vector_and_goes_back(
    demon: Path, tiny_folder: Path, tmp_path: Path, workbench: Workbench
) -> None:
    out, back = tmp_path / "out" / "bright.safetensors", tmp_path / "back.safetensors"
    option = ("--num-steps", 4, "--option", "shift=1")
    outcome = workbench("steer", "import", demon, "--model", tiny_folder, "--out", out, *option)
    assert outcome.code == 0, outcome.err
    shown = words(outcome.out)
    for expected in (
        "concept Bright",
        "a unit of DEMON's knob",
        "steps 4,",
        "shift = 1.0",
        "passes='separate'",
    ):
        assert expected in shown, expected
    vector = load_vector(out)
    assert (len(vector.sigmas), list(vector.directions)) == (4, ["tf1.cross_attn"])
    assert workbench("steer", "export", out, "--to", "demon", "--out", back).code == 0
    assert workbench("steer", "import", back, "--model", tiny_folder, "--out", out, *option).code == 0
    again = load_vector(out)
    for site, directions in vector.directions.items():
        np.testing.assert_allclose(again.directions[site], directions, rtol=1e-6)


def test_published_vectors_become_vectors_of_a_model(
    tiny_v1_folder: Path, tmp_path: Path, workbench: Workbench
) -> None:
    sources = {
        "caa": published_caa(tmp_path / "caa"),
        "austeer": published_austeer(tmp_path / "austeer"),
    }
    for method, source in sources.items():
        out = tmp_path / f"{method}.safetensors"
        k = ("--k", 5) if method == "austeer" else ()
        outcome = workbench(
            *(
                "steer",
                "import",
                source,
                "--model",
                tiny_v1_folder,
                "--out",
                out,
                "--site",
                "tf1.cross_attn",
                *k,
            )
        )
        assert outcome.code == 0, outcome.err
        assert "does not identify its base model" in words(outcome.out)
        vector = load_vector(out)
        assert (vector.method, list(vector.directions)) == (method, ["tf1.cross_attn"])


def test_a_vector_is_imported_into_a_study(
    demon: Path, tiny: AceStep15, tmp_path: Path, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_planted_study(tmp_path / "study")
    monkeypatch.setattr(Study, "load_model", lambda study, device: tiny)
    assert workbench("steer", "import", demon, "--study", study.path).code == 0
    assert workbench("steer", "import", demon, "--study", study.path, "--name", "mine").code == 0
    assert sorted(load_packs(study.path)) == [pack_file(study.path, "Bright").stem, "mine"]
    assert len(load_vector(pack_file(study.path, "mine")).sigmas) == study.spec.settings.num_steps


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--out", "x", "--study", "y", "--model", "m"), "not both or neither"),
        (("--model", "m"), "not both or neither"),
        (("--out", "x"), "give the model"),
        (("--out", "x", "--model", "m", "--name", "n"), "no name"),
        (("--study", "y", "--name", "a/b"), "may have letters, digits"),
        (("--study", "y", "--model", "m"), "The model is the study's"),
        (("--out", "x", "--model", "m", "--k", 3), "DEMON's packs have no option --k"),
        (("--out", "x", "--model", "m", "--site", "tf0.mlp"), "DEMON's packs have no option --site"),
        (("--out", "x", "--model", "TINY", "--option", "shift"), "name=value"),
        (("--out", "x", "--model", "TINY", "--option", "shift=-1"), "shift must be above 0"),
        (("--out", "x", "--model", "TINY", "--num-steps", 20000), "num_steps must be at most 10000"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    demon: Path,
    tiny_folder: Path,
    workbench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    options: Any,
    expected: str,
) -> None:
    monkeypatch.chdir(demon.parent)
    given = [tiny_folder if option == "TINY" else option for option in options]
    outcome = workbench("steer", "import", demon, *given)
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in words(outcome.err)
    assert [file.name for file in demon.parent.iterdir()] == [demon.name], "nothing is written"


def test_options_of_demon_s_packs_are_refused_for_published_vectors(
    tmp_path: Path, workbench: Workbench
) -> None:
    source = published_caa(tmp_path / "caa")
    outcome = workbench("steer", "import", source, "--model", "m", "--out", tmp_path / "x", "--num-steps", 8)
    assert outcome.code == 2 and "Published vectors have no option --num-steps" in words(outcome.err)


@pytest.mark.parametrize("kind", ["cut", "hostile", "nowhere"])
def test_bad_sources_are_refused_and_nothing_is_written(
    demon: Path, tiny_folder: Path, tiny_v1_folder: Path, tmp_path: Path, workbench: Workbench, kind: str
) -> None:
    source: object = demon
    model, canary = tiny_folder, tmp_path / "canary"
    if kind == "cut":
        demon.write_bytes(demon.read_bytes()[:-9])
    elif kind == "hostile":
        source, model = published_caa(tmp_path / "caa"), tiny_v1_folder
        (tmp_path / "caa" / "sv.pkl").write_bytes(pickle.dumps(RunsCode(canary)))
    else:
        source = tmp_path / "nowhere"
    outcome = workbench("steer", "import", source, "--model", model, "--out", tmp_path / "x")
    if kind == "nowhere":
        assert "neither an existing file" in outcome.err
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1
    assert not canary.exists() and not (tmp_path / "x").exists()


def test_a_vector_that_demon_cannot_express_is_not_exported(
    vector: Vector, tmp_path: Path, workbench: Workbench
) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    outcome = workbench("steer", "export", file, "--to", "demon", "--out", tmp_path / "x")
    assert outcome.code == 2 and "DEMON's packs are for ACE-Step 1.5; this vector is of tiny" in words(
        outcome.err
    )
    assert workbench("steer", "export", file, "--to", "midi", "--out", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()
