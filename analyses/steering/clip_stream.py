"""Generate clips in batches, and pass on the outputs of sites as they come."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analyses.steering.fit_state import FitState
from cache.errors import UserError
from workbench.engine.edits import Run, as_run
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.validation import must_be

Progress = Callable[[int, int], None]
CLIPS_PER_BATCH = 8
"""Even, so that both clips of a pair are in the same batch."""


class Taken(ABC):
    """What was made of the outputs of clips so far, as arrays."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Names of the arrays, once there were clips."""

    @property
    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The arrays."""

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from these arrays."""


@dataclass(frozen=True)
class Kept:
    """What is kept of clips while they are generated; `identity` is what determines it beside the clips, as JSON.

    Raises:
        UserError: for a `state` that is none.
    """

    state: FitState
    identity: Mapping[str, Any]
    taken: Taken

    def __post_init__(self) -> None:
        must_be(FitState, self.state, "The state of a fit must be one of analyses.steering.fit_state")


def stream_clips(
    model: AudioDiffusionModel,
    clips: Sequence[Clip | Run],
    settings: GenerationSettings,
    capture: Capture,
    take: Callable[[int, Site, int, Float[torch.Tensor, "clip pass token channel"]], None],
    hear: Callable[[Float[np.ndarray, "clip channel sample"]], None] | None = None,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> None:
    """Generate clips in batches.

    The outputs of each batch, in float64, are passed to `take` with the number of its first clip, the site and the
    step; its audio is decoded, if needed, and passed to `hear`. `progress(done, total)` counts clips. With `kept`,
    batches whose outputs are in the state are left out. The last batch is never kept: generating it again compares a
    restored state with outputs.
    """
    check_progress(progress)
    first = 0

    def pass_on(site: Site, step: int, outputs: Float[torch.Tensor, "clip pass token channel"]) -> None:
        take(first, site, step, outputs.double())

    total = len(clips)
    identity = {**_identity(model, clips, settings, capture), **(kept.identity if kept else {})}
    start = _restored(kept, identity, range(CLIPS_PER_BATCH, total, CLIPS_PER_BATCH)) if kept else 0
    if start and progress is not None:
        progress(start, total)
    for first in range(start, total, CLIPS_PER_BATCH):
        batch = clips[first : first + CLIPS_PER_BATCH]
        generation = model.generate_batch(batch, settings, capture=capture, sink=pass_on)
        if hear is not None:
            hear(model.decode(generation.latents, settings.duration).float().cpu().numpy())
        done = first + len(batch)
        if kept is not None and done < total:
            kept.state.save(identity, done, kept.taken.state)
        if progress is not None:
            progress(done, total)


def check_progress(progress: Any) -> None:
    """Raise UserError for what is not a function or None."""
    if progress is not None and not callable(progress):
        raise UserError(
            f"The progress must be a function, which is called with two numbers; got {progress!r}."
        )


def _identity(
    model: AudioDiffusionModel, clips: Sequence[Clip | Run], settings: GenerationSettings, capture: Capture
) -> dict[str, Any]:
    """Return everything that determines the outputs of clips, as JSON."""
    return {
        "model": model.describe(),
        "clips": [as_run(clip).to_json() for clip in clips],
        "settings": settings.model_dump(mode="json"),
        "sampling": model.sampling(settings).model_dump(mode="json"),
        "sites": list(map(str, capture.sites)),
        "steps": list(capture.steps),
        "passes": list(capture.passes),
        "batch": CLIPS_PER_BATCH,
    }


def _restored(kept: Kept, identity: Mapping[str, Any], known: Collection[int]) -> int:
    """Restore the state, if there is one of so many clips as is known; return their number."""
    clips, arrays = kept.state.load(identity, kept.taken.names, known)
    if clips:
        kept.taken.restore(arrays)
    return clips
