"""The intervention engine against TransformerLens and pyvene, which ran the same network (see README.md)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.oracles.plain_network import PlainTransformer, run
from workbench.engine import edits as make
from workbench.engine.batch import RowEdit
from workbench.engine.edits import Edit
from workbench.engine.sites import Site

FIXTURES = Path(__file__).parent / "fixtures" / "patching"
NETWORK, LENS, PYVENE = (
    dict(np.load(FIXTURES / f"{name}.npz")) for name in ("network", "transformer_lens", "pyvene")
)
CLEAN, CORRUPT, OTHER = 0, 1, 2
BLOCKS, TOKENS, HEADS = 3, 5, 4
LENS_PARTS = {
    "resid_post": "block", "attn_out": "self_attn", "mlp_out": "mlp", "z": "self_attn.heads",
    "q": "self_attn.q", "k": "self_attn.k", "v": "self_attn.v",
}  # fmt: skip
PYVENE_PARTS = {"block": "block", "mlp": "mlp", "attn": "self_attn"}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Of the largest number compared; the fixtures are in float64."""


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def network(dtype: torch.dtype) -> PlainTransformer:
    network = PlainTransformer().to(dtype)
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in NETWORK.items() if not name.startswith("ids_")}
    )
    return network


def prompts(network: PlainTransformer) -> torch.Tensor:
    """Rows 0 to 2 of every batch: clean, corrupt and other."""
    ids = np.stack([NETWORK[f"ids_{name}"] for name in ("clean", "corrupt", "other")])
    return network.embed(torch.from_numpy(ids))


def logits_of(
    network: PlainTransformer, arms: Sequence[Sequence[tuple[Edit, Any]]], base: int
) -> torch.Tensor:
    """Logits of one batch: the three prompts, then for each arm the base prompt under (edit, source) pairs."""
    batch = prompts(network)
    batch = torch.cat([batch, batch[[base] * len(arms)]])
    edits = [row_edit(3 + i, *pair) for i, arm in enumerate(arms) for pair in arm]
    return run(network, batch, edits)[0]


def row_edit(row: int, edit: Edit, source: int | tuple[int, ...] | None) -> RowEdit:
    """An edit of a row that reads from a row, or from several."""
    sources = () if source is None else source if isinstance(source, tuple) else (source,)
    return RowEdit(edit, row, sources)


def check(logits: torch.Tensor, expected: np.ndarray) -> None:
    """The arms' logits (after the three prompts') are the peer's."""
    compare(logits[3:].reshape(expected.shape), expected, TOLERANCE[logits.dtype])


