"""Requests of the lab: round trips through addresses, and what is refused."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from analyses.lab.request import LabRequest, edit_of, edits_as_text, read_request, request_of
from cache.errors import UserError
from dashboards.lab_link import lab_address
from workbench.engine.settings import GenerationSettings

PATCH = {"kind": "patch", "sites": ["tf3.cross_attn"], "prompt": "a <b>fast</b> song & more, ‘x’"}
EDITS: list[dict[str, Any]] = [
    PATCH,
    {"kind": "ablate", "sites": ["tf3.mlp", "tf4.mlp"], "on": False, "tokens": [0, 9]},
    {"kind": "steer", "pack": "mood", "strength": -2.5, "steps": [2, 7]},
    {"kind": "slider", "slider": "mood", "strength": 0.5, "steps": [0, 3]},
    {"kind": "prompt", "method": "pci", "positive": "a happy song", "negative": "a sad song", "strength": -3},
    {"kind": "feature", "sae": "tf4.cross_attn", "feature": 7, "sites": ["tf4.cross_attn"], "mode": "inject"},
]
BASE = LabRequest(prompt="a slow song", seed=3)
ASKED = {
    "prompt": "a slow song, sad",
    "lyrics": "one\ntwo",
    "seed": 2**64 - 1,
    "duration": 4.5,
    "edits": EDITS,
}


def test_an_address_gives_the_same_request() -> None:
    request = request_of(ASKED)
    assert len(request.edits) == 6
    assert [edit.kind for edit in request.active] == ["patch", "steer", "slider", "prompt", "feature"]
    assert read_request(request.query(), BASE) == (request, "")
    link = urlsplit(lab_address(request.prompt, request.seed, request.lyrics, EDITS, duration=4.5))
    assert link.path == "/lab"
    assert read_request(dict(parse_qsl(link.query)), BASE) == (request, "")


def test_an_edit_is_one_line_of_json() -> None:
    request = request_of(ASKED)
    assert json.loads(edits_as_text(request.edits)) == EDITS
    assert edit_of(json.dumps(PATCH)) == request.edits[0]


def test_settings_that_are_not_given_are_those_of_the_study() -> None:
    study = GenerationSettings(duration=2.0, num_steps=5, guidance_scale=2.0, options={"shift": 3})
    assert LabRequest(prompt="x").settings(study) == study
    asked = LabRequest(prompt="x", duration=3.0, guidance=1.0).settings(study)
    assert asked == GenerationSettings(duration=3.0, num_steps=5, guidance_scale=1.0, options={"shift": 3})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": "x" * 4001}, "prompt must have at most 4000 characters, not 4001"),
        ({"prompt": "x\0"}, "prompt must be valid text"),
        ({"seed": "1e999"}, "seed must be a number"),
        ({"seed": "-1"}, "seed must be at least 0"),
        ({"duration": "1e9"}, "duration must be at most 600"),
        ({"duration": "nan"}, "duration must be a finite number"),
        ({"steps": "100000"}, "steps must be at most 1000"),
        ({"edits": "{}"}, "edits must be a list"),
        ({"edits": "[" * 5000}, "edits must be a list of edits as JSON"),
        ({"edits": '[], "seed": 7'}, "edits must be a list of edits as JSON"),
        ({"edits": "[" + "0," * 60_000 + "0]"}, "edits must have at most 100000 characters"),
        ({"edits": json.dumps([PATCH] * 17)}, "edits after the first 16"),
        (
            {"edits": '[{"kind": "run"}]'},
            "edit 1: kind must be one of 'patch', 'ablate', 'steer', 'slider', 'prompt', 'feature', not 'run'",
        ),
        ({"edits": "[{}]"}, "edit 1: kind must be one of 'patch', "),
        ({"edits": '[{"kind": "ablate"}]'}, "edit 1 (ablate): sites is missing"),
        ({"edits": "[7]"}, "edit 1 must be a mapping"),
        ({"edits": json.dumps([PATCH, {**PATCH, "path": "/etc"}])}, "edit 2 (patch): path is not a known name"),
        (
            {"edits": '[{"kind":"steer","pack":"mood","strength":1e30}]'},
            "edit 1 (steer): strength must be at most 1000",
        ),
        ({"edits": '[{"kind":"steer","pack":"mood","strength":"2"}]'}, "strength must be a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence_and_the_rest_is_kept(values: dict[str, str], said: str) -> None:
    request, sentence = read_request({"lyrics": "la", **values}, BASE)
    assert sentence.startswith("Not understood in the address, and left out: ") and said in sentence
    assert sentence.endswith(".") and sentence.count(". ") == 0
    assert (request.prompt, request.lyrics, request.seed) == (BASE.prompt, "la", BASE.seed)
    expected = {17: 16, 2: 1}.get(values.get("edits", "").count("a <b>fast</b>"), 0)
    assert len(request.edits) == expected


def test_several_wrong_parts_are_told_in_one_sentence() -> None:
    request, sentence = read_request({"seed": "x", "steps": "7", "guidance": "0"}, BASE)
    assert sentence == (
        "Not understood in the address, and left out: seed must be a number, not 'x'; guidance must be at least 1.0, "
        "not 0.0."
    )
    assert (request.seed, request.steps, request.guidance) == (3, 7, None)


def test_a_request_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="edits must have at most 16 entries, not 17"):
        request_of({"prompt": "x", "edits": [PATCH] * 17})
    with pytest.raises(UserError, match="shell is not a known name"):
        request_of({"prompt": "x", "shell": "rm"})
