"""What the page on steering answers when something is chosen or clicked, without a browser."""

import json
import shutil
from pathlib import Path
from typing import Any

import dash
import pytest
from dash import no_update

from dashboards.components.selects import Choice
from dashboards.context import Context
from dashboards.links import read_query
from dashboards.pages import (
    overview,
    steering,
    steering_arm,
    steering_sliders,
    steering_vectors,
    steering_words,
)
from tests.dashboards.synthetic_steering import PACK, PATCH, SITE, VECTOR, slider
from tests.dashboards.test_pages import callback, shown_pages
from workbench.studies.study import Study

DRAWN = (
    "dose",
    "dose_data",
    "legend",
    "facts",
    "ladder",
    "ladder_data",
    "map",
    "map_data",
)
SHOWN = ("hidden", "hint", "numbers", "rows", "selected", "players")


def drawn(app: dash.Dash, search: str) -> dict[str, Any]:
    return dict(zip(DRAWN, callback(app, steering, "draw")(search), strict=True))


def shown(app: dash.Dash, search: str) -> dict[str, Any]:
    return dict(zip(SHOWN, callback(app, steering_arm, "show_arm")(search, None), strict=True))


def test_the_address_says_what_is_shown(study: Study) -> None:
    asked = {"result": "tempo", "scorer": "clap", "shown": "mood"}
    spec = steering.view(study, asked)
    assert (spec.name, spec.scorer, spec.concept) == ("tempo", "clap", "mood")
    assert steering.view(study, dict.fromkeys(asked, "nonsense")) == steering.view(study, {})


def test_the_words_in_names_are_explained() -> None:
    found = steering_words.words(
        ["caa (localised)", "pci (others)", "caa (localised)"], "benchmark-strict-mood-away-report"
    )
    assert found is not None
    told = [part for part in found.children if not isinstance(part, str)]
    assert [part.children for part in told] == ["report", "localised", "others"]
    meanings = steering_words.TRIALS | steering_words.PLACES
    assert all(getattr(part, "data-tip") == meanings[part.children] for part in told)
    assert steering_words.words(["vector", "output patch"], "my-report") is None


def test_the_figures_follow_the_address(app: dash.Dash) -> None:
    page = drawn(app, "?shown=mood&strength=1&scorer=clap")
    assert page["dose_data"]["options"]["concept"] == "mood"
    assert page["ladder_data"]["options"] == {
        "width": "double",
        "name": "tempo",
        "scorer": "clap",
        "strength": 1.0,
    }
    assert page["map_data"]["figure"] == "steering-effects"
    assert drawn(app, "")["ladder_data"]["options"]["strength"] is None
    assert list(drawn(app, "?strength=1")["ladder"].layout.yaxis.ticktext) == [
        f"{PATCH} × 1",
        f"{VECTOR} × 1",
    ]


def test_the_page_says_what_the_figures_rest_on(app: dash.Dash) -> None:
    told = str(drawn(app, "")["facts"])
    for words in (
        "Steers tempo from slow to fast: 6 pairs × 1 seed (n = 6).",
        "embedded clearly tells the real prompts apart",
        "Sign check of 2 ways of steering: 2 the right way.",
    ):
        assert words in told
    told = str(drawn(app, "?scorer=clap")["facts"])
    for words in (
        "Not interpretable",
        f"Steers backwards: {VECTOR}.",
        f"Sign check of 2 ways of steering: backwards: {VECTOR} (from −1 to 1); 1 not clear.",
    ):
        assert words in told


def test_the_page_tells_no_sign_of_too_few_pairs(study: Study) -> None:
    told = str(steering.facts(study.result("steering-tempo").isel(pair=slice(2))))
    assert "Sign check of 2 ways of steering: 2 too few pairs to tell." in told
    assert "the right way" not in told


def test_the_legend_has_what_the_figure_has(app: dash.Dash) -> None:
    assert "not significant" in str(drawn(app, "")["legend"])


def test_a_click_on_a_point_selects_its_arm(app: dash.Dash) -> None:
    select = callback(app, steering, "select")
    click = {"points": [{"x": 1.0, "y": 0.3, "curveNumber": 4, "customdata": [f"{VECTOR} × 1", "", ""]}]}
    expected = {"shown": "mood", "arm": f"{VECTOR} × 1"}
    assert read_query(select(click, None, None, "?shown=mood")) == expected
    assert read_query(select(None, click, None, "?shown=mood&arm=x")) == expected
    assert select(None, None, None, "") is no_update
    for unsteered in ({"x": 0.0, "y": 0.0}, {"x": 0.0, "y": 0.0, "customdata": [3, {}]}):
        assert select({"points": [unsteered]}, None, None, "") is no_update


def test_a_click_on_the_map_selects_concept_and_arm(app: dash.Dash) -> None:
    select = callback(app, steering, "select")
    on_cell = {"points": [{"x": 2.5, "y": 2.5}]}
    cell = {"shown": "mood", "arm": f"{VECTOR} × 2"}
    assert read_query(select(None, None, on_cell, "")) == cell
    real = {"points": [{"x": 3.5, "y": 0.5}]}
    assert read_query(select(None, None, real, "?arm=x")) == {"shown": "drums"}, "the real prompt"
    assert select(None, None, {"points": [{"x": 9.0, "y": 0.5}]}, "") is no_update


