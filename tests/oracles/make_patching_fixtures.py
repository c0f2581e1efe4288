"""Write fixtures/patching: results of TransformerLens and pyvene on the network of plain_network.py (see README.md).

Run in an environment with both: python make_patching_fixtures.py FOLDER
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyvene as pv
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching
from transformers import GPT2Config, GPT2LMHeadModel

BLOCKS, WIDTH, INNER, HEADS, VOCABULARY, TOKENS = 3, 16, 24, 4, 7, 5
HEAD = WIDTH // HEADS
IDS = {"clean": [1, 4, 2, 6, 3], "corrupt": [5, 0, 6, 3, 2], "other": [3, 3, 5, 1, 0]}
ALL = list(range(TOKENS))
Arrays = dict[str, np.ndarray]


def make_weights() -> dict[str, torch.Tensor]:
    """Parameters of the plain network under its own names, none of them zero or one."""
    draws = torch.Generator().manual_seed(11)

    def draw(*shape: int, scale: float = 1.0, around: float = 0.0) -> torch.Tensor:
        return around + scale * torch.randn(shape, generator=draws, dtype=torch.float64)

    weights = {"tokens.weight": draw(VOCABULARY, WIDTH), "positions.weight": draw(TOKENS, WIDTH, scale=0.5)}
    for block in range(BLOCKS):
        at = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            weights[f"{at}.{norm}.weight"] = draw(WIDTH, scale=0.2, around=1.0)
            weights[f"{at}.{norm}.bias"] = draw(WIDTH, scale=0.2)
        sizes = {f"self_attn.to_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
        for name, (out, into) in {**sizes, "mlp.0": (INNER, WIDTH), "mlp.2": (WIDTH, INNER)}.items():
            weights[f"{at}.{name}.weight"] = draw(out, into, scale=into**-0.5)
            weights[f"{at}.{name}.bias"] = draw(out, scale=0.2)
    weights["norm.weight"], weights["norm.bias"] = draw(WIDTH, scale=0.2, around=1.0), draw(WIDTH, scale=0.2)
    weights["unembed.weight"] = draw(VOCABULARY, WIDTH, scale=WIDTH**-0.5)
    return weights


def lens_model(weights: dict[str, torch.Tensor]) -> HookedTransformer:
    """The same network as a TransformerLens model."""
    config = HookedTransformerConfig(
        n_layers=BLOCKS, d_model=WIDTH, d_mlp=INNER, n_heads=HEADS, d_head=HEAD, n_ctx=TOKENS,
        d_vocab=VOCABULARY, act_fn="gelu_new", normalization_type="LN", dtype=torch.float64, device="cpu",
    )  # fmt: skip
    model = HookedTransformer(config).eval()
    state = model.state_dict()
    state["embed.W_E"], state["pos_embed.W_pos"] = weights["tokens.weight"], weights["positions.weight"]
    for block in range(BLOCKS):
        at = f"blocks.{block}"
        for theirs, ours in (("ln1", "norm1"), ("ln2", "norm2")):
            state[f"{at}.{theirs}.w"] = weights[f"{at}.{ours}.weight"]
            state[f"{at}.{theirs}.b"] = weights[f"{at}.{ours}.bias"]
        for name in ("q", "k", "v"):
            matrix, bias = (weights[f"{at}.self_attn.to_{name}.{kind}"] for kind in ("weight", "bias"))
            state[f"{at}.attn.W_{name.upper()}"] = matrix.reshape(HEADS, HEAD, WIDTH).transpose(1, 2)
            state[f"{at}.attn.b_{name.upper()}"] = bias.reshape(HEADS, HEAD)
        state[f"{at}.attn.W_O"] = weights[f"{at}.self_attn.to_out.weight"].T.reshape(HEADS, HEAD, WIDTH)
        state[f"{at}.attn.b_O"] = weights[f"{at}.self_attn.to_out.bias"]
        for theirs, ours in (("in", "mlp.0"), ("out", "mlp.2")):
            state[f"{at}.mlp.W_{theirs}"] = weights[f"{at}.{ours}.weight"].T
            state[f"{at}.mlp.b_{theirs}"] = weights[f"{at}.{ours}.bias"]
    state["ln_final.w"], state["ln_final.b"] = weights["norm.weight"], weights["norm.bias"]
    state["unembed.W_U"] = weights["unembed.weight"].T
    state["unembed.b_U"] = torch.zeros(VOCABULARY, dtype=torch.float64)
    model.load_state_dict(state)
    return model


def gpt2_model(weights: dict[str, torch.Tensor]) -> GPT2LMHeadModel:
    """The same network as a GPT-2 model, for pyvene."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=WIDTH, n_layer=BLOCKS, n_head=HEADS, n_inner=INNER,
        bos_token_id=None, eos_token_id=None, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    state = {
        "transformer.wte.weight": weights["tokens.weight"],
        "transformer.wpe.weight": weights["positions.weight"],
        "transformer.ln_f.weight": weights["norm.weight"],
        "transformer.ln_f.bias": weights["norm.bias"],
        "lm_head.weight": weights["unembed.weight"],
    }
    for block in range(BLOCKS):
        at, there = f"blocks.{block}", f"transformer.h.{block}"
        for kind in ("weight", "bias"):
            qkv = torch.cat([weights[f"{at}.self_attn.to_{name}.{kind}"] for name in ("q", "k", "v")])
            linear = {
                "attn.c_attn": qkv,
                "attn.c_proj": weights[f"{at}.self_attn.to_out.{kind}"],
                "mlp.c_fc": weights[f"{at}.mlp.0.{kind}"],
                "mlp.c_proj": weights[f"{at}.mlp.2.{kind}"],
            }
            for name, value in linear.items():
                state[f"{there}.{name}.{kind}"] = value.mT if kind == "weight" else value
            for norm in ("1", "2"):
                state[f"{there}.ln_{norm}.{kind}"] = weights[f"{at}.norm{norm}.{kind}"]
    model = GPT2LMHeadModel(config).double().eval()
    model.load_state_dict(state)
    return model


