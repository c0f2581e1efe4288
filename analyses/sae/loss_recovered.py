"""Loss recovered: how much of a site's part in the network's output an SAE keeps, at each denoising step.

Along the unedited run, the velocity v of each step is compared with the velocities that the network gives when the
site's output is replaced: by the SAE's reconstruction, by its mean, or by zero. The latents stay those of the unedited
run, so that the errors of one step do not add to those of the next.

    loss recovered = 1 - sum ||v_reconstruction - v||² / sum ||v_ablated - v||²

The sums run over clips. The SAE that reconstructs everything recovers 1; the one that always gives the mean recovers 0
relative to mean ablation, and its explained variance is 0.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.sae.replacements import ABLATIONS, REPLACEMENTS, replacements
from analyses.statistics import cluster_bootstrap
from workbench.engine.edits import Edit, Run
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.base import AudioDiffusionModel
from workbench.models.memory import clips_that_fit
from workbench.sae.base import SAE

CONFIDENCE = 0.95
LEAST_CHANGE = 1e-8
"""An ablation that changes the velocity by less than this fraction of its square changes nothing but its rounding."""
PASS = "cond"
"""The pass whose velocity is compared."""

Errors = Float[np.ndarray, "replacement clip step"]


def loss_recovered(
    model: AudioDiffusionModel,
    sae: SAE,
    site: str,
    clips: Sequence[Clip],
    prompts: Sequence[str],
    settings: GenerationSettings,
    means: Mapping[int, Float[torch.Tensor, " channel"]],
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Measure the loss recovered of an SAE on some clips; one generation, whose calls have a row for each replacement.

    Args:
        model: the model.
        sae: the autoencoder of the site's outputs in the cond pass, or a transcoder that reconstructs them.
        site: the site.
        clips: clips that the SAE was not trained on.
        prompts: what tells which clips are of the same prompt; intervals are over prompts.
        settings: the generation settings.
        means: the mean output of the site at each step that is measured.
        progress: called as `progress(done, total)` with numbers of clips.

    Returns:
        `velocity_error` (replacement, step): mean squared error over clips, frames and channels. `velocity_square`
        (step): mean square of the velocity. `loss_recovered`, `loss_recovered_lo`, `loss_recovered_hi` (ablation,
        step), and the same with `_all` (ablation) over all steps, each weighted by its size: with BCa bootstrap
        intervals over prompts; NaN where the ablation does not change the velocity.
    """
    edits = replacements(sae, site, PASS, means)
    errors, squares = _errors(model, edits, clips, settings, list(means), progress)
    sigmas, sizes = model.sigmas(settings), model.step_sizes(settings)
    weights = np.array([sizes[step] for step in means])
    found = xr.Dataset(
        {
            "velocity_error": (("replacement", "step"), errors.mean(axis=1)),
            "velocity_square": ("step", squares.mean(axis=0)),
        },
        {
            "replacement": list(REPLACEMENTS),
            "ablation": list(ABLATIONS),
            "step": list(means),
            "sigma": ("step", [sigmas[step] for step in means]),
        },
        {"clips": len(clips), "prompts": len(set(prompts)), "confidence": CONFIDENCE},
    )
    _, cluster = np.unique(np.array(prompts), return_inverse=True)
    whole = (errors @ weights[:, None], squares @ weights[:, None])
    for suffix, (of_errors, of_squares), dims in (
        ("", (errors, squares), ("ablation", "step")),
        ("_all", whole, ("ablation",)),
    ):
        values = [
            recovered(of_errors[0], of_errors[REPLACEMENTS.index(ablation)], of_squares, cluster)
            for ablation in ABLATIONS
        ]
        for name, value in zip(("", "_lo", "_hi"), zip(*values, strict=True), strict=True):
            array = np.stack(value) if suffix == "" else np.concatenate(value)
            found[f"loss_recovered{suffix}{name}"] = (dims, array)
    return found


def recovered(
    reconstruction: Float[np.ndarray, "clip cell"],
    ablated: Float[np.ndarray, "clip cell"],
    square: Float[np.ndarray, "clip cell"],
    cluster: np.ndarray,
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Return `1 - sum(reconstruction) / sum(ablated)` with its interval over clusters of clips, for each cell.

    Args:
        reconstruction: squared errors with the reconstruction.
        ablated: those with the ablation.
        square: squares of the velocity itself, which say how large an error of rounding may be.
        cluster: the number of each clip's prompt.
    """

    def totals(values: Float[np.ndarray, "clip cell"]) -> Float[np.ndarray, "cluster cell"]:
        return np.stack([values[cluster == number].sum(axis=0) for number in range(cluster.max() + 1)])

    boot = cluster_bootstrap(
        (totals(reconstruction), totals(ablated)), lambda error, whole: 1 - error / whole, CONFIDENCE
    )
    known = ablated.sum(axis=0) > LEAST_CHANGE * square.sum(axis=0)
    value, low, high = (np.where(known, ends, np.nan) for ends in (boot.value, boot.low, boot.high))
    return value, low, high


def _errors(
    model: AudioDiffusionModel,
    edits: Mapping[str, tuple[Edit, ...]],
    clips: Sequence[Clip],
    settings: GenerationSettings,
    steps: Sequence[int],
    progress: Callable[[int, int], None] | None,
) -> tuple[Errors, Float[np.ndarray, "clip step"]]:
    """Return the mean squared error of each clip's velocity with each replacement, and the velocity's mean square."""
    rows = 1 + len(REPLACEMENTS)
    size = max(1, clips_that_fit(model, settings) // rows)
    errors = np.empty((len(REPLACEMENTS), len(clips), len(steps)))
    squares = np.empty((len(clips), len(steps)))
    for first in range(0, len(clips), size):
        batch = clips[first : first + size]
        runs = [
            run
            for clip in batch
            for run in (
                Run(clip),
                *(Run(clip, edits[name], follows=Run(clip)) for name in REPLACEMENTS),
            )
        ]
        made = model.generate_batch(runs, settings, velocity_steps=steps)
        some = slice(first, first + len(batch))
        for place, step in enumerate(steps):
            velocity = made.velocities[step].double().unflatten(0, (len(batch), rows))
            change = velocity[:, 1:] - velocity[:, :1]
            errors[:, some, place] = change.square().mean(dim=(2, 3)).T.cpu().numpy()
            squares[some, place] = velocity[:, 0].square().mean(dim=(1, 2)).cpu().numpy()
        if progress is not None:
            progress(first + len(batch), len(clips))
    return errors, squares
