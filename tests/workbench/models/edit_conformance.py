"""Checks that every model's edits and repeated calls must pass, as plain functions of a `Subject`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from cache.errors import UserError
from tests.edited import edited
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import Subject
from tests.workbench.models.conformance import LONG, PROMPTS, SHORT, pair
from workbench.engine.edits import Edit, Run, ablate, add, blend, low_rank, patch, random_patch
from workbench.engine.rows import CallRows
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import LINEAR_PARTS, Site
from workbench.models import running
from workbench.models.base import AudioDiffusionModel


def every(model: AudioDiffusionModel, part: str = "cross_attn") -> tuple[str, ...]:
    """The sites of one part in all blocks."""
    return tuple(f"tf{block}.{part}" for block in range(model.n_blocks))


def sigma_edges(model: AudioDiffusionModel, settings: GenerationSettings) -> list[float]:
    """Bounds that split four steps into the first, the two in the middle, and the last."""
    first, second, third, last = model.sigmas(settings)
    return [2 * first, (first + second) / 2, (third + last) / 2, 0.0]


def both_ways(
    subject: Subject,
    arms: Mapping[str, Sequence[Edit]],
    prompts: str = "aligned",
    settings: GenerationSettings | None = None,
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Arms in both directions as one batch: the name, and the latents of the base run, the source and the arm."""
    clips = pair(prompts)
    runs = [edited(clips[base], edits, clips[1 - base]) for base in (0, 1) for edits in arms.values()]
    latents = subject.exact.generate_batch([*clips, *runs], settings or subject.settings).latents
    for number, arm in enumerate(latents[2:]):
        base, place = divmod(number, len(arms))
        case = f"{list(arms)[place]}, {('necessity', 'sufficiency')[base]}, {prompts}"
        yield case, latents[base], latents[1 - base], arm


def kinds(subject: Subject, block: int) -> dict[str, Edit]:
    """A patch of every kind."""
    model = subject.exact
    site, head, kv_head = f"tf{block}.cross_attn", model.heads("heads") - 1, model.heads("k") - 1
    _, _, edge, end = sigma_edges(model, subject.settings)
    found = {
        "conditioning": patch(site, "other"),
        "keys": patch(site, "other", parts=("keys",)),
        "values": patch(site, "other", parts=("values",)),
        "mask": patch(site, "other", parts=("mask",)),
        "text": patch(site, "other", segments=("text",)),
        "query head": patch(f"{site}.heads", "other", target="output", heads=(head,)),
        "key-value head": patch((f"{site}.k", f"{site}.v"), "other", target="output", heads=(kv_head,)),
        "window of tokens": patch(site, "other", target="output", tokens=(3, 7)),
        "window of steps": patch(site, "other", steps=(2, 3)),
        "window of sigmas": patch(site, "other", sigmas=(end, edge)),
        "null pass": patch(f"tf{block}.mlp", "other", target="output", passes=("null",)),
    }
    for part in (
        "cross_attn",
        "self_attn",
        "mlp",
        "block",
        "cross_attn.q",
        "self_attn.v",
        "cross_attn.heads",
    ):
        found[part] = patch(f"tf{block}.{part}", "other", target="output")
    if not subject.architecture.masks_padding:
        del found["mask"]
    if "null" not in model.passes(subject.settings):
        del found["null pass"]
    return found


