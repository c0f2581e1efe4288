"""The initial noise of clips."""

from collections.abc import Sequence

import torch
from jaxtyping import Float

from workbench.engine.runs import Clip


def seeded_noise(clips: Sequence[Clip], shape: tuple[int, ...]) -> Float[torch.Tensor, "clip ..."]:
    """Draw standard normals of a shape for each clip from its own seed, so that a row does not depend on its batch."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(clip.seed)) for clip in clips]
    return torch.stack(draws)
