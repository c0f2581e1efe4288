"""Token-embedding steering: directions at a word's tokens, against differences and text states by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analyses.steering.pairs import pairs_towards
from analyses.steering.token_embedding import TokenEmbedding, token_embedding, token_embedding_from_published
from cache.errors import UserError
from tests.analyses.steering.versions import NEUTRAL, POSITIVE
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from workbench.engine.edits import Run, as_run, edit_from_json
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)
TEMPO = PromptSet.model_validate(
    {
        "templates": ["a {tempo} {mood} song"],
        "concepts": {
            "tempo": {"fast": "fast", "slow": "slow"},
            "mood": {"happy": "happy", "sad": "sad"},
            "drums": {"with": "with drums", "without": "drums"},
        },
    }
)


def fitted(model: AudioDiffusionModel, settings: GenerationSettings, **options: Any) -> TokenEmbedding:
    return token_embedding(model, "tempo", prompts=TEMPO, pairs=2, settings=settings, **options)


def values(
    model: AudioDiffusionModel, runs: list[Clip | Run], sites: list[Site], settings: GenerationSettings
) -> dict[Site, torch.Tensor]:
    """Keys or values of sites in the cond pass of the first step: (run, token, channel)."""
    kept = model.generate_batch(runs, settings, Capture(tuple(sites), (0,), ("cond",))).activations
    return {site: kept[site][:, 0, 0] for site in sites}


def token(model: AudioDiffusionModel, place: int, block: int, settings: GenerationSettings) -> int:
    """The token of a word of the prompts among those that a block reads; each word is one token."""
    ((_, first, last),) = model.conditioning(NEUTRAL, settings).words[place : place + 1]
    assert last == first + 1
    return first - (model.reads(block).start or 0)


def test_it_is_the_mean_difference_at_the_word_and_is_added_there(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings.model_copy(update={"num_steps": 1})
    words = {1: "", 3: "song"}
    methods = {place: fitted(model, settings, word=word) for place, word in words.items()}
    sites = [Site.parse(site) for site in list(methods[1].directions)[-2:]]
    pairs = pairs_towards(TEMPO, "tempo", "fast", ["slow"], 2, 0)
    clips = [Clip(prompt.text, 3) for pair in pairs for prompt in (pair.clean, pair.corrupt)]
    steered = [Run(NEUTRAL, method.at(2.0, positive=POSITIVE)) for method in methods.values()]
    for site, found in values(model, [*clips, NEUTRAL, *steered], sites, settings).items():
        for (place, method), moved in zip(methods.items(), found[5:], strict=True):
            at = token(model, place, site.block, settings)
            direction = method.directions[str(site)].value
            assert_close(direction, (found[:4:2, at] - found[1:4:2, at]).mean(dim=0), (site, place))
            expected = found[4].clone()
            expected[at] += 2.0 * direction
            assert_close(moved, expected, (site, place))
        assert difference(found[5], found[4]) > 1e-9


TEXT_STATES: dict[str, Callable[[Any], torch.nn.Module]] = {
    "ACE-Step 1.5": lambda model: model.pipeline.condition_encoder.text_projector,
    "ACE-Step v1": lambda model: model.pipeline.transformer.genre_embedder,
}
"""The first module that reads the text encoder's states."""


@pytest.fixture
def models(tiny64: Any, tiny_v1_64: Any) -> dict[str, Any]:
    return {"ACE-Step 1.5": tiny64, "ACE-Step v1": tiny_v1_64}


def published_file(folder: Path, direction: torch.Tensor, concept: str = "mood") -> str:
    file = folder / f"{concept}_direction.pt"
    torch.save({"direction": direction, "concept": concept, "hidden_dim": len(direction)}, file)
    return str(file)


def width(model: Any, name: str) -> int:
    return TEXT_STATES[name](model).in_features


