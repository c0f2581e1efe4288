"""What surrounds a pair: prompts without the concept's change."""

import pytest

from analyses.contexts import listed_contexts, prompt_set_contexts
from cache.errors import UserError
from workbench.prompts import Pair, Prompt, PromptSet, load_prompt_set

ORGANISM = load_prompt_set("organism")


@pytest.mark.parametrize("concept", ORGANISM.concepts)
def test_unrelated_and_control_keep_the_corrupt_value(concept: str) -> None:
    prompts = {prompt.text: prompt for prompt in ORGANISM.fill(ORGANISM.n_prompts, 0)}
    for context in prompt_set_contexts(ORGANISM, concept, 5, seed=1):
        corrupt = context.pair.corrupt.labels
        unrelated, control = prompts[context.unrelated].labels, prompts[context.control].labels
        assert unrelated[concept] == control[concept] == corrupt[concept]
        assert all(unrelated[other] != corrupt[other] for other in corrupt if other != concept)
        assert sum(control[other] != corrupt[other] for other in corrupt) == 1
        assert len(context.references) == 4
        assert context.prompts("clean") == (context.pair.clean.text,)


def test_the_same_seed_draws_the_same_contexts() -> None:
    assert prompt_set_contexts(ORGANISM, "mood", 4, 3) == prompt_set_contexts(ORGANISM, "mood", 4, 3)
    assert prompt_set_contexts(ORGANISM, "mood", 4, 3) != prompt_set_contexts(ORGANISM, "mood", 4, 4)


def test_a_concept_alone_has_no_controls() -> None:
    alone = PromptSet.model_validate(
        {
            "templates": ["a {tempo} song", "one {tempo} tune"],
            "concepts": {"tempo": {"slow": "slow", "fast": "fast"}},
        }
    )
    (context,) = prompt_set_contexts(alone, "tempo", 1, 0)
    with pytest.raises(UserError, match="offer no control prompt"):
        context.prompts("control")


def pair(clean: str, corrupt: str, value: str = "male") -> Pair:
    return Pair("female", Prompt(clean, {"female": "female"}), Prompt(corrupt, {"female": value}), "a woman")


def test_listed_pairs_surround_each_other() -> None:
    pairs = [pair("she sings", "he sings"), pair("a woman hums", "a man hums"), pair("x", "y", "child")]
    contexts = listed_contexts(pairs, 3)
    assert [context.unrelated for context in contexts] == ["a man hums", "he sings", None]
    assert contexts[0].references == ("a woman hums", "a man hums", "x", "y")
    assert contexts[0].control is None
    assert listed_contexts(pairs, 4) == contexts, "there are no more"


def test_a_prompt_is_changed_in_its_own_template() -> None:
    two = PromptSet.model_validate(
        {
            "templates": ["a {tempo} song {drums}", "{drums}, a {tempo} piece"],
            "concepts": {
                "tempo": {"slow": "slow", "fast": "fast"},
                "drums": {"on": "with drums", "off": "without drums"},
            },
        }
    )
    for prompt in two.fill(8, 0):
        changed = two.changed(prompt, {"tempo": "fast"})
        assert changed.text == prompt.text.replace("slow", "fast")
        assert changed.labels == {**prompt.labels, "tempo": "fast"}
    with pytest.raises(UserError, match="not a prompt of this prompt set"):
        two.changed(Prompt("a song", {"tempo": "", "drums": ""}), {"tempo": "fast"})
