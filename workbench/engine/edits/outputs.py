"""Edits of sites' outputs: ablations, additions and projections."""

from collections.abc import Sequence
from typing import Literal, Unpack

from workbench.engine.edits.edit import Edit, Source, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.tensors import HashedTensor, Numbers


def ablate(
    sites: str | Sequence[str],
    method: Literal["zero", "mean", "resample"] = "zero",
    source: Source | Sequence[Source] = (),
    **window: Unpack[WindowOptions],
) -> Edit:
    """Ablation: set the sites' outputs to zero, the mean of the sources (over runs and tokens), or the source's.

    With `resample` the source should be unrelated to the ablated run.
    """
    return make_edit(method, sites, source, window)


def add(
    vector: Numbers,
    sites: str | Sequence[str],
    strength: float = 1.0,
    *,
    keep_norm: bool = False,
    cycle: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Activation addition: add `strength * vector` to every token of the sites' outputs.

    The vector has a number for each edited channel: those of the window's heads, or all channels of the site. One by
    token, with dims (token, channel), has a row for each edited token or, with `cycle`, rows that repeat along the
    clip. With `keep_norm` every token keeps its norm, so that only its direction changes.
    """
    given = HashedTensor.of(vector)
    return make_edit(
        "add", sites, [], window, vector=given, strength=strength, keep_norm=keep_norm, cycle=cycle
    )


def add_difference(
    sites: str | Sequence[str],
    plus: Source,
    minus: Source,
    strength: float = 1.0,
    *,
    constant: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Add `strength` times the difference of two runs' outputs, of `plus` minus `minus`, in the same call.

    It is added token by token or, if `constant`, as its mean over tokens. The difference of a single pair bounds what a
    vector, the mean over pairs, can restore at the sites.
    """
    return make_edit("add_difference", sites, (plus, minus), window, strength=strength, constant=constant)


def clamp(
    vector: Numbers,
    sites: str | Sequence[str],
    projection: float = 0.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Set the projection of every token of the sites' outputs onto the vector, keeping the orthogonal part.

    The projection is x·d / |d|, in the units of the site's output. 0 projects the vector out.
    """
    return make_edit("clamp", sites, [], window, vector=HashedTensor.of(vector), projection=projection)


def steer_back(
    vector: Numbers,
    sites: str | Sequence[str],
    amount: float = 1.0,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Take `amount` of the projection onto the vector out of every token that lies on the vector's side.

    x − amount · relu(x·d) · d, with the unit vector d: tokens that point the other way are unchanged (TADA, arXiv
    2602.11910).
    """
    return make_edit("steer_back", sites, [], window, vector=HashedTensor.of(vector), amount=amount)
