"""Arms are data: what each question asks, and their way through JSON."""

import json
from dataclasses import replace

import pytest

from analyses.patching.arms import (
    Arm,
    Request,
    ablation_arm,
    arm_from_json,
    arms_from_file,
    arms_of,
    null_arms,
    patch_arm,
    path_arm,
)
from analyses.patching.spec import QUESTIONS, PatchingSpec
from cache.errors import UserError
from workbench.engine.edits import SELF, Run
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings(duration=1.0, num_steps=4)


def request(model: AceStep15, **changes: object) -> Request:
    """Of a spec that nobody checks: whether its fields go together is another test's business."""
    return Request(
        model, SETTINGS, PatchingSpec.model_construct(**{"directions": ("sufficiency",), **changes})
    )


def arms(model: AceStep15, question: str, **changes: object) -> list[Arm]:
    return arms_of(request(model, question=question, **changes))


@pytest.mark.parametrize("question", sorted(QUESTIONS.keys() - {"custom"}))
def test_arms_of_every_question_survive_json_and_have_names_of_their_own(
    tiny: AceStep15, question: str
) -> None:
    built = arms(tiny, question, windows=2, directions=("sufficiency", "necessity"))
    assert built
    assert len({arm.name for arm in built}) == len(built)
    assert arms_from_file(json.dumps([arm.to_json() for arm in built])) == built
    if question != "sets":  # of two blocks, all but one is the other one
        assert len({json.dumps(arm.to_json()["edits"]) + arm.direction for arm in built}) == len(built)


def test_blocks_are_patched_both_ways_and_ablated(tiny: AceStep15) -> None:
    built = arms(
        tiny,
        "blocks",
        directions=("sufficiency", "necessity"),
        ablations=("zero", "mean", "resample"),
        sets=((0, 1),),
    )
    by_name = {arm.name: arm for arm in built}
    assert list(by_name) == [
        "tf0", "tf1", "tf0+tf1", "tf0 necessity", "tf1 necessity", "tf0+tf1 necessity",
        "tf0 zero", "tf1 zero", "tf0 mean", "tf1 mean", "tf0 resample", "tf1 resample",
    ]  # fmt: skip
    assert (by_name["tf0"].base, by_name["tf0"].sources) == ("corrupt", {"clean"})
    assert (by_name["tf0 necessity"].base, by_name["tf0 necessity"].sources) == ("clean", {"corrupt"})
    assert by_name["tf0+tf1"].edits[0].sites == ("tf0.cross_attn", "tf1.cross_attn")
    assert [by_name[f"tf0 {method}"].sources for method in ("zero", "mean", "resample")] == [
        set(), {"references"}, {"unrelated"},
    ]  # fmt: skip
    assert by_name["tf1 mean"].direction == "necessity"
    assert by_name["tf1 mean"].column == "mean"


def test_windows_of_steps_cover_every_step_once(tiny: AceStep15) -> None:
    built = arms(tiny, "steps", windows=3)
    assert [arm.column for arm in built[:3]] == ["step 0", "steps 1–2", "step 3"]
    steps = [
        step
        for arm in built[:3]
        for step in range(arm.edits[0].window.steps[0], arm.edits[0].window.steps[1] + 1)
    ]
    assert steps == [0, 1, 2, 3]


def test_windows_of_noise_levels_cover_the_schedule_once(tiny: AceStep15) -> None:
    built = [arm for arm in arms(tiny, "sigmas", windows=3) if arm.row == "tf0"]
    windows = [arm.edits[0].window.sigmas for arm in built]
    for sigma in tiny.sigmas(SETTINGS):
        assert sum(low < sigma <= high for low, high in windows) == 1
    assert windows[0][1] == 1.0
    assert len(built) == 2, "no step has a sigma below a third"


