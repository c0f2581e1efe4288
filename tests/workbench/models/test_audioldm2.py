"""The adapter of AudioLDM 2: its blocks, labels, exactness, independent rows, and what must hold of every patch."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AudioLDM2UNet2DConditionModel
from torch.overrides import TorchFunctionMode

from analyses.patching.arms import Request, arms_of, set_name
from analyses.patching.attribution import attribute_arms
from analyses.patching.contexts import listed_contexts
from analyses.patching.screening import velocity_screen
from analyses.patching.spec import PatchingSpec
from cache.errors import UserError
from tests.edited import edited
from tests.tiny_audioldm2 import GENERATED_TOKENS, PUBLISHED_UNET, UNET, save_tiny_pipeline
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Edit, Run, ablate, add, blend, patch, random_patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.audioldm2 import AudioLDM2, CallOfAudioLDM2, conditioned_blocks, frames_first
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import Pair, Prompt, load_prompt_set
from workbench.studies.study import StudySpec
from workbench.studies.tracing import cache_plan

SETTINGS = GenerationSettings(duration=0.5, num_steps=4, guidance_scale=3.0)
SHORT = Clip("a slow song", 1)
LONG = Clip("a fast happy violin song with drums", 2)
PROMPTS = {"aligned": ("a slow happy song", "a fast happy song"), "padded": (SHORT.prompt, LONG.prompt)}
NAMES = (
    *("down0tf1attn0", "down0tf2attn0", "midtf1attn0", "midtf2attn0"),
    *("up1tf1attn0", "up1tf2attn0", "up1tf5attn0", "up1tf6attn0"),
)
BLOCKS = range(len(NAMES))
GENERATED, TEXT = (0, 2, 4, 6), (1, 3, 5, 7)
COARSE = (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("audioldm2"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> AudioLDM2:
    return AudioLDM2(str(folder), str(folder))


@pytest.fixture(scope="module")
def tiny64(folder: Path) -> AudioLDM2:
    return AudioLDM2(str(folder), str(folder), dtype="float64")


def stock(model: AudioLDM2, clips: Sequence[Clip], settings: GenerationSettings, **changes: Any) -> Any:
    """What the pipeline gives without nnsight and without us."""
    given = {
        "prompt": [clip.prompt for clip in clips],
        "negative_prompt": [settings.options.get("negative_prompt", "")] * len(clips),
        "audio_length_in_s": settings.duration,
        "num_inference_steps": settings.num_steps,
        "guidance_scale": settings.guidance_scale,
        "latents": model.noise(clips, settings.duration),
        "output_type": "latent",
    }
    return model.pipeline(**given | changes).audios


# The blocks


def test_the_published_network_has_the_64_blocks_of_the_paper() -> None:
    with torch.device("meta"):
        unet = AudioLDM2UNet2DConditionModel(**PUBLISHED_UNET)
    stages = [*[(f"down{i}", (1, 2, 5, 6), 256 if i == 1 else 384 if i == 2 else 640) for i in (1, 2, 3)]]
    stages += [("mid", (1, 2), 640)]
    stages += [(f"up{i}", (1, 2, 5, 6, 9, 10), width) for i, width in enumerate((640, 384, 256))]
    expected = [
        (f"{stage}tf{number}attn{attn}", width)
        for stage, numbers, width in stages
        for number in numbers
        for attn in (0, 1)
    ]
    call = CallOfAudioLDM2(unet, n_generated=8)
    assert len(expected) == 64
    assert [
        (name, call.channels(Site(block, "cross_attn"))) for block, name in enumerate(call.block_names)
    ] == expected
    modules = dict(unet.named_modules())
    for name, place in zip(call.block_names, call.places, strict=True):
        stage, _, rest = name.partition("tf")
        number, attn = rest.split("attn")
        parent = "mid_block" if stage == "mid" else f"{stage[:-1]}_blocks.{stage[-1]}"
        assert place.block is modules[f"{parent}.attentions.{number}.transformer_blocks.{attn}"]
        assert place.reads_text == (place.block.attn2.to_k.in_features == 1024), "768 is the language model's"
        assert place.level == {256: 1, 384: 2, 640: 3}[place.block.attn2.to_q.out_features]
    assert call.head_dim(0) == 32
    assert call.head_dim(63) == 32


def test_blocks_come_in_the_order_in_which_they_are_computed(tiny: AudioLDM2) -> None:
    order: list[int] = []
    hooks = [
        place.block.register_forward_hook(lambda *_, block=block: order.append(block))
        for block, place in enumerate(conditioned_blocks(tiny.denoiser))
    ]
    stock(tiny, [SHORT], SETTINGS.model_copy(update={"num_steps": 1}))
    for hook in hooks:
        hook.remove()
    assert order == list(BLOCKS)
    assert tiny.block_names == NAMES
    assert tiny.describe()["block_names"] == list(NAMES)
    assert isinstance(tiny, AudioDiffusionModel)


@pytest.mark.parametrize("dims", [(None, 16, 32), (16, 16, 32)])
def test_a_block_reads_what_the_network_gives_it(
    dims: tuple[int | None, ...],
) -> None:
    """In the base model (no last self-attention), and where the row begins with a conditioned one."""
    unet = AudioLDM2UNet2DConditionModel(**UNET | {"cross_attention_dim": (dims,) * 2})
    calls: dict[str, int] = {}
    for place in conditioned_blocks(unet):
        place.block.attn2.register_forward_pre_hook(
            lambda _, args, given, name=place.name: calls.update(
                {name: given["encoder_hidden_states"].shape[1]}
            ),
            with_kwargs=True,
        )
    unet(
        torch.zeros(1, 4, 8, 4),
        torch.tensor(1),
        encoder_hidden_states=torch.zeros(1, 3, 16),
        encoder_hidden_states_1=torch.zeros(1, 5, 32),
    )
    assert calls == {place.name: 5 if place.reads_text else 3 for place in conditioned_blocks(unet)}


# Exactness


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("clip", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("negative", ["", "low quality"])
def test_traced_equals_untraced_bit_for_bit(
    tiny: AudioLDM2, guidance: float, clip: Clip, negative: str
) -> None:
    settings = GenerationSettings(
        duration=0.49, num_steps=3, guidance_scale=guidance, options={"negative_prompt": negative}
    )
    capture = Capture(tuple(tiny.sites()), (0, 2), ("cond",))
    traced = tiny.generate_batch([clip], settings, capture=capture)
    assert torch.equal(traced.latents, frames_first(stock(tiny, [clip], settings)))


def test_prompts_of_one_length_are_a_batch_of_the_untraced_pipeline(tiny: AudioLDM2) -> None:
    clips = [Clip(prompt, seed) for seed, prompt in enumerate(PROMPTS["aligned"])]
    together, untraced = (
        tiny.generate_batch(clips, SETTINGS).latents,
        frames_first(stock(tiny, clips, SETTINGS)),
    )
    assert_close(together, untraced)


def test_both_kinds_of_language_model_give_the_same(tiny: AudioLDM2, tmp_path: Path) -> None:
    """The published folders hold a bare one, with which the untouched pipeline cannot work any more."""
    whole = save_tiny_pipeline(tmp_path / "whole", bare_language_model=False)
    other = AudioLDM2(str(whole), str(whole))
    for mine, theirs in zip(
        tiny.pipeline.language_model.transformer.parameters(),
        other.pipeline.language_model.transformer.parameters(),
        strict=True,
    ):
        theirs.data = mine.data.clone()
    for name in ("unet", "text_encoder", "text_encoder_2", "projection_model"):
        getattr(other.pipeline, name).load_state_dict(getattr(tiny.pipeline, name).state_dict())
    assert_close(
        other.generate_batch([LONG], SETTINGS).latents, tiny.generate_batch([LONG], SETTINGS).latents
    )


@pytest.mark.parametrize("duration", [0.5, 0.49])
def test_each_clip_is_decoded_as_the_pipeline_decodes_it(tiny: AudioLDM2, duration: float) -> None:
    settings = SETTINGS.model_copy(update={"duration": duration})
    clips = [SHORT, LONG]
    latents = tiny.generate_batch(clips, settings).latents
    decoded = tiny.decode(latents, duration)
    assert tiny.sample_rate == 16000
    for clip, audio in zip(clips, decoded, strict=True):
        (untraced,) = stock(tiny, [clip], settings, output_type="pt")
        assert audio.shape == (1, int(duration * 16000))
        assert_close(audio[0], untraced)
        assert float(untraced.abs().max()) > 0.01
    assert tiny.decode(latents).shape[2] == 8000, "without a duration, whole latent frames"


def test_batch_rows_equal_single_runs(tiny64: AudioLDM2) -> None:
    together = tiny64.generate_batch([SHORT, LONG], SETTINGS).latents
    alone = torch.cat([tiny64.generate_batch([clip], SETTINGS).latents for clip in (SHORT, LONG)])
    assert_close(together, alone)
    untouched = frames_first(stock(tiny64, [SHORT, LONG], SETTINGS))
    assert difference(untouched[0], alone[0]) > 1e-3, "the untouched pipeline lets padding through"


def test_each_prompt_is_encoded_once(tiny64: AudioLDM2) -> None:
    rows: list[int] = []
    hook = tiny64.pipeline.text_encoder_2.register_forward_hook(
        lambda _, args, output: rows.append(len(output[0]))
    )
    tiny64.generate_batch([SHORT, LONG, SHORT, SHORT], SETTINGS)
    hook.remove()
    assert rows == [1] * 4, "two prompts and what each is held against"


def test_noise_follows_each_clips_seed_and_nothing_else(tiny: AudioLDM2) -> None:
    noise = tiny.noise([Clip("a", 1), Clip("a", 2), Clip("b", 1)], 0.5)
    assert noise.shape == (3, 4, 25, 4)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(tiny.noise([Clip("c", 2)], 0.5)[0], noise[1])


# Labels


def test_labels_are_read_off_the_calls(tiny: AudioLDM2) -> None:
    clips = [SHORT, LONG]
    run = tiny.generate_batch(clips, SETTINGS)
    alpha_bar = torch.cumprod(1 - torch.linspace(0.0015**0.5, 0.0195**0.5, 1000).double() ** 2, 0)
    sigmas = [(1 - float(alpha_bar[timestep])) ** 0.5 for timestep in (751, 501, 251, 1)]
    assert [call.step for call in run.calls] == [0, 1, 2, 3]
    assert [call.sigma for call in run.calls] == pytest.approx(sigmas, rel=1e-5)
    assert tiny.sigmas(SETTINGS) == [call.sigma for call in run.calls]
    assert {call.passes for call in run.calls} == {("null", "null", "cond", "cond")}
    assert {call.clips for call in run.calls} == {(0, 1, 0, 1)}
    unguided = tiny.generate_batch(clips, SETTINGS.model_copy(update={"guidance_scale": 1.0, "num_steps": 2}))
    assert [call.passes for call in unguided.calls] == [("cond", "cond")] * 2
    assert tiny.generate_batch(clips, SETTINGS).calls == run.calls


def parts(block: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules whose outputs are sites."""
    return {
        "self_attn.q": block.attn1.to_q,
        "self_attn": block.attn1,
        "cross_attn.k": block.attn2.to_k,
        "cross_attn": block.attn2,
        "mlp": block.ff,
        "block": block,
    }


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_step_sizes_are_how_far_noise_predicted_in_one_step_moves_the_end(
    tiny: AudioLDM2, set_alpha_to_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = type(tiny.pipeline.scheduler).from_config(
        tiny.pipeline.scheduler.config, set_alpha_to_one=set_alpha_to_one
    )
    monkeypatch.setattr(tiny.pipeline, "scheduler", scheduler)
    scheduler.set_timesteps(5)
    ends = []
    for step in range(5):
        latents = torch.zeros(1, dtype=torch.float64)
        for place, timestep in enumerate(scheduler.timesteps):
            noise = torch.full_like(latents, float(place == step))
            latents = scheduler.step(noise, timestep, latents).prev_sample
        ends.append(-float(latents))
    sizes = tiny.step_sizes(SETTINGS.model_copy(update={"num_steps": 5}))
    assert [size / sizes[0] for size in sizes] == pytest.approx([end / ends[0] for end in ends], rel=1e-4)


def test_captured_values_are_what_the_modules_gave(tiny: AudioLDM2) -> None:
    seen: dict[Site, list[torch.Tensor]] = defaultdict(list)
    hooks = []
    for block, place in enumerate(conditioned_blocks(tiny.denoiser)):
        for part, module in parts(place.block).items():
            site = Site(block, part)
            hook = module.register_forward_hook(lambda _, i, output, site=site: seen[site].append(output))
            hooks.append(hook)
        site, mix = Site(block, "cross_attn.heads"), place.block.attn2.to_out[0]
        hooks.append(mix.register_forward_pre_hook(lambda _, inputs, site=site: seen[site].append(inputs[0])))
    stock(tiny, [LONG], SETTINGS)
    for hook in hooks:
        hook.remove()
    everywhere = tuple(sorted(seen, key=lambda site: site.order))
    capture = Capture(everywhere, (1, 3), ("cond", "null"))
    kept = tiny.generate_batch([LONG], SETTINGS, capture=capture).activations
    assert len(everywhere) == 7 * len(NAMES)
    for site in everywhere:
        assert kept[site].shape[-1] == tiny.channels(site)
        if not site.on_conditioning:
            assert kept[site].shape[3] == tiny.tokens_at(site, 0.5)
        for s, step in enumerate((1, 3)):
            assert torch.equal(kept[site][0, s, 0], seen[site][step][1]), "cond pass"
            assert torch.equal(kept[site][0, s, 1], seen[site][step][0]), "null pass"


def test_tokens_and_widths_are_each_blocks_own(tiny: AudioLDM2) -> None:
    counts = [tiny.tokens_at(Site(block, "block"), 0.5) for block in BLOCKS]
    assert counts == [13 * 2 if block in COARSE else 25 * 4 for block in BLOCKS]
    assert [tiny.channels(Site(block, "mlp")) for block in BLOCKS] == [
        24 if block in COARSE else 16 for block in BLOCKS
    ]
    assert [tiny.head_dim(block) for block in BLOCKS] == [12 if block in COARSE else 8 for block in BLOCKS]
    assert tiny.heads("heads") == tiny.heads("k") == 2
    assert tiny.tokens(0.5) == 100
    assert tiny.token_seconds == pytest.approx(0.02 / 4), (
        "a latent frame of two spectrogram frames, four bands"
    )
    assert tiny.token_seconds_at(Site(2, "block")) == pytest.approx(0.04 / 2)


# Conditioning


def test_segments_and_words_lie_where_the_blocks_read_them(tiny: AudioLDM2) -> None:
    spans = tiny.segments(LONG, SETTINGS)
    assert spans == {"generated": (0, GENERATED_TOKENS), "text": (GENERATED_TOKENS, GENERATED_TOKENS + 8)}
    words = tiny.conditioning(LONG, SETTINGS).words
    assert [word for word, _, _ in words] == LONG.prompt.split()
    assert words[2] == ("happy", GENERATED_TOKENS + 2, GENERATED_TOKENS + 3)
    keys = tuple(Site(block, "cross_attn.k") for block in BLOCKS)
    kept = tiny.generate_batch([SHORT, LONG], SETTINGS, capture=Capture(keys, (0,), ("cond",))).activations
    assert [kept[site].shape[3] for site in keys] == [8 if block in TEXT else 3 for block in BLOCKS]
    assert [tiny.reads(block) for block in BLOCKS] == [
        slice(3, None) if block in TEXT else slice(0, 3) for block in BLOCKS
    ]


# What must hold of every patch

ALL_SITES = tuple(f"tf{block}.cross_attn" for block in BLOCKS)


def sites(blocks: Sequence[int], part: str = "cross_attn") -> tuple[str, ...]:
    return tuple(f"tf{block}.{part}" for block in blocks)


SINGLE: dict[str, Callable[[int], Edit]] = {
    "conditioning": lambda b: patch(sites([b]), "other"),
    "keys": lambda b: patch(sites([b]), "other", parts=("keys",)),
    "values": lambda b: patch(sites([b]), "other", parts=("values",)),
    "head": lambda b: patch(sites([b], "cross_attn.heads"), "other", target="output", heads=(1,)),
    "window of tokens": lambda b: patch(sites([b]), "other", target="output", tokens=(3, 7)),
    "window of steps": lambda b: patch(sites([b]), "other", steps=(1, 2)),
    "window of sigmas": lambda b: patch(sites([b]), "other", sigmas=(0.5, 0.96)),
    "null pass": lambda b: patch(sites([b]), "other", target="output", passes=("null",)),
    **{
        part: lambda b, part=part: patch(sites([b], part), "other", target="output")
        for part in ("cross_attn", "self_attn", "mlp", "block", "cross_attn.q", "self_attn.v")
    },
}
both_directions = pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])


