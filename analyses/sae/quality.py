"""How good an SAE's reconstruction is, over all denoising steps and at each of them; the steps that its gate closes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.sae.metrics import Reconstruction
from workbench.sae.base import SAE
from workbench.sae.gate import Gate

MEASURES: dict[str, Callable[[Reconstruction], float]] = {
    "explained_variance": lambda metrics: metrics.explained_variance,
    "normalised_error": lambda metrics: metrics.normalised_error,
    "l0": lambda metrics: metrics.l0,
    "dead_fraction": lambda metrics: metrics.dead_fraction,
    "dense_fraction": lambda metrics: metrics.dense_fraction,
}
"""The metrics of `analyses.sae.metrics` by the names that results have for them."""


def quality(
    sae: SAE,
    clip_acts: Iterable[Float[np.ndarray, "step token channel"]],
    sigmas: Mapping[int, float],
    input_scale: Float[np.ndarray, "steps channels"],
    targets: Iterable[Float[np.ndarray, "step token channel_out"]] | None = None,
) -> xr.Dataset:
    """Measure an SAE on the rows of some clips, holding one clip at a time in memory.

    Args:
        sae: the autoencoder, which is applied to each step's rows as `sae.at(step)`.
        clip_acts: activations of clips (step, token, channel).
        sigmas: their steps, with the sigma of each.
        input_scale: what the targets, of anything but a transcoder its inputs, were multiplied by in training: one
            number, one a step, or one a channel.
        targets: for a transcoder, what it reconstructs: the other site's activations of the same clips.

    Returns:
        For each metric of `MEASURES`, `final_<metric>`, a scalar over all rows, and `step_<metric>` over those of each
        step, dims (step), coords step and sigma. `final_loss` is the squared error per channel, scaled as in training.
        `gated` (step): whether the SAE may not be used at the step (see `workbench.sae.gate`).
    """
    of_steps = [Reconstruction(sae.config.d_out, sae.config.d_sae) for _ in sigmas]
    factors = torch.from_numpy(np.broadcast_to(input_scale, (len(sigmas), input_scale.shape[1])).copy())
    clips = ((acts, acts) for acts in clip_acts) if targets is None else zip(clip_acts, targets, strict=True)
    for of_clip in clips:
        for step, *rows, metrics in zip(sigmas, *of_clip, of_steps, strict=True):
            own, (x, target) = sae.at(step), (torch.from_numpy(each).to(sae.device) for each in rows)
            with torch.no_grad():
                z = own.encode(x)
                metrics.add(target, own.decode(z), z)
    whole = Reconstruction(sae.config.d_out, sae.config.d_sae)
    for metrics in of_steps:
        whole.merge(metrics)
    by_step = {
        name: ("step", [measure(metrics) for metrics in of_steps]) for name, measure in MEASURES.items()
    }
    measured = xr.Dataset(
        {
            # Every step has as many rows.
            "final_loss": np.mean(
                [metrics.scaled_error(factor) for metrics, factor in zip(of_steps, factors, strict=True)]
            ),
            **{f"final_{name}": measure(whole) for name, measure in MEASURES.items()},
            **{f"step_{name}": values for name, values in by_step.items()},
        },
        {"step": list(sigmas), "sigma": ("step", list(sigmas.values()))},
    )
    closed = {step for step, _, _ in gate(measured).closed}
    return measured.assign(gated=("step", [step in closed for step in sigmas]))


def gate(measured: xr.Dataset, loss_recovered: Sequence[float] | None = None) -> Gate:
    """Return the gate from the explained variance of each step and, if it was measured, the loss recovered."""
    steps = measured["step"].values.tolist()
    return Gate(
        steps=steps,
        sigmas=measured["sigma"].values.tolist(),
        explained_variance=[_known(value) for value in measured["step_explained_variance"].values.tolist()],
        loss_recovered=[_known(value) for value in loss_recovered or [math.nan] * len(steps)],
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