def ids(name: str) -> torch.Tensor:
    return torch.tensor([IDS[name]])


def of_transformer_lens(model: HookedTransformer) -> Arrays:
    """Values of the clean run, and sweeps that patch clean values into the corrupt run."""
    clean_logits, cache = model.run_with_cache(ids("clean"))
    arrays = {"clean": clean_logits[0].numpy(), "corrupt": model(ids("corrupt"))[0].numpy()}
    for name in ("resid_post", "attn_out", "mlp_out", "q", "k", "v", "z"):
        values = torch.stack([cache[name, block][0].flatten(1) for block in range(BLOCKS)])
        arrays[f"cache_{name}"] = values.numpy()

    def sweep(name: str, setter: Callable, axes: tuple[str, ...]) -> None:
        seen = []

        def difference(logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits[0].numpy().copy())
            return logits[0, -1, 3] - logits[0, -1, 2]

        effects = patching.generic_activation_patch(
            model, ids("corrupt"), cache, difference, setter, name, axes
        )
        label = f"{name}_by_{'_'.join(axes)}"
        arrays[f"effect_{label}"] = effects.numpy()
        arrays[f"logits_{label}"] = np.stack(seen).reshape(*effects.shape, TOKENS, VOCABULARY)

    for name in ("resid_post", "attn_out", "mlp_out"):
        sweep(name, patching.layer_pos_patch_setter, ("layer", "pos"))
    for name in ("q", "k", "v", "z"):
        sweep(name, patching.layer_head_vector_patch_setter, ("layer", "head"))
    sweep("z", patching.layer_pos_head_vector_patch_setter, ("layer", "pos", "head"))
    return arrays


