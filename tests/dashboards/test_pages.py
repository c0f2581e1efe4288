"""What the pages answer when something is chosen or clicked, without a browser."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import dash
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dash import no_update

from analyses.lab.request import FeatureEdit, LabRequest, PatchEdit, read_request
from analyses.sae.spec import DEAD_AFTER
from cache.errors import UserError
from dashboards.app import create_app
from dashboards.components import patching_clips
from dashboards.components.export import figure_options
from dashboards.context import Context
from dashboards.feature_browser import View, page_of_rows
from dashboards.figures import probe_maps, sae_training
from dashboards.figures.patching_map import PatchingMapSpec
from dashboards.figures.probe_maps import ProbeMapsSpec
from dashboards.links import read_query
from dashboards.pages import (
    comparison,
    feature_address,
    feature_card,
    feature_map,
    feature_ranking,
    feature_table,
    feature_training,
    features,
    overview,
    patching,
    patching_cell,
    probes,
    site_links,
)
from dashboards.results import load_result
from dashboards.shell import shell, unknown_parts
from dashboards.tables.features import scores_frame
from tests.dashboards.synthetic_study import FEATURES, STOPPED, make_study
from tests.tolerances import assert_close
from workbench.studies.study import Study


def callback(app: dash.Dash, module: ModuleType, name: str) -> Callable[..., Any]:
    """A page's callback, as it was written."""
    entries = [entry for entry in app.callback_map.values() if "callback" in entry]  # not those of scripts
    functions = [entry["callback"].__wrapped__ for entry in entries]
    (found,) = (one for one in functions if one.__name__ == name and one.__module__ == module.__name__)
    return found


def shown_pages(context: Context) -> list[str]:
    """Names of the pages that the navigation links to."""
    links = [part for part in shell(context)._traverse() if getattr(part, "_type", "") == "NavLink"]
    return [link.label for link in links if link.style == {}]


def draw(app: dash.Dash, search: str, truth: bool = False) -> dict[str, Any]:
    names = ("figure", "export", "legend", "facts", "map", "detail", "place")
    return dict(zip(names, callback(app, patching, "draw")(search, truth), strict=True))


def test_the_address_says_what_the_map_shows(study: Study) -> None:
    assert patching.view(study, {}).model_dump(exclude={"width", "truth"}) == {
        "name": "blocks", "scorer": "", "concept": "", "column": "",
    }  # fmt: skip
    asked = {"result": "steps", "scorer": "clap", "shown": "tempo", "column": "steps 2–3"}
    spec = patching.view(study, asked)
    assert (spec.name, spec.scorer, spec.concept, spec.column) == ("steps", "clap", "tempo", "steps 2–3")
    assert patching.view(study, dict.fromkeys(asked, "nonsense")) == patching.view(study, {})


def test_the_map_tells_what_it_rests_on(app: dash.Dash) -> None:
    told = str(draw(app, "?shown=tempo")["facts"])
    for words in (
        "12 × 2 (n = 24)",
        "0.60 [0.50, 0.70]",
        "0.93 [0.81, 0.98]",
        "[−0.05, 0.07]",
        "agreement with clap",
        "0.87 [0.71, 0.95] (n = 18 cells)",
    ):
        assert words in told
    assert "Benjamini–Hochberg over the 60 cells" in told
    assert STOPPED in told
    assert "drums" not in told


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["clear", "clear"], "0 of 2 tested cells are not significant, or inside the null band."),
        (["not significant", "clear"], "1 of 2 tested cells is not significant, or inside the null band."),
        (
            ["not significant", "inside null band", "clear", "null arm"],
            "2 of 3 tested cells are not significant, or inside the null band.",
        ),
        (["undefined", "undefined"], "Undefined: 2 cells."),
        (
            ["clear", "undefined", "no score", "null arm"],
            "0 of 1 tested cell are not significant, or inside the null band. Undefined: 1 cell. No score: 1 cell.",
        ),
        (["too few pairs", "too few pairs", "null arm"], "Too few pairs: 2 cells."),
        (["screened out"], "Screened out: 1 cell."),
    ],
)
def test_cells_are_counted_by_what_the_tests_say(statuses: list[str], said: str) -> None:
    frame = pd.DataFrame({"status": statuses})
    frame["group"] = np.where(frame["status"] == "null arm", "null", "cell")
    assert patching._counts(frame) == said


