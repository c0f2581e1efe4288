"""What surrounds a pair: prompts without the concept's change."""

from dataclasses import replace

import pytest

from analyses.patching.contexts import (
    drop_indistinguishable,
    listed_contexts,
    prompt_set_contexts,
    with_noise,
)
from cache.errors import UserError
from workbench.prompts.prompt_sets import Pair, Prompt, PromptSet, load_prompt_set

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
    with pytest.raises(UserError, match="have no control prompt"):
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


MOODS = PromptSet.model_validate(
    {
        "templates": ["a {tempo} {mood} song"],
        "concepts": {
            "tempo": {"slow": "slow", "fast": "fast"},
            "mood": {"happy": "happy", "zesty": "zesty", "zippy": "zippy"},
        },
    }
)


def read(prompt: str) -> str:
    """What a model reads that knows neither 'zesty' nor 'zippy'."""
    return prompt.replace("zesty", "?").replace("zippy", "?")


@pytest.mark.parametrize("seed", range(5))
def test_what_surrounds_a_pair_is_another_prompt_to_the_model(seed: int) -> None:
    """Of a mood that is no word to it the model is given the one that is, where by chance it would not be."""
    plain = prompt_set_contexts(MOODS, "tempo", 6, seed)
    drawn = prompt_set_contexts(MOODS, "tempo", 6, seed, read)
    assert [context.pair for context in drawn] == [context.pair for context in plain]
    for context in drawn:
        own = {read(text) for source in ("clean", "corrupt") for text in context.prompts(source)}
        assert own.isdisjoint({read(context.unrelated), read(context.control)})
    kept, dropped = drop_indistinguishable({"tempo": drawn}, ["unrelated", "control", "references"], read)
    assert all("to the model it is the" in entry["reason"] for entry in dropped), (
        "zesty and zippy pairs are one"
    )
    assert len(kept["tempo"]) == 2


@pytest.mark.parametrize("source", ["unrelated", "control"])
def test_a_pair_without_another_prompt_to_read_from_is_dropped(source: str) -> None:
    unread = {value: MOODS.concepts["mood"][value] for value in ("zesty", "zippy")}
    words = PromptSet(templates=MOODS.templates, concepts={**MOODS.concepts, "mood": unread})
    contexts = prompt_set_contexts(words, "tempo", 4, 0, read)
    with pytest.raises(UserError, match=f"No pair of tempo is left: its {source} prompt .* same tokens"):
        drop_indistinguishable({"tempo": contexts}, [source], read)
    kept, _ = drop_indistinguishable({"tempo": contexts}, [], read)
    assert len(kept["tempo"]) == 1, "nothing is read from it"


def test_a_pair_and_its_reverse_are_one() -> None:
    pairs = [pair("she sings", "he sings"), pair("he sings", "she sings"), pair("she hums", "he hums")]
    kept, dropped = drop_indistinguishable({"voice": listed_contexts(pairs, 3)}, [], str)
    assert [context.pair for context in kept["voice"]] == [pairs[0], pairs[2]]
    assert [entry["reason"] for entry in dropped] == [
        "to the model it is the reverse of the pair 'she sings' / 'he sings'"
    ]
    drawn = prompt_set_contexts(MOODS, "tempo", 100, 0)
    assert len(drawn) == MOODS.n_pairs("tempo") // 2
    assert len({frozenset((c.pair.clean.text, c.pair.corrupt.text)) for c in drawn}) == len(drawn)


def test_every_pair_has_noise_of_its_own_which_stays() -> None:
    pairs = [pair(f"she {i}", f"he {i}") for i in range(4)]
    contexts = {"voice": listed_contexts(pairs, 4)}
    two, three = (with_noise(contexts, (9, 0), n)["voice"] for n in (2, 3))
    assert len({seed for context in three for seed in context.seeds}) == 12
    assert [context.seeds for context in two] == [context.seeds[:2] for context in three]
    fewer = {"other": listed_contexts(pairs[:0:-1], 3)}
    assert with_noise(fewer, (9, 0), 2)["other"][-1].seeds == two[1].seeds, "whatever else is in the map"
    for seeds in ((9, 1), (8, 0), (0, 9)):
        assert with_noise(contexts, seeds, 1)["voice"][0].seeds != two[0].seeds[:1]


def test_a_pair_is_no_repeat_of_one_that_is_dropped() -> None:
    """The first two have nothing unrelated to read from; the third is the first reversed, and can be used."""
    pairs = [
        pair("a fast song", "a slow song", "slow"),
        pair("a quick song", "a slow song", "slow"),
        pair("a slow song", "a fast song", "fast"),
        pair("a slow tune", "a fast tune", "fast"),
    ]
    kept, dropped = drop_indistinguishable({"tempo": listed_contexts(pairs, 4)}, ["unrelated"], str)
    assert [context.pair for context in kept["tempo"]] == pairs[2:]
    assert len(dropped) == 2


def test_reverses_do_not_count_among_the_pairs_asked_for() -> None:
    both = [side for i in range(4) for side in (pair(f"she {i}", f"he {i}"), pair(f"he {i}", f"she {i}"))]
    kept, dropped = drop_indistinguishable({"voice": listed_contexts(both, 3)}, [], str)
    assert [context.pair for context in kept["voice"]] == both[:6:2]
    assert len(dropped) == 2


def test_listed_pairs_are_surrounded_by_other_prompts() -> None:
    """Two pairs may share a prompt, and a pair may be another one in words that the model does not know."""
    pairs = [
        pair("she sings", "one sings"),
        pair("a woman sings", "one sings"),
        pair("zesty x", "y"),
        pair("zippy x", "y"),
    ]
    contexts = listed_contexts(pairs, 4, read)
    assert [context.unrelated for context in contexts] == ["y", "y", "one sings", "one sings"]
    assert "one sings" not in contexts[0].references
    assert {read(text) for text in contexts[2].references} == {"she sings", "one sings", "a woman sings"}
    kept, dropped = drop_indistinguishable({"female": contexts}, ["unrelated", "references"], read)
    assert [context.pair for context in kept["female"]] == pairs[:3]
    assert [entry["clean"] for entry in dropped] == ["zippy x"]


def test_references_that_are_the_pair_itself_are_no_references() -> None:
    contexts = listed_contexts([pair("she sings", "he sings"), pair("she hums", "he hums")], 2)
    same = [replace(context, references=("she sings", "he sings")) for context in contexts]
    kept, dropped = drop_indistinguishable({"female": same}, ["references"], str)
    assert [context.pair.clean.text for context in kept["female"]] == ["she hums"]
    assert "references prompt 'she sings' has the same tokens" in dropped[0]["reason"]


def test_long_prompts_are_shortened_in_reasons() -> None:
    clean, corrupt = "she sings " * 100 + "low", "he sings " * 100 + "low"
    pairs = [pair(clean, corrupt), pair(corrupt, clean)]
    _, dropped = drop_indistinguishable({"voice": listed_contexts(pairs, 2)}, [], str)
    assert dropped[0]["clean"] == corrupt, "in full beside the reason"
    assert dropped[0]["reason"].endswith("…'") and len(dropped[0]["reason"]) < 250
