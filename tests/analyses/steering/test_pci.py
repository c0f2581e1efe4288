"""Prompt switching: which steps, blocks and passes read another prompt, and what it costs."""

from typing import Any

import numpy as np
import pytest
import torch

from analyses.steering.pci import PCI, pci
from cache.errors import UserError
from tests.analyses.steering.versions import NEGATIVE, NEUTRAL, POSITIVE, VERSIONS
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from workbench.engine.edits import Edit, Run, as_run, edit_from_json
from workbench.engine.runs import Capture
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)


def of(subject: Subject, *sites: str) -> PCI:
    return pci(
        subject.exact, "tempo", *([sites] if sites else []), positive="fast", settings=subject.settings
    )


def steered(method: Any, strength: float, **options: Any) -> Run:
    return Run(NEUTRAL, method.at(strength, **VERSIONS, **options))


def test_all_steps_at_all_blocks_are_the_other_prompts_run(subject: Subject) -> None:
    runs = [POSITIVE, NEGATIVE, steered(of(subject), 4), steered(of(subject), -4.0)]
    positive, negative, up, down = subject.exact.generate_batch(runs, subject.settings).latents
    assert_close(up, positive)
    assert_close(down, negative)
    assert difference(positive, negative) > 1e-6


def test_the_first_steps_are_neutral(subject: Subject) -> None:
    """The latents before the switched step are the neutral run's, those after it are not."""
    method = of(subject)
    runs = [NEUTRAL, *(steered(method, strength) for strength in (0, 1, 2, -2))]
    velocities = subject.exact.generate_batch(runs, subject.settings, velocity_steps=range(4)).velocities
    for place, first in enumerate((4, 3, 2, 2), start=1):
        changed = [difference(velocities[step][place], velocities[step][0]) > 1e-9 for step in range(4)]
        assert changed == [step >= first for step in range(4)]


def test_a_strength_costs_its_steps_only(tiny64: AceStep15) -> None:
    """And each of the other prompts one call, in which its states are computed."""
    method = pci(tiny64, "tempo", settings=SETTINGS)
    strengths = range(-4, 5)
    made = tiny64.generate_batch([steered(method, strength) for strength in strengths], SETTINGS)
    assert made.rows == 2 * (4 + sum(map(abs, strengths)) + 2), "cond and null"
    both = tiny64.generate_batch([NEUTRAL, POSITIVE, steered(method, 0), steered(method, 4)], SETTINGS)
    assert both.rows == 2 * 3 * 4, "a run that is asked for is computed"
    assert torch.equal(both.latents[2], both.latents[0]), "strength 0 is the neutral run's row"
    assert_close(both.latents[2:], made.latents[[4, 8]])


def test_other_blocks_keep_their_states_in_every_pass(subject: Subject) -> None:
    """In TADA's code they read the neutral prompt in the null pass, too."""
    model, block = subject.exact, subject.block
    passes = model.passes(subject.settings)
    other, chosen = (Site(place, "cross_attn.k") for place in (0, block))
    method = pci(model, "tempo", f"tf{block}.cross_attn", settings=subject.settings)
    capture = Capture((other, chosen), (2,), passes)
    runs = [NEUTRAL, POSITIVE, steered(method, 4)]
    kept = model.generate_batch(runs, subject.settings, capture).activations
    neutral, positive, switched = kept[other]
    assert torch.equal(switched, neutral), "one computed conditioning"
    assert difference(positive, neutral) > 1e-9
    assert difference(neutral[0, 0], neutral[0, -1]) > 1e-9, "the passes read different states"
    assert torch.equal(kept[chosen][2], kept[chosen][1])


def test_the_null_pass_stays_neutral_if_asked(tiny_v1_64: Any) -> None:
    """Only ACE-Step v1's depends on the prompt."""
    settings = SETTINGS.model_copy(update={"options": {"guidance_interval": 1.0}})
    method = pci(tiny_v1_64, "tempo", settings=settings)
    site = Site(1, "cross_attn.v")
    runs = [NEUTRAL, POSITIVE, steered(method, 4, passes=("cond",)), steered(method, 4)]
    kept = tiny_v1_64.generate_batch(runs, settings, Capture((site,), (1,), ("cond", "null")))
    neutral, positive, published, whole = kept.activations[site][:, 0]
    assert torch.equal(published, torch.stack([positive[0], neutral[1]]))
    assert torch.equal(whole, positive)
    assert difference(positive[1], neutral[1]) > 1e-9
    assert difference(kept.latents[2], kept.latents[1]) > 1e-9


