"""Attribution patching against captum, and against exact patching where the error of first order is known."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from captum.attr import LayerActivation, LayerGradientXActivation, LayerIntegratedGradients
from nnsight import NNsight

from analyses.patching.attribution import attribution
from tests.oracles.plain_network import Kind, PlainAccess, PlainTransformer, run
from tests.tolerances import FLOAT64
from workbench.engine.batch import RowEdit
from workbench.engine.edits import Edit, patch
from workbench.engine.linearise import linearise
from workbench.engine.runs import Linearisation
from workbench.engine.sites import Site
from workbench.engine.visit import CallEdit

BLOCKS, TOKENS, HEADS, HEAD = 3, 5, 4, 4
CLEAN, CORRUPT = 0, 1
PARTS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.heads", "self_attn", "mlp", "block")


def make(kind: Kind) -> PlainTransformer:
    """A network in float64 with parameters of about the same influence everywhere."""
    draws = torch.Generator().manual_seed(21)
    network = PlainTransformer(kind, BLOCKS).double().requires_grad_(False)
    for parameter in network.parameters():
        drawn = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
        parameter.copy_(drawn * (parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.3))
    return network


@pytest.fixture
def pair() -> torch.Tensor:
    """A clean and a corrupt input."""
    return torch.randn(2, TOKENS, 16, generator=torch.Generator().manual_seed(22), dtype=torch.float64)


@pytest.fixture
def direction() -> torch.Tensor:
    """What the objective projects the output on."""
    return torch.randn(TOKENS, 7, generator=torch.Generator().manual_seed(23), dtype=torch.float64)


def specs() -> list[Edit]:
    """Patches at every site: of all tokens, of a window, and of some heads."""
    found = []
    for block in range(BLOCKS):
        for part in PARTS:
            sites = (f"tf{block}.{part}",)
            windows: list[dict[str, Any]] = [
                {},
                *({"tokens": (t, t)} for t in range(TOKENS)),
                {"tokens": (1, 3)},
            ]
            if part.startswith("self_attn."):
                windows += [*({"heads": (h,)} for h in range(HEADS)), {"heads": (0, 3), "tokens": (2, 4)}]
            found += [patch(sites, "other", target="output", **window) for window in windows]
    return found


def linearised(
    network: PlainTransformer,
    hidden: torch.Tensor,
    objective: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Linearisation:
    """The network's call for some rows, at all sites."""
    envoy = NNsight(network)
    sites = [Site(block, part) for block in range(BLOCKS) for part in PARTS]
    return linearise(envoy, PlainAccess(envoy, network), {"hidden": hidden}, sites, objective)


def attributions(
    network: PlainTransformer,
    pair: torch.Tensor,
    direction: torch.Tensor,
    specs: Sequence[Edit],
    row: int = CORRUPT,
) -> torch.Tensor:
    """What the workbench estimates for each patch of the other row into `row`, which lies elsewhere in its batch."""
    here = linearised(network, pair, lambda out: (out[row] * direction).sum())
    there = linearised(network, pair[[row, row, 1 - row]])
    found = [
        attribution(here, there, [Site.parse(spec.sites[0])], CallEdit(spec, row, (2,)), lambda _: HEAD)
        for spec in specs
    ]
    return torch.tensor(found, dtype=torch.float64)


def effects(
    network: PlainTransformer, pair: torch.Tensor, direction: torch.Tensor, specs: Sequence[Edit]
) -> torch.Tensor:
    """What each patch of clean into corrupt does to the objective, by running it."""
    batch = torch.cat([pair, pair[[CORRUPT] * len(specs)]])
    edits = [RowEdit(spec, 2 + i, (CLEAN,)) for i, spec in enumerate(specs)]
    output, _ = run(network, batch, edits)
    return ((output[2:] - output[CORRUPT]) * direction).sum(dim=(1, 2))


def in_region(change: torch.Tensor, spec: Edit) -> torch.Tensor:
    """A change (token, channel) with zeros wherever a patch does not reach."""
    kept = torch.zeros_like(change).unflatten(-1, (HEADS, HEAD))
    first, last = spec.window.tokens or (0, TOKENS - 1)
    heads = list(spec.window.heads or range(HEADS))
    kept[first : last + 1, heads] = change.unflatten(-1, (HEADS, HEAD))[first : last + 1, heads]
    return kept.flatten(-2)