def everything(subject: Subject, settings: GenerationSettings, prompts: str) -> dict[str, list[Edit]]:
    """Patches, each of which reproduces the source's run."""
    model, sites = subject.exact, every(subject.exact)
    edges = sigma_edges(model, settings)

    def apart(name: str, values: Sequence[Any], **fixed: Any) -> list[Edit]:
        return [patch(sites, "other", **{name: value}, **fixed) for value in values]

    found = {
        "conditioning": [patch(sites, "other")],
        "block by block": [patch(site, "other") for site in sites],
        "keys, values and mask": apart("parts", [("keys",), ("values",), ("mask",)]),
        "all segments": apart("segments", [(name,) for name in model.segments(SHORT, settings)]),
        "all passes": apart("passes", [(name,) for name in model.passes(settings)]),
        "all windows of steps": apart("steps", [(0, 0), (1, 2), (3, 3)]),
        "all windows of sigmas": apart("sigmas", list(zip(edges[1:], edges, strict=False))),
        "all windows of tokens": apart("tokens", [(0, 0), (1, 3), (4, 9999)], target="output"),
        "cross-attention outputs": [patch(sites, "other", target="output")],
        "all query heads": [
            patch(every(model, "cross_attn.heads"), "other", target="output", heads=(head,))
            for head in range(model.heads("heads"))
        ],
    }
    if model.one_stream:
        found["last block"] = [patch(f"tf{model.n_blocks - 1}.block", "other", target="output")]
    if prompts == "aligned" or not subject.architecture.masks_padding:
        found["all key and value heads"] = [
            patch(every(model, f"cross_attn.{part}"), "other", target="output", heads=(head,))
            for part in "kv"
            for head in range(model.heads("k"))
        ]
    return found


# Patches


def check_identity_patches_change_nothing(subject: Subject) -> None:
    blocks = range(subject.exact.n_blocks)
    of_blocks = [kinds(subject, block) for block in blocks]
    clips = pair("padded")
    runs = [edited(clip, [of[name] for of in of_blocks], clip) for clip in clips for name in of_blocks[0]]
    latents = subject.exact.generate_batch([*clips, *runs], subject.settings).latents
    for number, row in enumerate(latents[2:]):
        base, place = divmod(number, len(of_blocks[0]))
        assert_close(row, latents[base], list(of_blocks[0])[place])


def check_patches_that_never_act_change_nothing(subject: Subject) -> None:
    never = {
        name: [replace(edit, window=replace(edit.window, steps=(9, 9), sigmas=None))]
        for name, edit in kinds(subject, subject.block).items()
    }
    for case, own, _, arm in both_ways(subject, never, "padded"):
        assert_close(arm, own, case)


def check_everything_patched_is_the_other_run(subject: Subject) -> None:
    for prompts in PROMPTS:
        arms = everything(subject, subject.settings, prompts)
        for case, own, other, arm in both_ways(subject, arms, prompts):
            assert_close(arm, other, case)
            assert difference(arm, own) > 1e-3, case


def check_everything_patched_is_the_other_run_whatever_the_settings(subject: Subject) -> None:
    for settings in subject.variants[1:]:
        arms = everything(subject, settings, "padded")
        few = {name: arms[name] for name in ("keys, values and mask", "all passes")}
        for case, own, other, arm in both_ways(subject, few, "padded", settings):
            assert_close(arm, other, (case, settings))
            assert difference(arm, own) > 1e-3, (case, settings)


def check_padding_is_masked(subject: Subject) -> None:
    """With padding, keys and values are not all that a prompt contributes, unless the padding is zero."""
    sites = every(subject.exact)
    arms = {"keys and values": [patch(sites, "other", parts=("keys", "values"))]}
    for case, _, other, arm in both_ways(subject, arms, "padded"):
        if subject.architecture.masks_padding:
            assert difference(arm, other) > 1e-6, case
        else:
            assert_close(arm, other, case)


def check_patches_commute(subject: Subject) -> None:
    first, second = kinds(subject, 0), kinds(subject, subject.block)
    clean, corrupt = pair("padded")
    runs = [
        edited(corrupt, [first[name], second[name]][::order], clean) for name in first for order in (1, -1)
    ]
    latents = subject.exact.generate_batch(runs, subject.settings).latents
    for place, name in enumerate(first):
        assert_close(latents[2 * place], latents[2 * place + 1], name)


