"""Text-embedding steering: its end points, the states between them, and the prompts that it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from analyses.steering.text_embedding import TextEmbedding, text_embedding
from cache.errors import UserError
from tests.analyses.steering.versions import NEGATIVE, NEUTRAL, POSITIVE, VERSIONS
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from workbench.engine.edits import Run
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)


def steered(method: TextEmbedding, strength: float, clip: Clip = NEUTRAL, **options: Any) -> Run:
    return Run(clip, method.at(strength, **VERSIONS, **options))


def test_its_end_points_are_the_other_prompts_runs(subject: Subject) -> None:
    method = text_embedding(subject.exact, "tempo", settings=subject.settings)
    runs = [POSITIVE, NEGATIVE, steered(method, 1.0, NEGATIVE), steered(method, -1.0, POSITIVE)]
    for settings in subject.variants:
        positive, negative, up, down = subject.exact.generate_batch(runs, settings).latents
        assert_close(up, positive)
        assert_close(down, negative)
        assert difference(positive, negative) > 1e-6


def test_it_moves_the_chosen_blocks_states_in_every_pass(subject: Subject) -> None:
    model, chosen = subject.exact, subject.block
    method = text_embedding(model, "tempo", f"tf{chosen}.cross_attn", settings=subject.settings)
    sites = tuple(Site(block, f"cross_attn.{part}") for block in (0, chosen) for part in "kv")
    capture = Capture(sites, (2,), model.passes(subject.settings))
    runs = [NEUTRAL, POSITIVE, NEGATIVE, steered(method, 0.5)]
    kept = model.generate_batch(runs, subject.settings, capture).activations
    for site in sites:
        neutral, positive, negative, moved = kept[site]
        if site.block == 0:
            assert torch.equal(moved, neutral), site
        else:
            assert_close(moved, neutral + 0.5 * (positive - negative), site)
            assert difference(moved, neutral) > 1e-9, site


TEXT_STATES: dict[str, Callable[[Any], torch.nn.Module]] = {
    "ACE-Step 1.5": lambda model: model.pipeline.condition_encoder.text_projector,
    "ACE-Step v1": lambda model: model.pipeline.transformer.genre_embedder,
}
"""The first module that reads the text encoder's states."""


@pytest.mark.parametrize("name", TEXT_STATES)
def test_it_is_a_combination_of_the_text_encoders_states(name: str, model_named: Any) -> None:
    """The keys are those that the network computes from combined states, to which torch's own hook changes them."""
    model = model_named(name)
    method = text_embedding(model, "tempo", settings=SETTINGS)
    site = Site(1, "cross_attn.k")
    capture = Capture((site,), (0,), ("cond",))
    expected = model.generate_batch([steered(method, 1.7)], SETTINGS, capture).activations[site]
    rows = [NEUTRAL, POSITIVE, NEGATIVE]

    def combine(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states = given[0].clone()
        states[0] += 1.7 * (states[1] - states[2])
        return (states, *given[1:])

    hook = TEXT_STATES[name](model).register_forward_pre_hook(combine)
    try:
        found = model.generate_batch(rows, SETTINGS, capture).activations[site]
    finally:
        hook.remove()
    assert_close(found[:1], expected)


@pytest.fixture
def model_named(tiny64: Any, tiny_v1_64: Any) -> Callable[[str], Any]:
    return {"ACE-Step 1.5": tiny64, "ACE-Step v1": tiny_v1_64}.__getitem__


def test_strength_0_is_the_neutral_run(tiny64: AceStep15) -> None:
    method = text_embedding(tiny64, "tempo", settings=SETTINGS)
    assert method.at(0.0) == ()
    assert method.at(2.0, schedule=[0.0] * 4) == ()


def test_a_strength_costs_one_run(tiny64: AceStep15) -> None:
    """And each of the other prompts one call."""
    method = text_embedding(tiny64, "tempo", settings=SETTINGS)
    made = tiny64.generate_batch([steered(method, strength) for strength in (1.0, 2.0)], SETTINGS)
    assert made.rows == 2 * (2 * 4 + 2), "cond and null"


def test_strength_follows_a_schedule(tiny64: AceStep15) -> None:
    method = text_embedding(tiny64, "tempo", settings=SETTINGS)

    def windows(**options: Any) -> dict[Any, float]:
        return {edit.window.steps: edit.parameters.weights[1] for edit in method.at(2.0, **options)}

    assert windows() == {(0, 3): 2.0}
    assert windows(start_step=2) == {(2, 3): 2.0}
    assert windows(schedule=[1.0, 0.0, 0.5, 0.5]) == {(0, 0): 2.0, (2, 3): 1.0}
    assert windows(schedule="early") == {(0, 1): 2.0}
    for edit in method.at(2.0, schedule="linear"):
        assert edit.parameters.weights == (1.0, edit.parameters.weights[1], -edit.parameters.weights[1])


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (("a fast happy song", "a slow song"), r"\d+ and \d+ tokens"),
        (("fast a happy song", "a slow happy song"), "not at the same tokens"),
        (("fast song with a violin", "song with a violin slow"), "not at the same tokens"),
    ],
    ids=["longer", "two words swapped", "at the other end"],
)
def test_prompts_whose_words_are_elsewhere_are_refused(
    tiny64: AceStep15, prompts: tuple[str, str], words: str
) -> None:
    positive, negative = (Clip(prompt, 7) for prompt in prompts)
    edits = text_embedding(tiny64, "tempo", settings=SETTINGS).at(1.0, positive=positive, negative=negative)
    with pytest.raises(UserError, match=f"Cannot blend .*{words}"):
        tiny64.generate(negative, SETTINGS, edits=edits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": float("nan")}, "strength"),
        ({"strength": "1"}, "strength must be a number"),
        ({"start_step": 4}, "from 0 to 3; got 4"),
        ({"start_step": -1}, "start_step must be at least 0"),
        ({"schedule": "quadratic"}, "Unknown schedule"),
        ({"over": "time"}, "over must be"),
    ],
)
def test_what_cannot_be_asked_for(tiny64: AceStep15, options: dict[str, Any], words: str) -> None:
    method = text_embedding(tiny64, "tempo", settings=SETTINGS)
    with pytest.raises(UserError, match=words):
        TextEmbedding.at.__wrapped__(method, **{"strength": 1.0, **options})  # without the type check
