"""ACE-Step v1's denoiser: rows, masks, positions, weakening, tracing points, and folders in the published layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cache.errors import UserError
from tests.oracles.recipe import fill
from tests.tolerances import assert_close
from workbench.models.ace_step_v1.attention import CrossAttention, LinearSelfAttention
from workbench.models.ace_step_v1.rotary import RotaryTable, rotary_table, rotate
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer

HEADS, HEAD_DIM, FRAMES = 2, 4, 5
DIM = HEADS * HEAD_DIM
TINY = {
    "num_layers": 2,
    "inner_dim": DIM,
    "attention_head_dim": HEAD_DIM,
    "num_attention_heads": HEADS,
    "speaker_embedding_dim": 3,
    "text_embedding_dim": 6,
    "ssl_latent_dims": (3, 4),
    "lyric_encoder_vocab_size": 11,
    "lyric_hidden_size": 8,
    "lyric_attention_heads": 2,
    "lyric_linear_units": 12,
}


def build(**changes: Any) -> AceStepV1Transformer:
    """A tiny model in float64 with drawn weights."""
    model = AceStepV1Transformer(**(TINY | changes)).double().eval().requires_grad_(False)
    fill(model, 1)
    return model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.fixture(scope="module")
def tiny() -> AceStepV1Transformer:
    return build()


@pytest.fixture(scope="module")
def deep() -> AceStepV1Transformer:
    """A model with one more block than those that weakening reaches."""
    return build(num_layers=21)


@pytest.fixture
def call() -> dict[str, Tensor]:
    """Arguments of a call with three rows, of which the second has shorter conditioning."""
    return {
        "hidden_states": normal(3, 8, 16, FRAMES),
        "timestep": torch.tensor([900.0, 333.0, 10.0], dtype=torch.float64),
        "encoder_hidden_states": normal(3, 7, DIM, seed=1),
        "encoder_attention_mask": mask(7, 4, 7),
    }


def test_a_row_of_a_padded_batch_is_the_row_alone(tiny: AceStepV1Transformer) -> None:
    """Text and lyrics of the first row are padded by the second's; its tokens keep the positions they have alone."""
    text, speaker, lyrics = normal(2, 5, 6), normal(2, 3, seed=1), torch.tensor([[3, 7, 0, 0], [1, 2, 9, 4]])
    latents, timestep = normal(2, 8, 16, FRAMES, seed=2), torch.tensor([700.0, 20.0], dtype=torch.float64)
    states, seen = tiny.encode(text, mask(3, 5), speaker, lyrics, mask(2, 4))
    assert seen.tolist()[0] == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 2
    positions = torch.tensor([[0, 1, 2, 3, 0, 0, 4, 5, 0, 0], list(range(10))])
    batch = tiny(latents, timestep, states, seen, encoder_positions=positions).sample
    for row, (n_text, n_lyrics) in enumerate([(3, 2), (5, 4)]):
        one = slice(row, row + 1)
        alone = tiny.encode(
            text[one, :n_text], mask(n_text), speaker[one], lyrics[one, :n_lyrics], mask(n_lyrics)
        )
        sample = tiny(latents[one], timestep[one], *alone).sample
        assert_close(batch[one], sample)
    default = tiny(latents, timestep, states, seen).sample
    assert (default[0] - batch[0]).abs().max() > 1e-6, "positions of a row's own tokens must matter"


def test_masked_conditioning_has_no_influence(tiny: AceStepV1Transformer, call: dict[str, Tensor]) -> None:
    padded = call["encoder_hidden_states"].masked_fill(~call["encoder_attention_mask"][..., None], 50.0)
    sample = tiny(**call).sample
    assert_close(tiny(**call | {"encoder_hidden_states": padded}).sample, sample)
    shown = tiny(**call | {"encoder_attention_mask": torch.ones(3, 7, dtype=torch.bool)}).sample
    assert (shown - sample).flatten(1).abs().amax(1).gt(1e-6).tolist() == [False, True, False]


def test_positions_of_conditioning_are_each_rows_own(
    tiny: AceStepV1Transformer, call: dict[str, Tensor]
) -> None:
    positions = torch.arange(7).repeat(3, 1)
    sample = tiny(**call).sample
    assert_close(tiny(**call, encoder_positions=positions).sample, sample)
    positions[1] += 3
    moved = (tiny(**call, encoder_positions=positions).sample - sample).flatten(1).abs().amax(1)
    assert moved.gt(1e-6).tolist() == [False, True, False]


def test_only_weak_rows_are_weakened(deep: AceStepV1Transformer, call: dict[str, Tensor]) -> None:
    plain = deep(**call).sample
    weak = deep(**call, weak_queries=torch.tensor([False, True, False])).sample
    assert (weak - plain).flatten(1).abs().amax(1).gt(1e-6).tolist() == [False, True, False]
    assert_close(weak[::2], plain[::2])


