"""FreeSliders: what is added to the velocity that the sampler follows, in every architecture, and what it costs."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from analyses.steering.free_sliders import FreeSliders, free_sliders
from cache.errors import UserError
from tests.analyses.steering.versions import NEGATIVE, NEUTRAL, POSITIVE, VERSIONS
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from workbench.engine.edits import SELF, Run, as_run, edit_from_json, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.schedulers import AceStepV1EulerScheduler
from workbench.models.base import AudioDiffusionModel

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)


def steered(method: FreeSliders, strength: float, **options: Any) -> Run:
    return Run(NEUTRAL, method.at(strength, **VERSIONS, **options))


def two_steps(subject: Subject) -> GenerationSettings:
    """Settings for a look at the first step."""
    return subject.settings.model_copy(update={"num_steps": 2})


def followed(subject: Subject, runs: Sequence[Clip | Run]) -> torch.Tensor:
    """The velocities that the sampler follows in the first step, by run."""
    model = subject.exact
    is_v1 = subject.architecture.adapter == "AceStepV1"
    scheduler = AceStepV1EulerScheduler if is_v1 else type(model.pipeline.scheduler)
    step, given = scheduler.step, []

    def record(self: Any, velocity: torch.Tensor, *rest: Any, **options: Any) -> Any:
        given.append(velocity)
        return step(self, velocity, *rest, **options)

    with pytest.MonkeyPatch.context() as change:
        change.setattr(scheduler, "step", record)
        model.generate_batch(runs, two_steps(subject))
    return subject.architecture.by_frame(given[0])


def velocities(model: AudioDiffusionModel, runs: Sequence[Run | Clip], settings: Any) -> torch.Tensor:
    """The network's own in the cond pass of the first step, by run."""
    return model.generate_batch(runs, settings, velocity_steps=(0,)).velocities[0]


def test_it_adds_the_difference_of_the_other_prompts_velocities(subject: Subject) -> None:
    method = free_sliders(subject.exact, "tempo", settings=two_steps(subject))
    neutral, moved = followed(subject, [NEUTRAL, steered(method, 1.5)])[:2]
    positive, negative = velocities(subject.exact, [POSITIVE, NEGATIVE], two_steps(subject))
    assert difference(positive, negative) > 1e-6
    assert_close(moved, neutral + 1.5 * (positive - negative))


def test_only_the_chosen_blocks_see_the_other_prompts(subject: Subject) -> None:
    site = f"tf{subject.block}.cross_attn"
    method = free_sliders(subject.exact, "tempo", site, settings=two_steps(subject))
    assert {*method.sites, *method.others} == {
        f"tf{block}.cross_attn" for block in range(subject.exact.n_blocks)
    }
    neutral, moved = followed(subject, [NEUTRAL, steered(method, -0.5)])[:2]
    patched = [Run(NEUTRAL, (patch(site, clip),)) for clip in (POSITIVE, NEGATIVE)]
    positive, negative = velocities(subject.exact, patched, two_steps(subject))
    assert difference(positive, negative) > 1e-6
    assert_close(moved, neutral - 0.5 * (positive - negative))


def test_strengths_of_a_batch_are_runs_of_their_own(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings
    method = free_sliders(model, "tempo", settings=settings)
    local = free_sliders(model, "tempo", f"tf{subject.block}.cross_attn", settings=settings)
    runs = [steered(method, 2.0), steered(method, -1.0, start_step=2), steered(local, 1.0)]
    together = model.generate_batch([NEUTRAL, *runs], settings).latents
    for run, latents in zip(runs, together[1:], strict=True):
        assert_close(model.generate_batch([run], settings).latents[0], latents)
        assert difference(latents, together[0]) > 1e-9


def test_a_steered_step_costs_two_more_rows(tiny64: AceStep15) -> None:
    method = free_sliders(tiny64, "tempo", settings=SETTINGS)
    runs = [NEUTRAL, *(steered(method, strength, start_step=1) for strength in (0.0, 0.5, 1.0, -1.0))]
    made = tiny64.generate_batch(runs, SETTINGS)
    first, second, later = 2, 2 + 2, 2 + 3 * (2 + 2)
    assert made.rows == first + second + 2 * later
    assert torch.equal(made.latents[1], made.latents[0]), "strength 0 is the neutral run's row"
    assert difference(made.latents[2], made.latents[0]) > 1e-9


def test_a_difference_of_equal_runs_is_nothing(tiny64: AceStep15) -> None:
    method = free_sliders(tiny64, "tempo", settings=SETTINGS)
    run = Run(NEUTRAL, method.at(2.0, positive=POSITIVE, negative=POSITIVE))
    plain, moved = tiny64.generate_batch([NEUTRAL, run], SETTINGS).latents
    assert_close(moved, plain)


def test_a_later_run_is_not_steered(tiny64: AceStep15, tiny_v1_64: AudioDiffusionModel) -> None:
    for model in (tiny64, tiny_v1_64):
        method = free_sliders(model, "tempo", settings=SETTINGS)
        before = model.generate_batch([NEUTRAL], SETTINGS).latents
        model.generate_batch([steered(method, 2.0)], SETTINGS)
        assert_close(model.generate_batch([NEUTRAL], SETTINGS).latents, before)


def test_names_are_bound_later(tiny64: AceStep15) -> None:
    method = free_sliders(tiny64, "tempo", "tf1.cross_attn", settings=SETTINGS)
    (edit,) = method.at(0.5)
    assert Run("neutral", (edit,)).source_names == {"positive", "negative"}
    bound = edit.bound({name: [as_run(clip)] for name, clip in VERSIONS.items()})
    assert bound == method.at(0.5, **VERSIONS)[0]
    assert all(source.follows == Run(SELF) for source in bound.sources)
    assert edit_from_json(edit.to_json()) == edit
    made = tiny64.generate(NEUTRAL, SETTINGS, edits=[bound])
    assert difference(made.samples, tiny64.generate(NEUTRAL, SETTINGS).samples) > 1e-9
    with pytest.raises(UserError, match="is the name of a run"):
        tiny64.generate(NEUTRAL, SETTINGS, edits=[edit])


def test_runs_with_other_steps_are_refused(tiny64: AceStep15) -> None:
    edits = free_sliders(tiny64, "tempo", settings=SETTINGS).at(1.0, **VERSIONS)
    with pytest.raises(UserError, match="'add_difference' of the velocity was made for 4 steps"):
        tiny64.generate(NEUTRAL, SETTINGS.model_copy(update={"num_steps": 8}), edits=edits)


def test_it_needs_a_model(tiny64: AceStep15) -> None:
    with pytest.raises(UserError, match="made with a model"):
        free_sliders.__wrapped__("organism-shared", "tempo")  # without the type check
    with pytest.raises(UserError, match="must be cross-attentions"):
        free_sliders(tiny64, "tempo", "tf0.mlp")