def test_windows_of_noise_levels_are_equal_parts_if_the_first_is_rounded_up(
    tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigmas = [1.0000001192092896, 0.7, 0.3]
    monkeypatch.setattr(tiny, "sigmas", lambda _: sigmas)
    built = [arm for arm in arms(tiny, "sigmas", windows=2) if arm.row == "tf0"]
    assert [arm.column for arm in built] == ["σ 1–0.5", "σ 0.5–0"]
    for sigma in sigmas:
        assert sum(arm.edits[0].window.acts_at(0, sigma, "cond") for arm in built) == 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_windows_of_noise_levels_above_1_cover_the_schedule_once(
    tiny: AceStep15, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of Stable Audio Open, whose steps have equal ratios."""
    sigmas = [500.0, 42.17, 3.557, 0.3]
    monkeypatch.setattr(tiny, "sigmas", lambda _: sigmas)
    built = [arm for arm in arms(tiny, "sigmas", windows=n) if arm.row == "tf0"]
    windows = [arm.edits[0].window.sigmas for arm in built]
    for sigma in sigmas:
        assert sum(low < sigma <= high for low, high in windows) == 1
    assert all(any(low < sigma <= high for sigma in sigmas) for low, high in windows), "each has a step"
    assert [arm.column for arm in built][:1] == [f"σ 500–{['0', '12.2', '113'][[1, 2, 5].index(n)]}"]


def test_windows_of_seconds_cover_every_token_once(tiny: AceStep15) -> None:
    built = [arm.edits[0] for arm in arms(tiny, "seconds", windows=4) if arm.row == "tf0"]
    windows = [edit.window.tokens for edit in built]
    tokens = [token for first, last in windows for token in range(first, last + 1)]
    assert tokens == list(range(tiny.tokens(SETTINGS.duration)))
    assert {edit.target for edit in built} == {"output"}


def test_heads_know_the_groups(tiny: AceStep15) -> None:
    columns = [arm.column for arm in arms(tiny, "heads") if arm.row == "tf1"]
    assert columns == ["head 0", "head 1", "head 2", "head 3", "KV head 0", "KV head 1"]


def test_sets_are_singles_pairs_and_all_but_one(tiny: AceStep15) -> None:
    sites = {arm.name: arm.edits[0].sites for arm in arms(tiny, "sets")}
    assert sites == {
        "tf0 with tf0": ("tf0.cross_attn",),
        "tf0 with tf1": ("tf0.cross_attn", "tf1.cross_attn"),
        "tf1 with tf1": ("tf1.cross_attn",),
        "tf0 all but this": ("tf1.cross_attn",),
        "tf1 all but this": ("tf0.cross_attn",),
    }


def test_a_path_holds_everything_between_sender_and_receiver() -> None:
    arm = path_arm(0, Site(1, "mlp"), "conditioning")
    (receiver,) = arm.edits
    (helper,) = receiver.sources
    sender, held = helper.edits
    assert receiver.sites == ("tf1.mlp",)
    assert (helper.clip, helper.follows) == ("corrupt", Run(SELF))
    assert (sender.sites, sender.sources) == (("tf0.cross_attn",), (Run("clean"),))
    assert held.sites == ("tf0.mlp", "tf1.self_attn", "tf1.cross_attn")
    assert held.sources == (Run(SELF),)
    nearest = path_arm(0, Site(0, "mlp"), "conditioning")
    assert nearest.edits[0].sites == ("tf0.mlp",)
    assert [edit.sites for edit in nearest.edits[0].sources[0].edits] == [("tf0.cross_attn",)]


def test_null_arms_take_from_where_the_concept_is_not() -> None:
    (arm,) = [patch_arm("tf0", "sufficiency", "tf0.cross_attn")]
    nulls = null_arms([arm], ("unrelated", "control", "random"))
    assert [null.sources for null in nulls] == [{"unrelated"}, {"control"}, {"clean"}]
    assert [null.role for null in nulls] == ["null"] * 3
    assert [(null.null_of, null.null_kind) for null in nulls] == [
        (arm.name, kind) for kind in ("unrelated", "control", "random")
    ]
    assert [null.edits[0].operator for null in nulls] == ["patch", "patch", "random_patch"]
    assert replace(nulls[0].edits[0], sources=arm.edits[0].sources) == arm.edits[0]


@pytest.mark.parametrize("question", sorted(QUESTIONS.keys() - {"custom"}))
def test_rows_know_their_block(tiny: AceStep15, question: str) -> None:
    for arm in arms(tiny, question, windows=2, **({"sets": ((0, 1),)} if question == "blocks" else {})):
        assert arm.block == {"tf0": 0, "tf1": 1, "tf0+tf1": None}[arm.row]


@pytest.mark.parametrize(
    ("question", "changes", "sentence"),
    [
        ("blocks", {"blocks": (7,)}, "tf7 does not exist"),
        ("blocks", {"sets": ((0,),)}, "at least two different"),
        ("blocks", {"sets": ((0, 9),)}, "tf9 does not exist"),
        ("steps", {"windows": 5}, "at most 4, the number of steps; got 5"),
        ("conditioning", {"mode": "output"}, "mode conditioning"),
        ("blocks", {"part": "mlp"}, "must be at cross_attn sites"),
    ],
)
def test_requests_that_make_no_sense(tiny: AceStep15, question: str, changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        arms(tiny, question, **changes)


def test_passes_need_guidance(tiny: AceStep15) -> None:
    unguided = replace(
        request(tiny, question="passes"), settings=SETTINGS.model_copy(update={"guidance_scale": 1.0})
    )
    with pytest.raises(UserError, match="only one pass"):
        arms_of(unguided)


GOOD = ablation_arm("tf0", "zero", "tf0.mlp", "zero").to_json()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("{}", "JSON list of arms"),
        ("[]", "empty list"),
        (json.dumps([{"name": "x"}]), "list of edits"),
        (json.dumps([{**GOOD, "colour": "red"}]), "colour"),
        (json.dumps([GOOD, {**GOOD, "name": "bare", "edits": []}]), "'bare' must have at least one edit"),
        (
            json.dumps([{**GOOD, "direction": "up"}]),
            "direction must be 'sufficiency' or 'necessity', not 'up'",
        ),
        (
            json.dumps([{**GOOD, "edits": [{**GOOD["edits"][0], "sources": ["moon"]}]}]),
            "'zero' must have 0 source runs",
        ),
    ],
)
def test_files_of_arms_that_are_wrong(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        arms_from_file(text)


PATCH = patch_arm("tf0", "a", "tf0.cross_attn").to_json()
EDIT = PATCH["edits"][0]


def blended(*weights: float) -> dict:
    return {**EDIT, "operator": "blend", "sources": ["corrupt", "self"], "parameters": {"weights": weights}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a\0b"}, "name must be valid text"),
        ({"row": "a\ud800"}, "row must be valid text"),
        ({"column": "a\u2028b"}, "its column must be one line of text"),
        ({"row": "x" * 201}, "its row must have at most 200 characters, not 201"),
        ({"role": "null"}, "must have at least one cell"),
        ({"block": True}, "block must be a number, not True"),
        ({"edits": [{**EDIT, "window": {"steps": ["0", "1"]}}]}, "steps.0 must be a number, not '0'"),
        ({"edits": [{**EDIT, "window": {"steps": [True, True]}}]}, "steps.0 must be a number, not True"),
        (
            {"edits": [{**EDIT, "operator": "random_patch", "parameters": {"seed": "7"}}]},
            "parameters.seed must be a number, not '7'",
        ),
        ({"edits": [{**EDIT, "sources": ["corrupt"]}]}, "changes nothing: it edits the corrupt run"),
        ({"edits": [{**EDIT, "sources": ["self"]}]}, "changes nothing"),
        ({"direction": "necessity"}, "changes nothing: it edits the clean run"),
        ({"edits": [blended(0.5, 0.5)]}, "changes nothing"),
    ],
    ids=str,
)
def test_arms_that_cannot_be_meant(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        arms_from_file(json.dumps([{**PATCH, **changes}]))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "$\\[é🎹]/../", "row": "<b>x</b>", "column": "x" * 200},
        {"edits": [blended(0.5, 1.5)]},
        {"edits": [EDIT, {**EDIT, "sources": ["corrupt"]}]},
        {"edits": [{**EDIT, "window": {"sigmas": [0, 1]}}]},
    ],
    ids=str,
)
def test_unusual_arms_that_can_be_meant(changes: dict) -> None:
    assert len(arms_from_file(json.dumps([{**PATCH, **changes}]))) == 1


def test_one_arm_through_json() -> None:
    assert arm_from_json(json.loads(json.dumps(GOOD))).to_json() == GOOD