@pytest.mark.parametrize("name", TEXT_STATES)
def test_a_published_direction_is_added_to_the_text_encoders_states(
    name: str, models: dict[str, Any], tmp_path: Path
) -> None:
    """The keys and values are those that the network computes from states that torch's own hook moves."""
    model = models[name]
    direction = torch.randn(width(model, name), generator=torch.Generator().manual_seed(0))
    method = token_embedding_from_published(published_file(tmp_path, direction), model, settings=SETTINGS)
    assert (method.concept, method.positive, method.word) == ("mood", "happy", "song")
    assert method.made_on == (model.name, model.weights_hash)
    (_, first, _) = model.conditioning(NEUTRAL, SETTINGS).words[3]
    inside = first - model.segments(NEUTRAL, SETTINGS)["text"][0]

    def move(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states = given[0].clone()
        states[0, inside] += 1.5 * direction.double()
        return (states, *given[1:])

    sites = [Site(0, "cross_attn.k"), Site(1, "cross_attn.v")]
    found = values(model, [NEUTRAL, Run(NEUTRAL, method.at(1.5))], sites, SETTINGS)
    hook = TEXT_STATES[name](model).register_forward_pre_hook(move)
    try:
        expected = values(model, [NEUTRAL], sites, SETTINGS)
    finally:
        hook.remove()
    for site, (plain, steered) in found.items():
        assert_close(steered, expected[site][0], site)
        assert difference(steered, plain) > 1e-6


@pytest.mark.parametrize(
    ("concept", "word"), [("piano", "instrument"), ("rock_genre", "song"), ("vocal_style", "vocal")]
)
def test_the_published_words(tiny64: AceStep15, tmp_path: Path, concept: str, word: str) -> None:
    file = published_file(tmp_path, torch.ones(width(tiny64, "ACE-Step 1.5")), concept)
    assert token_embedding_from_published(file, tiny64, settings=SETTINGS).word == word
    assert token_embedding_from_published(file, tiny64, word="tune", settings=SETTINGS).word == "tune"


def test_models_whose_states_are_not_affine_refuse_a_published_direction(
    subject: Subject, tmp_path: Path
) -> None:
    name, settings = subject.architecture.name, subject.settings
    if name == "Stable Audio Open":
        file = published_file(tmp_path, torch.ones(4))
        with pytest.raises(UserError, match=r"not affine in the text encoder's states \(they pass a SiLU"):
            token_embedding_from_published(file, subject.exact, settings=settings)
    elif name == "AudioLDM 2":
        model = subject.exact
        reads_text = [model.reads(block).stop is None for block in range(model.n_blocks)]
        text, generated = (f"tf{reads_text.index(reads)}.cross_attn" for reads in (True, False))
        file = published_file(tmp_path, torch.ones(model.linear(Site.parse(f"{text}.k")).in_features))
        with pytest.raises(UserError, match="what the language model generates"):
            token_embedding_from_published(file, model, sites=generated, settings=settings)
        method = token_embedding_from_published(file, model, sites=text, settings=settings)
        weight = model.linear(Site.parse(f"{text}.v")).weight
        assert_close(method.directions[f"{text}.v"].value, weight.detach().sum(dim=1))


def test_a_direction_of_another_width_is_refused(tiny64: AceStep15, tmp_path: Path) -> None:
    file = published_file(tmp_path, torch.ones(7))
    with pytest.raises(UserError, match=r"the width of the text encoder.*it has 7"):
        token_embedding_from_published(file, tiny64, settings=SETTINGS)


def test_blocks_that_do_not_read_words_are_left_out(subject: Subject) -> None:
    model = subject.exact
    blocks = {Site.parse(site).block for site in fitted(model, subject.settings).directions}
    reading = {block for block in range(model.n_blocks) if model.reads(block).stop is None}
    assert blocks == reading
    unread = sorted(set(range(model.n_blocks)) - reading)
    if unread:
        with pytest.raises(UserError, match="None of the sites reads the words"):
            fitted(model, subject.settings, sites=f"tf{unread[0]}.cross_attn")


def test_strength_0_costs_nothing(tiny64: AceStep15) -> None:
    method = fitted(tiny64, SETTINGS, word="song")
    assert method.at(0.0) == ()
    steps = [edit.window.steps for edit in method.at(1.0, schedule=[0.0, 1.0, 1.0, 0.5])]
    assert steps == [(1, 2)] * 4 + [(3, 3)] * 4


def test_names_are_bound_later(tiny64: AceStep15) -> None:
    method = fitted(tiny64, SETTINGS)
    first = method.at(1.0)[0]
    assert Run("neutral", (first,)).source_names == {"positive"}
    assert first.bound({"positive": [as_run(POSITIVE)]}) == method.at(1.0, positive=POSITIVE)[0]
    assert edit_from_json(first.to_json(), lambda _: first.parameters.vector) == first
    assert not Run("neutral", fitted(tiny64, SETTINGS, word="song").at(1.0)).source_names


def test_another_model_refuses_it(tiny64: AceStep15, tiny_turbo: AceStep15) -> None:
    edits = fitted(tiny64, SETTINGS, word="song").at(1.0)
    with pytest.raises(UserError, match="was made on"):
        tiny_turbo.generate(NEUTRAL, SETTINGS, edits=edits)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"concept": "colour"}, "Unknown concept"),
        ({"pairs": 0}, "1 to 2"),
        ({"pairs": 1.5}, "whole number"),
        ({"seed": -1}, "seed"),
        ({"sites": "tf0.mlp"}, "must be cross-attentions"),
        ({"word": "tune"}, "does not have the word 'tune'"),
        ({"word": 3}, "The word must be"),
        ({"model": "organism-shared"}, "made with a model"),
        (
            {"concept": "drums", "prompts": {**TEMPO.model_dump(), "templates": ["a song {drums}"]}},
            "same tokens",
        ),
    ],
)
def test_what_there_is_not(tiny64: AceStep15, asked: dict[str, Any], words: str) -> None:
    given = {"model": tiny64, "concept": "tempo", "prompts": TEMPO, "pairs": 2, "settings": SETTINGS, **asked}
    with pytest.raises(UserError, match=words):
        token_embedding.__wrapped__(**{**given, **({"pairs": 1} if "prompts" in asked else {})})


def test_a_prompt_without_the_word_is_refused(tiny64: AceStep15) -> None:
    method = fitted(tiny64, SETTINGS, word="song")
    with pytest.raises(UserError, match="does not have the word 'song'"):
        tiny64.generate(Clip("a fast violin", 7), SETTINGS, edits=method.at(1.0))
    with pytest.raises(UserError, match="acts on no token"):
        tiny64.generate(POSITIVE, SETTINGS, edits=fitted(tiny64, SETTINGS).at(1.0, positive=POSITIVE))
