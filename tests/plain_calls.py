"""Reference for the engine: ACE-Step's transformer, called directly and edited with torch hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15

Change = Callable[[torch.Tensor], torch.Tensor]


def plain_call(
    model: AceStep15,
    arguments: Mapping[str, Any],
    changes: Mapping[Site, Change] | None = None,
    masks: Sequence[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, dict[Site, torch.Tensor]]:
    """Velocity of `transformer(**arguments)` with values at sites changed, and the original value of every site.

    `masks` (row, token) mark the conditioning tokens visible to each block's cross-attention.
    """
    values: dict[Site, torch.Tensor] = {}
    transformer = model.pipeline.transformer
    with ExitStack() as stack:
        for site in model.sites():
            stack.enter_context(_hooked(transformer, site, values, (changes or {}).get(site)))
        for layer, mask in zip(transformer.layers, masks, strict=True) if masks is not None else ():
            stack.enter_context(_masked(layer.cross_attn, mask))
        with torch.no_grad():
            output = transformer(**arguments)
    return (output[0] if isinstance(output, tuple) else output.sample), values


def row(arguments: Mapping[str, Any], clip: int) -> dict[str, Any]:
    """The call for a single clip."""
    return {
        name: value[clip : clip + 1] if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }


def put(value: torch.Tensor) -> Change:
    """The change to this value."""
    return lambda _: value


@contextmanager
def _hooked(
    transformer: torch.nn.Module, site: Site, values: dict[Site, torch.Tensor], change: Change | None
) -> Iterator[None]:
    layer = transformer.layers[site.block]
    name, _, inner = site.part.partition(".")

    def visit(value: torch.Tensor) -> torch.Tensor:
        values[site] = value
        return value if change is None else change(value)

    if inner == "heads":
        module = getattr(layer, name).to_out[0]
        hook = module.register_forward_pre_hook(lambda _, inputs: (visit(inputs[0]),))
    else:
        module = layer if name == "block" else getattr(layer, name)
        module = getattr(module, f"to_{inner}") if inner else module
        hook = module.register_forward_hook(lambda _, inputs, output: visit(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _masked(attention: torch.nn.Module, mask: torch.Tensor) -> Iterator[None]:
    def hide(_: torch.nn.Module, inputs: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return inputs, {**options, "attention_mask": mask[:, None, None, :]}

    hook = attention.register_forward_pre_hook(hide, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
