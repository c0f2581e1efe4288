"""What the page on evaluations answers when something is chosen or clicked, without a browser."""

import json
import shutil
from pathlib import Path
from typing import Any

import dash
import pytest
from dash import no_update

from dashboards.app import create_app
from dashboards.components import selects
from dashboards.context import Context
from dashboards.links import read_query
from dashboards.pages import evaluation, evaluation_clips, evaluation_view, overview
from dashboards.pages.page import Query
from dashboards.result_commands import command
from dashboards.result_shapes import shape_fault
from dashboards.results import benchmark_names, steering_names, trial_name
from tests.dashboards.synthetic_benchmark import ORDER, SPEC, WARNING, benchmark
from tests.dashboards.synthetic_steering import VECTOR
from tests.dashboards.test_pages import callback, shown_pages
from workbench.studies.study import Study

DRAWN = ("curves", "curves_data", "heard", "ranking", "ranking_data", "leakage", "leakage_data")
SHOWN = ("strict", "published", "warnings", "facts", "rows", "selected", "areas")
TRIAL = "benchmark-strict-tempo-towards-report"


def drawn(app: dash.Dash, search: str) -> dict[str, Any]:
    return dict(zip(DRAWN, callback(app, evaluation, "draw")(search), strict=True))


def shown(app: dash.Dash, search: str) -> dict[str, Any]:
    return dict(zip(SHOWN, callback(app, evaluation, "show")(search), strict=True))


