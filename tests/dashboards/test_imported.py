"""What was imported into a study is listed with its ends, and published impacts stand beside the study's own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dash
import pandas as pd
import pytest
from dash import no_update

from analyses.patching.published_map import import_published_map
from cache.errors import UserError
from dashboards.app import create_app
from dashboards.components.export import figure_options
from dashboards.context import Context
from dashboards.export import export_figure
from dashboards.figures.patching_comparison import PatchingComparisonSpec, compare
from dashboards.figures.published_map import draw_means, maps_frame, means_frame
from dashboards.links import read_query
from dashboards.pages import comparison, imported
from dashboards.tables.comparison import imported_map
from dashboards.tables.imported import artefacts_frame
from tests.dashboards.synthetic_study import IMPACT, make_study
from tests.dashboards.test_pages import shown_pages
from tests.workbench.artefacts import builders
from workbench.artefacts.austeer import read_austeer
from workbench.artefacts.caa import read_caa
from workbench.artefacts.lora import read_lora
from workbench.artefacts.scores import read_scores
from workbench.artefacts.written import list_imported, study_file, write_artefact
from workbench.studies.study import Study


@pytest.fixture(scope="module")
def filled(study: Study, tmp_path_factory: pytest.TempPathFactory, published: Path) -> Study:
    """A study with artefacts and both maps of the published table."""
    folder = tmp_path_factory.mktemp("filled")
    study = Study.open(shutil.copytree(study.path, folder / "study"))
    for read, write in (
        (read_caa, builders.write_caa),
        (read_scores, builders.write_scores),
        (read_austeer, builders.write_austeer),
        (read_lora, builders.write_lora),
    ):
        artefact = read(str(write(folder / read.__name__)))
        write_artefact(artefact, study_file(study.path, artefact.name))
    for model in ("tiny", "deep"):
        import_published_map(study, published, model)
    return study


@pytest.fixture(scope="module")
def app(filled: Study) -> dash.Dash:
    return create_app(filled.path)


def callback(app: dash.Dash, name: str) -> Callable[..., Any]:
    functions = [entry["callback"].__wrapped__ for entry in app.callback_map.values() if "callback" in entry]
    (found,) = (one for one in functions if one.__name__ == name and one.__module__ == imported.__name__)
    return found


def test_artefacts_are_listed_with_their_two_ends(filled: Study) -> None:
    frame = artefacts_frame(list_imported(filled.path)).set_index("kind")
    assert frame.loc["caa", ["concept", "positive", "negative"]].tolist() == ["rock_genre", "jazz", "rock"]
    assert frame.loc["caa", "sites"] == "tf0.cross_attn, tf1.cross_attn"
    assert frame.loc["caa", ["steps", "norms"]].tolist() == ["3", "1"]
    assert frame.loc["lora", "sites"] == "tf6 (weights), tf7 (weights)"
    assert frame.loc["lora", ["steps", "norms"]].tolist() == ["all", "–"]
    assert frame.loc["scores", "sites"] == "tf6.cross_attn"
    page = str(imported.layout(Context(filled), {}))
    for words in ("'+ end'", "jazz", "'− end'", "computed without lyrics", "happy", "no piano"):
        assert words in page


def test_the_page_is_linked_where_there_is_something(filled: Study, bare_study: Study) -> None:
    assert "Imported" in shown_pages(Context(filled))
    assert "Imported" not in shown_pages(Context(bare_study))
    assert f"workbench import caa SOURCE --study {bare_study.path}" in str(
        imported.layout(Context(bare_study), {})
    )


def test_block_means_and_sets_follow_the_threshold(app: dash.Dash) -> None:
    show = callback(app, "show")
    notes, means, maps = show("?model=tiny")
    assert "τ = 0.1, published: {tf3}." in str(notes)
    # Undefined concepts have no part in a mean; the others' tf3 and tf4 lie above.
    assert "τ = 0.1, this study: {tf3, tf4}." in str(notes)
    assert "Published impacts by clap: tempo, drums, jazz." in str(notes)
    assert "This study's means are over instrument, tempo, drums." in str(notes)
    bars = {trace.name: trace for trace in means.data}
    assert bars["published"].y[3] == pytest.approx(0.9)
    own = [IMPACT[concept].get("tf3", 0.0) for concept in ("instrument", "tempo", "drums")]
    assert bars["this study"].y[3] == pytest.approx(sum(own) / 3)
    assert list(bars["published"].marker.opacity) == [0.35, 0.35, 0.35, 1.0, 0.35, 0.35, 0.35, 0.35]
    heatmaps = [trace for trace in maps.data if trace.type == "heatmap"]
    assert heatmaps[0].z[3].tolist() == [0.9, 0.9, 0.9]
    lower, *_ = show("?model=tiny&threshold=0.05")
    assert "τ = 0.05, published: {tf3, tf5, tf6, tf7}." in str(lower)


def test_a_deeper_networks_map_stands_alone(app: dash.Dash) -> None:
    notes, means, _ = callback(app, "show")("?model=deep&threshold=nonsense")
    assert "8 blocks and the paper's has 12" in str(notes)
    assert [trace.name for trace in means.data] == ["published"]
    assert len(means.data[0].x) == 12


def test_a_study_without_an_own_map_shows_the_published_one(
    bare_study: Study, published: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path, results=False)
    import_published_map(study, published, "tiny")
    notes, means, _ = callback(create_app(study.path), "show")("")
    assert "no patching result for blocks" in str(notes)
    assert [trace.name for trace in means.data] == ["published"]


def test_controls_write_the_address(app: dash.Dash) -> None:
    choose = callback(app, "choose")
    assert choose("deep", 0.1, "?model=deep") is no_update
    assert choose("tiny", "", "?model=tiny") is no_update
    assert read_query(choose("tiny", 0.075, "?model=tiny")) == {"model": "tiny", "threshold": "0.075"}
    assert read_query(choose("deep", -3, "?model=tiny")) == {"model": "deep", "threshold": "0"}


def test_a_block_at_the_threshold_is_full(filled: Study) -> None:
    means = means_frame(imported_map(filled, "tiny"), None, 0.9)
    assert means.loc[means["functional"], "block"].tolist() == ["tf3"]
    assert draw_means(means, 0.9).data[0].marker.opacity[3] == 1.0
    assert set(maps_frame(imported_map(filled, "tiny"), None)["map"]) == {"published, tiny"}


def test_an_imported_map_is_compared_without_its_table(filled: Study, published: Path) -> None:
    context = Context(filled)
    assert list(context.comparisons) == ["published, deep", "published, tiny"]
    compared = compare(filled, context.comparison_spec("published, tiny", name="blocks"))
    from_table = compare(
        filled, PatchingComparisonSpec(name="blocks", published=str(published), model="tiny")
    )
    pd.testing.assert_frame_equal(compared.matched, from_table.matched, check_dtype=False)
    assert compared.names == ("study", "published, tiny")
    assert compared.notes == [note.replace("paper, tiny", "published, tiny") for note in from_table.notes]
    with pytest.raises(UserError, match=r"no published map of '\.\./probes'"):
        compare(filled, PatchingComparisonSpec(name="blocks", imported="../probes"))


def test_the_comparison_page_offers_it_and_its_export_tells_its_origin(
    app: dash.Dash, filled: Study, tmp_path: Path
) -> None:
    context = Context(filled)
    assert "published, tiny" in str(comparison.layout(context, {}))
    functions = [entry["callback"].__wrapped__ for entry in app.callback_map.values() if "callback" in entry]
    (show,) = (one for one in functions if (one.__name__, one.__module__) == ("show", comparison.__name__))
    _, _, data, notes, *_ = show("?other=published, tiny")
    assert "The published table has no intervals." in str(notes)
    options = figure_options(data, context)
    assert options["imported"] == "tiny"
    files = export_figure(filled, "patching-compare", "svg", tmp_path, **options)
    assert files[0].name == "patching-compare-blocks-sufficiency-embedded-vs-tiny.svg"
    told = json.loads((tmp_path / files[0].with_suffix(".json").name).read_text())
    assert told["compared_with"]["kind"] == "published"
    assert told["compared_with"]["spec"]["source"] == "paper.csv"


def test_exactly_one_thing_is_compared_with() -> None:
    for given in ({}, {"imported": "a", "published": "b"}, {"imported": "a", "compare": "b"}):
        with pytest.raises(
            ValueError, match="give exactly one of imported=MODEL, compare=STUDY and published"
        ):
            PatchingComparisonSpec.model_validate({"name": "blocks", **given})


def test_a_damaged_artefact_is_told(tmp_path: Path) -> None:
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "caa-piano.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="Import it again"):
        list_imported(tmp_path)
