"""Text-embedding steering: move the text's states from the negative towards the positive prompt (TADA's TextEmb)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from analyses.steering.prompt_method import EVERYWHERE, NEGATIVE, POSITIVE, PromptMethod, prompt_method
from analyses.steering.schedule import Over, Schedule
from workbench.engine.edits import SELF, Edit, Source, blend
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet


@dataclass(frozen=True, kw_only=True)
class TextEmbedding(PromptMethod):
    """States e + strength · (e⁺ - e⁻) at the sites; made by `text_embedding`, which says what e is."""

    method: ClassVar[str] = "text embedding"

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
        """Return edits with which the sites read e + strength · (e⁺ - e⁻) in every pass; none for 0.

        The strength 1 turns the negative prompt's run into the positive one's, if all blocks are among the sites. A
        run whose prompt's tokens are at other positions than those of the two prompts is refused.

        Args:
            strength: the factor; negative towards the negative value.
            positive: the clip, or run, with the positive value; by default a name that is bound later.
            negative: the same with the negative value.
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.

        Raises:
            UserError: for an unknown schedule, a strength that is not finite, or a first step beyond the last.
        """
        sources = [SELF, positive, negative]
        return self._for_these_steps(
            [
                blend(self.sites, sources, (1.0, weight, -weight), steps=window)
                for window, weight in self._by_step(strength, schedule, over, start_step)
            ]
        )


def text_embedding(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str] = EVERYWHERE,
    *,
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    settings: GenerationSettings | None = None,
) -> TextEmbedding:
    """Steer by the difference of two prompts' states: e + strength · (e⁺ - e⁻) (TextEmb; TADA).

    Nothing is computed. What is combined are the keys and values that the sites compute from the states e, before
    their norm or rotation. Where these are affine in e, that is the same as combining e itself, because the weights add
    up to 1:

    - ACE-Step v1 and 1.5: e are the text encoder's states. States of lyrics, which are the same in all three runs,
      cancel out.
    - AudioLDM 2: e are T5's states, and for blocks that read them the states that the language model generates.
    - Stable Audio Open: e are the states behind the nonlinear projection that its cross-attentions share. Between the
      end points this is not the same as combining T5's states.

    States of the null pass are combined alike, which changes something only in ACE-Step v1, where they depend on the
    prompt. Other arguments are those of `pci`.

    Raises:
        UserError: if a concept, value, site or prompt set is unknown, or a site is not a cross-attention.
    """
    return prompt_method(TextEmbedding, model, concept, sites, positive, negative, prompts, settings)
