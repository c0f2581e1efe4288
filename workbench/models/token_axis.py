"""The token axis that sites share: networks that see the music at several resolutions have several."""

import itertools
from collections.abc import Sequence

from cache.errors import UserError
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel


def shared_tokens(model: AudioDiffusionModel, sites: Sequence[Site], duration: float) -> int:
    """Tokens that each of these sites has in a clip of `duration` seconds.

    Raises:
        UserError: where they differ, saying which blocks go together.
    """
    counts = {site: model.tokens_at(site, duration) for site in sites}
    if len(set(counts.values())) > 1:
        blocks = sorted({(site.block, count) for site, count in counts.items()})
        told = [
            f"{_span(model, [block for block, _ in run])} have {count}"
            for count, run in itertools.groupby(blocks, key=lambda of_block: of_block[1])
        ]
        raise UserError(
            f"These blocks have no common token axis ({', '.join(told)} tokens): take blocks with equally many tokens "
            "together, each of the other numbers in a study of its own, or trace the mean of all tokens "
            "(`--tokens mean`)."
        )
    return next(iter(counts.values()))


def finest_site(model: AudioDiffusionModel, sites: Sequence[Site], duration: float) -> Site:
    """The site, or the first of the sites, with the most tokens."""
    return max(sites, key=lambda site: model.tokens_at(site, duration))


def _span(model: AudioDiffusionModel, blocks: Sequence[int]) -> str:
    names = [model.block_names[block] for block in blocks]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
