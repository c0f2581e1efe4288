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
    {"kind": "feature", "sae": "tf4.cross_attn", "feature": 7, "sites": ["tf4.cross_attn"], "mode": "inject"},
]
ASKED = {
    "prompt": "a slow song, sad",
    "lyrics": "one\ntwo",
    "seed": 2**64 - 1,
    "duration": 4.5,
    "edits": EDITS,
}


def test_an_address_gives_the_same_request() -> None:
    request = request_of(ASKED)
    assert len(request.edits) == 4
    assert [edit.kind for edit in request.active] == ["patch", "steer", "feature"]
    assert read_request(request.query()) == request
    link = urlsplit(lab_address(request.prompt, request.seed, request.lyrics, EDITS, duration=4.5))
    assert link.path == "/lab"
    assert read_request(dict(parse_qsl(link.query))) == request


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
        ({"prompt": "x" * 4001}, "prompt must have at most 4000 characters"),
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
        ({"edits": json.dumps([PATCH] * 17)}, "edits must have at most 16 entries"),
        ({"edits": '[{"kind": "run"}]'}, "kind"),
        ({"edits": json.dumps([{**PATCH, "path": "/etc"}])}, "path is not a known name"),
        ({"edits": '[{"kind":"steer","pack":"mood","strength":1e30}]'}, "strength must be at most 1000"),
        ({"edits": '[{"kind":"steer","pack":"mood","strength":"2"}]'}, "strength must be a number"),
        ({"shell": "rm"}, "shell is not a known name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_a_sentence(values: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_request({"prompt": "a song", **values})