def test_weakening_scales_the_queries_of_blocks_15_to_19(
    deep: AceStepV1Transformer, call: dict[str, Tensor]
) -> None:
    expected = deep(**call, weak_queries=torch.ones(3, dtype=torch.bool)).sample
    handles = [
        attention.to_q.register_forward_hook(lambda module, inputs, output: output * 0.01)
        for block in deep.transformer_blocks[15:20]
        for attention in (block.attn, block.cross_attn)
    ]
    sample = deep(**call).sample
    for handle in handles:
        handle.remove()
    assert_close(sample, expected)


def test_weak_lyrics_scale_the_queries_of_the_last_two_lyric_blocks(tiny: AceStepV1Transformer) -> None:
    inputs = (normal(1, 2, 6), mask(2), normal(1, 3), torch.tensor([[3, 7, 5]]), mask(3))
    plain, (weak, _) = tiny.encode(*inputs)[0], tiny.encode(*inputs, weak_lyrics=True)
    handles = [
        block.self_attn.linear_q.register_forward_hook(lambda module, inputs, output: output * 0.01)
        for block in tiny.lyric_encoder.encoders[4:]
    ]
    expected = tiny.encode(*inputs)[0]
    for handle in handles:
        handle.remove()
    assert_close(weak, expected)
    assert (weak - plain).abs().amax(dim=(0, 2)).gt(1e-6).tolist() == [False] * 3 + [True] * 3


def test_a_row_without_lyrics_gets_finite_states(tiny: AceStepV1Transformer) -> None:
    nothing = torch.zeros(1, 1, dtype=torch.long)
    states, seen = tiny.encode(normal(1, 2, 6), mask(2), normal(1, 3), nothing, nothing)
    assert states.isfinite().all()
    assert seen.tolist() == [[True, True, True, False]]


def test_passes_are_for_the_tracer(tiny: AceStepV1Transformer, call: dict[str, Tensor]) -> None:
    sample = tiny(**call).sample
    (named,) = tiny(**call, passes=("cond", "text", "null"), return_dict=False)
    assert_close(named, sample)


def test_bfloat16_is_near_float32(call: dict[str, Tensor]) -> None:
    """Heads as wide as the published ones."""
    model = build(num_layers=3, inner_dim=256, attention_head_dim=128).float()
    call["encoder_hidden_states"] = normal(3, 7, 256)
    single = {n: v.float() if v.is_floating_point() else v for n, v in call.items()}
    expected = model(**single).sample
    half = {n: v.bfloat16() if v.is_floating_point() and n != "timestep" else v for n, v in single.items()}
    found = model.bfloat16()(**half).sample
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_weights_are_read_from_a_folder(tmp_path: Path, layout: str, call: dict[str, Tensor]) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    if layout == "published":
        path = tmp_path / "config.json"
        config = json.loads(path.read_text())
        assert config["_class_name"] == "AceStepV1Transformer"
        path.write_text(
            json.dumps(config | {"_class_name": "Transformer2DModel", "_diffusers_version": "0.27.2"})
        )
    loaded = AceStepV1Transformer.from_pretrained(tmp_path, torch_dtype=torch.float64)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert_close(loaded(**call).sample, model(**call).sample)


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="inner_dim is 9, but 2 heads of 4 channels are 8 wide"):
        AceStepV1Transformer(**TINY | {"inner_dim": 9})


def test_conditioning_is_exchanged_through_the_arguments_of_cross_attention(
    tiny: AceStepV1Transformer, call: dict[str, Tensor]
) -> None:
    """States, mask and rotary table of a row at every block: the row is then one with that conditioning."""
    positions = torch.arange(7) + torch.tensor([[0], [2], [5]])
    names = ("encoder_hidden_states", "encoder_attention_mask", "encoder_positions")
    whole = call | {"encoder_positions": positions}
    expected = tiny(**whole | {name: whole[name][[0, 1, 1]] for name in names}).sample

    def second_for_third(module: Any, inputs: Any, arguments: dict[str, Any]) -> Any:
        cos, sin = arguments["encoder_rotary"]
        changes = {name: arguments[name][[0, 1, 1]] for name in names[:2]}
        return inputs, arguments | changes | {"encoder_rotary": (cos[[0, 1, 1]], sin[[0, 1, 1]])}

    handles = [
        block.cross_attn.register_forward_pre_hook(second_for_third, with_kwargs=True)
        for block in tiny.transformer_blocks
    ]
    sample = tiny(**whole).sample
    for handle in handles:
        handle.remove()
    assert_close(sample, expected)