def largest_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest expected number."""
    return float((found - expected).abs().max() / expected.abs().max())


def test_attribution_is_patching_in_a_linear_network(pair: torch.Tensor, direction: torch.Tensor) -> None:
    network, arms = make("linear"), specs()
    exact = effects(network, pair, direction, arms)
    assert largest_error(attributions(network, pair, direction, arms), exact) < FLOAT64
    matters = [not spec.sites[0].endswith((".q", ".k")) for spec in arms]  # the pattern is fixed
    assert exact[torch.tensor(matters)].abs().min() > 1e-3
    assert exact[~torch.tensor(matters)].abs().max() < FLOAT64


def test_the_error_in_a_quadratic_network_is_its_second_order(
    pair: torch.Tensor, direction: torch.Tensor
) -> None:
    """Exact minus first order is the square of what the change becomes before the one square on its way.

    The last block's is the only one for patches of the residual stream after the block before it, which reach the
    square themselves and through the attention, and of the attention's output, which only add to it.
    """
    network = make("quadratic")
    last = network.blocks[-1]
    into, out = last.mlp[0].weight, network.unembed.weight @ last.mlp[2].weight
    through_attention = _linear_part(last.self_attn)
    becomes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        f"tf{BLOCKS - 2}.block": lambda change: change + through_attention(change),
        f"tf{BLOCKS - 1}.self_attn": lambda change: change,
        f"tf{BLOCKS - 1}.self_attn.heads": lambda change: change @ last.self_attn.to_out.weight.T,
    }
    arms = [spec for spec in specs() if spec.sites[0] in becomes]
    exact = effects(network, pair, direction, arms)
    first_order = attributions(network, pair, direction, arms)
    values = linearised(network, pair).values
    second_order = []
    for spec in arms:
        at_site = values[Site.parse(spec.sites[0])]
        change = becomes[spec.sites[0]](in_region(at_site[CLEAN] - at_site[CORRUPT], spec))
        second_order.append(((change @ into.T) ** 2 @ out.T * direction).sum())
    assert largest_error(exact - first_order, torch.stack(second_order)) < FLOAT64
    assert (exact - first_order).abs().min() > 1e-3


def _linear_part(attention: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a fixed attention makes of a change: the mean of its values up to each token, mixed."""
    counts = torch.arange(1, TOKENS + 1, dtype=torch.float64)[:, None]
    mixed = attention.to_out.weight @ attention.to_v.weight
    return lambda change: change.cumsum(0) / counts @ mixed.T


def layer_of(network: PlainTransformer, site: Site) -> tuple[torch.nn.Module, bool]:
    """The module of a site, and whether the site is its input."""
    block = network.blocks[site.block]
    layers = {
        "block": block,
        "mlp": block.mlp,
        "self_attn": block.self_attn,
        "self_attn.heads": block.self_attn.to_out,
        "self_attn.q": block.self_attn.to_q,
        "self_attn.k": block.self_attn.to_k,
        "self_attn.v": block.self_attn.to_v,
    }
    return layers[site.part], site.part == "self_attn.heads"


def test_attribution_is_captums_gradient_times_the_change(
    pair: torch.Tensor, direction: torch.Tensor
) -> None:
    """Attribution patching is (a_clean - a_corrupt) times the gradient at the corrupt input.

    captum gives both: the layer's activations for the two inputs, and, with `multiply_by_inputs=False`, the gradient
    with respect to the layer alone (with it, captum multiplies by a_corrupt, the change against a zero baseline).
    """
    network, arms = make("gelu"), specs()

    def objective(hidden: torch.Tensor) -> torch.Tensor:
        return (network(hidden) * direction).sum(dim=(1, 2))

    clean, corrupt = pair[[CLEAN]], pair[[CORRUPT]].requires_grad_()
    expected = []
    for spec in arms:
        layer, is_input = layer_of(network, Site.parse(spec.sites[0]))
        values = LayerActivation(objective, layer)
        change = values.attribute(clean, attribute_to_layer_input=is_input) - values.attribute(
            corrupt, attribute_to_layer_input=is_input
        )
        slope = LayerGradientXActivation(objective, layer, multiply_by_inputs=False).attribute(
            corrupt, attribute_to_layer_input=is_input
        )
        expected.append((in_region(change[0], spec) * slope[0]).sum().detach())
    found = attributions(network, pair, direction, arms)
    assert largest_error(found, torch.stack(expected)) < FLOAT64
    exact = effects(network, pair, direction, arms)
    assert largest_error(found, exact) > 0.01, "the network is not linear: patching itself is something else"


def test_attributions_both_ways_are_captums_integrated_gradients(
    pair: torch.Tensor, direction: torch.Tensor
) -> None:
    """captum's left rule of two steps less its right rule leaves half the difference of the gradients at both ends.

    That, times the change, is half of what attribution gives clean into corrupt and corrupt into clean together.
    captum feeds the clean input to all but the layer, so that its gradients are those of the two runs only where
    nothing passes the layer by: at the residual stream after a block.
    """
    network = make("gelu")
    arms = [spec for spec in specs() if spec.sites[0].endswith(".block")]

    def objective(hidden: torch.Tensor) -> torch.Tensor:
        return (network(hidden) * direction).sum(dim=(1, 2))

    expected = []
    for spec in arms:
        layer, _ = layer_of(network, Site.parse(spec.sites[0]))
        left, right = (
            LayerIntegratedGradients(objective, layer).attribute(
                pair[[CLEAN]], baselines=pair[[CORRUPT]], n_steps=2, method=f"riemann_{rule}"
            )
            for rule in ("left", "right")
        )
        expected.append(2 * in_region(left[0] - right[0], spec).sum().detach())
    found = sum(attributions(network, pair, direction, arms, row) for row in (CORRUPT, CLEAN))
    assert largest_error(found, torch.stack(expected)) < FLOAT64
    assert found.abs().max() > 0.1