def run(model: AudioLDM2, base: int, *arms: Sequence[Edit], prompts: str = "aligned") -> torch.Tensor:
    """Latents of the clean run, the corrupt run, and arms: edits of the `base` run that read from the other one."""
    clips = [Clip(prompt, 7) for prompt in PROMPTS[prompts]]
    runs = [edited(clips[base], edits, clips[1 - base]) for edits in arms]
    return model.generate_batch([*clips, *runs], SETTINGS).latents


@pytest.mark.parametrize("kind", SINGLE)
def test_identity_patch_changes_nothing(tiny64: AudioLDM2, kind: str) -> None:
    clips = [Clip(prompt, 7) for prompt in PROMPTS["padded"]]
    identity = edited(clips[1], [SINGLE[kind](block) for block in BLOCKS], clips[1])
    latents = tiny64.generate_batch([*clips, identity], SETTINGS).latents
    assert_close(latents[2], latents[1])


@both_directions
def test_patch_that_never_acts_is_the_base_run(tiny64: AudioLDM2, base: int) -> None:
    never = patch(ALL_SITES, "other", steps=(9, 9))
    latents = run(tiny64, base, [never], prompts="padded")
    assert_close(latents[2], latents[base])


EVERYTHING: dict[str, list[Edit]] = {
    "conditioning": [patch(ALL_SITES, "other")],
    "both encoders": [patch(sites(blocks), "other") for blocks in (GENERATED, TEXT)],
    "keys, values and mask": [
        patch(ALL_SITES, "other", parts=(name,)) for name in ("keys", "values", "mask")
    ],
    "all segments": [patch(ALL_SITES, "other", segments=(name,)) for name in ("generated", "text")],
    "cross-attention outputs": [patch(ALL_SITES, "other", target="output")],
    "both passes": [patch(ALL_SITES, "other", passes=(name,)) for name in ("cond", "null")],
}


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("kind", EVERYTHING)
@both_directions
def test_everything_patched_is_the_other_run(tiny64: AudioLDM2, kind: str, base: int, prompts: str) -> None:
    latents = run(tiny64, base, EVERYTHING[kind], prompts=prompts)
    assert_close(latents[2], latents[1 - base])
    assert difference(latents[2], latents[base]) > 1e-3


