"""How well an autoencoder finds planted features, as SynthSAEBench measures it (arXiv 2602.14687)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.sae.matching import one_to_one, units
from analyses.sae.metrics import Reconstruction
from workbench.sae.base import SAE


def planted_metrics(
    sae: SAE,
    directions: Float[Tensor, "planted channel"],
    batches: Iterable[tuple[Float[Tensor, "_row channel"], Float[Tensor, "_row planted"]]],
) -> dict[str, float]:
    """Return the metrics of an autoencoder on rows whose planted features are known.

    - `f1`: each feature is taken as a classifier of the planted feature whose direction is nearest to its own (by the
      absolute cosine); the mean of their F1, 0 for a feature or a planted feature that never fires.
    - `mcc`: mean cosine of directions matched one to one, as many as there are of the fewer.
    - `uniqueness`: number of planted features that are nearest to a feature, over the number of features.
    - `explained_variance`, `l0`, `dead`: as in `analyses.sae.metrics`.

    Args:
        sae: the autoencoder.
        directions: the planted features' directions.
        batches: rows, and the magnitudes of the planted features in them.
    """
    with torch.no_grad():
        decoder = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)
        nearest = (decoder @ directions.T).abs().argmax(1)
        reconstruction = Reconstruction(sae.config.d_in, sae.config.d_sae)
        both, fired, planted = (torch.zeros(sae.config.d_sae, dtype=torch.float64) for _ in range(3))
        for x, magnitudes in batches:
            acts = sae.encode(x)
            reconstruction.add(x, sae.decode(acts), acts)
            active, present = acts > 0, magnitudes[:, nearest] > 0
            both += (active & present).sum(0)
            fired += active.sum(0)
            planted += present.sum(0)
    decoder_rows, planted_rows = (rows.detach().double().numpy() for rows in (sae.W_dec, directions))
    _, _, cosine = one_to_one(units(decoder_rows), units(planted_rows))
    return {
        "f1": (2 * both / (fired + planted).clamp(min=1)).mean().item(),
        "mcc": cosine.mean().item(),
        "uniqueness": len(nearest.unique()) / len(nearest),
        "explained_variance": reconstruction.explained_variance,
        "l0": reconstruction.l0,
        "dead": reconstruction.dead_fraction,
    }