def test_the_last_click_counts(app: dash.Dash) -> None:
    """The clicks before stay in their graphs: a callback that took them out could take out the next one."""
    select = callback(app, steering, "select")
    on_cell, on_point = (
        {"points": [{"x": 2.5, "y": 2.5, "customdata": ["an arm"]}], "timestamp": time} for time in (9, 10)
    )
    assert read_query(select(on_point, None, on_cell, "")) == {"arm": "an arm"}
    on_cell["timestamp"] = 11
    assert read_query(select(on_point, None, on_cell, ""))["shown"] == "mood"


def test_the_controls_follow_the_address(study: Study) -> None:
    controls = steering._choices(study, {"shown": "mood", "strength": "-1"})
    assert [choice.value for choice in controls.values()] == ["tempo", "embedded", "mood", "-1"]
    assert {"value": "tempo", "label": "tempo (steered)"} in controls["shown"].data
    assert set(steering.SELECTS.clears["result"]) == {"scorer", "shown", "strength", "arm", "pair", "seed"}


def test_an_arm_has_its_numbers_prompts_and_clips(app: dash.Dash) -> None:
    arm = shown(app, f"?arm={VECTOR}+×+2&pair=1&seed=0")
    assert not arm["hidden"]
    for words in ("0.450 [0.410, 0.490]", "[−0.05, 0.07]", "0.02, 0.03", "clear"):
        assert words in str(arm["numbers"])
    assert arm["selected"] == {"ids": ["1-0"]}
    assert [row["id"] for row in arm["rows"]] == [f"{pair}-0" for pair in range(6)]
    players = json.loads(arm["players"])
    names = ["× −1", "unsteered", "× 1", "× 2", "real"]
    assert [side["name"] for side in players["sides"]] == names
    assert [side["strength"] for side in players["sides"]] == [-1.0, 0.0, 1.0, 2.0, None]
    assert players["heard"] == "× 2", "the point that was clicked"
    leak = shown(app, f"?arm={VECTOR}+×+2&shown=mood")
    assert "change in mood" in str(leak["numbers"])
    assert "−0.120" in str(leak["numbers"])


@pytest.mark.parametrize("search", ["", "?arm=clean", "?arm=nonsense", "?arm=random+1+(like+vector)+×+1"])
def test_without_a_known_arm_there_is_a_hint(app: dash.Dash, search: str) -> None:
    arm = shown(app, search)
    assert (arm["hidden"], arm["hint"], arm["rows"]) == (True, False, [])


def test_a_row_selects_its_prompt(app: dash.Dash) -> None:
    select = callback(app, steering_arm, "select_run")
    rows = [{"id": "0-0", "pair": 0, "seed": 0}, {"id": "1-0", "pair": 1, "seed": 0}]
    assert read_query(select([rows[1]], rows, "?arm=a")) == {"arm": "a", "pair": "1", "seed": "0"}
    assert select([rows[0]], rows, "?arm=a") is no_update, "it is shown"
    assert select({"ids": ["1-0"]}, rows, "") is no_update, "a callback set it"


def test_a_vector_has_its_reliability_and_facts(app: dash.Dash, study: Study) -> None:
    show = callback(app, steering_vectors, "show_vector")
    hidden, selected, picture, facts, link, data = show("", None)
    assert "tempo at tf3 on the patching map" in str(link)
    assert "/patching?concept=tempo&arm=tf3" in str(link)
    assert (hidden, selected) == (False, {"ids": [PACK]})
    assert steering_vectors._sites(study, {})["site"] == Choice("site", [SITE], SITE)
    assert len(picture.data) == 4
    assert "5 pairs" in str(facts)
    assert "+ raises the judge's score (change of the score from strength −1 to 1: +0.4 [+0.3, +0.5]" in str(
        facts
    )
    assert data["options"]["pack"] == PACK
    select = callback(app, steering_vectors, "select_vector")
    assert select([{"id": PACK}], "") is no_update
    assert read_query(select([{"id": "other"}], "?site=x&arm=a")) == {"pack": "other", "arm": "a"}


def test_the_table_of_vectors_says_what_the_judge_says(study: Study) -> None:
    shown = str(steering_vectors.layout(study))
    assert "'field': 'judge'" in shown
    assert '"judge": "+ raises the judge\'s score"'.replace('"judge"', "'judge'") in shown


def test_sliders_are_listed(study: Study, bare_study: Study, tmp_path: Path) -> None:
    assert steering_sliders.layout(study) is None
    shutil.copytree(bare_study.path, tmp_path / "study")
    own = Study.open(tmp_path / "study")
    slider().save(own.path / "sliders" / "mine.safetensors")
    shown = str(steering_sliders.layout(own))
    for text in ("mine", "tempo", "fast", "slow", SITE, "steps trained", "'40'"):
        assert text in shown
    assert "Steering" in shown_pages(Context(own))
    assert "Concept sliders" in str(steering.layout(Context(own), {}))


def test_the_page_is_linked_where_there_is_something_to_show(study: Study, bare_study: Study) -> None:
    assert "Steering" in shown_pages(Context(study))
    assert "Steering" not in shown_pages(Context(bare_study))


def test_the_overview_names_the_steering_results(study: Study, bare_study: Study) -> None:
    assert "Results: tempo." in str(overview.layout(Context(study), {}))
    assert overview._some(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert overview._some(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"
    told = str(overview.layout(Context(bare_study), {}))
    assert f"workbench steer fit {bare_study.path} --concept instrument" in told
    assert f"workbench steer apply {bare_study.path} --pack instrument" in told