class Masks(TorchFunctionMode):
    """By conditioning length, whether an attention was given a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[int, set[bool]] = defaultdict(set)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.given[args[1].shape[2]].add(kwargs["attn_mask"] is not None)
        return func(*args, **(kwargs or {}))


def test_only_text_is_masked(tiny64: AudioLDM2) -> None:
    with Masks() as masks:
        run(tiny64, 1, [patch(ALL_SITES, "other")], prompts="padded")
    assert masks.given[8] == {True}
    assert masks.given[GENERATED_TOKENS] == {False}


@both_directions
def test_keys_and_values_are_not_enough_where_the_prompts_differ_in_length(
    tiny64: AudioLDM2, base: int
) -> None:
    latents = run(tiny64, base, [patch(ALL_SITES, "other", parts=("keys", "values"))], prompts="padded")
    assert difference(latents[2], latents[1 - base]) > 1e-6


def test_one_encoder_is_not_enough(tiny64: AudioLDM2) -> None:
    arms = [[patch(sites(blocks), "other")] for blocks in (GENERATED, TEXT)]
    latents = run(tiny64, 1, *arms)
    for arm in latents[2:]:
        assert difference(arm, latents[0]) > 1e-3
        assert difference(arm, latents[1]) > 1e-6


def test_a_segment_changes_nothing_in_blocks_that_do_not_read_it(tiny64: AudioLDM2) -> None:
    absent = [
        patch(sites(GENERATED), "other", segments=("text", "swapped")),
        patch(sites(TEXT), "other", segments=("generated",)),
    ]
    text = [patch(ALL_SITES, "other", segments=("text",))]
    only_text = [patch(sites(TEXT), "other")]
    words = [patch(ALL_SITES, "other", segments=("before", "swapped", "after", "template"))]
    latents = run(tiny64, 1, absent, text, only_text, words)
    assert_close(latents[2], latents[1])
    assert_close(latents[3], latents[4])
    assert_close(latents[3], latents[5])
    assert difference(latents[3], latents[1]) > 1e-6
    swapped = run(tiny64, 1, [patch(ALL_SITES, "other", segments=("swapped",))])
    assert difference(swapped[2], swapped[1]) > 1e-6


@both_directions
def test_a_batch_of_arms_equals_one_run_per_arm(tiny64: AudioLDM2, base: int) -> None:
    """Each kind in one of the two directions."""
    arms: list[list[Edit]] = [
        [make(block)] for make, block in zip(SINGLE.values(), [1, 2, 3] * 9, strict=False)
    ]
    arms += [
        [ablate("tf0.mlp")],
        [ablate("tf3.cross_attn", "mean", "other", steps=(1, 1))],
        [add(tuple([0.5] * 24), "tf2.self_attn", strength=2.0, tokens=(0, 2))],
        [random_patch("tf5.cross_attn", "other", 3)],
    ]
    arms = arms[base::2]
    together = run(tiny64, base, *arms, prompts="padded")
    for i, arm in enumerate(arms):
        alone = run(tiny64, base, arm, prompts="padded")
        assert_close(together[2 + i], alone[2], f"{arm}")
        assert difference(together[2 + i], together[base]) > 1e-9, f"{arm} does something"


def test_a_blend_of_one_run_is_that_run(tiny64: AudioLDM2) -> None:
    clean, corrupt = (Clip(prompt, 7) for prompt in PROMPTS["aligned"])
    arms = [
        Run(corrupt, (blend(ALL_SITES, [clean, corrupt], weights),))
        for weights in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
    ]
    found = tiny64.generate_batch([clean, corrupt, *arms], SETTINGS).latents
    assert_close(found[2], found[0])
    assert_close(found[3], found[1])
    assert min(difference(found[4], found[0]), difference(found[4], found[1])) > 1e-6
    with pytest.raises(UserError, match="Cannot blend"):
        tiny64.plan([Run(corrupt, (blend(ALL_SITES, [corrupt, LONG], (0.5, 0.5)),))], SETTINGS)


def test_arms_cost_nothing_before_they_start(tiny64: AudioLDM2) -> None:
    clips = [Clip(prompt, 7) for prompt in PROMPTS["padded"]]
    specs = [patch("tf1.cross_attn", "other", steps=(step, step)) for step in range(4)]
    arms = [edited(clips[1], [spec], clips[0]) for spec in specs]
    shared = tiny64.generate_batch([*clips, *arms], SETTINGS)
    assert shared.rows == sum(2 * (2 + step + 1) for step in range(4))
    for i, arm in enumerate(arms):
        alone = tiny64.generate_batch([*clips, arm], SETTINGS).latents[2]
        assert_close(shared.latents[2 + i], alone)


@pytest.mark.parametrize("prompts", PROMPTS)
def test_a_call_is_repeated_for_one_clip(tiny64: AudioLDM2, prompts: str) -> None:
    clips = [Clip(prompt, 7) for prompt in PROMPTS[prompts]]
    found = tiny64.generate_batch(
        [clips[0], clips[1], Run(clips[0], follows=Run(clips[1]))], SETTINGS, velocity_steps=(2,)
    )
    here = tuple(Site(block, part) for block in (1, 2) for part in ("self_attn", "cross_attn.k", "mlp"))
    for clip in range(3):
        repeated = tiny64.linearise(found.inputs[2], clip, here)
        assert repeated.output.shape == (1, 25, 16)
        assert_close(repeated.output[0], found.velocities[2][clip])
        assert set(repeated.values) == set(here)


def test_gradients_are_slopes(tiny64: AudioLDM2) -> None:
    """Against a difference quotient, of the velocity along a direction when a site is moved along another."""
    found = tiny64.generate_batch([LONG], SETTINGS, velocity_steps=(1,))
    direction = torch.randn(25, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for site in (Site(3, "cross_attn"), Site(2, "mlp"), Site(6, "cross_attn.v")):
        steering = torch.randn(tiny64.channels(site), generator=torch.Generator().manual_seed(1))
        slope = float(
            (
                tiny64.linearise(found.inputs[1], 0, [site], direction).gradients[site][0] @ steering.double()
            ).sum()
        )
        moved = []
        for strength in (-1e-4, 1e-4):
            spec = add(tuple(steering.tolist()), str(site), strength=strength, steps=(1, 1))
            run = tiny64.generate_batch([Run(LONG, (spec,))], SETTINGS, velocity_steps=(1,))
            moved.append(float((run.velocities[1][0] * direction).sum()))
        assert slope == pytest.approx((moved[1] - moved[0]) / 2e-4, rel=1e-4)


# Bad requests


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"options": {"shift": 2.0}}, "AudioLDM 2 has no option shift. Options: negative_prompt"),
        (
            {"options": {"negative_prompt": 3}},
            "Invalid options of AudioLDM 2: negative_prompt must be text, not 3",
        ),
        ({"duration": 0.01}, "at least 0.02 s"),
        ({"num_steps": 1001}, "1001 are too many"),
    ],
)
def test_settings_that_it_does_not_have(tiny: AudioLDM2, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        tiny.check_settings(SETTINGS.model_copy(update=changes))


def test_another_scheduler_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_pipeline(tmp_path / "euler")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "EulerDiscreteScheduler"))
    with pytest.raises(UserError, match=r"must have the DDIMScheduler.* has a EulerDiscreteScheduler"):
        AudioLDM2(str(folder), str(folder))


def test_it_does_not_sing(tiny: AudioLDM2) -> None:
    with pytest.raises(UserError, match="does not support lyrics"):
        tiny.check_lyrics("la la la")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m.generate_batch([], SETTINGS), "empty"),
        (
            lambda m: m.generate_batch([Run(LONG, (ablate("tf8.mlp"),))], SETTINGS),
            "tf8 does not exist",
        ),
        (
            lambda m: m.generate_batch([Run(LONG, (add((1.0,), "tf2.mlp"),))], SETTINGS),
            "must have 24 numbers, the channels of tf2.mlp; it has 1",
        ),
        (
            lambda m: run(m, 1, [patch(ALL_SITES, "other", segments=("lyrics",))]),
            "Unknown conditioning segment 'lyrics'. Use some of generated, text",
        ),
        (
            lambda m: m.generate_batch(
                [LONG],
                SETTINGS.model_copy(update={"guidance_scale": 1.0}),
                capture=Capture((Site(0, "mlp"),), (0,), ("null",)),
            ),
            "null pass needs a guidance",
        ),
    ],
)
def test_bad_requests_get_one_clear_sentence(tiny: AudioLDM2, call: Callable, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call(tiny)


# Studies


def study_spec(kept: Sequence[str], **changes: Any) -> StudySpec:
    given: dict[str, Any] = {
        "model": "tiny",
        "prompts": load_prompt_set("organism"),
        "settings": SETTINGS,
        "n_prompts": 2,
        "seeds": 1,
        "sites": tuple(kept),
        "steps": (0, 3),
        "passes": ("cond",),
    }
    return StudySpec.model_validate(given | changes)


def test_a_cache_keeps_sites_with_one_token_axis(tiny: AudioLDM2) -> None:
    fine, coarse = ["tf0.cross_attn", "tf4.block"], ["tf2.cross_attn", "tf3.mlp"]
    plan = cache_plan(study_spec(fine), tiny)
    assert (plan.tokens, plan.token_seconds) == (100, pytest.approx(0.005))
    assert plan.sites == {"tf0.cross_attn": 16, "tf4.block": 16}
    plan = cache_plan(study_spec(coarse), tiny)
    assert (plan.tokens, plan.token_seconds) == (26, pytest.approx(0.02))
    mixed = [fine[0], *coarse, fine[1]]
    with pytest.raises(UserError, match="down0tf1attn0 have 100, midtf1attn0 to midtf2attn0 have 26, up1tf1"):
        cache_plan(study_spec(mixed), tiny)
    with pytest.raises(UserError, match="--tokens mean"):
        cache_plan(study_spec(mixed, tokens={"kind": "stride", "size": 4}), tiny)
    plan = cache_plan(study_spec(mixed, tokens={"kind": "mean", "size": 100}), tiny)
    assert (plan.tokens, plan.token_seconds) == (1, pytest.approx(0.5))
    assert plan.sites == {"tf0.cross_attn": 16, "tf2.cross_attn": 24, "tf3.mlp": 24, "tf4.block": 16}


def request(model: AudioLDM2, question: str, **fields: Any) -> list:
    spec = PatchingSpec(question=question, **{"directions": ("sufficiency",), **fields})
    return arms_of(Request(model, SETTINGS, spec))


def test_maps_name_blocks_as_the_paper_does(tiny: AudioLDM2) -> None:
    arms = request(tiny, "blocks", sets=((6, 7),), ablations=("zero",))
    assert [arm.row for arm in arms[:9]] == [*NAMES, "up1tf5attn0+up1tf6attn0"]
    assert arms[6].edits[0].sites == ("tf6.cross_attn",)
    assert set_name((6, 7), tiny.block_names) == arms[8].row
    together = request(tiny, "sets", blocks=(0, 1))
    assert (together[1].row, together[1].column) == ("down0tf1attn0", "with down0tf2attn0")
    columns = [arm.column for arm in request(tiny, "conditioning", blocks=(1,))]
    assert columns == ["generated", "text", "template", "before", "swapped", "after"]
    with pytest.raises(UserError, match="no direct paths in this model"):
        request(tiny, "paths")
    with pytest.raises(UserError, match="same number of tokens"):
        request(tiny, "seconds")
    windows = request(tiny, "seconds", blocks=COARSE, windows=2)
    assert [arm.edits[0].window.tokens for arm in windows[:2]] == [(0, 12), (13, 25)]


def test_both_screenings_agree_on_which_blocks_matter(tiny64: AudioLDM2) -> None:
    """Attribution is a first-order estimate, so close where the two prompts differ little."""
    clean, corrupt = (Prompt(f"a {tempo} happy song", {"tempo": tempo}) for tempo in ("slow", "fast"))
    pair = Pair("tempo", clean, corrupt, "slow music")
    (context,) = listed_contexts([pair], 1)
    arms = [*request(tiny64, "blocks"), *request(tiny64, "conditioning", segments=("generated", "text"))]
    exact, _ = velocity_screen(tiny64, context, 3, arms, SETTINGS)
    estimate, _ = attribute_arms(tiny64, context, 3, arms, SETTINGS)
    assert np.corrcoef(exact, estimate)[0, 1] > 0.8
    cells = {(arm.row, arm.column): i for i, arm in enumerate(arms)}
    for block, name in enumerate(NAMES):
        own, other = ("text", "generated") if block in TEXT else ("generated", "text")
        assert_close([exact[cells[name, own]], 1.0], [exact[cells[name, "sufficiency"]], 1.0])
        assert_close([exact[cells[name, other]], 1.0], [0.0, 1.0])
        assert estimate[cells[name, other]] == 0.0
