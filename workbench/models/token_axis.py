"""The token axis that sites share; networks with several resolutions have several."""

import itertools
from collections.abc import Sequence

from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel


def shared_tokens(model: AudioDiffusionModel, sites: Sequence[Site], duration: float) -> int:
    """Return the number of tokens of each of these sites in a clip of `duration` seconds.

    Raises:
        UserError: if they differ.
    """
    counts = {site: model.tokens_at(site, duration) for site in sites}
    if len(set(counts.values())) > 1:
        blocks = sorted({(site.block, count) for site, count in counts.items()})
        spans = [
            f"{_span(model, [block for block, _ in run])} have {count}"
            for count, run in itertools.groupby(blocks, key=lambda of_block: of_block[1])
        ]
        raise UserError(
            f"These blocks must have the same number of tokens; {', '.join(spans)}. Trace blocks with different "
            "numbers in separate studies, or trace the mean of all tokens (`--tokens mean`)."
        )
    return next(iter(counts.values()))


def finest_site(model: AudioDiffusionModel, sites: Sequence[Site], duration: float) -> Site:
    """Return the site, or the first of the sites, with the most tokens."""
    return max(sites, key=lambda site: model.tokens_at(site, duration))


def _span(model: AudioDiffusionModel, blocks: Sequence[int]) -> str:
    names = [model.block_names[block] for block in blocks]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
