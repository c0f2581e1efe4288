"""Sites: places in the network, written `tf6.cross_attn`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cache.errors import UserError
from workbench.validation import must_be

# In order of computation within a block, which is also the order in which a trace must visit them.
PARTS = (
    "self_attn.q",
    "self_attn.k",
    "self_attn.v",
    "self_attn.heads",
    "self_attn",
    "cross_attn.q",
    "cross_attn.k",
    "cross_attn.v",
    "cross_attn.heads",
    "cross_attn",
    "mlp",
    "block",
)
LINEAR_PARTS = tuple(
    f"{attention}{inner}" for attention in ("self_attn", "cross_attn") for inner in (".q", ".k", ".v", "")
)
"""Parts whose output is that of a linear module: a projection to queries, keys or values, or of the mixed heads."""
Target = Literal["conditioning", "output"]
"""Targets of a patch at a site: the conditioning that a cross-attention reads, changed as it enters it, and the site's
output, changed as soon as it is computed."""
EditTarget = Literal["weights", "conditioning", "output", "velocity"]
"""Targets of an edit, in order of computation: at a site, the weights of the linear module whose output it is, and
those of a patch; without sites, the velocity, which the sampler follows."""
TARGETS: tuple[EditTarget, ...] = get_args(EditTarget)
_TEXT = "A site must be text, such as tf3.cross_attn"
_BLOCK = re.compile(r"tf(0|[1-9][0-9]*)")  # one way to write each
_PATTERN = re.compile(rf"{_BLOCK.pattern}\.([a-z_.]+)")


@dataclass(frozen=True)
class Site:
    """A place in the network: block number (0-based) and part.

    Parts: `self_attn`, `cross_attn` and `mlp` are what that part adds to the residual stream (before any gate); `block`
    is the residual stream after the block; `q`, `k`, `v` and `heads` (the heads' outputs before they are mixed) are
    inside an attention, as in `tf6.cross_attn.heads`.
    """

    block: int
    part: str

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Parse `tf<block>.<part>`; raise UserError if the text is not a site."""
        match = _PATTERN.fullmatch(text)
        if match is None or match[2] not in PARTS:
            raise _no_site(text)
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"tf{self.block}.{self.part}"

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: the order of computation."""
        return self.block, PARTS.index(self.part)

    def leads_to(self, other: "Site") -> bool:
        """Whether another site can be computed from this one in the same call: it is later, along the same tokens."""
        return self.order < other.order and self.on_conditioning == other.on_conditioning

    @property
    def on_conditioning(self) -> bool:
        """Whether the token axis is the conditioning instead of latent time."""
        return self.part in ("cross_attn.k", "cross_attn.v")


def _no_site(text: str) -> UserError:
    is_wildcard = text.startswith("*.") and text[2:] in PARTS
    star = " A * stands for every block, as in *.cross_attn, never for a part."
    return UserError(
        f"'{text}' is not a site. Write tf<block>.<part>, such as tf6.cross_attn; parts are {', '.join(PARTS)}."
        f"{star if '*' in text and not is_wildcard else ''}"
    )


def parse_sites(texts: str | Iterable[str], n_blocks: int, names: Sequence[str] = ()) -> tuple[Site, ...]:
    """Parse a site or several, for `n_blocks` blocks; `*` in place of the block is every block (`*.cross_attn`).

    `names` are the names of the blocks, if they have any.

    Returns:
        The sites in order of computation, without duplicates.

    Raises:
        UserError: if a block or part is unknown, or the list is empty.
    """
    sites: set[Site] = set()
    for text in listed_sites(texts):
        if text.startswith("*."):
            sites.update(Site(block, _part(text)) for block in range(n_blocks))
        else:
            sites.add(Site.parse(numbered_site(text, names)))
    check_blocks([site.block for site in sites], n_blocks)
    if not sites:
        raise UserError("Give at least one site, such as tf3.cross_attn or '*.cross_attn'.")
    return tuple(sorted(sites, key=lambda site: site.order))


def _part(text: str) -> str:
    """The part of a site of every block, such as `*.cross_attn`; raise UserError for an unknown one."""
    part = text.partition(".")[2]
    if part not in PARTS:
        raise _no_site(text)
    return part


def check_wildcards(texts: Iterable[str]) -> None:
    """Raise UserError for a site of every block with an unknown part; other sites are not checked."""
    for text in texts:
        if text.startswith("*."):
            _part(text)


def listed_sites(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return a site or several as a tuple of texts; raise UserError if one is not text."""
    sites = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for site in sites:
        must_be(str, site, _TEXT)
    return sites


def numbered_site(text: str, names: Sequence[str]) -> str:
    """Convert a site with a named block to `tf<number>.<part>`; other texts are returned unchanged."""
    must_be(str, text, _TEXT)
    block, dot, part = text.partition(".")
    return f"tf{names.index(block)}.{part}" if dot and block in names else text


def parse_block(text: str, names: Sequence[str] = ()) -> int:
    """Parse a block written `tf3`, or as one of `names`; raise UserError for anything else."""
    number = block_number(text, names)
    if number is None:
        raise UserError(f"'{text}' is not a block. Write it like {names[0] if names else 'tf3'}.")
    return number


def parse_blocks(text: str, names: Sequence[str] = ()) -> tuple[int, ...]:
    """Parse blocks written `tf3+tf4`, or by their `names`; raise UserError for anything else."""
    numbers = [block_number(part, names) for part in text.split("+")]
    if None in numbers:
        example = "+".join(names[:2]) if names else "tf3+tf4"
        raise UserError(f"'{text}' is not a set of blocks. Write it like {example}.")
    return tuple(number for number in numbers if number is not None)


def block_number(text: str, names: Sequence[str] = ()) -> int | None:
    """Return the number of a block written `tf3`, or as one of `names`; None for anything else."""
    if text in names:
        return names.index(text)
    match = _BLOCK.fullmatch(text)
    return None if match is None else int(match[1])


def check_blocks(blocks: Sequence[int], n_blocks: int) -> None:
    """Raise UserError if the network does not have a block."""
    for block in blocks:
        if not 0 <= block < n_blocks:
            raise UserError(f"Block tf{block} does not exist; this model has tf0 to tf{n_blocks - 1}.")