def compare(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def patch(sites: Sequence[str], **window: Any) -> Edit:
    return make.patch(sites, "other", target="output", **window)


def by_token(make: Any, part: str, source: Any) -> list[list[tuple[Edit, Any]]]:
    """An arm for each block and token, in the fixtures' order."""
    return [
        [(make(sites=(f"tf{b}.{part}",), tokens=(t, t)), source)]
        for b in range(BLOCKS)
        for t in range(TOKENS)
    ]


def by_head(make: Any, part: str, source: Any) -> list[list[tuple[Edit, Any]]]:
    """An arm for each block and head, in the fixtures' order."""
    return [
        [(make(sites=(f"tf{b}.{part}",), heads=(h,)), source)] for b in range(BLOCKS) for h in range(HEADS)
    ]


def test_the_untouched_network_is_the_peers(network: PlainTransformer, dtype: torch.dtype) -> None:
    sites = [Site(block, part) for block in range(BLOCKS) for part in LENS_PARTS.values()]
    logits, values = run(network, prompts(network), sites=sites)
    for row, name in enumerate(("clean", "corrupt")):
        compare(logits[row], LENS[name], TOLERANCE[dtype])
    for row, name in enumerate(("clean", "corrupt", "other")):
        compare(logits[row], PYVENE[name], TOLERANCE[dtype])
    for name, part in LENS_PARTS.items():
        captured = [values[Site(block, part)][CLEAN] for block in range(BLOCKS)]
        compare(torch.stack(captured), LENS[f"cache_{name}"], TOLERANCE[dtype])


def check_effects(logits: torch.Tensor, expected: np.ndarray) -> None:
    """The map that TransformerLens gives, a difference of two logits at the last token; it is in float32 there."""
    effects = logits[3:, -1, 3] - logits[3:, -1, 2]
    compare(effects.reshape(expected.shape), expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("name", ["resid_post", "attn_out", "mlp_out"])
def test_patching_by_layer_and_position_is_transformer_lens(network: PlainTransformer, name: str) -> None:
    logits = logits_of(network, by_token(patch, LENS_PARTS[name], CLEAN), CORRUPT)
    check(logits, LENS[f"logits_{name}_by_layer_pos"])
    check_effects(logits, LENS[f"effect_{name}_by_layer_pos"])


@pytest.mark.parametrize("name", ["q", "k", "v", "z"])
def test_patching_by_layer_and_head_is_transformer_lens(network: PlainTransformer, name: str) -> None:
    logits = logits_of(network, by_head(patch, LENS_PARTS[name], CLEAN), CORRUPT)
    check(logits, LENS[f"logits_{name}_by_layer_head"])
    check_effects(logits, LENS[f"effect_{name}_by_layer_head"])


def test_patching_by_layer_position_and_head_is_transformer_lens(network: PlainTransformer) -> None:
    arms = [
        [(patch([f"tf{b}.self_attn.heads"], tokens=(t, t), heads=(h,)), CLEAN)]
        for b in range(BLOCKS)
        for t in range(TOKENS)
        for h in range(HEADS)
    ]
    logits = logits_of(network, arms, CORRUPT)
    check(logits, LENS["logits_z_by_layer_pos_head"])
    check_effects(logits, LENS["effect_z_by_layer_pos_head"])


@pytest.mark.parametrize("part", PYVENE_PARTS)
def test_interchange_is_pyvene(network: PlainTransformer, part: str) -> None:
    check(logits_of(network, by_token(patch, PYVENE_PARTS[part], CORRUPT), CLEAN), PYVENE[f"swap_{part}"])


def test_interchange_of_heads_is_pyvene(network: PlainTransformer) -> None:
    check(logits_of(network, by_head(patch, "self_attn.heads", CORRUPT), CLEAN), PYVENE["swap_heads"])


def test_interchange_of_heads_in_a_window_is_pyvene(network: PlainTransformer) -> None:
    arms = [
        [(patch([f"tf{b}.self_attn.heads"], tokens=(2, 3), heads=(1, 3)), CORRUPT)] for b in range(BLOCKS)
    ]
    check(logits_of(network, arms, CLEAN), PYVENE["swap_heads_1_3_tokens_2_3"])


def test_interchange_at_several_sites_is_pyvene(network: PlainTransformer) -> None:
    arm = [
        (patch(["tf0.mlp"], tokens=(1, 3)), CORRUPT),
        (patch(["tf1.self_attn"]), CORRUPT),
        (patch(["tf2.self_attn.heads"], heads=(2,)), CORRUPT),
    ]
    check(logits_of(network, [arm], CLEAN), PYVENE["swap_mlp_0_tokens_1_3_and_attn_1_and_heads_2_of_2"])


def test_rows_that_exchange_their_values_are_both_peers(network: PlainTransformer) -> None:
    """Each takes what the other had before: clean into corrupt is TransformerLens', the other way round pyvene's."""
    for block, token in ((0, 0), (1, 2), (2, 3)):
        spec = patch([f"tf{block}.mlp"], tokens=(token, token))
        edits = [row_edit(CLEAN, spec, CORRUPT), row_edit(CORRUPT, spec, CLEAN)]
        logits, _ = run(network, prompts(network), edits)
        compare(logits[CLEAN], PYVENE["swap_mlp"][block, token], TOLERANCE[logits.dtype])
        compare(logits[CORRUPT], LENS["logits_mlp_out_by_layer_pos"][block, token], TOLERANCE[logits.dtype])


@pytest.mark.parametrize("part", PYVENE_PARTS)
def test_zero_ablation_is_pyvene(network: PlainTransformer, part: str) -> None:
    check(logits_of(network, by_token(make.ablate, PYVENE_PARTS[part], None), CLEAN), PYVENE[f"zero_{part}"])


def test_zero_ablation_of_heads_is_pyvene(network: PlainTransformer) -> None:
    check(logits_of(network, by_head(make.ablate, "self_attn.heads", None), CLEAN), PYVENE["zero_heads"])


@pytest.mark.parametrize("part", PYVENE_PARTS)
def test_mean_and_resample_ablation_are_interchanges_of_pyvene(network: PlainTransformer, part: str) -> None:
    sites = [(f"tf{b}.{PYVENE_PARTS[part]}",) for b in range(BLOCKS)]
    mean = [[(make.ablate(site, "mean", "other"), (CORRUPT, OTHER))] for site in sites]
    check(logits_of(network, mean, CLEAN), PYVENE[f"mean_{part}"])
    resample = [[(make.ablate(site, "resample", "other"), OTHER)] for site in sites]
    check(logits_of(network, resample, CLEAN), PYVENE[f"swap_other_{part}"])


@pytest.mark.parametrize("part", PYVENE_PARTS)
def test_steering_is_pyvenes_addition(network: PlainTransformer, part: str) -> None:
    sites = [f"tf{b}.{PYVENE_PARTS[part]}" for b in range(BLOCKS)]
    arms = [[(make.add(PYVENE["direction"], site, 1.7, tokens=(1, 3)), None)] for site in sites]
    check(logits_of(network, arms, CLEAN), PYVENE[f"add_{part}"])


def test_every_arm_of_the_peers_changes_the_logits() -> None:
    """No comparison passes because nothing happens."""
    for fixture, base in ((LENS, "corrupt"), (PYVENE, "clean")):
        for name, value in fixture.items():
            if name.startswith(("logits_", "swap_", "zero_", "mean_", "add_")):
                assert np.abs(value - fixture[base]).max(axis=(-1, -2)).min() > 0.05, name
