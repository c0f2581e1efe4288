"""The lab's page without a browser: fields and addresses of requests, what is shown of jobs, and hostile addresses."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dash
import pytest
from dash.exceptions import PreventUpdate

from analyses.lab.lab import Rendered, Report
from analyses.lab.request import LabRequest, PromptEdit, request_of
from analyses.lab.scores import Reading, Score, Scores
from cache.errors import UserError
from dashboards.address import LOCAL
from dashboards.app import make_app
from dashboards.context import Context
from dashboards.jobs import Job, Jobs
from dashboards.pages import lab, lab_clip, lab_edits, lab_names, lab_result, lab_scores, steering
from dashboards.wording import STRENGTH_1
from tests.dashboards.test_pages import callback
from workbench.studies.study import Study

EDITS: list[dict[str, Any]] = [
    {"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": "a <b>fast</b> song", "segments": ["text"]},
    {"kind": "ablate", "sites": ["tf3.mlp", "tf4.mlp"], "on": False, "steps": [0, 2], "tokens": [3, 3]},
    {"kind": "steer", "pack": "mood", "strength": -7.5, "unit": "norm"},
    {"kind": "slider", "slider": "mine", "strength": 0.5, "steps": [0, 1]},
    {"kind": "prompt", "method": "pci", "positive": "a happy song", "negative": "a sad song", "strength": 2},
    {"kind": "feature", "sae": "tf3.cross_attn", "feature": 7, "sites": ["tf3.cross_attn"], "ignore_gate": True},
]  # fmt: skip
ASKED = {"prompt": "a slow song", "lyrics": "la\nla", "seed": 2**64 - 1, "duration": 2.5, "edits": EDITS}


CLIPS = Rendered("audio/clips/00000.flac", "audio/clips/00001.flac", 1.0)


class Instant:
    """Renders at once: clips that the study has."""

    def load(self, study: Study, report: Report) -> None: ...

    def check(self, study: Study, request: LabRequest) -> None:
        del study
        if request.prompt == "impossible":
            raise UserError("Block tf99 does not exist.")

    def held(self, study: Study, request: LabRequest) -> Rendered | None:
        del study
        return CLIPS if request.prompt == "held" else None

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        del study
        report("Denoising, step 1 of 1", 0.0)
        if request.prompt == "refused":
            raise UserError("Block tf9 <i>does</i> not exist.")
        return CLIPS

    def score(self, study: Study, request: LabRequest, report: Report) -> Scores:
        del study, request, report
        readings = [
            Reading("embedded", "mood", "happy", "happy"),
            Reading("descriptors", "onset_rate", "per second", "x"),
        ]
        return Scores(
            (Score(readings[0], 0.25, 0.75), Score(readings[1], 2.0, None)),
            1.5,
            ("There are no scores by clap.",),
        )


@pytest.fixture
def pages(study: Study) -> Iterator[Context]:
    with closing(Jobs(lab=Instant())) as jobs:
        yield Context(study, jobs=jobs)


@pytest.fixture
def app(pages: Context) -> dash.Dash:
    return make_app(pages, LOCAL)


def fields(component: Any, kind: str, prop: str) -> list[tuple[dict[str, str], Any]]:
    """Ids and values of the fields of one kind below a component, in order."""
    return [
        (each.id, getattr(each, prop))
        for each in component._traverse()
        if isinstance(getattr(each, "id", None), dict) and each.id["type"] == kind
    ]


def form(study: Study, request: LabRequest) -> list[Any]:
    """The values of the page's fields as a browser would send them."""
    page = dash.html.Div(lab_edits.cards(study, request))
    values, switches = fields(page, "lab-field", "value"), fields(page, "lab-switch", "checked")
    lists = [[value for _, value in values], [id for id, _ in values]]
    lists += [[value for _, value in switches], [id for id, _ in switches]]
    return [*lab_clip.values(request), *json.loads(json.dumps(lists))]


def test_the_fields_of_a_request_give_it_again(study: Study) -> None:
    request = request_of(ASKED)
    assert lab.form_request(study, form(study, request)) == request
    assert lab.asked(study, request.query()) == (request, "")


def test_an_address_may_name_a_clip_of_the_study(study: Study) -> None:
    clip = study.clips.iloc[2]
    request, fault = lab.asked(study, {"clip": "2", "edits": json.dumps(EDITS[:1])})
    assert (request.prompt, request.seed, len(request.edits), fault) == (clip["prompt"], clip["seed"], 1, "")
    assert lab.asked(study, {})[0].prompt == study.clips.iloc[0]["prompt"]