def check_arms_of_a_batch_are_runs_of_their_own(subject: Subject) -> None:
    """Each in one of the two directions."""
    model, settings, clips = subject.exact, subject.settings, pair("padded")
    width = model.channels(Site(subject.block, "self_attn"))
    plain = {
        "cross_attn",
        "cross_attn.q",
        "cross_attn.heads",
        "self_attn",
        "self_attn.v",
    }  # written like those checked
    edits = [
        *(edit for name, edit in kinds(subject, subject.block).items() if name not in plain),
        ablate("tf0.mlp"),
        ablate("tf0.cross_attn", "mean", "other", steps=(1, 1)),
        ablate(f"tf{subject.block}.cross_attn", "resample", "other"),
        add((0.5,) * width, f"tf{subject.block}.self_attn", strength=2.0, tokens=(0, 2)),
        random_patch(f"tf{subject.block}.cross_attn", "other", 3),
    ]
    runs = [edited(clips[i % 2], [edit], clips[1 - i % 2]) for i, edit in enumerate(edits)]
    together = model.generate_batch([*clips, *runs], settings).latents
    for i, run in enumerate(runs):
        assert_close(together[2 + i], model.generate_batch([run], settings).latents[0], edits[i])
        assert difference(together[2 + i], together[i % 2]) > 1e-9, f"{edits[i]} does something"


