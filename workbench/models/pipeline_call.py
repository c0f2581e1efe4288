"""One running call of a pipeline's denoiser inside an nnsight trace: its rows, sites and attention masks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

from workbench.engine.batch import Row
from workbench.engine.conditioning import Key
from workbench.engine.rows import CallRows
from workbench.engine.runs import CallInputs, CallLabel, Clip
from workbench.engine.sites import Site

Move = tuple[int, int, tuple[int, ...] | None]
"""A row, the row whose conditioning positions it takes, and the conditioning tokens (None for all)."""


class PipelineCall(ABC):
    """`CallAccess` of a denoiser whose attentions have diffusers' parts (`to_q`, `to_k`, `to_v`, `to_out`).

    `network` is the denoiser's envoy inside a running trace, or the module itself if only sizes are needed. A subclass
    defines the names of its blocks, their parts, and the call's arguments.
    """

    part_names: ClassVar[dict[str, str]]
    """Attribute of a block for each of the parts self_attn, cross_attn and mlp."""
    argument_names: ClassVar[tuple[str, ...]] = ()
    """Names of the arguments that the pipeline passes by position."""
    latents: ClassVar[str] = "hidden_states"
    """Name of the argument that holds the latents."""
    times: ClassVar[tuple[str, ...]] = ("timestep",)
    """Names of the other arguments that change from step to step."""
    mask_name: ClassVar[str] = "attention_mask"
    """Name of the cross-attention's argument that hides conditioning tokens."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.blocks = self.find_blocks(network)
        self.n_blocks = len(self.blocks)
        self.block_names = tuple(f"tf{block}" for block in range(self.n_blocks))

    @abstractmethod
    def find_blocks(self, network: Any) -> Any:
        """Return the blocks that read the conditioning, in order of computation."""

    # Rows

    def arguments(self) -> dict[str, Any]:
        """Return the call's arguments by name."""
        args, given = self.network.inputs
        return {**dict(zip(self.argument_names, args, strict=False)), **given}

    def inputs(self, rows: CallRows, clips: Sequence[Row]) -> dict[str, Any]:
        """Return the call's arguments for all rows; shadows get the latents of the row they follow."""
        given = self.arguments()
        owners = [
            rows.label.row(_owner(clip, clips), pass_name)
            for clip, pass_name in zip(rows.label.clips, rows.label.passes, strict=True)
        ]
        return {**given, self.latents: given[self.latents][owners]}

    def finite_rows(self) -> Bool[torch.Tensor, " _rows"]:
        """Whether the latents of each row of the call are finite."""
        return torch.isfinite(self.arguments()[self.latents]).flatten(1).all(dim=1)

    def choose_rows(self, rows: CallRows, clips: Sequence[Row]) -> None:
        """Make the network compute only the needed rows; shadows get the latents of the row they follow."""
        shadows = any(clip.shadow_of is not None for clip in clips)
        if rows.all_run and not shadows:
            return
        chosen = select_rows(self.inputs(rows, clips), list(rows.run), len(rows.take))
        self.network.inputs = ((), chosen)

    def velocities(self) -> Float[torch.Tensor, "row ..."]:
        """Return the network's output for the computed rows, in the pipeline's layout."""
        return self.network.output[0]

    def give_rows(self, rows: CallRows, read: bool) -> Float[torch.Tensor, "row frame latent_channel"] | None:
        """Expand the computed outputs to all rows of the call; return them if `read`."""
        if rows.all_run and not read:
            return None
        velocity = self.network.output[0][list(rows.take)]
        if not rows.all_run:
            self.network.output = (velocity,)
        return self.as_latents(velocity)

    def as_latents(self, output: torch.Tensor) -> Float[torch.Tensor, "row frame latent_channel"]:
        """Return the network's output with latent time as its second axis."""
        return output

    def skip_conditioning(self, n_rows: int) -> None:  # noqa: B027 - may be nothing
        """Skip embedding the conditioning in this call, if possible: all values that depend on it are cached."""

    # Attention masks

    def row_mask(self, rows: CallRows) -> Bool[torch.Tensor, "row token"] | None:  # noqa: ARG002
        """Return which conditioning tokens are visible to each readable row; None if all are."""
        return None

    def reads(self, block: int) -> slice:  # noqa: ARG002 - all of them, in most networks
        """Return which conditioning tokens the block's cross-attention reads."""
        return slice(None)

    def write_mask(self, block: int, mask: Bool[torch.Tensor, "row token"]) -> None:
        """Hide the conditioning tokens where `mask` is False from each row of the block's cross-attention."""
        attention = self._part(block, "cross_attn")
        args, given = attention.inputs
        attention.inputs = (args, {**given, self.mask_name: self.as_attention_mask(mask)})

    def as_attention_mask(self, mask: Bool[torch.Tensor, "row token"]) -> torch.Tensor:
        """Convert the mask to the form that the cross-attention takes."""
        return mask[:, None, None, :]

    def move_positions(self, block: int, moves: Sequence[Move]) -> None:  # noqa: B027 - may be nothing
        """Give rows of the block's cross-attention the positions of other rows' conditioning tokens, if it has any."""

    # Sites

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        """Return the site's output."""
        envoy, attribute = self._locate(site)
        return getattr(envoy, attribute)

    def read_input(self, site: Site) -> Float[torch.Tensor, "row token n_in"]:
        """Return the input of the linear module whose output is the site."""
        return self.linear(site).input

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Replace the site's output."""
        envoy, attribute = self._locate(site)
        setattr(envoy, attribute, value)

    def skip(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Use this output instead of computing the site."""
        envoy, _ = self._locate(site)
        envoy.skip(value)

    def linear(self, site: Site) -> Any:
        """Return the linear module whose output is the site: a projection of an attention, or its output projection."""
        name, _, inner = site.part.partition(".")
        attention = self._part(site.block, name)
        return getattr(attention, f"to_{inner}") if inner else attention.to_out[0]

    def _part(self, block: int, part: str) -> Any:
        return getattr(self.blocks[block], self.part_names[part])

    def _locate(self, site: Site) -> tuple[Any, str]:
        """Return the module and its attribute with a site's value."""
        if site.part == "block":
            return self.blocks[site.block], "output"
        name, _, inner = site.part.partition(".")
        module = self._part(site.block, name)
        if inner == "heads":
            return module.to_out[0], "input"
        return (getattr(module, f"to_{inner}") if inner else module), "output"

    # Sizes

    def channels(self, site: Site) -> int:
        """Width of the site's last axis."""
        name, _, inner = site.part.partition(".")
        attention = self._part(site.block, name if inner else "cross_attn")
        if inner == "heads":
            return int(attention.to_out[0].in_features)
        return int((getattr(attention, f"to_{inner}") if inner else attention.to_out[0]).out_features)

    def head_dim(self, block: int) -> int:
        """Channels of a head in a block's attentions."""
        attention = self._part(block, "cross_attn")
        return int(attention.to_q.out_features // attention.heads)


def conditioning_key(clip: Clip, pass_name: str) -> Key:
    """Return the key of a clip's conditioning in a pass."""
    return clip.prompt, clip.lyrics, pass_name


def conditionings(label: CallLabel, rows: Sequence[int], clips: Sequence[Row]) -> list[Key]:
    """Return the conditioning keys of some rows of a call."""
    return [conditioning_key(clips[label.clips[row]], label.passes[row]) for row in rows]


def select_rows(arguments: dict[str, Any], rows: list[int], n_rows: int) -> dict[str, Any]:
    """Select rows of a call's arguments; arguments without rows are unchanged."""
    return {
        name: value[rows]
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == n_rows
        else value
        for name, value in arguments.items()
    }


def cond_inputs(
    access: PipelineCall, rows: CallRows, clips: Sequence[Row], requested: Sequence[int]
) -> CallInputs:
    """Return the inputs that repeat the cond pass of a call for the requested clips."""
    label = rows.label
    cond = [label.row(clip, "cond") for clip in requested]
    everything = CallRows(label, tuple(range(len(label.clips))), tuple(range(len(label.clips))))
    mask = access.row_mask(everything)
    return CallInputs(
        select_rows(access.inputs(rows, clips), cond, len(label.passes)), None if mask is None else mask[cond]
    )


def _owner(clip: int, clips: Sequence[Row]) -> int:
    """Return the clip whose latents a clip sees."""
    main = clips[clip].shadow_of
    return clip if main is None else main
