"""Exported figures: the same bytes every time, with their numbers and their origin."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from cache.errors import UserError
from dashboards.export import export_figure
from dashboards.figures import FIGURES, find_figure, make_spec
from dashboards.results import result_origin
from tests.dashboards.synthetic_study import UNDEFINED
from workbench.cli.main import app
from workbench.studies.study import Study

OPTIONS: dict[str, dict[str, Any]] = {
    "patching": {"truth": True},
    "patching-pairs": {"concept": "drums", "arm": "tf3 necessity"},
    "patching-compare": {},  # the other study is only known when there is one
    "probes": {"part": "mlp", "quantity": "selectivity"},
    "probe-folds": {"concept": "drums", "site": "tf4.mlp", "step": 4},
    "probe-descriptors": {"part": "mlp"},
    "sae-training": {"name": "tf4.cross_attn"},
    "sae-quality": {"name": "tf4.cross_attn"},
    "feature": {"feature": 7, "width": "single"},
    "feature-clip": {"feature": 5, "clip": 3},
    "dose-response": {"concept": "mood"},
    "ladder": {"strength": 1.0},
    "steering-effects": {},
    "vector-reliability": {"site": "tf3.cross_attn"},
    "alignment-preservation": {"concept": "tempo"},
    "method-ranking": {"width": "single"},
    "leakage": {"direction": "away"},
}


@pytest.fixture(scope="module", autouse=True)
def compared(other_study: Study) -> None:
    """The study that the comparison is with."""
    OPTIONS["patching-compare"]["compare"] = str(other_study.path)


@pytest.fixture(scope="module")
def exported(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every figure as PDF."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        figure: export_figure(study, figure, "pdf", folder, **options) for figure, options in OPTIONS.items()
    }


def test_a_results_origin_is_read_without_its_arrays(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = study.result("probes").attrs["result_id"]
    monkeypatch.setattr(xr, "load_dataset", lambda *_, **__: pytest.fail("the arrays were read"))
    assert result_origin(study, "probes")["result_id"] == expected


def test_every_figure_has_its_case() -> None:
    assert set(OPTIONS) == set(FIGURES)


@pytest.mark.parametrize("figure", FIGURES)
def test_two_exports_are_equal_to_the_byte(
    study: Study, exported: dict[str, list[Path]], tmp_path: Path, figure: str
) -> None:
    first = exported[figure]
    second = export_figure(study, figure, "pdf", tmp_path, **OPTIONS[figure])
    assert [file.suffix for file in first] == [".pdf", ".csv", ".json", ".tex", ".txt"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    pdf = first[0].read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize("format", ["svg", "png"])
def test_other_formats_are_equal_to_the_byte(study: Study, tmp_path: Path, format: str) -> None:
    first, second = (export_figure(study, "patching", format, tmp_path / name)[0] for name in "ab")
    assert first.suffix == f".{format}"
    assert first.read_bytes() == second.read_bytes()


def test_svg_text_stays_text_and_says_undefined(study: Study, tmp_path: Path) -> None:
    svg = export_figure(study, "patching", "svg", tmp_path)[0].read_text()
    assert svg.count(">undefined</text>") == 10 + 10 + 3
    assert svg.count(">0.68</text>") == 1


@pytest.mark.parametrize("figure", FIGURES)
def test_the_csv_holds_the_plotted_numbers(
    study: Study, exported: dict[str, list[Path]], figure: str
) -> None:
    written = pd.read_csv(exported[figure][1], float_precision="round_trip")
    shown = FIGURES[figure].table(study, make_spec(study, figure, OPTIONS[figure]))
    assert list(written) == list(shown)
    for name in shown.select_dtypes("number"):
        np.testing.assert_array_equal(written[name], shown[name])


def test_undefined_cells_have_no_number_in_the_csv(study: Study, tmp_path: Path) -> None:
    written = pd.read_csv(export_figure(study, "patching", "svg", tmp_path)[1])
    undefined = written[written["concept"] == UNDEFINED]
    assert undefined["impact"].isna().all()
    assert (undefined["status"] == "undefined").all()


def test_the_json_says_where_the_figure_comes_from(study: Study, tmp_path: Path) -> None:
    told = json.loads(export_figure(study, "patching", "svg", tmp_path)[2].read_text())
    result = study.result("patching-blocks")
    assert told["spec"] == {
        "width": "double", "name": "blocks", "scorer": "", "concept": "", "column": "", "truth": False,
    }  # fmt: skip
    assert told["caption"] == (tmp_path / "patching-blocks.txt").read_text().rstrip("\n")
    assert told["result"]["result_id"] == result.attrs["result_id"]
    assert told["result"]["provenance"]["weights_hash"] == "0123456789abcdef"
    assert told["study"]["spec"] == study.spec.model_dump(mode="json")
    assert "matplotlib" in told["libraries"]
    assert told["outdated"] is False


def test_the_json_of_a_comparison_names_both_sources(
    study: Study, other_study: Study, tmp_path: Path, published: Path
) -> None:
    options = {"compare": str(other_study.path)}
    told = json.loads(export_figure(study, "patching-compare", "svg", tmp_path, **options)[2].read_text())
    other = other_study.result("patching-blocks").attrs["result_id"]
    assert told["compared_with"]["result_id"] == other != told["result"]["result_id"]
    options = {"published": str(published), "model": "tiny"}
    told = json.loads(export_figure(study, "patching-compare", "svg", tmp_path, **options)[2].read_text())
    assert told["compared_with"]["sha256"] == hashlib.sha256(published.read_bytes()).hexdigest()


def test_the_json_of_a_vectors_figure_names_its_file(study: Study, tmp_path: Path) -> None:
    told = json.loads(export_figure(study, "vector-reliability", "svg", tmp_path)[2].read_text())["result"]
    file = study.path / "packs" / told["file"]
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (told["kind"], told["method"], told["concept"]) == ("vector", "caa", "tempo")


def test_a_map_of_another_question_goes_through_the_command_line(study: Study, tmp_path: Path) -> None:
    words = ["export", str(study.path), "--figure", "patching", "--format", "svg", "--out", str(tmp_path)]
    chosen = ["--option", "name=steps", "--option", "concept=tempo"]
    done = CliRunner().invoke(app, [*words, *chosen])
    assert done.exit_code == 0, done.output
    files = [Path(line) for line in done.stdout.split()]
    assert [file.name for file in files] == [
        f"patching-steps-tempo.{suffix}" for suffix in ("svg", "csv", "json", "tex", "txt")
    ]
    assert set(pd.read_csv(files[1])["concept"]) == {"tempo"}
    assert ">steps 2–3</text>" in files[0].read_text()


def test_figures_go_into_the_study_and_keep_apart(study: Study) -> None:
    first = export_figure(study, "feature", "svg", feature=1)
    second = export_figure(study, "feature", "svg", feature=2, name="tf4.cross_attn")
    assert first[0] == study.path / "figures" / "feature-tf3.cross_attn-1.svg"
    assert second[0] == study.path / "figures" / "feature-tf4.cross_attn-2.svg"
    assert not list((study.path / "figures").glob(".part-*"))


@pytest.mark.parametrize(
    ("figure", "format", "options", "words"),
    [
        ("patchin", "pdf", {}, ["'patchin'", "patching", "sae-training"]),
        ("patching", "gif", {}, ["'gif'", "pdf, svg, png"]),
        ("patching", "pdf", {"size": 3}, ["no option 'size'", "width, name, scorer, concept"]),
        ("patching", "pdf", {"width": "huge"}, ["width must be 'single' or 'double', not 'huge'"]),
        ("patching", "pdf", {"name": "heads"}, ["patching result 'heads'", "blocks, steps"]),
        ("patching", "pdf", {"concept": "key"}, ["concept 'key'", "tempo"]),
        ("patching-pairs", "pdf", {"concept": "tempo", "arm": "tf99"}, ["arm 'tf99'", "tf0, tf1"]),
        ("patching-pairs", "pdf", {"concept": "tempo", "arm": "clean"}, ["arm 'clean'"]),
        ("patching-compare", "pdf", {}, ["compare=STUDY and published=TABLE.csv"]),
        ("patching-compare", "pdf", {"compare": "nowhere"}, ["nowhere is not a study"]),
        ("feature", "pdf", {}, ["'feature' needs feature", "`--option feature=0`"]),
        ("feature-clip", "pdf", {"feature": 1}, ["needs clip", "--option clip=1"]),
        ("patching-pairs", "pdf", {"concept": "drums"}, ["needs arm", "--option arm=tf3+tf4"]),
        ("probe-folds", "pdf", {}, ["needs concept and site and step", "--option site=tf"]),
        ("feature", "pdf", {"feature": 999}, ["feature '999'", "0, 1, 2"]),
        (
            "feature",
            "pdf",
            {"feature": 1, "name": "tf9.mlp"},
            ["'tf9.mlp'", "tf3.cross_attn, tf4.cross_attn"],
        ),
        ("probes", "pdf", {"part": "block"}, ["part 'block'", "cross_attn, mlp"]),
        ("probe-folds", "pdf", {"concept": "key", "site": "tf0.mlp", "step": 0}, ["concept 'key'", "tempo"]),
        ("feature-clip", "pdf", {"feature": 1, "clip": 99}, ["clip '99'"]),
        ("dose-response", "pdf", {"name": "mood"}, ["steering result 'mood'", "tempo"]),
        ("dose-response", "pdf", {"concept": "key"}, ["concept 'key'", "tempo, instrument"]),
        ("dose-response", "pdf", {"scorer": "ears"}, ["scorer 'ears'", "embedded, clap"]),
        ("ladder", "pdf", {"strength": 7}, ["strength '7.0'", "-1.0, 1.0, 2.0"]),
        ("ladder", "pdf", {"strength": "loud"}, ["strength", "loud"]),
        ("steering-effects", "pdf", {"strength": float("nan")}, ["strength 'nan'"]),
        ("vector-reliability", "pdf", {"pack": "mood"}, ["steering vector 'mood'", "tempo"]),
        ("vector-reliability", "pdf", {"site": "tf9.mlp"}, ["site 'tf9.mlp'", "tf3.cross_attn"]),
        ("vector-reliability", "pdf", {"pass_name": "null"}, ["pass 'null'", "cond"]),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    study: Study, tmp_path: Path, figure: str, format: str, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as told:
        export_figure(study, figure, format, tmp_path / "none", **options)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert not (tmp_path / "none").exists()


def test_a_missing_result_names_its_command(bare_study: Study) -> None:
    with pytest.raises(UserError, match="workbench patch "):
        export_figure(bare_study, "patching")
    with pytest.raises(UserError, match="workbench steer apply "):
        export_figure(bare_study, "dose-response")
    with pytest.raises(UserError, match="workbench steer fit"):
        export_figure(bare_study, "vector-reliability")
    with pytest.raises(UserError, match=r"workbench sae train .* --site tf0\.cross_attn"):
        export_figure(bare_study, "sae-training", name="tf0.cross_attn")


def test_a_folder_that_cannot_be_written_is_told(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file is a file\. Give a folder"):
            export_figure(study, "patching", "svg", folder)
    (tmp_path / "patching-blocks.svg").mkdir()
    with pytest.raises(UserError, match="cannot be used"):
        export_figure(study, "patching", "svg", tmp_path)


def test_the_truth_needs_a_card(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "truth_card", lambda self: None)
    with pytest.raises(UserError, match="no truth card"):
        export_figure(study, "patching", "svg", tmp_path, truth=True)


@pytest.mark.parametrize("given", [{}, [None], None, 5])
def test_names_of_figures_and_formats_are_text(study: Study, given: Any) -> None:
    with pytest.raises(UserError, match=r"A figure must be given by its name \(patching, .*\), not"):
        find_figure.__wrapped__(given)  # without the type check, which users do not have
    with pytest.raises(UserError, match=r"A format must be given by its name \(pdf, svg, png\), not"):
        export_figure.__wrapped__(study, "patching", given)


@pytest.mark.parametrize("given", [{}, [], 0, None])
def test_names_of_results_are_text(study: Study, given: Any) -> None:
    """Nothing but a missing or empty name asks for the default."""
    for figure, option in (("patching", "name"), ("sae-training", "name"), ("patching", "scorer")):
        default = {"patching": "patching result", "sae-training": "sparse autoencoder"}[figure]
        with pytest.raises(UserError, match=option if option != "name" else default):
            export_figure(study, figure, **{option: given})
