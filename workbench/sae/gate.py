"""The gate of a sparse autoencoder: the denoising steps at which it may not be used.

An SAE that is good over all steps may fail at some: the variance over tokens can fall a hundredfold over the steps, and
an SAE that was trained on all of them then explains none of what is left at the last ones. What steers with it there
adds errors, not features. The gate is kept in the metadata of the SAE's configuration, under the name `gate`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cache.errors import UserError
from workbench.sae.base import SAE
from workbench.validation import validated

LEAST_EXPLAINED_VARIANCE = 0.5
"""Explained variance below which a step is closed: more than half of what varies there is error.

Published SAEs of a music model's 8 steps explain .59 to .76 of the variance over all steps, and from .32 to less than
nothing at the last one.
"""
LEAST_LOSS_RECOVERED = 0.5
"""Loss recovered, relative to mean ablation, below which a step is closed.

The network's output is then nearer to that without the site's information than to its own.
"""
ENTRY = "gate"
MOST_STEPS = 10_000


class GatedStep(UserError):
    """An SAE would be used at a step at which it may not be."""


class Gate(BaseModel):
    """What is known of an SAE at each step that it was measured at; None where a metric is undefined or not measured.

    `loss_recovered` is relative to mean ablation. A step whose metrics are undefined is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: tuple[int, ...] = Field(max_length=MOST_STEPS)
    sigmas: tuple[float, ...]
    explained_variance: tuple[float | None, ...]
    loss_recovered: tuple[float | None, ...]

    @model_validator(mode="after")
    def _agreeing(self) -> "Gate":
        lengths = {len(values) for values in (self.sigmas, self.explained_variance, self.loss_recovered)}
        if lengths != {len(self.steps)}:
            raise ValueError("it must have one sigma, explained variance and loss recovered a step")
        return self

    @property
    def closed(self) -> Iterator[tuple[int, float, str]]:
        """Yield the steps at which the SAE may not be used: number, sigma and the reason."""
        for place, (step, sigma) in enumerate(zip(self.steps, self.sigmas, strict=True)):
            if reason := self._reason(place):
                yield step, sigma, reason

    def reason_at(self, sigma: float) -> str:
        """Return why the SAE may not be used at the measured step nearest in sigma, or ""."""
        if not self.steps:
            return ""
        return self._reason(min(range(len(self.steps)), key=lambda place: abs(self.sigmas[place] - sigma)))

    def _reason(self, place: int) -> str:
        for name, values, least in (
            ("explained variance", self.explained_variance, LEAST_EXPLAINED_VARIANCE),
            ("loss recovered", self.loss_recovered, LEAST_LOSS_RECOVERED),
        ):
            value = values[place]
            if value is not None and value < least:
                return f"its {name} there is {value:.2f}, less than {least:g}"
        return ""


def gate_of(sae: SAE) -> Gate | None:
    """Return the gate of an SAE, or None if it was not measured; raise UserError if it is damaged."""
    given: Any = sae.config.metadata.get(ENTRY)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError("The gate of an autoencoder must be an object. Evaluate the autoencoder again.")
    return validated(Gate, given, "The gate of the autoencoder is damaged; evaluate it again")


def set_gate(sae: SAE, gate: Gate) -> None:
    """Keep a gate with an SAE."""
    sae.set_metadata(ENTRY, gate.model_dump(mode="json"))


def check_steps(sae: SAE, acts_at: Callable[[int, float], bool]) -> None:
    """Raise GatedStep if the SAE would be used at a closed step; `acts_at` says at which steps, with sigma, it is."""
    gate = gate_of(sae)
    for step, sigma, reason in gate.closed if gate else ():
        if acts_at(step, sigma):
            site = sae.config.metadata.get("hook_name", "this site")
            raise GatedStep(refusal(site, step, sigma, reason))


def closed_steps(sae: SAE, sigmas: Sequence[float]) -> dict[int, str]:
    """Return why steps of a run with these sigmas are closed, by the number of the step.

    A run may have other steps than those that the SAE was measured at: each is judged by the nearest of them in sigma.
    """
    gate = gate_of(sae)
    if gate is None:
        return {}
    reasons = {step: gate.reason_at(sigma) for step, sigma in enumerate(sigmas)}
    return {step: reason for step, reason in reasons.items() if reason}


def refusal(site: str, step: int, sigma: float, reason: str) -> str:
    """Return the sentence that refuses a closed step of an SAE of a site."""
    return (
        f"The autoencoder of {site} may not be used at step {step} (sigma {sigma:.3g}): {reason}. Leave out such "
        "steps (with a weight of 0 in a schedule), or use it all the same (ignore_gate=True, --ignore-gate)."
    )