def of_pyvene(model: GPT2LMHeadModel) -> Arrays:
    """Interchange interventions between the clean run and others, and ablations and additions in the clean run."""
    parts = {"block": "block_output", "mlp": "mlp_output", "attn": "attention_output"}
    heads_part = "head_attention_value_output"
    draws = torch.Generator().manual_seed(12)
    direction = torch.randn(WIDTH, generator=draws, dtype=torch.float64)

    def clean_under(*edits: tuple, source: str | None = "corrupt") -> np.ndarray:
        """Logits of the clean prompt under edits, each (kind, component, block, positions, heads, value)."""
        representations, places = [], []
        for kind, component, block, positions, heads, value in edits:
            of_heads = heads is not None
            representations.append({
                "layer": block,
                "component": component,
                "unit": "h.pos" if of_heads else "pos",
                "max_number_of_units": len(positions),
                "intervention_type": kind,
                "source_representation": value,
            })  # fmt: skip
            places.append([[list(heads)], [list(positions)]] if of_heads else [list(positions)])
        engine = pv.IntervenableModel(representations, model)
        base, sources = {"input_ids": ids("clean")}, None
        where: dict = {"base": places}
        if source is not None:
            sources = [{"input_ids": ids(source)}] * len(edits)
            where = {"sources->base": (places, places)}
        with torch.no_grad():
            _, changed = engine(base, sources, where)
        return changed.logits[0].numpy()

    def mean_of(component: str, block: int) -> torch.Tensor:
        """Mean of a component's values over the corrupt and the other prompt and all tokens."""
        found = []
        for name in ("corrupt", "other"):
            collector = {"layer": block, "component": component, "max_number_of_units": TOKENS,
                         "intervention_type": pv.CollectIntervention}  # fmt: skip
            (_, collected), _ = pv.IntervenableModel(collector, model)(
                {"input_ids": ids(name)}, unit_locations={"base": ALL}
            )
            found.append(collected[0].detach())
        return torch.stack(found).flatten(0, -2).mean(0)

    swap, zero, add = pv.VanillaIntervention, pv.ZeroIntervention, pv.AdditionIntervention
    each, each_head = range(BLOCKS), range(HEADS)
    with torch.no_grad():
        arrays = {name: model(ids(name)).logits[0].numpy() for name in IDS}
    arrays["direction"] = direction.numpy()
    for name, part in parts.items():
        arrays[f"swap_{name}"] = np.stack(
            [[clean_under((swap, part, b, [p], None, None)) for p in ALL] for b in each]
        )
        arrays[f"zero_{name}"] = np.stack(
            [[clean_under((zero, part, b, [p], None, None), source=None) for p in ALL] for b in each]
        )
        arrays[f"add_{name}"] = np.stack(
            [clean_under((add, part, b, [1, 2, 3], None, 1.7 * direction), source=None) for b in each]
        )
        arrays[f"mean_{name}"] = np.stack(
            [clean_under((swap, part, b, ALL, None, mean_of(part, b)), source=None) for b in each]
        )
        arrays[f"swap_other_{name}"] = np.stack(
            [clean_under((swap, part, b, ALL, None, None), source="other") for b in each]
        )
    arrays["swap_heads"] = np.stack(
        [[clean_under((swap, heads_part, b, ALL, [h], None)) for h in each_head] for b in each]
    )
    arrays["zero_heads"] = np.stack(
        [[clean_under((zero, heads_part, b, ALL, [h], None), source=None) for h in each_head] for b in each]
    )
    arrays["swap_heads_1_3_tokens_2_3"] = np.stack(
        [clean_under((swap, heads_part, b, [2, 3], [1, 3], None)) for b in each]
    )
    arrays["swap_mlp_0_tokens_1_3_and_attn_1_and_heads_2_of_2"] = clean_under(
        (swap, parts["mlp"], 0, [1, 2, 3], None, None),
        (swap, parts["attn"], 1, ALL, None, None),
        (swap, heads_part, 2, ALL, [2], None),
    )
    return arrays


def main() -> None:
    folder = Path(sys.argv[1])
    weights = make_weights()
    inputs = {f"ids_{name}": np.array(values) for name, values in IDS.items()}
    np.savez_compressed(folder / "network.npz", **inputs, **{name: w.numpy() for name, w in weights.items()})
    with torch.no_grad():
        np.savez_compressed(folder / "transformer_lens.npz", **of_transformer_lens(lens_model(weights)))
    np.savez_compressed(folder / "pyvene.npz", **of_pyvene(gpt2_model(weights)))


if __name__ == "__main__":
    main()
