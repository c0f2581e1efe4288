"""What must hold of every kind of patch, in both directions, to rounding of float64."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.edited import edited
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Edit, Run, ablate, add, patch, random_patch
from workbench.engine.rows import CallRows
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models import base
from workbench.models.ace_step import AceStep15
from workbench.models.base import AudioDiffusionModel

SETTINGS = GenerationSettings(duration=1.0, num_steps=4, guidance_scale=3.0)
PROMPTS = {
    "aligned": ("a slow happy song", "a fast happy song"),
    "padded": ("a slow song", "a fast happy violin song with drums"),
}

SINGLE: dict[str, Callable[[int], Edit]] = {
    "conditioning": lambda b: patch(f"tf{b}.cross_attn", "other"),
    "keys": lambda b: patch(f"tf{b}.cross_attn", "other", parts=("keys",)),
    "values": lambda b: patch(f"tf{b}.cross_attn", "other", parts=("values",)),
    "mask": lambda b: patch(f"tf{b}.cross_attn", "other", parts=("mask",)),
    "text": lambda b: patch(f"tf{b}.cross_attn", "other", segments=("text",)),
    "query head": lambda b: patch(f"tf{b}.cross_attn.heads", "other", target="output", heads=(2,)),
    "KV head": lambda b: patch(
        (f"tf{b}.cross_attn.k", f"tf{b}.cross_attn.v"), "other", target="output", heads=(1,)
    ),
    "window of tokens": lambda b: patch(f"tf{b}.cross_attn", "other", target="output", tokens=(3, 7)),
    "window of steps": lambda b: patch(f"tf{b}.cross_attn", "other", steps=(2, 3)),
    "window of sigmas": lambda b: patch(f"tf{b}.cross_attn", "other", sigmas=(0.0, 0.8)),
    "null pass": lambda b: patch(f"tf{b}.mlp", "other", target="output", passes=("null",)),
    **{
        part: lambda b, part=part: patch(f"tf{b}.{part}", "other", target="output")
        for part in (
            "cross_attn",
            "self_attn",
            "mlp",
            "block",
            "cross_attn.q",
            "self_attn.v",
            "cross_attn.heads",
        )
    },
}
both_directions = pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])
every_kind = pytest.mark.parametrize("kind", SINGLE)


def pair(name: str = "aligned") -> list[Clip]:
    return [Clip(prompt, 7) for prompt in PROMPTS[name]]


def run(
    model: AudioDiffusionModel, base: int, *arms: Sequence[Edit], prompts: str = "aligned"
) -> torch.Tensor:
    """Latents of the clean run, the corrupt run, and arms: edits of the `base` run that read from the other one."""
    clips = pair(prompts)
    runs = [edited(clips[base], edits, clips[1 - base]) for edits in arms]
    return model.generate_batch([*clips, *runs], SETTINGS).latents


@every_kind
@both_directions
def test_identity_patch_changes_nothing(model64: AudioDiffusionModel, kind: str, base: int) -> None:
    clips = pair("padded")
    identity = edited(clips[base], [SINGLE[kind](block) for block in range(2)], clips[base])
    latents = model64.generate_batch([*clips, identity], SETTINGS).latents
    assert_close(latents[2], latents[base])


@every_kind
@both_directions
def test_patch_that_never_acts_is_the_base_run(model64: AudioDiffusionModel, kind: str, base: int) -> None:
    edit = SINGLE[kind](0)
    never = replace(edit, window=replace(edit.window, steps=(9, 9), sigmas=None))
    latents = run(model64, base, [never], prompts="padded")
    assert_close(latents[2], latents[base])


ALL_BLOCKS: dict[str, list[Edit]] = {
    "conditioning": [patch(("tf0.cross_attn", "tf1.cross_attn"), "other")],
    "keys, values and mask": [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other", parts=(carried,))
        for carried in ("keys", "values", "mask")
    ],
    "cross-attention outputs": [patch(("tf0.cross_attn", "tf1.cross_attn"), "other", target="output")],
    "last block": [patch("tf1.block", "other", target="output")],
    "all query heads": [
        patch(("tf0.cross_attn.heads", "tf1.cross_attn.heads"), "other", target="output", heads=(head,))
        for head in range(4)
    ],
    "all windows of steps": [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other", steps=window)
        for window in ((0, 0), (1, 2), (3, 3))
    ],
    "all windows of sigmas": [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other", sigmas=window)
        for window in ((0.91, 1.0), (0.5, 0.91), (0.0, 0.5))
    ],
    "all windows of tokens": [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other", target="output", tokens=window)
        for window in ((0, 3), (4, 99))
    ],
    "both passes": [
        patch(("tf0.cross_attn", "tf1.cross_attn"), "other", passes=(name,)) for name in ("cond", "null")
    ],
}


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("kind", ALL_BLOCKS)
@both_directions
def test_everything_patched_is_the_other_run(
    model64: AudioDiffusionModel, kind: str, base: int, prompts: str
) -> None:
    latents = run(model64, base, ALL_BLOCKS[kind], prompts=prompts)
    assert_close(latents[2], latents[1 - base])
    assert difference(latents[2], latents[base]) > 1e-3


@both_directions
def test_all_segments_are_the_other_run(model64: AudioDiffusionModel, base: int) -> None:
    segments = model64.segments(pair()[0], SETTINGS)
    sites = ("tf0.cross_attn", "tf1.cross_attn")
    latents = run(
        model64, base, [patch(sites, "other", segments=(name,)) for name in segments], prompts="padded"
    )
    assert_close(latents[2], latents[1 - base])


@both_directions
def test_keys_and_values_are_not_enough_where_the_prompts_differ_in_length(
    model64: AudioDiffusionModel, base: int
) -> None:
    without_mask = [patch(("tf0.cross_attn", "tf1.cross_attn"), "other", parts=("keys", "values"))]
    latents = run(model64, base, without_mask, prompts="padded")
    assert difference(latents[2], latents[1 - base]) > 1e-6


@every_kind
@both_directions
def test_commuting_patches(model64: AudioDiffusionModel, kind: str, base: int) -> None:
    specs = [SINGLE[kind](0), SINGLE[kind](1)]
    latents = run(model64, base, specs, specs[::-1], prompts="padded")
    assert_close(latents[2], latents[3])


@both_directions
def test_a_batch_of_arms_equals_one_run_per_arm(model64: AudioDiffusionModel, base: int) -> None:
    arms: list[list[Edit]] = [[make(1)] for make in SINGLE.values()]
    arms += [
        [ablate("tf0.mlp")],
        [ablate("tf0.cross_attn", "mean", "other", steps=(1, 1))],
        [ablate("tf1.cross_attn", "resample", "other")],
        [add(tuple([0.5] * 32), "tf1.self_attn", strength=2.0, tokens=(0, 2))],
        [random_patch("tf1.cross_attn", "other", 3)],
    ]
    together = run(model64, base, *arms, prompts="padded")
    for i, arm in enumerate(arms):
        alone = run(model64, base, arm, prompts="padded")
        assert_close(together[2 + i], alone[2])
        assert difference(together[2 + i], together[base]) > 1e-9, f"{arm} does something"


@both_directions
def test_conditioning_is_its_parts(model64: AudioDiffusionModel, base: int) -> None:
    site = ("tf0.cross_attn",)
    whole = [patch(site, "other")]
    by_heads = [
        patch(("tf0.cross_attn.k", "tf0.cross_attn.v"), "other", target="output", heads=(head,))
        for head in range(model64.heads("k"))
    ]
    by_words = [patch(site, "other", segments=("swapped", "after"))]
    by_word = [patch(site, "other", segments=("word:slow", "word:happy", "word:song"))]
    others = [name for name in model64.segments(pair()[0], SETTINGS) if name != "text"]
    rest = [patch(site, "other", segments=("before", "template", *others))]
    latents = run(model64, base, whole, by_heads, by_words, by_word, rest)
    assert difference(latents[2], latents[base]) > 1e-6
    assert_close(latents[3], latents[2])
    assert_close(latents[4], latents[5])
    combined = run(model64, base, [*by_words, *rest], whole)
    assert_close(combined[2], combined[3])


def test_arms_cost_nothing_before_they_start(
    model64: AudioDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step-prefix reuse is exact: latents, sampler and guidance momentum are those of a run of its own."""
    clips = pair()
    specs = [patch("tf1.cross_attn", "other", steps=(step, step)) for step in range(4)]
    runs = [*clips, *(edited(clips[1], [spec], clips[0]) for spec in specs)]
    shared = model64.generate_batch(runs, SETTINGS)
    passes = [len(set(call.passes)) for call in shared.calls]
    assert shared.rows == sum(passes[step] * (2 + step + 1) for step in range(4))

    def every_row(label, clips, edits, started, probing=False) -> CallRows:
        del clips, edits, started, probing
        rows = tuple(range(len(label.clips)))
        return CallRows(label, rows, rows)

    monkeypatch.setattr(base, "call_rows", every_row)
    whole = model64.generate_batch(runs, SETTINGS)
    assert whole.rows == 6 * sum(passes)
    assert_close(shared.latents, whole.latents)
    assert difference(shared.latents[5], shared.latents[1]) > 1e-6