def check_the_conditioning_is_its_parts(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings
    site = f"tf{subject.block}.cross_attn"
    others = [name for name in model.segments(pair()[0], settings) if name != "text"]
    words = patch(site, "other", segments=("swapped", "after"))
    arms = {
        "whole": [patch(site, "other")],
        "heads": [
            patch((f"{site}.k", f"{site}.v"), "other", target="output", heads=(head,))
            for head in range(model.heads("k"))
        ],
        "words and the rest": [words, patch(site, "other", segments=("before", "template", *others))],
        "words": [words],
        "word by word": [patch(site, "other", segments=("word:slow", "word:happy", "word:song"))],
    }
    found = list(both_ways(subject, arms))
    for direction in (found[:5], found[5:]):
        whole, heads, parts, words, by_word = (arm for *_, arm in direction)
        assert difference(whole, direction[0][1]) > 1e-6
        assert_close(heads, whole)
        assert_close(parts, whole)
        assert_close(by_word, words)


def check_a_blend_of_one_run_is_that_run(subject: Subject) -> None:
    model, sites, (clean, corrupt) = subject.exact, every(subject.exact), pair()
    weights = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    arms = [Run(corrupt, (blend(sites, [clean, corrupt], of),)) for of in weights]
    latents = model.generate_batch([clean, corrupt, *arms], subject.settings).latents
    assert_close(latents[2], latents[0])
    assert_close(latents[3], latents[1])
    assert min(difference(latents[4], latents[0]), difference(latents[4], latents[1])) > 1e-6
    with pytest.raises(UserError, match="blend"):
        model.plan([Run(corrupt, (blend(sites, [corrupt, LONG], (0.5, 0.5)),))], subject.settings)


def check_arms_cost_nothing_before_they_start(subject: Subject) -> None:
    """Step-prefix reuse is exact: latents, sampler and guidance equal those of a separate run."""
    model, clips = subject.exact, pair()
    arms = [patch(f"tf{subject.block}.cross_attn", "other", steps=(step, step)) for step in range(4)]
    runs = [*clips, *(edited(clips[1], [arm], clips[0]) for arm in arms)]
    shared = model.generate_batch(runs, subject.settings)
    passes = [len(set(call.passes)) for call in shared.calls]
    assert shared.rows == sum(passes[step] * (2 + step + 1) for step in range(4))

    def every_row(label, *_: Any, **__: Any) -> CallRows:
        rows = tuple(range(len(label.clips)))
        return CallRows(label, rows, rows)

    with pytest.MonkeyPatch.context() as change:
        change.setattr(running, "call_rows", every_row)
        whole = model.generate_batch(runs, subject.settings)
    assert whole.rows == 6 * sum(passes)
    assert_close(shared.latents, whole.latents)
    assert difference(shared.latents[5], shared.latents[1]) > 1e-9


def check_a_conditioning_is_read_at_the_cost_of_one_call(subject: Subject) -> None:
    """Of a run that nothing else is read of, keys, values, mask and positions are known after the first call."""
    model, sites = subject.exact, every(subject.exact)
    clean, corrupt = pair("padded")
    edits = {
        "all": patch(sites, clean, steps=(1, 3)),
        "a block": patch(f"tf{subject.block}.cross_attn", clean, steps=(1, 3)),
        "keys": patch(sites, clean, parts=("keys",), steps=(1, 3)),
        "text": patch(sites, clean, segments=("text",), steps=(1, 3)),
    }
    runs = {name: Run(corrupt, (edit,)) for name, edit in edits.items()}
    twice = (patch(sites, clean, steps=(1, 1)), patch(sites, clean, steps=(3, 3)))
    runs["with a step between"] = Run(corrupt, twice)
    for settings in subject.variants:
        together = model.generate_batch([clean, corrupt, *runs.values()], settings).latents[2:]
        for (name, run), expected in zip(runs.items(), together, strict=True):
            made = model.generate_batch([run], settings)
            assert_close(made.latents[0], expected, (name, settings))
            passes = [set(call.passes) for call in made.calls]
            assert made.rows == sum(map(len, passes)) + len(set().union(*passes[1:])), (name, settings)


def check_conditionings_that_are_first_read_at_different_steps(subject: Subject) -> None:
    model, sites = subject.exact, every(subject.exact)
    clean, corrupt, third = *pair("padded"), Clip("a fast sad song", 7)
    runs = [
        Run(corrupt, (patch(sites, clean, steps=(1, 3)),)),
        Run(corrupt, (patch(sites, third, steps=(2, 3)), patch(sites[0], clean, steps=(3, 3)))),
        Run(third, (ablate("tf0.mlp", steps=(3, 3)),)),
    ]
    alone = model.generate_batch(runs, subject.settings)
    together = model.generate_batch([clean, corrupt, third, *runs], subject.settings)
    assert_close(alone.latents, together.latents[3:])
    assert alone.rows < together.rows


def check_the_same_clip_twice_is_computed_once(subject: Subject) -> None:
    clean, corrupt = pair()
    made = subject.exact.generate_batch([clean, corrupt, clean], subject.settings)
    assert made.rows == 2 * sum(len(set(call.passes)) for call in made.calls)
    assert made.shared_with == (0, 1, 0)
    assert torch.equal(made.latents[0], made.latents[2])
    assert difference(made.latents[0], made.latents[1]) > 1e-3


# The values that an edit writes, and where


def captured(subject: Subject, runs: Sequence[Clip | Run], site: Site) -> torch.Tensor:
    """A site's values in the cond pass of step 1, by run."""
    kept = subject.exact.generate_batch(runs, subject.settings, Capture((site,), (1,), ("cond",)))
    return kept.activations[site][:, 0, 0]


def check_edits_act_on_their_rows_steps_and_passes_only(subject: Subject) -> None:
    site, passes = Site(subject.block, "mlp"), subject.exact.passes(subject.settings)
    runs = [pair()[0], Run(pair()[1], (ablate(str(site), steps=(2, 2), passes=("cond",)),))]
    capture = Capture((site,), (1, 2), passes)
    kept = subject.exact.generate_batch(runs, subject.settings, capture).activations[site]
    zero = (kept == 0).all(dim=(-1, -2))
    assert [tuple(place) for place in zero.nonzero().tolist()] == [(1, 1, passes.index("cond"))]


def check_a_vector_is_added(subject: Subject) -> None:
    site = Site(subject.block, "cross_attn")
    vector = torch.arange(subject.exact.channels(site), dtype=torch.float64)
    steered = Run(LONG, (add(tuple(vector.tolist()), str(site), strength=0.5, steps=(1, 1)),))
    plain, moved = captured(subject, [LONG, steered], site)
    assert_close(moved, plain + 0.5 * vector)


def check_ablations_put_zero_the_mean_or_another_run(subject: Subject) -> None:
    site = Site(subject.block, "cross_attn")
    clean, corrupt, third = clips = [*pair(), Clip("a fast sad song", 7)]
    edits = [
        ablate(str(site), steps=(1, 1)),
        ablate(str(site), "mean", (corrupt, third), steps=(1, 1)),
        ablate(str(site), "resample", third, steps=(1, 1)),
    ]
    values = captured(subject, [*clips, *(Run(clean, (edit,)) for edit in edits)], site)
    assert (values[3] == 0).all()
    assert_close(values[4], values[1:3].mean(dim=(0, 1)).expand_as(values[4]))
    assert torch.equal(values[5], values[2])


def check_heads_and_tokens_limit_what_is_written(subject: Subject) -> None:
    site, width, head = Site(subject.block, "cross_attn.heads"), subject.exact.head_dim(subject.block), 1
    clips = pair()
    edit = patch(str(site), "other", target="output", heads=(head,), tokens=(2, 4), steps=(1, 1))
    values = captured(subject, [*clips, edited(clips[1], [edit], clips[0])], site)
    taken = torch.zeros(values.shape[1:], dtype=torch.bool)
    taken[2:5, width * head : width * (head + 1)] = True
    assert torch.equal(values[2][taken], values[0][taken])
    assert_close(values[2][~taken], values[1][~taken])
    assert difference(values[0][~taken], values[1][~taken]) > 1e-6


def check_a_word_is_written_at_its_own_tokens(subject: Subject) -> None:
    model, site, (clean, corrupt) = subject.exact, Site(subject.block, "cross_attn.k"), pair()
    edit = patch(f"tf{subject.block}.cross_attn", clean, segments=("word:fast",))
    keys = captured(subject, [clean, corrupt, Run(corrupt, (edit,))], site)
    place = model.conditioning(corrupt, subject.settings)
    (word,) = (range(first, last) for word, first, last in place.words if word == "fast")
    read = range(max(end for _, end in place.segments.values()))[model.reads(subject.block)]
    taken = torch.tensor([token in word for token in read])
    assert_close(keys[2][taken], keys[0][taken])
    assert_close(keys[2][~taken], keys[1][~taken])
    assert difference(keys[0][taken], keys[1][taken]) > 1e-6


def check_a_random_patch_goes_as_far_as_the_source_lies(subject: Subject) -> None:
    site, clips = Site(subject.block, "mlp"), pair()
    edits = [random_patch(str(site), "other", seed, target="output", steps=(1, 1)) for seed in (0, 0, 1)]
    runs = [edited(clips[1], [edit], clips[0]) for edit in edits]
    clean, corrupt, first, again, other = captured(subject, [*clips, *runs], site)
    torch.testing.assert_close((first - corrupt).norm(dim=-1), (clean - corrupt).norm(dim=-1))
    assert_close(first, again)
    assert difference(first, other) > 1e-3
    cosine = torch.nn.functional.cosine_similarity(first - corrupt, clean - corrupt, dim=-1)
    assert cosine.abs().mean() < 0.5


# Other weights


def factors(
    subject: Subject, parts: Sequence[str] = LINEAR_PARTS
) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
    """Random factors (down, up) of rank 2 for the linear modules of a block."""
    draws, found = torch.Generator().manual_seed(0), {}
    for part in parts:
        module = subject.exact.linear(site := Site(subject.block, part))
        down = torch.randn(2, module.in_features, generator=draws, dtype=torch.float64)
        found[site] = down, torch.randn(module.out_features, 2, generator=draws, dtype=torch.float64) / 4
    return found


def with_weights(subject: Subject, strength: float, parts: Sequence[str] = LINEAR_PARTS) -> list[Edit]:
    """Edits that change the weights of a block's linear modules."""
    every = factors(subject, parts).items()
    return [low_rank(down, up, str(site), strength) for site, (down, up) in every]


@contextmanager
def merged(subject: Subject, strength: float) -> Iterator[None]:
    """The model with changed weights."""
    changes = [(subject.exact.linear(site), up @ down) for site, (down, up) in factors(subject).items()]
    kept = [module.weight.detach().clone() for module, _ in changes]
    try:
        for module, change in changes:
            module.weight.data += strength * change
        yield
    finally:
        for (module, _), weight in zip(changes, kept, strict=True):
            module.weight.data.copy_(weight)


def check_changed_weights_are_those_of_the_row_only(subject: Subject) -> None:
    """Strengths in one batch equal runs of models with merged weights, also under further edits."""
    model, settings, (first, second) = subject.exact, subject.settings, pair("padded")
    half = ablate(f"tf{subject.block}.cross_attn.heads", heads=(0,))
    runs = [
        (clip, edits, strength)
        for clip, edits in ((first, []), (second, []), (first, [half]))
        for strength in (0.7, -1.3)
    ]
    plain = model.generate_batch([first, second], settings).latents
    batch = [first, *(Run(clip, [*with_weights(subject, of), *edits]) for clip, edits, of in runs), second]
    made = model.generate_batch(batch, settings).latents
    assert_close(made[0], plain[0], "beside rows with other weights")
    assert_close(made[-1], plain[1], "beside rows with other weights")
    for (clip, edits, strength), row in zip(runs, made[1:], strict=False):
        with merged(subject, strength):
            assert_close(
                row, model.generate_batch([Run(clip, edits)], settings).latents[0], (edits, strength)
            )
        assert difference(row, plain[int(clip == second)]) > 1e-6


def check_peft_makes_the_same_change(subject: Subject) -> None:
    """One adapted row is PEFT's own run without the workbench, in float32: some pipelines draw float32 noise only."""
    from peft import LoraConfig, LoraModel

    model, settings, rank, alpha, strength = subject.single, subject.settings, 2, 3, -0.8
    names = {module: name for name, module in model.denoiser.named_modules()}
    modules = {names[model.linear(site)]: given for site, given in factors(subject).items()}
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules))
    row = Run(LONG, with_weights(subject, strength * alpha / rank))
    made = model.generate_batch([row], settings).latents
    adapted = LoraModel(model.denoiser, config, "default")
    try:
        for name, (down, up) in modules.items():
            layer = model.denoiser.get_submodule(name)
            layer.lora_A["default"].weight.data.copy_(down)
            layer.lora_B["default"].weight.data.copy_(up)
            layer.scale_layer(strength)
        expected = subject.untraced(model, [LONG], settings)
    finally:
        adapted.unload()
        model.denoiser.requires_grad_(True)
    assert_close(made, expected)
    assert difference(made, model.generate_batch([LONG], settings).latents) > 1e-2


