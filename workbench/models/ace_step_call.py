"""One running denoiser call of ACE-Step 1.5 inside an nnsight trace: its rows, its sites, and what they attend to."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float

from workbench.models.protocol import CallInputs, CallLabel, Clip
from workbench.rows import CallRows
from workbench.sites import Site


class CallOfAceStep:
    """`CallAccess` of an `AceStepTransformer1DModel` envoy inside a running nnsight trace."""

    def __init__(self, transformer: Any, n_blocks: int, head_dim: int) -> None:
        self.transformer = transformer
        self.layers = transformer.layers
        self.n_blocks = n_blocks
        self.head_dim = head_dim

    def choose_rows(self, rows: CallRows, clips: Sequence[Clip]) -> None:
        """Let the network compute only the rows that are needed, shadows with the latents of whom they shadow."""
        shadows = any(clip.shadow_of is not None for clip in clips)
        if rows.all_run and not shadows:
            return
        chosen = select_rows(self.inputs(rows, clips), list(rows.run), len(rows.take))
        self.transformer.inputs = (self.transformer.inputs[0], chosen)

    def inputs(self, rows: CallRows, clips: Sequence[Clip]) -> dict[str, Any]:
        """The call's arguments for all rows, shadows with the latents of whom they shadow."""
        given = self.transformer.inputs[1]
        owners = [
            rows.label.row(_owner(clip, clips), pass_name)
            for clip, pass_name in zip(rows.label.clips, rows.label.passes, strict=True)
        ]
        return {**given, "hidden_states": given["hidden_states"][owners]}

    def give_rows(self, rows: CallRows, read: bool) -> Float[torch.Tensor, "row frame latent_channel"] | None:
        """Give every row of the call its output, from the computed ones; gives them all where they are to be `read`."""
        if rows.all_run and not read:
            return None
        output = self.transformer.output[0][list(rows.take)]
        if not rows.all_run:
            self.transformer.output = (output,)
        return output

    def skip_conditioning(self, n_rows: int) -> None:
        """Do not embed the conditioning: all that depends on it is known."""
        n_tokens = self.transformer.inputs[1]["encoder_hidden_states"].shape[1]
        nothing = self.transformer.inputs[1]["hidden_states"].new_zeros(())
        self.transformer.condition_embedder.skip(nothing.expand(n_rows, n_tokens, 1))

    def read(self, site: Site) -> Float[torch.Tensor, "row token channel"]:
        """The site's output."""
        envoy, attribute = self._locate(site)
        return getattr(envoy, attribute)

    def write(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Replace the site's output."""
        envoy, attribute = self._locate(site)
        setattr(envoy, attribute, value)

    def skip(self, site: Site, value: Float[torch.Tensor, "row token channel"]) -> None:
        """Use this output instead of computing the site."""
        envoy, _ = self._locate(site)
        envoy.skip(value)

    def write_mask(self, block: int, mask: Bool[torch.Tensor, "row token"]) -> None:
        """A row of the block's cross-attention does not see the conditioning tokens where its mask is False."""
        args, kwargs = self.layers[block].cross_attn.inputs
        self.layers[block].cross_attn.inputs = (args, {**kwargs, "attention_mask": mask[:, None, None, :]})

    def _locate(self, site: Site) -> tuple[Any, str]:
        """The envoy and the attribute of it that hold a site's value."""
        layer = self.layers[site.block]
        if site.part == "block":
            return layer, "output"
        name, _, inner = site.part.partition(".")
        module = getattr(layer, name)
        if inner == "heads":
            return module.to_out[0], "input"
        return (getattr(module, f"to_{inner}") if inner else module), "output"


def row_mask(
    real_tokens: Bool[torch.Tensor, "clip token"], rows: CallRows
) -> Bool[torch.Tensor, "row token"] | None:
    """Which conditioning tokens each computed row may see; None when no clip is padded."""
    if bool(real_tokens.all()):
        return None
    clips = [rows.label.clips[row] for row in rows.run]
    return real_tokens.bool()[torch.tensor(clips, device=real_tokens.device)]


def conditionings(rows: CallRows, clips: Sequence[Clip]) -> list[tuple[str, str, str]]:
    """What tells the conditioning of each computed row from that of others."""
    label = rows.label
    return [
        (clips[label.clips[row]].prompt, clips[label.clips[row]].lyrics, label.passes[row])
        for row in rows.run
    ]


def select_rows(arguments: dict[str, Any], rows: list[int], n_rows: int) -> dict[str, Any]:
    """Arguments of a call with some of its rows; what has no rows stays."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) and len(value) == n_rows else value
        for name, value in arguments.items()
    }


def cond_inputs(
    arguments: dict[str, Any], label: CallLabel, n_clips: int, real_tokens: Bool[torch.Tensor, "clip token"]
) -> CallInputs:
    """What repeats a call's cond pass."""
    rows = [label.row(clip, "cond") for clip in range(n_clips)]
    mask = None if bool(real_tokens.all()) else real_tokens.bool()
    return CallInputs(select_rows(arguments, rows, len(label.passes)), mask)


def _owner(clip: int, clips: Sequence[Clip]) -> int:
    """The clip whose latents a clip sees."""
    main = clips[clip].shadow_of
    return clip if main is None else main
