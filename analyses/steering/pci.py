"""Prompt switching (PCI): the last steps read another prompt (TADA, arXiv 2602.11910)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from analyses.steering.prompt_method import EVERYWHERE, NEGATIVE, POSITIVE, PromptMethod, prompt_method
from cache.errors import UserError
from cache.protocol import Pass
from workbench.engine.edits import Edit, Source, patch
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet
from workbench.validation import shown


@dataclass(frozen=True, kw_only=True)
class PCI(PromptMethod):
    """Neutral steps, then steps that read the positive or the negative prompt; made by `pci`."""

    method: ClassVar[str] = "pci"

    def at(
        self,
        strength: int | float,
        *,
        positive: Source = POSITIVE,
        negative: Source = NEGATIVE,
        passes: tuple[Pass, ...] | None = None,
    ) -> tuple[Edit, ...]:
        """Return the edit with which the last |strength| steps read another prompt; none for 0.

        The prompt is the positive one if the strength is above 0, otherwise the negative one. A run of as many steps as
        the strength is the other prompt's run, if all blocks are among the sites. A strength costs only its steps.

        Args:
            strength: a whole number of steps.
            positive: the clip, or run, with the positive value; by default a name that is bound later.
            negative: the same with the negative value.
            passes: the guidance passes that read the other prompt, by default all. Only in ACE-Step v1 does the null
                pass depend on the prompt; TADA's code leaves it neutral there, as passes=("cond",) does.

        Raises:
            UserError: if the strength is not a whole number, or there are fewer steps.
        """
        n_steps = len(self.sigmas)
        n_switched = abs(_whole(strength, n_steps))
        if n_switched == 0:
            return ()
        source = positive if strength > 0 else negative
        last = (n_steps - n_switched, n_steps - 1)
        return self._for_these_steps([patch(self.sites, source, steps=last, passes=passes)])


def pci(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str] = EVERYWHERE,
    *,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    settings: GenerationSettings | None = None,
) -> PCI:
    """Steer by switching the prompt: neutral for the first steps, then positive or negative (PCI; TADA).

    Nothing is computed. `sites` are the cross-attentions that read the other prompt; the others stay neutral, in every
    pass. `settings` give the number of steps. Values are by default the concept's first two in the prompt set.

    Raises:
        UserError: if a concept, value, site or prompt set is unknown, or a site is not a cross-attention.
    """
    return prompt_method(PCI, model, concept, sites, positive, negative, prompts, settings)


def _whole(strength: Any, n_steps: int) -> int:
    is_number = isinstance(strength, Real) and not isinstance(strength, bool)
    number = float(strength) if is_number else math.nan
    if not number.is_integer() or abs(number) > n_steps:
        raise UserError(
            f"The strength of PCI must be a whole number of steps, from -{n_steps} to {n_steps} for runs of {n_steps} "
            f"steps; got {shown(strength)}."
        )
    return int(number)