def check_weights_of_strength_0_are_the_row_itself(subject: Subject) -> None:
    made = subject.exact.generate_batch([LONG, Run(LONG, with_weights(subject, 0.0))], subject.settings)
    assert torch.equal(made.latents[0], made.latents[1])
    assert made.rows == sum(len(set(call.passes)) for call in made.calls)


def check_weights_change_in_their_window_only(subject: Subject) -> None:
    model, site, settings = subject.exact, Site(subject.block, "cross_attn.v"), subject.settings
    ((down, up),) = factors(subject, [site.part]).values()
    passes = model.passes(settings)
    capture = Capture((site,), (1, 2), passes)
    runs = [LONG, Run(LONG, [low_rank(down, up, str(site), steps=(2, 2), passes=("cond",))])]
    plain, changed = model.generate_batch(runs, settings, capture).activations[site]
    same = torch.tensor([[step == 1 or name != "cond" for name in passes] for step in (1, 2)])
    assert torch.equal(plain[same], changed[same])
    assert all(difference(new, old) > 1e-6 for new, old in zip(changed[~same], plain[~same], strict=True))


def check_a_source_is_read_with_its_own_weights(subject: Subject) -> None:
    """A patch replaces keys, computed with whatever weights, by those that the source has."""
    clean, corrupt = pair()
    source = Run(clean, with_weights(subject, 0.7))
    whole = patch(f"tf{subject.block}.cross_attn", source)
    readers = [Run(corrupt, [whole]), Run(corrupt, [whole, *with_weights(subject, -1.3)])]
    for part in ("cross_attn.k", "cross_attn.v"):
        values = captured(subject, [source, clean, *readers], Site(subject.block, part))
        assert difference(values[0], values[1]) > 1e-6
        assert_close(values[2], values[0])
        assert_close(values[3], values[0])