@pytest.mark.parametrize(
    ("query", "said", "prompt"),
    [
        ({"clip": "9999"}, "There is no clip '9999'", None),
        ({"clip": "../x", "seed": "7"}, "There is no clip", None),
        ({"prompt": "x", "edits": "[1]"}, "edit 1 must be a mapping", "x"),
        ({"prompt": "x" * 5000}, "at most 4000 characters, not 5000", None),
        ({"prompt": "x", "seed": "<b>"}, "seed must be a number, not '<b>'", "x"),
    ],
)
def test_what_is_wrong_in_an_address_is_told_and_the_rest_is_shown(
    study: Study, pages: Context, query: dict[str, str], said: str, prompt: str | None
) -> None:
    request, fault = lab.asked(study, query)
    assert said in fault and request.prompt == (prompt or study.clips.iloc[0]["prompt"])
    assert request.seed == int(query.get("seed", "") == "7") * 7
    assert said in str(lab.PAGE.show(pages, query))


def test_a_link_shows_a_clip_that_the_study_has(app: dash.Dash, pages: Context) -> None:
    open_link = callback(app, lab, "open_link")
    data, status = open_link("/lab", "page", "?prompt=held")
    assert data["query"] == "?prompt=held" and status == ""
    result = shown(app, data)
    assert json.loads(result["sides"])["sides"][0]["name"] == "unedited"
    assert (result["link"], result["link hidden"]) == ("/lab?prompt=held&seed=0", False)
    assert open_link("/lab", "page", "?prompt=new") == ({"jobs": [], "query": "?prompt=new"}, lab.NOT_MADE)
    with pytest.raises(PreventUpdate):
        open_link("/features", "page", "")


def test_a_clip_that_is_too_long_is_told(study: Study) -> None:
    longest = 2 * study.spec.settings.duration
    fields = form(study, LabRequest(prompt="x", duration=longest))
    assert lab.form_request(study, fields).duration == longest
    fields[lab_clip.FIELDS.index("duration")] = 5000
    with pytest.raises(UserError, match=f"at most {longest:g} s, twice that of the study's clips; got 5000"):
        lab.form_request(study, fields)
    assert f"≤ {longest:g}" in str(lab_clip.layout(study, LabRequest(prompt="x")))


def test_the_page_says_which_edits_there_are_not(study: Study, bare_study: Study) -> None:
    request = LabRequest(prompt="x")
    assert "The study has no concept sliders" in str(lab_edits.layout(study, request))
    bare = str(lab_edits.layout(bare_study, request))
    assert "no concept sliders (" in bare and "Code('workbench steer train-slider')" in bare
    assert ") and no sparse autoencoders (" in bare and "`" not in bare
    with pytest.raises(UserError, match="no sparse autoencoders"):  # removed while the page was open
        lab_edits.new_edit(bare_study, "feature", "x")
    assert "workbench steer apply --method token-embedding" in bare


def test_what_strength_1_is_is_told_as_on_the_page_of_steering(study: Study) -> None:
    vector, feature = (
        str(lab_edits.cards(study, request_of({**ASKED, "edits": [EDITS[n]]}))) for n in (2, 5)
    )
    assert STRENGTH_1 in vector and STRENGTH_1 in steering.DOSE_HELP
    assert lab_edits.FEATURE_STRENGTH in feature


