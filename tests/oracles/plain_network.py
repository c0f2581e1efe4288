"""A small transformer in plain torch with the engine's access to it, for comparisons with other libraries."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from nnsight import NNsight, save
from torch import nn

from workbench.engine.batch import Batch, RowEdit
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallLabel, Capture
from workbench.engine.sites import Site
from workbench.engine.visit import visit_call

Kind = Literal["gelu", "quadratic", "linear"]


class Square(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**2


class Attention(nn.Module):
    """Causal attention; with `fixed`, every token attends uniformly to all tokens up to itself."""

    def __init__(self, width: int, heads: int, fixed: bool) -> None:
        super().__init__()
        self.heads, self.fixed = heads, fixed
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            to(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.fixed:
            scores = torch.zeros_like(scores)
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.to_out((pattern @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, kind: Kind) -> None:
        super().__init__()
        smooth = kind == "gelu"
        between = {"gelu": nn.GELU(approximate="tanh"), "quadratic": Square(), "linear": nn.Identity()}[kind]
        self.norm1, self.norm2 = (nn.LayerNorm(width) if smooth else nn.Identity() for _ in range(2))
        self.self_attn = Attention(width, heads, fixed=not smooth)
        self.mlp = nn.Sequential(nn.Linear(width, inner), between, nn.Linear(inner, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainTransformer(nn.Module):
    """Token embeddings to logits; `linear` and `quadratic` have no norms and a fixed attention pattern."""

    def __init__(
        self,
        kind: Kind = "gelu",
        n_blocks: int = 3,
        width: int = 16,
        inner: int = 24,
        heads: int = 4,
        vocabulary: int = 7,
        tokens: int = 5,
    ) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, inner, heads, kind) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width) if kind == "gelu" else nn.Identity()
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.tokens(ids) + self.positions.weight).detach()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return self.unembed(self.norm(hidden))


class PlainAccess:
    """`CallAccess` of a `PlainTransformer` inside a running trace."""

    def __init__(self, envoy: Any, network: PlainTransformer) -> None:
        self.blocks = envoy.blocks
        self.n_blocks = len(network.blocks)
        self._head_dim = network.head_dim

    def head_dim(self, block: int) -> int:
        return self._head_dim

    def reads(self, block: int) -> slice:
        return slice(None)

    def read(self, site: Site) -> torch.Tensor:
        module, attribute = self._locate(site)
        return getattr(module, attribute)

    def read_input(self, site: Site) -> torch.Tensor:
        name, _, inner = site.part.partition(".")
        module = getattr(self.blocks[site.block], name)
        return (getattr(module, f"to_{inner}") if inner else module.to_out).input

    def write(self, site: Site, value: torch.Tensor) -> None:
        module, attribute = self._locate(site)
        setattr(module, attribute, value)

    def skip(self, site: Site, value: torch.Tensor) -> None:
        self._locate(site)[0].skip(value)

    def write_mask(self, block: int, mask: torch.Tensor) -> None:
        raise NotImplementedError("this network has no conditioning")

    def as_latents(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def move_positions(self, block: int, moves: Sequence[tuple[int, int, tuple[int, ...] | None]]) -> None:
        raise NotImplementedError("this network has no conditioning")

    def _locate(self, site: Site) -> tuple[Any, str]:
        block = self.blocks[site.block]
        if site.part == "block":
            return block, "output"
        name, _, inner = site.part.partition(".")
        module = getattr(block, name)
        if inner == "heads":
            return module.to_out, "input"
        return (getattr(module, f"to_{inner}") if inner else module), "output"


def run(
    network: PlainTransformer,
    hidden: torch.Tensor,
    edits: Sequence[RowEdit] = (),
    sites: Sequence[Site] = (),
) -> tuple[torch.Tensor, dict[Site, torch.Tensor]]:
    """The network's output for a batch under edits, and the values at sites (row, token, channel)."""
    everyone = tuple(range(len(hidden)))
    rows = CallRows(CallLabel(0, 1.0, everyone, ("cond",) * len(hidden)), everyone, everyone)
    kept: dict[Site, torch.Tensor] = {}

    def keep(site: Site, step: int, values: torch.Tensor) -> None:
        kept[site] = values[:, 0]

    capture = Capture(tuple(sites), (0,), ("cond",))
    envoy = NNsight(network)
    access = PlainAccess(envoy, network)
    with torch.no_grad(), envoy.trace(hidden):
        visit_call(access, rows, Batch((), tuple(edits), everyone), capture, None, keep)
        output = save(envoy.output)
    return output, kept
