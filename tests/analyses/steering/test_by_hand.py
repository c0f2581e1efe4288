"""PCI and FreeSliders against sampling loops that are written by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from analyses.steering.free_sliders import free_sliders
from analyses.steering.pci import pci
from tests.analyses.steering.by_hand import Loop, LoopOfAceStep, LoopOfAceStepV1
from tests.analyses.steering.versions import NEGATIVE, NEUTRAL, POSITIVE, VERSIONS
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Run
from workbench.engine.settings import GenerationSettings
from workbench.models import load_model
from workbench.models.base import AudioDiffusionModel

SETTINGS = GenerationSettings(duration=1.0, num_steps=6, guidance_scale=3.0)
CLIPS = (NEUTRAL, POSITIVE, NEGATIVE)
Case = tuple[AudioDiffusionModel, Callable[..., Loop]]


@pytest.fixture(scope="module", params=["organism", "ACE-Step v1"])
def case(request: Any) -> Case:
    """A model whose guidance is not linear in the velocities, and its loop."""
    if request.param == "organism":
        return load_model("organism-shared", dtype="float64"), LoopOfAceStep
    return request.getfixturevalue("tiny_v1_64"), LoopOfAceStepV1


def found(model: AudioDiffusionModel, method: Any, strength: float, **options: Any) -> Any:
    run = Run(NEUTRAL, method.at(strength, **VERSIONS, **options))
    plain, steered = model.generate_batch([NEUTRAL, run], SETTINGS).latents
    assert difference(steered, plain) > 1e-6
    return steered[None]


def test_the_loops_are_the_pipelines(case: Case) -> None:
    model, loop = case
    made = model.generate_batch([NEUTRAL], SETTINGS).latents
    assert_close(loop(model, CLIPS, SETTINGS).run([{}] * 6, [0.0] * 6), made)


@pytest.mark.parametrize(("strength", "prompt"), [(3, 1), (-4, 2)])
def test_pci_switches_the_prompt(case: Case, strength: int, prompt: int) -> None:
    model, loop = case
    switched = {"cond": prompt, "null": prompt}
    states = [{}] * (6 - abs(strength)) + [switched] * abs(strength)
    expected = loop(model, CLIPS, SETTINGS).run(states, [0.0] * 6)
    assert_close(found(model, pci(model, "tempo", settings=SETTINGS), strength), expected)


def test_published_pci_keeps_the_null_pass(case: Case) -> None:
    model, loop = case
    states = [{}] * 2 + [{"cond": 1}] * 4
    expected = loop(model, CLIPS, SETTINGS).run(states, [0.0] * 6)
    method = pci(model, "tempo", settings=SETTINGS)
    assert_close(found(model, method, 4, passes=("cond",)), expected)


@pytest.mark.parametrize(
    ("options", "push"),
    [
        ({}, [1.3] * 6),
        ({"start_step": 4}, [0.0] * 4 + [1.3] * 2),
        ({"schedule": [1.0, 0.0, -0.5, 2.0, 0.0, 0.0]}, [1.3, 0.0, -0.65, 2.6, 0.0, 0.0]),
    ],
    ids=["all steps", "from a step on", "on a schedule"],
)
def test_free_sliders_add_velocities_after_guidance(
    case: Case, options: dict[str, Any], push: list[float]
) -> None:
    model, loop = case
    expected = loop(model, CLIPS, SETTINGS).run([{}] * 6, push)
    method = free_sliders(model, "tempo", settings=SETTINGS)
    assert_close(found(model, method, 1.3, **options), expected)