def test_names_are_bound_later(tiny64: AceStep15) -> None:
    method = pci(tiny64, "tempo", settings=SETTINGS)
    (edit,) = method.at(2)
    assert Run("neutral", (edit,)).source_names == {"positive"}
    assert (
        edit.bound({name: [as_run(clip)] for name, clip in VERSIONS.items()}) == method.at(2, **VERSIONS)[0]
    )
    assert edit_from_json(edit.to_json()) == edit
    with pytest.raises(
        UserError, match=r"'positive' is the name of a run, which must be bound to a clip first"
    ):
        tiny64.generate(NEUTRAL, SETTINGS, edits=[method.at(2)])
    with pytest.raises(UserError, match=r"'positive' must be bound .* got negative"):
        edit.bound({"negative": [Run(NEGATIVE)]})


def test_generate_takes_its_edits(tiny64: AceStep15) -> None:
    method = pci(tiny64, "tempo", settings=SETTINGS)
    made = tiny64.generate(NEUTRAL, SETTINGS, edits=[method.at(4, **VERSIONS)])
    assert_close(made.samples, tiny64.generate(POSITIVE, SETTINGS).samples)


def test_runs_with_other_steps_are_refused(tiny64: AceStep15) -> None:
    edits: tuple[Edit, ...] = pci(tiny64, "tempo", settings=SETTINGS).at(2, **VERSIONS)
    with pytest.raises(UserError, match="was made for 4 steps"):
        tiny64.generate(NEUTRAL, SETTINGS.model_copy(update={"num_steps": 8}), edits=edits)


@pytest.mark.parametrize(
    "strength", [2.5, 5, -5, True, "2", None, float("nan"), float("inf")], ids=lambda value: repr(value)
)
def test_strengths_that_are_no_number_of_steps(tiny64: AceStep15, strength: Any) -> None:
    method = pci(tiny64, "tempo", settings=SETTINGS)
    with pytest.raises(UserError, match="must be a whole number of steps, from -4 to 4"):
        PCI.at.__wrapped__(method, strength)  # without the type check


def test_numbers_of_steps_of_any_type(tiny64: AceStep15) -> None:
    method = pci(tiny64, "tempo", settings=SETTINGS)
    for strength in (2.0, np.int64(2), np.float32(2.0)):
        assert PCI.at.__wrapped__(method, strength) == method.at(2)  # without the type check
    assert method.at(0) == method.at(-0.0) == ()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"concept": "colour"}, "Unknown concept 'colour'"),
        ({"positive": "angry"}, "Unknown value 'angry'"),
        ({"positive": "fast", "negative": "fast"}, "must differ"),
        ({"sites": "tf0.mlp"}, "must be cross-attentions.*got tf0.mlp"),
        ({"sites": ["tf0.cross_attn", "tf1.cross_attn.k"]}, "must be cross-attentions"),
        ({"sites": "tf7.cross_attn"}, "tf0 to tf1"),
        ({"sites": []}, "at least one site"),
        ({"model": "organism-shared"}, "made with a model"),
        ({"prompts": "portraits"}, "portraits"),
    ],
)
def test_what_there_is_not(tiny64: AceStep15, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pci.__wrapped__(**{"model": tiny64, "concept": "tempo", "settings": SETTINGS, **asked})


def test_its_ends_are_two_values(tiny64: AceStep15) -> None:
    """A prompt has one value, so that the negative end is one, too."""
    method = pci(tiny64, "instrument", negative="flute", settings=SETTINGS)
    assert (method.concept, method.positive, method.negative) == ("instrument", "violin", "flute")
    assert pci(tiny64, "instrument", positive="piano", settings=SETTINGS).negative == "violin"
