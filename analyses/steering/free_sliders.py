"""FreeSliders: add a difference of two prompts' velocities to the guided velocity (as in TADA, arXiv 2602.11910)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from analyses.steering.prompt_method import (
    EVERYWHERE,
    NEGATIVE,
    POSITIVE,
    PromptMethod,
    cross_attentions,
    prompt_method,
)
from analyses.steering.schedule import Over, Schedule
from workbench.engine.edits import SELF, Edit, Run, Source, add_velocity, as_run, patch
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet


@dataclass(frozen=True, kw_only=True)
class FreeSliders(PromptMethod):
    """Velocities v + strength · (v⁺ - v⁻), made by `free_sliders`.

    `others` are the cross-attentions at which v⁺ and v⁻ are computed with the neutral prompt.
    """

    method: ClassVar[str] = "FreeSliders"

    others: tuple[str, ...] = ()

    def at(
        self,
        strength: float,
        *,
        positive: Source = POSITIVE,
        negative: Source = NEGATIVE,
        schedule: Schedule = "constant",
        over: Over = "steps",
        start_step: int = 0,
    ) -> tuple[Edit, ...]:
        """Return edits that add strength · (v⁺ - v⁻) to the guided velocity of each step; none for 0.

        v⁺ and v⁻ are the velocities of the cond pass at the steered run's own latents, with the positive and the
        negative prompt. A steered step computes two rows more than an unsteered one.

        Args:
            strength: the factor; negative towards the negative value.
            positive: the clip with the positive value; by default a name that is bound later.
            negative: the same with the negative value.
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.

        Raises:
            UserError: for an unknown schedule, a strength that is not finite, or a first step beyond the last.
        """
        plus, minus = self._follower(positive), self._follower(negative)
        return self._for_these_steps(
            [
                add_velocity(plus, minus, weight, steps=window)
                for window, weight in self._by_step(strength, schedule, over, start_step)
            ]
        )

    def _follower(self, source: Source) -> Run:
        """Return the run that sees the steered run's latents, and at the sites another prompt."""
        neutral = [patch(self.others, SELF, passes=("cond",))] if self.others else []
        run = as_run(source)
        return Run(run.clip, (*run.edits, *neutral), follows=Run(SELF))


def free_sliders(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str] = EVERYWHERE,
    *,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    settings: GenerationSettings | None = None,
) -> FreeSliders:
    """Steer by the difference of two prompts' velocities: guided v + strength · (v⁺ - v⁻) (FreeSliders).

    Nothing is computed. It is added after guidance, of whatever kind. v⁺ and v⁻ are computed with the other prompts at
    the sites, and the neutral one elsewhere. Other arguments are those of `pci`.

    Raises:
        UserError: if a concept, value, site or prompt set is unknown, or a site is not a cross-attention.
    """
    made = prompt_method(FreeSliders, model, concept, sites, positive, negative, prompts, settings)
    every = cross_attentions(model, EVERYWHERE)
    return replace(made, others=tuple(site for site in every if site not in made.sites))