def test_a_new_prompt_edit_leads_from_one_value_of_the_prompts_concept_to_another(study: Study) -> None:
    edit = lab_edits.new_edit(study, "prompt", "a slow sad song")
    assert isinstance(edit, PromptEdit)
    assert (edit.positive, edit.negative) == ("a slow sad song", "a fast sad song")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", "one", "steps must be a number or a range"),
        ("tokens", "5-x", "tokens must be a number or a range"),
    ],
)
def test_a_range_that_cannot_be_read_is_told(field: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        lab_edits.given([({"edit": "1", "field": field}, value)])


def test_a_concept_is_changed_in_a_prompt(study: Study) -> None:
    prompts = study.spec.prompts
    assert lab_clip.with_value(prompts, "a slow sad song", "tempo=fast") == "a fast sad song"
    assert lab_clip.with_value(prompts, "a song with drums", "drums=without drums") == "a song without drums"
    assert lab_clip.with_value(prompts, "a slowly song", "tempo=fast") == "a slowly song fast"
    with pytest.raises(UserError, match="no value"):
        lab_clip.with_value(prompts, "a song", "tempo=<script>")


def shown(app: dash.Dash, data: dict[str, Any] | None) -> dict[str, Any]:
    names = (
        "status", "progress", "over", "cannot cancel", "cancel", "error", "error hidden", "error title", "sides",
        "difference", "difference hidden", "scores", "scores hidden", "command", "python", "code hidden",
        "link", "link hidden",
    )  # fmt: skip
    return dict(zip(names, callback(app, lab_result, "show")(1, data), strict=True))


def test_a_job_is_shown_with_its_sound_scores_and_code(app: dash.Dash, pages: Context) -> None:
    first = request_of({"prompt": "a <b>song</b>", "edits": [EDITS[2]]})
    second = request_of({"prompt": "a <b>song</b>", "edits": [{**EDITS[2], "strength": 2.0}]})
    data: dict[str, Any] = {}
    for request in (first, second):
        data, search = lab.submitted(pages, request, data)
        assert pages.jobs.wait(data["jobs"][-1], 60.0) is not None
        assert search == data["query"]
    result = shown(app, data)
    assert (result["status"], result["over"]) == ("Ready to be heard.", data["jobs"][-1])
    sides = json.loads(result["sides"])
    assert [side["name"] for side in sides["sides"]] == ["unedited", "mood × −7.5", "mood × 2"]
    assert [side["strength"] for side in sides["sides"]] == [0.0, -7.5, 2.0]
    assert sides["heard"] == "mood × 2"
    assert result["difference"].startswith("data:image/png;base64,") and not result["difference hidden"]
    text = str(result["scores"])
    for words in ("0.250", "0.750", "+0.500", "onset rate", "1.50", "There are no scores by clap."):
        assert words in text
    assert '\'{"kind": "steer"' in result["command"] and "wb.load(" in result["python"]


def test_what_is_impossible_is_told_at_once_and_never_queued(
    study: Study, app: dash.Dash, pages: Context
) -> None:
    said = "This clip cannot be made. Block tf99 does not exist."
    query = "?prompt=impossible"
    assert callback(app, lab, "open_link")("/lab", "page", query) == ({"jobs": [], "query": query}, said)
    with pytest.raises(UserError, match="tf99"):
        lab.submitted(pages, LabRequest(prompt="impossible"), None)
    latest = {"jobs": ["1"], "query": "?prompt=x"}
    data, status, *_ = callback(app, lab, "follow_address")(query, "/lab", latest, "page")
    assert (data, status) == ({"jobs": [], "query": query}, said)


def test_leaving_the_lab_leaves_its_clip_alone(app: dash.Dash, pages: Context) -> None:
    latest, _ = lab.submitted(pages, LabRequest(prompt="new"), None, "page")
    known = list(pages.jobs._jobs)
    with pytest.raises(PreventUpdate):
        callback(app, lab, "follow_address")("", "/features", latest, "page")
    assert list(pages.jobs._jobs) == known, "nothing else is asked for"
    done = pages.jobs.wait(latest["jobs"][-1], 60.0)
    assert done is not None and done.state == "done"


def test_a_clip_in_place_of_which_another_was_asked_for_is_not_called_cancelled(pages: Context) -> None:
    """The page asks about it until it is told of the other one."""
    job = Job("1", pages.study, LabRequest(prompt="first"), state="cancelled", message="Cancelled")
    assert lab_result._status(pages, job) == "Cancelled."
    assert lab_result._status(pages, replace(job, is_replaced=True)) == "Waiting."


def test_an_error_is_shown_as_text(app: dash.Dash, pages: Context) -> None:
    data, _ = lab.submitted(pages, LabRequest(prompt="refused"), None)
    pages.jobs.wait(data["jobs"][-1], 60.0)
    result = shown(app, data)
    assert (result["status"], result["error"]) == ("Not rendered.", ["Block tf9 <i>does</i> not exist."])
    assert result["error hidden"] is False and result["code hidden"] is True


@pytest.mark.parametrize("data", [None, {"jobs": [], "query": ""}, {"label": 0}])
def test_nothing_is_shown_without_jobs(app: dash.Dash, data: dict[str, Any] | None) -> None:
    with pytest.raises(PreventUpdate):
        shown(app, data)


def test_a_job_of_an_earlier_server_is_told_once_and_can_be_made_again(
    app: dash.Dash, pages: Context
) -> None:
    result = shown(app, {"jobs": ["f" * 16], "query": ""})
    assert (result["status"], result["over"], result["cannot cancel"]) == (lab_result.GONE, "f" * 16, True)
    assert result["error hidden"] is dash.no_update, "what is wrong in the fields is still told"
    assert result["sides"] is result["scores"] is dash.no_update, "what can be heard stays"
    again, _ = lab.submitted(pages, LabRequest(prompt="x"), {"jobs": ["f" * 16], "query": ""})
    assert pages.jobs.wait(again["jobs"][-1], 60.0) is not None
    assert shown(app, again)["status"] == "No edit is on: you hear the unedited clip."


@pytest.mark.parametrize(
    ("judge", "edited", "change"),
    [
        ("descriptors", 2.5e-05, "+1.5e−05"),
        ("descriptors", 0.5e-05, "−5e−06"),
        ("embedded", 2.5e-05, "0.000"),
    ],
)
def test_changes_of_any_size_have_their_sign(judge: str, edited: float, change: str) -> None:
    reading = Reading(judge=judge, concept="flatness", value="", text="flatness")
    scores = Scores((Score(reading, unedited=1e-05, edited=edited),), distance=0.1)
    assert f"TableTd('{change}')" in str(lab_scores.scores_table(scores, is_edited=True))


def test_a_clip_without_edits_has_the_scores_of_one_clip(app: dash.Dash, pages: Context) -> None:
    data, _ = lab.submitted(pages, LabRequest(prompt="x"), None)
    pages.jobs.wait(data["jobs"][-1], 60.0)
    scores = str(shown(app, data)["scores"])
    assert lab_scores.NO_EDITS in scores and "0.250" in scores
    assert "0.750" not in scores and "change" not in scores and "Distance" not in scores


def test_the_caption_says_what_differs_from_the_study(study: Study) -> None:
    assert lab_names.caption(study, LabRequest(prompt="a song", seed=3)) == "a song, seed 3"
    other = LabRequest(prompt="a song", duration=1.5, steps=3, guidance=7.5, lyrics="la\nla")
    said = "a song, seed 0, 1.5 s, 3 steps, guidance 7.5, lyrics “la la”"
    assert lab_names.caption(study, other) == said
    own = {"duration": study.spec.settings.duration, "guidance": study.spec.settings.guidance_scale}
    assert lab_names.caption(study, LabRequest(prompt="a song", **own)) == "a song, seed 0"


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("guidance", "1e30", "guidance must be at most 1000"),
        ("guidance", "5e-1", "guidance must be at least 1"),
        ("guidance", "five", "The guidance must be a number, not 'five'"),
        ("guidance", "1" * 400, "The guidance must be a number"),
        ("guidance", "1e9999", "guidance must be"),
        ("duration", "-1e0", "duration must be above 0"),
        ("steps", "8.5", "The steps must be a whole number of at most 20 digits, not '8.5'"),
        ("steps", "1e4", "steps must be at most 1000"),
        ("seed", "1e30", "The seed must be a whole number of at most 20 digits, not '1e30'"),
        ("seed", "1e-9999", "The seed must be a whole number"),
        ("seed", "0x10", "The seed must be a number, not '0x10'"),
    ],
)
def test_a_number_that_cannot_be_is_refused_as_it_was_typed(
    study: Study, field: str, text: str, said: str
) -> None:
    fields = form(study, LabRequest(prompt="x"))
    fields[lab_clip.FIELDS.index(field)] = text
    with pytest.raises(UserError, match=said):
        lab.form_request(study, fields)