def check_weights_of_another_size_are_refused(subject: Subject) -> None:
    model, site = subject.exact, f"tf{subject.block}.cross_attn.k"
    module = model.linear(Site.parse(site))
    wrong = low_rank(torch.ones(1, module.in_features + 1), torch.ones(module.out_features, 1), site)
    with pytest.raises(UserError, match=f"{module.out_features} outputs and {module.in_features} inputs"):
        model.plan([Run(LONG, [wrong])], subject.settings)


# Repeated calls


def check_a_shadow_sees_the_others_latents_with_its_own_prompt(subject: Subject) -> None:
    model, settings, (clean, corrupt) = subject.exact, subject.settings, pair()
    made = model.generate_batch([Run(clean, follows=Run(corrupt)), corrupt], settings, velocity_steps=(0, 2))
    assert_close(made.latents[1], model.generate_batch([corrupt], settings).latents[0])
    own = model.generate_batch([clean, corrupt], settings, velocity_steps=(0, 2))
    assert_close(made.velocities[0], own.velocities[0], "at the first step all see the same noise")
    assert_close(made.velocities[2][1], own.velocities[2][1])
    assert difference(made.velocities[2][0], own.velocities[2][0]) > 1e-6
    shadow, main = made.inputs[2].arguments[model.call_class.latents]
    assert torch.equal(shadow, main)
    assert made.rows == sum(len(set(call.passes)) for call in made.calls) + 2, "idle shadows are not computed"


