"""The shared part of the methods that steer through the prompt, whose edits read from other versions of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from analyses.steering.pairs import ends
from analyses.steering.schedule import Schedule, Stretch, scheduled
from cache.errors import UserError
from workbench.engine.edits import Edit
from workbench.engine.settings import settings_or_default
from workbench.engine.sites import parse_sites
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet, asked_prompt_set
from workbench.validation import must_be

POSITIVE, NEGATIVE = "positive", "negative"
"""Names of the runs that edits read from: the steered prompt with the positive and with the negative value."""
EVERYWHERE = "*.cross_attn"
Method = TypeVar("Method", bound="PromptMethod")


@dataclass(frozen=True, kw_only=True)
class PromptMethod(ABC):
    """Steering through the prompt, from the `negative` value of a concept to its `positive` one.

    The steered run is neutral. Its edits read from two other runs, which have the same seed and lyrics and differ in
    the prompt: the `positive` and the `negative` one. They are the names of runs until clips are given (see `at`), or
    bound with `Edit.bound`. `sites` are the cross-attentions that read the other prompts; all others read the neutral
    one's states in every pass. `sigmas` are those of the steps: runs with other steps refuse the edits.
    """

    method: ClassVar[str]

    concept: str
    positive: str
    negative: str
    sites: tuple[str, ...]
    sigmas: tuple[float, ...]

    @abstractmethod
    def at(self, strength: float) -> tuple[Edit, ...]:
        """Return the edits of a strength; none for 0."""

    def _by_step(self, strength: Any, schedule: Schedule, over: Any, start_step: Any) -> list[Stretch]:
        """Return windows of steps and the strength in each; steps with strength 0 are in none."""
        return scheduled(strength, self.sigmas, schedule, over, start_step)

    def _for_these_steps(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        return tuple(replace(edit, made_at=self.sigmas) for edit in edits)


def prompt_method(
    kind: type[Method],
    model: Any,
    concept: str,
    sites: str | Sequence[str],
    positive: str,
    negative: str,
    prompts: str | PromptSet,
    settings: Any,
) -> Method:
    """Make a method for a concept of a prompt set, by default between its first two values.

    Raises:
        UserError: if the concept, a value, a site or the prompt set is unknown, or a site is not a cross-attention.
    """
    must_be(
        AudioDiffusionModel,
        model,
        "A steering method is made with a model, such as wb.load('organism-shared')",
    )
    settings = settings_or_default(settings)
    model.check_settings(settings)
    towards, away = ends(asked_prompt_set(prompts), concept, positive, negative)
    return kind(
        concept=concept,
        positive=towards,
        negative=away[0],
        sites=cross_attentions(model, sites),
        sigmas=tuple(model.sigmas(settings)),
    )


def cross_attentions(model: AudioDiffusionModel, sites: str | Sequence[str]) -> tuple[str, ...]:
    """Return sites in order of computation; raise UserError unless all are cross-attentions of the model."""
    return numbered_cross_attentions(sites, model.n_blocks, model.block_names)


def numbered_cross_attentions(
    sites: str | Sequence[str], n_blocks: int, block_names: Sequence[str] = ()
) -> tuple[str, ...]:
    """As `cross_attentions`, for a model of so many blocks, with these names if they have any."""
    parsed = parse_sites(sites, n_blocks, block_names)
    for site in parsed:
        if site.part != "cross_attn":
            raise UserError(
                "The sites of a method that steers through the prompt must be cross-attentions, such as tf3.cross_attn "
                f"or '*.cross_attn'; got {site}."
            )
    return tuple(map(str, parsed))