def test_numbers_may_be_in_scientific_notation(study: Study) -> None:
    fields = form(study, LabRequest(prompt="x"))
    for name, text in (("guidance", " 2.5E0 "), ("steps", "1e1"), ("seed", "1e3")):
        fields[lab_clip.FIELDS.index(name)] = text
    request = lab.form_request(study, fields)
    assert (request.guidance, request.steps, request.seed) == (2.5, 10, 1000)
    (edit,) = lab_edits.given([({"edit": "1", "field": "feature"}, "1e2")])
    assert edit == {"feature": 100}


def test_a_moved_slider_renders_and_another_edit_waits_for_the_key() -> None:
    steer = {"kind": "steer", "pack": "mood", "strength": 1.0}

    def query(*edits: dict[str, Any]) -> str:
        return "?" + lab.write_query(dict(request_of({"prompt": "x", "edits": edits}).query())).removeprefix(
            "?"
        )

    latest = {"jobs": ["1"], "query": query(steer)}
    assert lab_result.is_change(latest, query({**steer, "strength": 2.0}))
    assert lab_result.is_change(latest, query({**steer, "on": False}))
    assert not lab_result.is_change(latest, query(steer, steer))
    assert not lab_result.is_change(latest, query(steer))
    assert not lab_result.is_change({"jobs": [], "query": ""}, query(steer))


def test_the_page_says_that_the_model_is_missing(study: Study, pages: Context, tmp_path: Path) -> None:
    spec = study.spec.model_copy(update={"model": str(tmp_path / "gone")})
    gone = Context(Study(study.path, spec, study.model), jobs=pages.jobs)
    text = str(lab.PAGE.show(gone, {}))
    assert "The lab needs the study" in text and "does not exist" in text and "lab-render" not in text