def test_the_same_clip_twice_is_computed_once(model64: AudioDiffusionModel) -> None:
    clean, corrupt = pair()
    run = model64.generate_batch([clean, corrupt, clean], SETTINGS)
    assert run.rows == 2 * sum(len(set(call.passes)) for call in run.calls)
    assert_close(run.latents[0], run.latents[2])
    assert difference(run.latents[0], run.latents[1]) > 1e-3


def test_the_null_pass_reads_one_embedding_so_that_its_conditioning_cannot_matter(tiny64: AceStep15) -> None:
    spec = patch(("tf0.cross_attn", "tf1.cross_attn"), "other", target="output", passes=("null",))
    latents = run(tiny64, 1, [spec], prompts="padded")
    assert_close(latents[2], latents[1])


class LinearRows(TorchFunctionMode):
    """Rows that are multiplied with one weight, by call."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.rows: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear and args[1] is self.weight:
            self.rows.append(len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("part", ["to_k", "to_v"])
def test_keys_and_values_are_computed_in_the_first_call_only(tiny64: AceStep15, part: str) -> None:
    weight = getattr(tiny64.pipeline.transformer.layers[1].cross_attn, part).weight
    with LinearRows(weight) as plain:
        run(tiny64, 1)
    assert plain.rows == [4] * 4, "untouched without edits"
    with LinearRows(weight) as patched:
        run(tiny64, 1, [patch("tf0.cross_attn", "other", steps=(2, 2))])
    assert patched.rows == [4], "clean and corrupt, cond and null"


def test_equal_prompts_are_encoded_once(tiny64: AceStep15) -> None:
    linears = [
        next(module for module in encoder.modules() if isinstance(module, torch.nn.Linear))
        for encoder in (tiny64.pipeline.text_encoder, tiny64.pipeline.condition_encoder)
    ]
    arms = [[patch("tf0.cross_attn", "other", steps=(step, step))] for step in range(4)]
    with LinearRows(linears[0].weight) as text, LinearRows(linears[1].weight) as conditions:
        patched = run(tiny64, 1, *arms, prompts="padded")
        plain = run(tiny64, 1, prompts="padded")
    assert text.rows == conditions.rows == [2, 2], "of six clips, and of two"
    assert_close(patched[:2], plain)


def test_the_conditioning_is_embedded_in_the_first_call_only(tiny64: AceStep15) -> None:
    with LinearRows(tiny64.pipeline.transformer.condition_embedder.weight) as embedded:
        run(tiny64, 1, [patch("tf0.cross_attn", "other")])
    assert embedded.rows == [6]


def test_null_pass_that_begins_late_gets_its_own_keys(tiny64: AceStep15) -> None:
    settings = SETTINGS.model_copy(update={"options": {"cfg_interval_start": 0.05, "cfg_interval_end": 0.4}})
    clips = pair("padded")
    patched = Run(clips[1], (patch(("tf0.cross_attn", "tf1.cross_attn"), clips[0]),))
    latents = tiny64.generate_batch([*clips, patched], settings).latents
    assert_close(latents[2], latents[0])


def test_a_shadow_sees_the_others_latents_with_its_own_prompt(model64: AudioDiffusionModel) -> None:
    clean, corrupt = pair()
    shadow = Run(clean, follows=Run(corrupt))
    run = model64.generate_batch([shadow, corrupt], SETTINGS, velocity_steps=(0, 2))
    alone = model64.generate_batch([corrupt], SETTINGS)
    assert_close(run.latents[1], alone.latents[0])
    own = model64.generate_batch([clean, corrupt], SETTINGS, velocity_steps=(0, 2))
    assert_close(run.velocities[0], own.velocities[0], "at the first step all see the same noise")
    assert_close(run.velocities[2][1], own.velocities[2][1])
    assert difference(run.velocities[2][0], own.velocities[2][0]) > 1e-6
    assert torch.equal(
        run.inputs[2].arguments["hidden_states"][0], run.inputs[2].arguments["hidden_states"][1]
    )
    for clip in (0, 1):
        repeated = model64.linearise(run.inputs[2], clip, ()).output[0]
        assert_close(repeated, run.velocities[2][clip])
    assert run.rows == sum(len(set(call.passes)) for call in run.calls) + 2, "idle shadows are not computed"


def test_a_call_is_repeated_with_its_padding_mask(model64: AudioDiffusionModel) -> None:
    run = model64.generate_batch(pair("padded"), SETTINGS, velocity_steps=(1,))
    sites = tuple(Site(block, part) for block in (0, 1) for part in ("self_attn", "cross_attn.k", "mlp"))
    for clip in (0, 1):
        repeated = model64.linearise(run.inputs[1], clip, sites)
        assert_close(repeated.output[0], run.velocities[1][clip])
        assert set(repeated.values) == set(sites)


def captured(model: AudioDiffusionModel, runs: Sequence[Clip | Run], site: Site) -> torch.Tensor:
    """A site's values in the cond pass of step 1, by run."""
    kept = model.generate_batch(runs, SETTINGS, Capture((site,), (1,), ("cond",)))
    return kept.activations[site][:, 0, 0]