@pytest.fixture(scope="module")
def evaluated(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with the trial of its evaluation, and another evaluation with the published protocol."""
    made = Study.open(shutil.copytree(study.path, tmp_path_factory.mktemp("evaluated") / "study"))
    own = ("spec", "result_id", "provenance")
    trial = made.result("steering-tempo")
    trial.attrs = {name: value for name, value in trial.attrs.items() if name not in own}
    made.save_result(f"steering-{TRIAL}", trial, SPEC, 1.0)
    trials = {made.result_attributes(f"steering-{TRIAL}")["result_id"]: "tempo-towards-report"}
    made.save_result("benchmark-strict", benchmark(), SPEC.model_copy(update={"trials": trials}), 1.0)
    areas = benchmark().drop_dims(["arm", "judged"])
    areas = areas[[name for name in areas.data_vars if str(name).startswith("published_")]]
    published = SPEC.model_copy(update={"protocol": "published"})
    made.save_result(
        "benchmark-published", areas.assign_attrs(protocol="published", warnings=""), published, 1.0
    )
    return made


@pytest.fixture(scope="module")
def dashboard(evaluated: Study) -> dash.Dash:
    return create_app(evaluated.path)


def test_the_address_says_what_is_shown(evaluated: Study) -> None:
    assert benchmark_names(evaluated) == ["published", "strict"]
    asked = {"result": "strict", "concept": "tempo", "direction": "away", "scorer": "deaf", "measure": "stft"}
    assert evaluation.view(evaluated, asked) == asked | {"method": "all"}
    nonsense = evaluation.view(evaluated, {**dict.fromkeys(asked, "nonsense"), "result": "strict"})
    assert nonsense == {
        "result": "strict", "concept": "mood", "direction": "towards", "scorer": "embedded", "measure": "mel",
        "method": "all",
    }  # fmt: skip


def test_the_figures_follow_the_address(dashboard: dash.Dash) -> None:
    found = drawn(
        dashboard, "?result=strict&concept=tempo&direction=away&measure=stft&method=pci&scorer=deaf"
    )
    common = {"width": "double", "name": "strict", "scorer": "deaf", "measure": "stft"}
    assert found["curves_data"] == {
        "figure": "alignment-preservation",
        "options": {**common, "concept": "tempo", "method": "pci", "across": "distance"},
    }
    assert found["ranking_data"]["options"] == {**common, "concept": "tempo"}
    assert found["leakage_data"]["options"] == {**common, "direction": "away", "method": "pci"}
    every = drawn(dashboard, "?result=strict&concept=all")
    assert every["ranking_data"]["options"]["concept"] == ""
    assert every["curves_data"]["options"]["concept"] == "mood"
    assert list(every["ranking"].layout.yaxis.ticktext) == ORDER


def test_the_table_is_in_the_order_of_the_ranking(dashboard: dash.Dash) -> None:
    found = shown(dashboard, "?result=strict&concept=tempo&direction=away")
    assert (found["strict"], found["published"], found["areas"]) == (False, True, [])
    assert [row["way"] for row in found["rows"]] == ORDER
    assert [row["rank"] for row in found["rows"]] == [1.0, 2.0, None]
    assert all(row["strength"] < 0 for row in found["rows"])
    assert len(shown(dashboard, "?result=strict&concept=all")["rows"]) == 2 * len(ORDER)
    assert shown(dashboard, "?result=strict&scorer=deaf")["rows"][0]["ratio_at"] is None


def test_warnings_stand_on_top_where_they_concern_what_is_shown(dashboard: dash.Dash) -> None:
    assert WARNING in str(shown(dashboard, "?result=strict&concept=tempo")["warnings"])
    assert shown(dashboard, "?result=strict&concept=mood")["warnings"] is None
    told = str(shown(dashboard, "?result=strict&concept=mood&scorer=deaf")["warnings"])
    assert "No numbers by deaf of mood, towards; mood, away" in told
    facts = str(shown(dashboard, "?result=strict&concept=mood")["facts"])
    assert "Judge embedded, distance mel" in facts and "Positive control, mood" in facts


def test_the_published_protocol_shows_its_areas(dashboard: dash.Dash) -> None:
    found = shown(dashboard, "?result=published&concept=tempo")
    assert (found["strict"], found["published"], found["rows"]) == (True, False, [])
    assert [row["way"] for row in found["areas"]] == list(benchmark()["way"].values)
    assert "without intervals" in str(found["facts"])
    with pytest.raises(dash.exceptions.PreventUpdate):
        drawn(dashboard, "?result=published")


def test_a_click_leads_to_the_clips_of_its_trial(evaluated: Study, dashboard: dash.Dash) -> None:
    select = callback(dashboard, evaluation, "select_point")
    arm = "caa (all) × 2"
    click = {"points": [{"customdata": [arm, "towards", "", ""]}]}
    found = read_query(select(click, "?result=strict&concept=tempo&direction=away"))
    assert found == {"result": "strict", "concept": "tempo", "direction": "towards", "arm": arm}
    assert select({"points": [{"customdata": [None, None, "", ""]}]}, "") is no_update
    assert select(None, "") is no_update
    heard = drawn(dashboard, f"?result=strict&concept=tempo&arm={arm}")["heard"]
    (link,) = [part for part in heard.children if getattr(part, "href", None)]
    path, _, query = link.href.partition("?")
    assert path == "/steering"
    assert read_query(query) == {
        "result": TRIAL, "scorer": "embedded", "shown": "tempo", "arm": arm, "strength": "2",
    }  # fmt: skip
    gone = drawn(dashboard, f"?result=strict&concept=mood&arm={arm}")["heard"]
    assert f"{arm}: The study does not have the trial of its clips any more." in str(gone)
    file = evaluated.path / "results" / f"steering-{TRIAL.replace('tempo', 'mood')}.nc"
    file.write_bytes(b"nonsense")
    damaged = str(drawn(dashboard, f"?result=strict&concept=mood&arm={arm}")["heard"])
    file.unlink()
    assert f"{file.name} is damaged" in damaged
    assert f"workbench steer evaluate {evaluated.path}" in damaged
    assert "any more" not in damaged
    assert drawn(dashboard, "?result=strict&arm=other")["heard"] is None
    assert trial_name(evaluated, evaluated.result("benchmark-strict"), "tempo", "away") == ""
    assert steering_names(evaluated) == ["tempo", TRIAL], "trials of evaluations stand last"


def test_the_clips_of_a_point_are_heard(evaluated: Study) -> None:
    def heard(_: Study, query: Query) -> tuple[str, str, str, str] | None:
        return (TRIAL, f"{VECTOR} × 2", "tempo", "embedded") if "arm" in query else None

    app = dash.Dash()
    evaluation_clips.register(app, evaluated, heard)
    found = json.loads(callback(app, evaluation_clips, "show_clips")("?arm=a&pair=1&seed=0"))
    assert [side["name"] for side in found["sides"]] == ["× −1", "unsteered", "× 1", "× 2", "real"]
    assert found["heard"] == "× 2"
    assert callback(app, evaluation_clips, "show_clips")("") == "{}"
    show, choose = (callback(app, selects, name) for name in ("show_selects", "choose"))
    select, is_hidden, shown, _ = show("?arm=a&pair=1&seed=0", None, None)
    assert (len(select.data), select.value, is_hidden, shown) == (6, "1-0", False, "1-0")
    assert show("?arm=a", None, None)[2] == "0-0"
    assert show("", None, None)[1:3] == (True, None)
    search, _ = choose("2-0", "0-0", "?arm=a")
    assert read_query(search) == {"arm": "a", "pair": "2", "seed": "0"}


def test_the_page_opens_on_a_judge_that_hears() -> None:
    result = benchmark()
    assert evaluation_view._hearing(result) == "embedded"
    assert evaluation_view._hearing(result.isel(scorer=slice(None, None, -1))) == "embedded"
    assert [str(name) for name in result["scorer"].values] == ["embedded", "deaf"]


def test_choosing_changes_the_address(dashboard: dash.Dash, evaluated: Study) -> None:
    row = callback(dashboard, evaluation, "select_row")
    assert read_query(row([{"way": "pci (others)"}], "?result=strict"))["method"] == "pci"
    assert row({"ids": []}, "") is no_update
    controls = evaluation._selects(evaluated, {"result": "strict", "concept": "all"})
    assert [controls[name].value for name in ("result", "concept")] == ["strict", "all"]
    assert tuple(controls) == evaluation.SELECTS.fields
    assert {"concept", "method", "arm", "pair", "seed"} < set(evaluation.SELECTS.clears["result"])


def test_an_older_evaluation_is_not_passed_over(study: Study, tmp_path: Path) -> None:
    own = Study.open(shutil.copytree(study.path, tmp_path / "study"))
    own.save_result("benchmark-strict", benchmark().assign_attrs(schema_version=1), SPEC, 1.0)
    told = str(evaluation.layout(Context(own), {}))
    assert "benchmark-strict.nc is of an older version of the workbench" in told
    assert f"workbench steer evaluate {own.path}" in told
    assert "No evaluation yet" not in told


def test_a_trial_made_before_steering_away_was_judged_is_told_as_old(study: Study) -> None:
    """Its real prompts lower the score, which was taken for a failure of the judge."""
    away = study.result("steering-tempo").copy()
    away.attrs["spec"] = json.dumps({"steered": "positive"})
    assert shape_fault(away, "steering", 1) == ""
    ends = dict.fromkeys(("denominator", "denominator_hi"), -0.5 + 0 * away["denominator"])
    fallen = away.assign(ends)
    assert "an older version" in shape_fault(fallen, "steering", 1)
    assert shape_fault(fallen.assign(defined=away["defined"] | True), "steering", 1) == ""
    fallen.attrs["spec"] = "{}"
    assert shape_fault(fallen, "steering", 1) == ""


def test_the_page_is_linked_where_there_is_an_evaluation(study: Study, bare_study: Study) -> None:
    assert "Evaluation" in shown_pages(Context(study))
    assert "Evaluation" not in shown_pages(Context(bare_study))
    text = str(evaluation.PAGE.layout(Context(bare_study), {}))
    assert f"workbench steer evaluate {bare_study.path}" in text


@pytest.mark.parametrize(
    ("kind", "name", "ending"),
    [
        ("benchmark", "strict", ""),
        ("benchmark", "published", " --protocol published"),
        ("benchmark", "mine", " --name mine"),
        ("steering", TRIAL, ""),
    ],
)
def test_the_command_that_makes_an_evaluation_is_named(
    study: Study, kind: str, name: str, ending: str
) -> None:
    assert command(study, kind, name) == f"workbench steer evaluate {study.path}{ending}"


def test_the_overview_has_a_card(evaluated: Study, bare_study: Study) -> None:
    assert "Results: published, strict." in str(overview.layout(Context(evaluated), {}))
    assert f"workbench steer evaluate {bare_study.path}" in str(overview.layout(Context(bare_study), {}))
