"""Null vectors from pairs that do not differ in the concept."""

from typing import Any

import pytest

from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA, caa
from analyses.steering.concept_free import concept_free
from cache.errors import UserError
from tests.analyses.steering.test_caa import COLOURS
from tests.tolerances import assert_close
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet

SITE = "tf0.cross_attn"
OPTIONS: dict[str, Any] = {"pairs": 6, "seed": 7, "settings": GenerationSettings(duration=1.0, num_steps=1)}


def test_pairs_differ_in_another_concept_only(tiny64: AceStep15) -> None:
    mean, consistent = concept_free(tiny64, "mood", SITE, [CAA(), AUSteer(k=3)], **OPTIONS)
    steering = caa(tiny64, "mood", SITE, **OPTIONS)
    assert mean.concept == consistent.concept == "another concept (like mood)"
    assert consistent.method == "austeer"
    assert [one.prompt for one in mean.examples[1::2]] == [one.prompt for one in steering.examples[1::2]]
    assert [one.seed for one in mean.examples] == [one.seed for one in steering.examples]
    changed = set()
    for clean, corrupt in zip(mean.examples[::2], mean.examples[1::2], strict=True):
        assert clean.value == corrupt.value == "sad"
        assert "sad" in clean.prompt and clean.prompt != corrupt.prompt
        same_tempo = ("fast" in clean.prompt) == ("fast" in corrupt.prompt)
        same_drums = ("without" in clean.prompt) == ("without" in corrupt.prompt)
        changed.add((same_tempo, same_drums))
        assert same_tempo or same_drums
    assert len(changed) > 1, "not always the same concept"


def test_it_is_the_mean_difference_of_these_pairs(tiny64: AceStep15) -> None:
    (vector,) = concept_free(tiny64, "mood", SITE, [CAA()], wording="a recording of {p}", **OPTIONS)
    assert vector.concept == "wording (like mood)"
    for clean, corrupt in zip(vector.examples[::2], vector.examples[1::2], strict=True):
        assert clean.prompt == f"a recording of {corrupt.prompt}"
    clips = [Clip(one.prompt, one.seed) for one in vector.examples]
    values = tiny64.generate(clips, OPTIONS["settings"], capture=SITE).activations[SITE]
    means = values.sel({"pass": "cond"}).mean("token").transpose("clip", "step", "channel").values
    assert_close(vector.directions[SITE].values[0], (means[::2] - means[1::2]).mean(axis=0))


@pytest.mark.parametrize("wording", ["a recording", "{p}", " {p} "])
def test_what_is_no_wording(tiny64: AceStep15, wording: str) -> None:
    with pytest.raises(UserError, match="wording must have"):
        concept_free(tiny64, "mood", SITE, [CAA()], wording=wording, **OPTIONS)


def test_prompts_without_another_concept_need_a_wording(tiny64: AceStep15) -> None:
    alone = PromptSet.model_validate(
        {"templates": ["a {colour} song"], "concepts": {"colour": {"red": "red", "blue": "blue"}}}
    )
    options = {**OPTIONS, "prompts": alone, "pairs": 1}
    with pytest.raises(UserError, match="mention no other concept"):
        concept_free(tiny64, "colour", SITE, [CAA()], **options)
    assert concept_free(tiny64, "colour", SITE, [CAA()], wording="{p} please", **options)


def test_other_values_come_from_the_given_prompt_set(tiny64: AceStep15) -> None:
    (vector,) = concept_free(tiny64, "colour", SITE, [CAA()], **{**OPTIONS, "prompts": COLOURS, "pairs": 2})
    for clean, corrupt in zip(vector.examples[::2], vector.examples[1::2], strict=True):
        swapped = corrupt.prompt.replace("large", "SMALL").replace("small", "large").replace("SMALL", "small")
        assert clean.prompt == swapped
