"""Labels, notes, stars and sets as the page of features writes them."""

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dash
import pytest
from dash import no_update
from dash.exceptions import PreventUpdate
from pydantic import BaseModel

from analyses.sae.names import load_sae
from dashboards.app import create_app
from dashboards.feature_browser import STARRED, View, page_of_rows
from dashboards.figures.feature import FeatureSpec
from dashboards.pages import feature_card, feature_effects, feature_notes, feature_sets, feature_table
from dashboards.pages.feature_notes import OTHER_WEIGHTS
from dashboards.results import load_result, sae_names
from dashboards.tables.features import neighbours_frame
from tests.dashboards.synthetic_study import make_study
from tests.dashboards.tables.test_features import effects
from tests.dashboards.test_pages import callback
from workbench.sae.identity import weights_hash
from workbench.sae.stored import WEIGHTS_FILE
from workbench.studies.feature_notes import (
    Noted,
    change_set,
    read_all,
    read_set,
    weights_of,
    write,
    write_all,
)
from workbench.studies.study import Study

SAE = "tf4.cross_attn"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def own_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("noted"))


@pytest.fixture
def study(own_study: Study) -> Study:
    (own_study.path / "notes.sqlite").unlink(missing_ok=True)
    return own_study


@pytest.fixture
def app(study: Study) -> dash.Dash:
    return create_app(study.path)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The sets that the selector above the table is given, each time; there is no browser to give them to."""
    given: list[list[str]] = []

    def set_props(id: str, props: dict[str, Any]) -> None:
        assert id == "feature-set"
        given.append([choice["value"] for choice in props["data"] if choice["value"] not in ("", STARRED)])

    monkeypatch.setattr(feature_notes, "set_props", set_props)
    return given


def triggered(monkeypatch: pytest.MonkeyPatch, kind: str, of: str) -> None:
    context = SimpleNamespace(triggered_id={"kind": kind, "of": of}, triggered=[{"prop_id": "x"}])
    monkeypatch.setattr(feature_notes, "ctx", context)


def refused(shown: Any) -> str:
    """The sentence of a refusal, which looks unlike "Note saved." and is read out at once."""
    assert (shown.role, shown.className) == ("alert", "refusal")
    return str(shown.children[1])


def test_a_note_is_written_and_what_another_tab_wrote_stays(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = callback(app, feature_notes, "save_note")
    triggered(monkeypatch, "note", f"{SAE}/5")
    weights = weights_of(study.path, SAE)
    unread = {"revision": 0, "value": "", "weights": weights}
    said, read, note, _ = save("first", unread)
    assert (said, note) == ("Note saved.", no_update)
    assert read == {"revision": 1, "value": "first", "weights": weights, "card": "", "saved": 1}
    said, read, note, earlier = save(HOSTILE, unread)
    assert "both are kept" in said
    assert note.startswith(HOSTILE)
    assert note.endswith("first")
    assert "first" in str(earlier)
    assert save(note, read) == (no_update, read, no_update, no_update)
    assert refused(save("x" * 20_000, read)[0]).startswith("Not saved: A note has at most 10,000")
    assert read_all(study.path, SAE) == {5: {"note": note}}


@pytest.mark.parametrize("field", ["label", "note"])
def test_what_a_card_wrote_itself_is_not_taken_for_that_of_another(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """It may write again before it has been answered, as on a slow connection."""
    save = callback(app, feature_notes, f"save_{field}")
    triggered(monkeypatch, field, f"{SAE}/5")
    unread = {"revision": 0, "value": "", "weights": weights_of(study.path, SAE), "card": "one"}
    save("mine", unread)
    said, read, shown, _ = save("mine, again", unread)
    assert (said, shown) == (f"{field.capitalize()} saved.", no_update)
    assert read["revision"] == 2
    assert "omebody else had" in save("theirs", {**unread, "card": "another"})[0]
    assert "omebody else had" in save("mine, once more", unread)[0]


def test_each_field_has_a_message_of_its_own(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused stays until that field is saved, whatever else is saved meanwhile."""
    said: set[str] = set()
    for field, callback_name in (
        ("label", "save_label"),
        ("note", "save_note"),
        ("star", "save_star"),
        ("sets", "save_sets"),
    ):
        names = [name for name in app.callback_map if f'"kind":"said-{field}"' in name]
        written_by = [app.callback_map[name]["callback"].__wrapped__.__name__ for name in names]
        assert written_by == [callback_name]
        said.add(*names)
    assert len(said) == 4
    triggered(monkeypatch, "star", f"{SAE}/5")
    assert callback(app, feature_notes, "save_star")(True, None)[0] == "Star saved."
    assert read_all(study.path, SAE) == {5: {"star": "1"}}
    triggered(monkeypatch, "label", f"{SAE}/5")
    answer = callback(app, feature_notes, "save_label")("x" * 300, None)
    assert refused(answer[0]).startswith("Not saved: A label has at most 200")
    assert answer[1] is no_update