def test_the_map_counts_its_cells(app: dash.Dash) -> None:
    told = str(draw(app, "")["facts"])
    assert "tested cells are not significant, or inside the null band. Undefined: 20 cells." in told
    assert "Undefined: " not in str(draw(app, "?shown=tempo")["facts"])
    alone = str(draw(app, "?shown=mood")["facts"])
    assert "Undefined: 20 cells." in alone
    assert "tested cell" not in alone


def test_the_legend_of_probe_maps_explains_their_hatching(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = callback(app, probes, "draw")
    assert "not significantly above the control" in str(show("")[-1])
    frame = probe_maps.make_table(study, ProbeMapsSpec(part=probes._parts(study)[0]))
    for q_value, is_hatched in ((0.049, False), (0.05, True), (np.nan, True)):
        table = frame.assign(q_value=[q_value, *[0.0] * (len(frame) - 1)])
        monkeypatch.setattr(probe_maps, "make_table", lambda *_, table=table: table)
        assert ("key-hatched" in str(show("")[-1])) is is_hatched


def test_the_legend_has_what_the_map_has(app: dash.Dash) -> None:
    assert "undefined" in str(draw(app, "")["legend"])
    assert "undefined" not in str(draw(app, "?shown=tempo")["legend"])
    assert "planted" not in str(draw(app, "")["legend"])
    assert "planted" in str(draw(app, "", truth=True)["legend"])


def test_a_wide_map_has_the_whole_width(app: dash.Dash, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(app, "")["map"]["lg"] + draw(app, "")["detail"]["lg"] == 24
    monkeypatch.setattr(patching, "MAX_BESIDE", 8)
    assert draw(app, "")["map"]["lg"] == draw(app, "")["detail"]["lg"] == 24


def test_many_concepts_are_shown_a_few_at_a_time(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "PICKER", dataclasses.replace(patching.PICKER, most=2))
    assert {"instrument", "tempo"} == _shown_concepts(draw(app, ""))
    assert {"mood", "drums"} == _shown_concepts(draw(app, "?page=2"))
    assert {"mood", "drums"} == _shown_concepts(draw(app, "?concept=drums&arm=tf3"))
    assert {"mood", "drums"} == _shown_concepts(draw(app, "?shown=mood&page=2")) | {"drums"}
    click = {"points": [{"x": 1.5, "y": 3.5}]}
    chosen = read_query(callback(app, patching, "select_cell")(click, "?page=2"))
    assert chosen == {"page": "2", "concept": "drums", "arm": "tf3"}


def _shown_concepts(page: dict[str, Any]) -> set[str]:
    cells = [trace.customdata for trace in page["figure"].data if trace.type == "heatmap"]
    return {str(name) for table in cells for name in np.asarray(table)[..., 0].ravel() if name is not None}


def test_a_click_selects_its_cell_and_keeps_the_pair(app: dash.Dash) -> None:
    select = callback(app, patching, "select_cell")
    click = {"points": [{"x": 5.7, "y": 3.2}]}
    assert read_query(select(click, "?scorer=clap&concept=mood&arm=tf1&pair=1&seed=0")) == {
        "scorer": "clap", "concept": "tempo", "arm": "tf3 necessity", "pair": "1", "seed": "0",
    }  # fmt: skip
    assert select({"points": [{"x": 4.2, "y": 3.2}]}, "") is no_update
    assert select(None, "") is no_update


def test_another_question_forgets_what_the_last_one_showed() -> None:
    cleared = patching.SELECTS.clears["result"]
    assert {"scorer", "shown", "column", "concept", "arm", "pair", "seed", "arms", "find", "page"} == set(
        cleared
    )


def test_the_controls_follow_the_address(app: dash.Dash, study: Study) -> None:
    blocks, steps, one = (
        patching._choices(study, query)
        for query in ({}, {"result": "steps", "shown": "all"}, {"result": "steps"})
    )
    assert (blocks["shown"].value, blocks["column"].value, blocks["column"].is_hidden) == ("all", "-", False)
    assert (steps["result"].value, steps["column"].value, steps["column"].label) == (
        "steps", "steps 0–1", "step window",
    )  # fmt: skip
    assert one["column"].is_hidden, "all columns of a concept are shown"
    show = callback(app, patching, "show_picker")
    assert (show("?shown=all"), show("?shown=tempo")) == (False, True)


CELL = (
    "hidden",
    "hint",
    "numbers",
    "links",
    "figure",
    "export",
    "rows",
    "selected",
    "players",
    "button",
    "arms",
)


def show_cell(app: dash.Dash, search: str) -> dict[str, Any]:
    return dict(zip(CELL, callback(app, patching_cell, "show_cell")(search, None), strict=True))


def test_a_cell_tells_its_numbers_and_pairs(app: dash.Dash) -> None:
    cell = show_cell(app, "?concept=drums&arm=tf3+necessity&pair=1&seed=1")
    assert not cell["hidden"]
    for words in ("0.784 [0.724, 0.834]", "0.002, 0.003", "24 from 12 pairs", "necessity, 95 % interval"):
        assert words in str(cell["numbers"])
    assert [row["id"] for row in cell["rows"]] == ["0-0", "0-1", "1-0", "1-1"]
    assert cell["selected"] == {"ids": ["1-1"]}
    assert "001-1/tf3_necessity.flac" in str(cell["players"])
    assert cell["export"]["options"]["arm"] == "tf3 necessity"
    assert cell["arms"] == "[]"


def test_a_hatched_cell_says_why(app: dash.Dash) -> None:
    assert "inside null band" in str(show_cell(app, "?concept=tempo&arm=tf6")["numbers"])
    assert "not significant" in str(show_cell(app, "?concept=tempo&arm=tf0")["numbers"])
    assert "verdict" not in str(show_cell(app, "?concept=tempo&arm=tf3")["numbers"])


def test_an_arm_that_changes_nothing_says_so(app: dash.Dash) -> None:
    assert "Identical to the corrupt run." in str(show_cell(app, "?concept=tempo&arm=tf0")["players"])
    assert "Identical to the clean run." in str(show_cell(app, "?concept=tempo&arm=tf0+necessity")["players"])
    assert "Identical" not in str(show_cell(app, "?concept=tempo&arm=tf3")["players"])


def test_all_arms_are_shown_when_asked(app: dash.Dash) -> None:
    cell = show_cell(app, "?result=steps&concept=drums&arm=tf3+steps+0–1&arms=all")
    assert cell["button"].startswith("Hide all arms of this pair (8 ")
    assert len(json.loads(cell["arms"])) == 8
    toggle = callback(app, patching_cell, "toggle_arms")
    assert read_query(toggle(1, "?arm=tf3")) == {"arm": "tf3", "arms": "all"}
    assert read_query(toggle(2, "?arm=tf3&arms=all")) == {"arm": "tf3"}


@pytest.mark.parametrize("search", ["", "?concept=drums&arm=nonsense", "?result=steps&concept=drums&arm=tf3"])
def test_without_a_known_cell_there_is_a_hint(app: dash.Dash, search: str) -> None:
    cell = show_cell(app, search)
    assert (cell["hidden"], cell["hint"]) == (True, False)
    assert cell["export"] is None


def test_players_hear_only_of_what_changed(app: dash.Dash) -> None:
    """What is the same for the browser is left alone, so that the sound goes on."""
    search = "?concept=tempo&arm=tf3&pair=1&seed=1"
    before = show_cell(app, search)["players"]
    for other in ("&arms=all", "&column=sufficiency", "&shown=tempo"):
        assert show_cell(app, search + other)["players"] == before
    other_cell = show_cell(app, "?concept=tempo&arm=tf4&pair=1&seed=1")["players"]
    (clean, corrupt, patched), (clean_now, corrupt_now, patched_now) = (
        [side["audio"] for side in json.loads(players)["sides"]] for players in (before, other_cell)
    )
    assert (clean, corrupt) == (clean_now, corrupt_now)
    assert patched != patched_now


def test_the_word_that_differs_is_marked(app: dash.Dash) -> None:
    sides = json.loads(show_cell(app, "?concept=tempo&arm=tf3")["players"])["sides"]
    assert [side["note"][1] for side in sides] == ["fast", "slow", "slow"]


def test_pairs_are_filtered(app: dash.Dash) -> None:
    options = callback(app, patching_cell, "filter_pairs")("fast", {"a": 1})
    assert options == {"a": 1, "quickFilterText": "fast"}
    assert callback(app, patching_cell, "filter_pairs")(None, None) == {"quickFilterText": ""}


def linked(links: Any) -> dict[str, tuple[str, dict[str, str]]]:
    found = {}
    for link in links.children:
        path, _, query = link.href.partition("?")
        found[link.children] = (path, read_query(query))
    return found


def test_a_cell_leads_to_the_features_probe_vectors_and_lab_of_its_site(app: dash.Dash) -> None:
    links = linked(show_cell(app, "?concept=drums&arm=tf3&pair=1&seed=1")["links"])
    (of_features,) = (text for text in links if text.startswith("Features"))
    path, ranked = links[of_features]
    assert (of_features, path) == (
        "Features of tf3.cross_attn, ranked for the values of the pair",
        "/features",
    )
    assert (ranked["sae"], ranked["value"][:6], ranked["against"][:6]) == (
        "tf3.cross_attn",
        "drums=",
        "drums=",
    )
    path, probe = links["Probe of drums at tf3.cross_attn"]
    assert (path, probe["concept"], probe["site"]) == ("/probes", "drums", "tf3.cross_attn")
    assert probe["step"] in ["0", "2", "4", "6"]
    path, lab = links["Open in the lab"]
    base = LabRequest(prompt="-")
    request, _ = read_request(lab, base)
    (edit,) = request.edits
    assert isinstance(edit, PatchEdit)
    assert (path, edit.sites, edit.target, edit.steps) == ("/lab", ("tf3.cross_attn",), "conditioning", None)
    assert ("without drums" in edit.prompt, "with drums" in request.prompt, request.seed) == (True, True, 103)
    steps = linked(show_cell(app, "?result=steps&concept=drums&arm=tf3+steps+2–3")["links"])
    (edit,) = read_request(steps["Open in the lab"][1], base)[0].edits
    assert edit.steps == (2, 3)
    everywhere = linked(show_cell(app, "?concept=tempo&arm=all")["links"])
    assert not [text for text in everywhere if text.startswith("Features")]
    null = linked(show_cell(app, "?concept=drums&arm=tf1+null+random")["links"])
    assert "Open in the lab" not in null


def test_a_feature_leads_to_the_lab_at_steps_that_its_gate_leaves_open(study: Study) -> None:
    link = site_links.feature_in_lab(study, "tf3.cross_attn", 7, 3)
    assert link is not None
    path, _, query = link.href.partition("?")
    request, fault = read_request(read_query(query), LabRequest(prompt="-"))
    clip = study.clips.iloc[3]
    assert (path, fault, request.prompt, request.seed) == ("/lab", "", clip["prompt"], clip["seed"])
    (edit,) = request.edits
    assert isinstance(edit, FeatureEdit)
    assert (edit.sae, edit.feature, edit.sites) == ("tf3.cross_attn", 7, ("tf3.cross_attn",))
    assert (edit.strength, edit.mode) == (1.0, "post_activation")
    for closed, steps in (((2,), [4, 6]), ((0, 6), [2, 4]), ((), None), ((0, 2, 4, 6), None)):
        every = xr.Dataset(
            {"gated": ("step", [step in closed for step in (0, 2, 4, 6)])}, {"step": [0, 2, 4, 6]}
        )
        assert site_links._open_steps(every) == steps


def test_a_result_of_an_older_version_is_to_be_made_anew(
    study: Study, bare_study: Study, tmp_path: Path
) -> None:
    own = Study.open(shutil.copytree(bare_study.path, tmp_path / "study"))
    result = study.result("patching-blocks")
    for name in ("spec", "result_id", "provenance"):
        del result.attrs[name]
    own.save_result("patching", result.assign_attrs(schema_version=5), PatchingMapSpec(name="old"), 1.0)
    page = str(patching.layout(Context(own), {}))
    assert "patching.nc is of an older version of the workbench (schema version 5; this one reads 6)" in page
    assert f"workbench patch {own.path}" in page


def test_the_overview_names_the_questions_that_were_asked(study: Study, bare_study: Study) -> None:
    assert "Questions: blocks, steps." in str(overview.layout(Context(study), {}))
    assert "Questions:" not in str(overview.layout(Context(bare_study), {}))


def test_the_comparison_is_linked_where_there_is_something_to_compare_with(
    study: Study, other_study: Study
) -> None:
    assert "Comparison" in shown_pages(Context(study, compare=other_study.path))
    assert "Comparison" not in shown_pages(Context(study))


def test_without_another_study_the_comparison_names_its_command(study: Study, bare_study: Study) -> None:
    told = str(comparison.layout(Context(study), {}))
    assert f"workbench dashboard {study.path} --compare OTHER_STUDY --published TABLE.csv" in told
    assert "workbench patch " in str(comparison.layout(Context(bare_study), {}))


def test_a_browser_cannot_name_files(study: Study, other_study: Study) -> None:
    """What a figure is compared with is the server's own choice, by its name."""
    context = Context(study, compare=other_study.path)
    app = create_app(study.path, compare=other_study.path)
    data = callback(app, comparison, "show")("")[2]
    assert str(other_study.path) not in str(data)
    assert figure_options(data, context)["compare"] == str(other_study.path)
    forged = {"options": {"name": "blocks", "compare": "/etc", "published": "/etc/passwd"}}
    assert figure_options(forged, context) == {"name": "blocks"}


def test_a_click_on_a_compared_cell_gives_its_impact_in_both_maps(study: Study, other_study: Study) -> None:
    app = create_app(study.path, compare=other_study.path)
    select = callback(app, comparison, "select_cell")
    left, right = (select({"points": [{"x": x, "y": 3.5}]}, "") for x in (0.5, 5.0))
    assert left == right == "?concept=instrument&row=tf3"
    cell = str(callback(app, comparison, "show")(left)[-1])
    assert "0.680 [0.620, 0.730]" in cell
    assert "/patching?result=blocks&scorer=embedded&concept=instrument&arm=tf3" in cell
    assert callback(app, comparison, "show")("?concept=instrument&row=tf99")[-1] is None


def test_what_cannot_be_compared_is_a_sentence_on_the_page(study: Study, tmp_path: Any) -> None:
    table = tmp_path / "jazz.csv"
    table.write_text("model,concept,block,impact\nm,jazz,tf0,1\n", encoding="utf-8")
    app = create_app(study.path, published=table)
    _, style, export, notes, hidden, *_ = callback(app, comparison, "show")("")
    assert "Nothing can be compared" in str(notes)
    assert (style, export, hidden) == ({"display": "none"}, None, True)
    *_, notes, hidden, _, _, _ = callback(app, comparison, "show")("?result=steps")
    assert "question 'blocks'" in str(notes)


def test_a_study_with_patching_only_from_elsewhere_opens(tmp_path: Any) -> None:
    app = create_app(make_study(tmp_path, results=False).path)
    assert app.server.test_client().get("/patching").status_code == 200


def test_the_table_of_features_is_sent_in_pages(app: dash.Dash, study: Study) -> None:
    send = callback(app, feature_table, "send_rows")
    (table,) = [
        part
        for part in features.layout(Context(study), {})._traverse()
        if getattr(part, "id", "") == "features-grid"
    ]
    fields = {column["field"] for column in table.columnDefs}
    assert {column["field"] for column in table.columnDefs if column["hide"]} == {"difference", "share"}

    def rows(words: str = "", search: str = "", **asked: Any) -> tuple[list[dict[str, Any]], int, str]:
        answer, counted, _ = send({"startRow": 0, "endRow": 100, **asked}, "tf4.cross_attn", words, search)
        return answer["rowData"], answer["rowCount"], counted

    every, count, counted = rows()
    assert (count, counted) == (FEATURES, f"{FEATURES} features.")
    assert {frozenset(row) for row in every} == {frozenset(fields | {"id"})}
    best = [float(row["best_auroc"]) for row in every if row["alive"] == "alive"]
    assert best == sorted(best, reverse=True)
    assert [row["best_auroc"] for row in every[len(best) :]] == ["–"] * (FEATURES - len(best))
    assert rows(startRow=10, endRow=15)[0] == every[10:15]
    some, count, counted = rows(words="trumpet")
    assert [row["best_value"] for row in some] == ["instrument=trumpet"] * count
    assert counted == f"{count} of {FEATURES} features."
    dense = {"density": {"filterType": "text", "type": "contains", "filter": ">3%"}}
    some, count, _ = rows(filterModel=dense, sortModel=[{"colId": "density", "sort": "asc"}])
    shares = [float(row["density"].removesuffix("%")) for row in some]
    assert len(shares) == count > 1
    assert min(shares) > 3
    assert shares == sorted(shares)
    nothing = "Nothing passes the search: clear it to see features again."
    assert rows(words="nothing has this") == ([], 0, f"0 of {FEATURES} features. {nothing}")
    said = rows(search="?set=none", filterModel=dense)[2]
    assert "the set none and the filters below the columns' names: clear one" in said
    some, _, _ = rows(search="?value=mood=sad&against=mood=happy")
    shares = [float(row["share"].removesuffix("%").replace("−", "-")) for row in some]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.05 * FEATURES)


def test_a_ranking_without_the_autoencoders_weights_says_how_to_clear_it(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    shutil.rmtree(study.path / "sae" / "tf4.cross_attn")
    send = callback(create_app(study.path), feature_table, "send_rows")
    request = {"startRow": 0, "endRow": 9}
    answer, said, _ = send(request, "tf4.cross_attn", "", "?sae=tf4.cross_attn&value=mood=sad")
    assert answer == {"rowData": [], "rowCount": 0}
    assert said.endswith(feature_table.CLEAR_RANKING)
    assert send(request, "tf4.cross_attn", "", "?sae=tf4.cross_attn")[0]["rowCount"] == FEATURES


def test_what_features_cannot_be_ranked_or_filtered_by_has_no_effect_and_is_named(
    app: dash.Dash, study: Study
) -> None:
    send, name = callback(app, feature_table, "send_rows"), "tf4.cross_attn"

    def sent(search: str) -> list[str]:
        return [row["id"] for row in send({"startRow": 0, "endRow": 100}, name, "", search)[0]["rowData"]]

    def named(search: str) -> list[str]:
        query = read_query(search)
        return unknown_parts(features.choices(Context(study), query), query)

    some = sent("?area=-9,0,-9,9")
    assert 0 < len(some) < FEATURES
    assert sent("?area=-9,0,-9,9&value=none") == some
    assert sent("?value=mood=sad&against=tempo=slow") == sent("?value=mood=sad")
    for area in ("1,2", "1,2,3", "1,2,3,x", "nan,nan,nan,nan", ",".join(["1"] * 202)):
        search = f"?area={area}"
        assert sent(search) == sent("")
        assert any(
            "here: an area of the map is a box, four numbers" in sentence for sentence in named(search)
        )
    assert "Ranked" not in str(features.layout(Context(study), {"value": "none", "area": "1,2"}))
    assert len(named("?area=1,2&value=none")) == 2
    assert named("?area=-9,0,-9,9") == []


def test_numbers_are_written_alike_in_the_table_and_on_the_card(app: dash.Dash) -> None:
    name = "tf4.cross_attn"
    rows = callback(app, feature_table, "send_rows")({"startRow": 0, "endRow": 100}, name, "", "")[0][
        "rowData"
    ]
    for row in rows:
        card = callback(app, feature_card, "show_feature")(f"?sae={name}&feature={row['id']}", None)
        numbers, label, scores = str(card[2]), str(card[3]), str(card[6])
        assert all(f"'{row[field]}'" in numbers for field in ("density", "max_activation", "alive"))
        if row["best_value"]:
            assert f"AUROC {row['best_auroc']}" in label
            assert row["best_auroc"] in scores
            assert row["best_p"] in scores


def test_the_table_tells_where_it_has_the_selected_feature(app: dash.Dash) -> None:
    send, name = callback(app, feature_table, "send_rows"), "tf4.cross_attn"

    def place(words: str, search: str) -> dict[str, Any]:
        found: dict[str, Any] = send({"startRow": 0, "endRow": 9}, name, words, search)[2]
        return found

    asked = f"?sae={name}&feature=7"
    assert place("", asked) == callback(app, feature_table, "find_row")(asked, None, None)
    assert place("nothing has this", asked) == {"feature": "7", "row": None}
    assert place("", f"?sae={name}") == {"feature": None, "row": None}
    assert place("", "?sae=tf3.cross_attn&feature=7") == {"feature": None, "row": None}


def test_a_link_finds_its_row_in_the_table_as_it_is(app: dash.Dash) -> None:
    find = callback(app, feature_table, "find_row")
    search = "?sae=tf4.cross_attn&feature=7"
    at = find(search, None, None)["row"]
    by_feature = {
        "startRow": 0, "endRow": 9, "filterModel": {}, "sortModel": [{"colId": "feature", "sort": "desc"}]
    }  # fmt: skip
    answer, *_ = callback(app, feature_table, "send_rows")(
        {"startRow": at, "endRow": at + 1}, "tf4.cross_attn", "", ""
    )
    assert [row["id"] for row in answer["rowData"]] == ["7"]
    assert find(search, by_feature, "")["row"] == FEATURES - 8
    assert find(search, None, "nothing has this") == {"feature": "7", "row": None}
    assert find("?sae=tf4.cross_attn&feature=-1", None, None) == {"feature": None, "row": None}


def test_a_value_ranks_the_features_and_shows_what_they_carry(app: dash.Dash) -> None:
    follow, name = callback(app, feature_address, "follow_address"), "tf4.cross_attn"
    is_shown = (name, "table", "", None, None, "")
    ranked = "?sae=tf4.cross_attn&value=mood=sad&against=mood=happy"
    answer = follow(ranked, None, ranked, *is_shown)
    assert answer[:5] == (no_update, no_update, no_update, "mood=sad", "mood=happy")
    columns, said = answer[9], answer[12]
    assert "share" in {column["field"] for column in columns if not column["hide"]}
    assert "between all clips with mood=sad and all with mood=happy" in said
    is_ranked = (name, "table", "", "mood=sad", "mood=happy", said)
    assert follow(ranked, None, ranked, *is_ranked)[9] is no_update
    answer = follow("", None, "?set=late", *is_ranked)
    assert answer[2:5] == ("late", None, None)
    assert "share" in {column["field"] for column in answer[9] if column["hide"]}
    assert [column["headerName"] for column in answer[9]] == [column["headerName"] for column in columns]
    assert (bool(answer[7]), answer[8]) == (False, True)


def test_only_values_that_can_be_compared_are_offered(study: Study) -> None:
    offered = feature_ranking.offered_values(study, "tf4.cross_attn", {"value": "mood=sad"})
    assert offered["against"]
    assert set(offered["against"]) == {v for v in offered["value"] if v.startswith("mood=")} - {"mood=sad"}
    for against in offered["against"]:
        rows, _ = page_of_rows(study, View("tf4.cross_attn", value="mood=sad", against=against), 0, 5)
        assert len(rows) == 5
    assert feature_ranking.offered_values(study, "tf4.cross_attn", {})["against"] == []


def test_no_map_is_drawn_of_an_autoencoder_without_weights(
    app: dash.Dash, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(study: Study, name: str) -> None:
        raise UserError("No weights.")

    monkeypatch.setattr(feature_map, "places", none)
    _, style, said = callback(app, feature_map, "draw")("tf4.cross_attn", "map", "best_value", "")
    assert (style, said) == ({"display": "none"}, "No weights.")


def test_an_area_of_the_map_filters_the_table(app: dash.Dash, study: Study) -> None:
    figure, style, said = callback(app, feature_map, "draw")("tf4.cross_attn", "map", "best_value", "")
    assert style == {}
    points = sorted(
        (float(x), float(y), int(t))
        for trace in figure.data
        for x, y, t in zip(trace.x, trace.y, trace.text, strict=True)
    )
    assert len(points) == FEATURES
    assert "of the variance" in said
    x = points[FEATURES // 2][0] + 1e-4
    left = {str(feature) for place, _, feature in points if place <= x}
    send = callback(app, feature_table, "send_rows")
    asked = {"startRow": 0, "endRow": 100}
    for area in (f"-9,{x},-9,9", f"-9,-9,-9,9,{x},9,{x},-9"):
        answer, *_ = send(asked, "tf4.cross_attn", "", f"?area={area}")
        assert {row["id"] for row in answer["rowData"]} == left
    triangle = send(asked, "tf4.cross_attn", "", f"?area=-9,-9,{x},-9,-9,-8")[0]["rowData"]
    assert triangle == []
    click = {"points": [{"x": points[0][0], "y": points[0][1], "curveNumber": 0}]}
    search, _ = callback(app, feature_map, "select_point")(click, "?view=map", "tf4.cross_attn")
    chosen = read_query(search)
    assert chosen["sae"] == "tf4.cross_attn"
    assert_close([point[:2] for point in points if str(point[2]) == chosen["feature"]], [points[0][:2]])
    said = feature_map.area_said(study, "tf4.cross_attn", {"area": f"-9,{x},-9,9"})
    assert said == f"{len(left)} features in an area of the map"
    figure, *_ = callback(app, feature_map, "draw")("tf4.cross_attn", "map", "density", search)
    ring = figure.data[-1]
    assert (ring.name, ring.meta) == (f"feature {chosen['feature']}", "start")
    assert_close([ring.x[0], ring.y[0]], points[0][:2])


def test_the_page_explains_dead_features_as_the_caption_does(app: dash.Dash, study: Study) -> None:
    shown = str(callback(app, feature_training, "show_training")("tf4.cross_attn", "training")[1])
    assert shown.count(sae_training.DEAD) >= 2, "as text and on hover"
    assert "alive in all clips fired on at least one token of any clip" in shown
    assert f"{sae_training.DEAD}." in sae_training.write_caption(
        sae_training.training_frame(load_result(study, "sae-tf4.cross_attn")), "tf4.cross_attn"
    )
    assert f"no token of the last {DEAD_AFTER} training steps" in sae_training.DEAD
    assert "The mean of the inputs has 1.25 times the norm of the spread about it." in shown
    text = (Path(__file__).parents[2] / "docs" / "reference" / "results.md").read_text()
    row = "`dead_fraction` | train_step | fraction of the features that fired on no token of the last"
    assert f"{row} {DEAD_AFTER} training steps" in text


def test_the_table_of_pairs_has_what_changes_and_the_prompts(app: dash.Dash) -> None:
    rows = callback(app, patching_cell, "show_cell")("?concept=tempo&arm=tf3", None)[6]
    assert rows
    for row in rows:
        assert row["values"] == f"{row['clean_value']} → {row['corrupt_value']}"
        words = row["prompts"].replace("[", "").replace("]", "")
        assert words == f"clean: {row['clean_prompt']}; corrupt: {row['corrupt_prompt']}"
        assert f"[{row['clean_value']}]" in row["prompts"]
        assert f"[{row['corrupt_value']}]" in row["prompts"]
        assert row["noise_seed"].isdigit()


def test_the_number_of_a_clip_is_its_score_or_its_descriptor() -> None:
    row = pd.Series({"text": "fast"})
    assert patching_clips._number(row, "clap") == "the score: how well the clip matches “fast”"
    assert patching_clips._number(row, "onset_rate") == "the clip's onset_rate in onsets per second"
    assert patching_clips._number(row, "flatness") == "the clip's flatness"


def test_a_clip_that_plays_is_left_alone(app: dash.Dash) -> None:
    """Only another clip has another player, whatever else follows the URL."""
    show = callback(app, overview, "show_clip")
    selected, player, shown = show("?clip=3", None)
    assert (selected, shown) == ({"ids": ["3"]}, "3")
    assert "/audio/clips/00003.flac" in str(player)
    assert show("?clip=3&find=drums", "3") == (no_update, no_update, no_update)
    assert show("", "3")[::2] == ({"ids": []}, None)


@pytest.mark.parametrize("page", [patching, probes, overview, features], ids=lambda page: page.__name__)
def test_no_two_parts_of_a_page_have_the_same_id(study: Study, page: ModuleType) -> None:
    layout = page.layout(Context(study), {})
    ids = [str(part.id) for part in layout._traverse() if getattr(part, "id", None)]
    assert len(ids) == len(set(ids)) > 3


def test_a_dead_feature_says_so_in_place_of_empty_parts(app: dash.Dash, study: Study) -> None:
    name = "tf4.cross_attn"
    result = load_result(study, f"sae-{name}")
    dead, alive = (
        int(result["feature"].values[result["alive"].values == is_alive][0]) for is_alive in (False, True)
    )
    search = f"?sae={name}&feature={dead}"
    card = callback(app, feature_card, "show_feature")(search, None)
    assert feature_card.DEAD in str(card[3])
    assert (card[6], card[7], card[9]) == (None, None, feature_card.NOT_SHOWN)
    _, style, *others = callback(app, feature_card, "show_statistics")(search)
    assert (style, others) == (feature_card.NOT_SHOWN, [None] * 3)
    _, style, export, effects, _ = callback(app, feature_card, "show_statistics")(
        f"?sae={name}&feature={alive}"
    )
    assert (style, bool(export)) == ({}, True)
    assert "workbench sae effects" in str(effects)
    assert "No scores" in str(feature_card._scores(scores_frame(result, dead)))


@pytest.mark.parametrize("is_ranked", [False, True])
def test_numbers_of_the_features_are_not_cut(study: Study, is_ranked: bool) -> None:
    longest = {
        "density": 1.0,
        "max_activation": 2.345e-5,
        "best_auroc": 0.5,
        "best_p": 0.00012,
        "difference": -2.345e-5,
        "share": -0.1234,
    }
    columns = feature_table.columns(study, "tf3.cross_attn", is_ranked)
    widths = {column["field"]: column["width"] for column in columns if column.get("type") == "rightAligned"}
    needed = {
        field: feature_table.MARGIN + feature_table.CHARACTER * len(write(longest[field]))
        for field, write in feature_table.WRITTEN.items()
    }
    assert {field: width for field, width in widths.items() if width < needed[field]} == {}
    assert set(widths) == set(needed)