def check_a_call_is_repeated_for_one_clip(subject: Subject) -> None:
    """With its padding mask."""
    model = subject.exact
    sites = tuple(
        Site(subject.block, part)
        for part in ("self_attn", "cross_attn.k", "cross_attn.heads", "mlp", "block")
    )
    for prompts in PROMPTS:
        clean, corrupt = pair(prompts)
        runs = [clean, corrupt, Run(clean, follows=Run(corrupt))]
        made = model.generate_batch(runs, subject.settings, velocity_steps=(2,))
        for clip in range(3):
            repeated = model.linearise(made.inputs[2], clip, sites)
            assert_close(repeated.output[0], made.velocities[2][clip], (prompts, clip))
            assert set(repeated.values) == set(sites)


def check_gradients_are_slopes(subject: Subject) -> None:
    """Derivative of the velocity along a direction when a site is moved along another, as a difference quotient."""
    model, settings, push = subject.exact, subject.settings, 1e-4
    sites = [Site(subject.block, part) for part in ("cross_attn.v", "cross_attn", "mlp")]
    steering = [
        torch.randn(model.channels(site), generator=torch.Generator().manual_seed(1)).double()
        for site in sites
    ]
    moved = [
        Run(LONG, (add(tuple(along.tolist()), str(site), strength=strength, steps=(1, 1)),))
        for site, along in zip(sites, steering, strict=True)
        for strength in (push, -push)
    ]
    made = model.generate_batch([LONG, *moved], settings, velocity_steps=(1,))
    velocity = made.velocities[1]
    direction = torch.randn(velocity.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    gradients = model.linearise(made.inputs[1], 0, sites, direction).gradients
    projections = (velocity * direction).sum(dim=(1, 2))
    for number, (site, along) in enumerate(zip(sites, steering, strict=True)):
        slope = (projections[1 + 2 * number] - projections[2 + 2 * number]) / (2 * push)
        assert float((gradients[site][0] @ along).sum()) == pytest.approx(float(slope), rel=1e-4), site


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