def test_nothing_is_written_about_the_features_of_other_weights_than_the_page_shows(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {"value": "", "weights": "those before"}
    for kind, value in (("label", "mine"), ("note", "mine"), ("star", True), ("sets", ["mine"])):
        triggered(monkeypatch, kind, f"{SAE}/5")
        assert refused(callback(app, feature_notes, f"save_{kind}")(value, read)[0]) == OTHER_WEIGHTS
    assert not (study.path / "notes.sqlite").exists()


def test_a_result_that_appears_leaves_what_is_being_written_or_plays(app: dash.Dash, study: Study) -> None:
    show = callback(app, feature_card, "show_feature")
    search = f"?sae={SAE}&feature=5"
    *_, notes, of, _, _, _, _ = show(search, None)
    assert "note" in str(notes)
    *_, notes, _, _, clips, samples, _ = show(search, of)
    assert [notes, clips, samples] == [no_update] * 3
    *_, notes, _, _, clips, _, _ = show(f"?sae={SAE}&feature=6", of)
    assert no_update not in (notes, clips)


@pytest.mark.parametrize("of", [f"{SAE}/48", f"{SAE}/-1", "nothing/5", "", f"{SAE}/5x"])
def test_nothing_is_written_about_a_feature_that_there_is_not(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    triggered(monkeypatch, "note", of)
    with pytest.raises(PreventUpdate):
        callback(app, feature_notes, "save_note")("note", None)
    assert not (study.path / "notes.sqlite").exists()


def test_sets_are_changed_by_their_names(
    app: dash.Dash, study: Study, offered: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = callback(app, feature_notes, "save_sets")
    triggered(monkeypatch, "sets", f"{SAE}/5")
    read = {"value": ["late", "loud"], "weights": weights_of(study.path, SAE)}
    assert save(["loud", "late"], None) == ("Sets saved.", {**read, "saved": 1}, no_update)
    assert save(["loud", "late"], read) == (no_update, read, no_update)
    assert save(["late"], read) == ("Sets saved.", {**read, "value": ["late"], "saved": 1}, no_update)
    assert offered == [["late", "loud"], ["late"]]
    assert (read_set(study.path, "loud", SAE), read_set(study.path, "late", SAE)) == ([], [5])
    assert refused(save(["late", "x" * 101], None)[0]).startswith("Not saved")


def test_sets_that_another_tab_added_stay(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = callback(app, feature_notes, "save_sets")
    triggered(monkeypatch, "sets", f"{SAE}/5")
    change_set(study.path, "mine", SAE, add=[5])
    change_set(study.path, "theirs", SAE, add=[5])
    read = {"value": ["mine"], "weights": weights_of(study.path, SAE)}
    now = {**read, "value": ["late", "theirs"], "saved": 1}
    assert save(["late"], read) == ("Sets saved.", now, ["late", "theirs"])
    assert [read_set(study.path, name, SAE) for name in ("late", "mine", "theirs")] == [[5], [], [5]]


def test_the_table_shows_and_finds_what_is_written(study: Study) -> None:
    def shown(view: View) -> list[Any]:
        return page_of_rows(study, view, 0, 100)[0]

    proposed = {row["id"]: row["label"] for row in shown(View(SAE))}
    write(study.path, SAE, 7, "label", HOSTILE)
    write(study.path, SAE, 7, "note", "A Nasal sound")
    write(study.path, SAE, 9, "star", "1")
    change_set(study.path, "late", SAE, add=[9, 11])
    labels = {row["id"]: row["label"] for row in shown(View(SAE))}
    assert labels == {**proposed, "7": HOSTILE}
    assert [row["id"] for row in shown(View(SAE, words="nasal"))] == ["7"]
    assert [(row["id"], row["star"]) for row in shown(View(SAE, of_set=STARRED))] == [("9", STARRED)]
    assert {row["id"] for row in shown(View(SAE, of_set="late"))} == {"9", "11"}
    assert shown(View("tf3.cross_attn", of_set="late")) == []


def test_a_neighbour_has_the_label_that_was_written(app: dash.Dash, study: Study) -> None:
    near = neighbours_frame(load_result(study, f"sae-{SAE}"), 5)["neighbour"]
    write(study.path, SAE, int(near.iloc[0]), "label", HOSTILE)
    *_, links = callback(app, feature_card, "show_statistics")(f"?sae={SAE}&feature=5")
    assert f"{near.iloc[0]} {HOSTILE} (" in str(links)


def test_what_the_filters_leave_is_kept_as_a_set(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = callback(app, feature_sets, "save")
    rows = {"startRow": 0, "endRow": 5, "filterModel": {"feature": {"filter": "7..20"}}}
    said, known, cards = save(1, " late ", SAE, rows, "", "", [{"kind": "sets", "of": f"{SAE}/7"}])
    assert said == f"Saved: the set late has 14 features of {SAE}."
    assert cards == [["late"]]
    assert {"value": "late", "label": "late"} in known
    assert read_set(study.path, "late", SAE) == list(range(7, 21))
    again = {**rows, "filterModel": {"feature": {"filter": ">=40"}}}
    assert "late has 22 features" in save(2, "late", SAE, again, "", "", [])[0]
    for request, name, words in (
        (rows, " ", "Give the set a name"),
        ({**rows, "filterModel": {"feature": {"filter": ">1e9"}}}, "late", "shows 0 features"),
        ({**rows, "filterModel": {"feature": {"filter": "many"}}}, "late", "filters nothing"),
    ):
        assert words in refused(save(3, name, SAE, request, "", "", [])[0])
    monkeypatch.setattr(feature_sets, "MOST_IN_SET", 20)
    assert "shows 48 features, and a set has 1 to 20" in refused(save(4, "all", SAE, None, "", "", [])[0])
    assert len(read_set(study.path, "late", SAE)) == 22


def test_the_page_says_what_belongs_to_other_weights(
    app: dash.Dash, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, rows = callback(app, feature_table, "send_rows"), {"startRow": 0, "endRow": 5}
    write(study.path, SAE, 5, "label", "snare")
    change_set(study.path, "loud", SAE, add=[5, 6])
    assert send(rows, SAE, "", "")[1] == "48 features."
    assert send(rows, SAE, "", "?set=loud")[1] == "2 of 48 features."
    weights = study.path / "sae" / SAE / WEIGHTS_FILE
    with weights.open("ab") as file:
        file.write(b" ")
    try:
        answer, said, _ = send(rows, SAE, "", "?set=loud")
        assert (answer["rowCount"], said) == (
            0,
            f"0 of 48 features. Not shown: 2 features of this set, of an earlier autoencoder {SAE}, which had other "
            "weights. Nothing passes the set loud: clear it to see features again.",
        )
        answer, said, _ = send(rows, SAE, "", "")
        assert "what was written about 2 features" in said
        assert "snare" not in str(answer)
        assert "snare" not in str(feature_notes.editor(study, SAE, 5))
    finally:
        weights.write_bytes(weights.read_bytes()[:-1])


class _Spec(BaseModel, frozen=True):
    """What tells whose effects a result has."""

    weights: dict[str, str]


def test_effects_are_those_of_the_present_weights(study: Study) -> None:
    """Of a set that has features of both, only those of the present weights were changed, which is said."""
    result = effects().assign_coords(sae=[SAE]).assign_attrs(kind="feature-effects")
    spec = FeatureSpec(name=SAE, feature=3)
    write_all(study.path, [Noted(SAE, "0" * 16, feature, {}, ("late",)) for feature in (1, 2)])
    for weights, shown in ((weights_hash(load_sae(study, SAE)), True), ("those before", False)):
        study.save_result("feature-effects-late", result, _Spec(weights={SAE: weights}), seconds=1.0)
        found, said = feature_effects.measured(study, spec)
        assert (len(found) == 4) is shown
        assert (
            any("The set late has 2 more features of an earlier autoencoder" in each for each in said)
            is shown
        )
        assert (
            any("Not shown: what was measured of an earlier autoencoder" in each for each in said)
            is not shown
        )
    (study.path / "results" / "feature-effects-late.nc").unlink()
    assert "Not measured yet: `workbench sae effects" in feature_effects.measured(study, spec)[1][0]


def test_a_feature_without_an_autoencoder_is_that_of_the_first(study: Study) -> None:
    first = feature_card.selected(study, f"?sae={sae_names(study)[0]}&feature=5")
    assert first is not None
    assert feature_card.selected(study, "?feature=5") == first
    assert feature_card.selected(study, "?feature=5&sae=none") is None


def test_notes_are_exported_and_imported(app: dash.Dash, study: Study) -> None:
    export, read_file = (callback(app, feature_notes, name) for name in ("export", "read_file"))
    write(study.path, SAE, 7, "label", "=1+1")
    file, _ = export(1)
    own = weights_of(study.path, SAE)
    assert file["content"] == f"sae,feature,label,note,star,sets,weights\n{SAE},7,'=1+1,,,,{own}\n"
    content = base64.b64encode(file["content"].replace("1+1", "2").encode()).decode()
    imported = f"data:text/csv;base64,{content}"
    said, _, card = read_file(imported, [{"kind": "read-label", "of": f"{SAE}/7"}])
    assert said.startswith("Imported: 1 ")
    assert "value='=2'" in str(card)  # the open card shows it
    assert read_all(study.path, SAE) == {7: {"label": "=2"}}
    assert read_file(imported, [])[2] is no_update
    said, _, card = read_file("data:text/csv;base64,###", [{"kind": "read-label", "of": f"{SAE}/7"}])
    assert refused(said).startswith("Nothing imported")
    assert card is no_update


def test_a_damaged_file_of_notes_leaves_the_page(app: dash.Dash, study: Study, tmp_path: Path) -> None:
    (study.path / "notes.sqlite").write_bytes(b"no database" * 100)
    assert "damaged" in str(feature_notes.editor(study, SAE, 5))
    assert [one["value"] for one in feature_sets.set_choices(study)] == ["", STARRED]
    assert page_of_rows(study, View(SAE), 0, 5)[0]
    assert "damaged" in refused(callback(app, feature_notes, "export")(1)[1])