def test_ablations_put_zero_the_mean_or_another_run(model64: AudioDiffusionModel) -> None:
    site = Site(1, "cross_attn")
    clean, corrupt, third = clips = [*pair(), Clip("a fast sad song", 7)]
    edits = [
        ablate(str(site), steps=(1, 1)),
        ablate(str(site), "mean", (corrupt, third), steps=(1, 1)),
        ablate(str(site), "resample", third, steps=(1, 1)),
    ]
    values = captured(model64, [*clips, *(Run(clean, (edit,)) for edit in edits)], site)
    assert (values[3] == 0).all()
    assert_close(values[4], values[1:3].mean(dim=(0, 1)).expand_as(values[4]))
    assert torch.equal(values[5], values[2])


def test_heads_and_tokens_limit_what_is_written(model64: AudioDiffusionModel) -> None:
    site = Site(1, "cross_attn.heads")
    clips = pair()
    spec = patch(str(site), "other", target="output", heads=(1, 3), tokens=(2, 4), steps=(1, 1))
    values = captured(model64, [*clips, edited(clips[1], [spec], clips[0])], site)
    taken = torch.zeros(values.shape[1:], dtype=torch.bool)
    taken[2:5, 8:16] = taken[2:5, 24:32] = True
    assert torch.equal(values[2][taken], values[0][taken])
    assert_close(values[2][~taken], values[1][~taken])
    assert difference(values[0][~taken], values[1][~taken]) > 1e-6


def test_a_random_patch_goes_as_far_as_the_source_lies(model64: AudioDiffusionModel) -> None:
    site = Site(1, "mlp")
    clips = pair()
    specs = [random_patch(str(site), "other", seed, target="output", steps=(1, 1)) for seed in (0, 0, 1)]
    runs = [edited(clips[1], [spec], clips[0]) for spec in specs]
    clean, corrupt, first, again, other = captured(model64, [*clips, *runs], site)
    torch.testing.assert_close((first - corrupt).norm(dim=-1), (clean - corrupt).norm(dim=-1))
    assert_close(first, again)
    assert difference(first, other) > 1e-3
    cosine = torch.nn.functional.cosine_similarity(first - corrupt, clean - corrupt, dim=-1)
    assert cosine.abs().mean() < 0.5