def test_modules_give_the_values_that_tracing_reads(
    tiny: AceStepV1Transformer, call: dict[str, Tensor]
) -> None:
    """A block's output is its input plus what its parts give, and each part's output is a tensor."""
    block, seen = tiny.transformer_blocks[1], {}
    parts = {"self": block.attn, "cross": block.cross_attn, "ff": block.ff, "block": block}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, arguments: Any, output: Tensor) -> None:
            seen[name] = (inputs[0] if inputs else arguments["hidden_states"], output)

        return hook

    handles = [part.register_forward_hook(keep(name), with_kwargs=True) for name, part in parts.items()]
    outs = {"self heads": block.attn.to_out[0], "cross heads": block.cross_attn.to_out[0]}
    handles += [part.register_forward_hook(keep(name), with_kwargs=True) for name, part in outs.items()]
    embedding = tiny.timestep_embedder.register_forward_hook(keep("timestep"), with_kwargs=True)
    tiny(**call)
    for handle in (*handles, embedding):
        handle.remove()
    modulation = tiny.t_block(seen["timestep"][1]).unflatten(-1, (6, -1)) + block.scale_shift_table
    gate_attn, gate_ff = modulation[:, 2:3], modulation[:, 5:6]
    before, after = seen["block"]
    middle = before + gate_attn * seen["self"][1]
    assert_close(seen["cross"][0], middle)
    expected = middle + seen["cross"][1] + gate_ff * seen["ff"][1]
    assert_close(after, expected)
    for name in outs:
        assert seen[name][0].shape == (3, FRAMES, DIM)


# The parts against their formulas


def test_channels_of_a_pair_turn_by_angles_of_their_own() -> None:
    table = rotary_table(torch.tensor([[0, 3]]), head_dim=4, theta=100.0, dtype=torch.float64)
    (states,) = rotate(torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(1, 1, 2, 4), table)
    slow, fast = torch.tensor([3 / 10, 3.0], dtype=torch.float64)
    torch.testing.assert_close(states[0, 0], torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(
        states[0, 1], torch.stack([fast.cos(), slow.sin(), -fast.sin(), slow.cos()]), rtol=0, atol=1e-15
    )


def heads_of(attention: Any, run: Callable[[], Tensor]) -> Tensor:
    """What an attention's output projection is given in a run, by head."""
    found: list[Tensor] = []
    with attention.to_out[0].register_forward_pre_hook(lambda module, inputs: found.append(inputs[0])):
        run()
    return found[0].unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)


def by_head(projected: Tensor, table: RotaryTable | None = None) -> Tensor:
    split = projected.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
    return rotate(split, table) if table else split


def test_self_attention_weighs_by_rectified_products() -> None:
    attention = LinearSelfAttention(HEADS, HEAD_DIM).double().requires_grad_(False)
    fill(attention, 2)
    states, kept = normal(2, FRAMES, DIM), mask(3, FRAMES)
    table = rotary_table(torch.arange(FRAMES), HEAD_DIM, 100.0, torch.float64)
    query, key = (by_head(part(states), table).relu() for part in (attention.to_q, attention.to_k))
    weights = query @ key.mT * kept[:, None, None]
    expected = weights / (weights.sum(-1, keepdim=True) + 1e-15) @ by_head(attention.to_v(states))
    expected = expected * kept[:, None, :, None]
    found = heads_of(attention, lambda: attention(states, rotary=table, attention_mask=kept))
    assert_close(found, expected)


def test_self_attention_sums_in_float32_whatever_the_weights() -> None:
    """After the projections, bfloat16 costs no more than the rounding of the quotient."""
    attention = LinearSelfAttention(HEADS, HEAD_DIM).bfloat16().requires_grad_(False)
    fill(attention, 2)
    states = normal(1, 400, DIM).bfloat16()
    table = rotary_table(torch.arange(400), HEAD_DIM, 100.0, torch.bfloat16)
    query, key = (by_head(part(states), table).relu().double() for part in (attention.to_q, attention.to_k))
    weights = query @ key.mT
    expected = weights / (weights.sum(-1, keepdim=True) + 1e-15) @ by_head(attention.to_v(states)).double()
    found = heads_of(attention, lambda: attention(states, rotary=table))
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-6)


def test_cross_attention_is_a_softmax_over_visible_tokens() -> None:
    attention = CrossAttention(HEADS, HEAD_DIM).double().requires_grad_(False)
    fill(attention, 2)
    states, tokens = normal(2, FRAMES, DIM), normal(2, 6, DIM, seed=1)
    visible, kept = mask(6, 2), mask(3, FRAMES)
    table = rotary_table(torch.arange(FRAMES), HEAD_DIM, 100.0, torch.float64)
    token_table = rotary_table(torch.arange(6) + torch.tensor([[0], [4]]), HEAD_DIM, 100.0, torch.float64)
    scores = by_head(attention.to_q(states), table) @ by_head(attention.to_k(tokens), token_table).mT
    weights = (scores / HEAD_DIM**0.5).masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
    expected = (weights @ by_head(attention.to_v(tokens))) * kept[:, None, :, None]
    found = heads_of(
        attention,
        lambda: attention(
            states,
            encoder_hidden_states=tokens,
            encoder_attention_mask=visible,
            encoder_rotary=token_table,
            rotary=table,
            attention_mask=kept,
        ),
    )
    assert_close(found, expected)
