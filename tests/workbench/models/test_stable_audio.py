"""The adapter of Stable Audio Open: labels, exactness, independent rows, noise, patches, settings."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler
from torch.overrides import TorchFunctionMode

from cache.errors import UserError
from tests.edited import edited
from tests.tiny_stable_audio import CONDITIONING, FRAME_SECONDS, FRAMES, MAX_TOKENS, save_tiny_stable_audio
from tests.tolerances import FLOAT64, assert_close, difference
from workbench.engine.edits import Edit, Run, ablate, add, blend, patch, random_patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.stable_audio import StableAudioOpen

SHORT = Clip("a slow song", 7)
LONG = Clip("a fast happy violin song with drums", 8)
SETTINGS = GenerationSettings(duration=2.0, num_steps=4, guidance_scale=3.0)
NEGATIVE = SETTINGS.model_copy(update={"options": {"negative_prompt": "low quality"}})
UNGUIDED = SETTINGS.model_copy(update={"guidance_scale": 1.0})
PROMPTS = {
    "aligned": ("a slow happy song", "a fast happy song"),
    "padded": ("a slow song", "a fast happy violin song with drums"),
}
BLOCKS = range(3)
CROSS = tuple(f"tf{block}.cross_attn" for block in BLOCKS)

every_setting = pytest.mark.parametrize(
    "settings", [SETTINGS, NEGATIVE, UNGUIDED], ids=["guided", "negative prompt", "unguided"]
)
both_directions = pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_audio(tmp_path_factory.mktemp("stable") / "audio")


@pytest.fixture(scope="module")
def stable(folder: Path) -> StableAudioOpen:
    return StableAudioOpen("tiny", str(folder))


@pytest.fixture(scope="module")
def stable64(folder: Path) -> StableAudioOpen:
    return StableAudioOpen("tiny", str(folder), dtype="float64")


def stock(
    stable: StableAudioOpen, clips: Sequence[Clip], settings: GenerationSettings, **options
) -> torch.Tensor:
    """What the pipeline gives without nnsight and without us, drawing its own noise from the clips' seeds."""
    negative = settings.options.get("negative_prompt")
    return stable.pipeline(
        prompt=[clip.prompt for clip in clips],
        negative_prompt=None if negative is None else [negative] * len(clips),
        audio_end_in_s=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(clip.seed) for clip in clips],
        **options,
    ).audios


# A run as it is


@every_setting
def test_traced_equals_untraced_bit_for_bit(stable: StableAudioOpen, settings: GenerationSettings) -> None:
    capture = Capture(tuple(stable.sites()), (0, 3), stable.passes(settings))
    traced = stable.generate_batch([SHORT, LONG], settings, capture=capture)
    untraced = stock(stable, [SHORT, LONG], settings, output_type="latent")
    assert torch.equal(traced.latents, untraced.transpose(1, 2))
    assert traced.latents.shape == (2, FRAMES, 8)


def test_the_negative_prompt_and_the_duration_matter(stable64: StableAudioOpen) -> None:
    plain = stable64.generate_batch([LONG], SETTINGS).latents
    longer = SETTINGS.model_copy(update={"duration": 2.4})
    for settings in (NEGATIVE, longer, UNGUIDED):
        assert difference(stable64.generate_batch([LONG], settings).latents, plain) > 1e-5


@pytest.mark.parametrize("duration", [2.0, 1.23456])
def test_each_clip_is_decoded_as_the_pipeline_decodes_it_alone(
    stable: StableAudioOpen, duration: float
) -> None:
    settings = SETTINGS.model_copy(update={"duration": duration})
    latents = stable.generate_batch([SHORT, LONG], settings).latents
    decoded = stable.decode(latents, duration)
    assert decoded.shape == (2, 2, int(duration * 16000))
    for clip, audio in zip([SHORT, LONG], decoded, strict=True):
        assert_close(audio, stock(stable, [clip], settings)[0])
    whole = stable.decode(latents)
    assert whole.shape[-1] == FRAMES * 640
    assert_close(whole[..., : decoded.shape[-1]], decoded)


def test_audio_beyond_full_scale_is_clipped(stable: StableAudioOpen) -> None:
    latents = 100 * stable.generate_batch([SHORT], UNGUIDED).latents
    (raw,) = stable.pipeline.vae.decode(latents.transpose(1, 2)).sample
    assert raw.abs().max() > 1
    assert_close(stable.decode(latents)[0], raw.clamp(-1, 1))


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        (SETTINGS, ("null", "null", "cond", "cond")),
        (NEGATIVE, ("null", "null", "cond", "cond")),
        (UNGUIDED, ("cond", "cond")),
    ],
)
def test_labels_are_read_off_the_calls(
    stable: StableAudioOpen, settings: GenerationSettings, passes: tuple[str, ...]
) -> None:
    calls = stable.generate_batch([SHORT, LONG], settings).calls
    sigmas = [math.exp(math.log(500) + step / 3 * math.log(0.3 / 500)) for step in range(4)]
    assert [call.step for call in calls] == [0, 1, 2, 3]
    assert [call.sigma for call in calls] == pytest.approx(sigmas)
    assert [call.sigma for call in calls] == stable.sigmas(settings)
    assert {call.passes for call in calls} == {passes}
    assert calls[1].clips == (0, 1) * (len(passes) // 2)


def test_labels_do_not_depend_on_earlier_generations(stable: StableAudioOpen) -> None:
    first = stable.generate_batch([LONG], SETTINGS).calls
    stable.generate_batch([LONG, SHORT], UNGUIDED.model_copy(update={"num_steps": 3}))
    assert stable.generate_batch([LONG], SETTINGS).calls == first


def test_the_null_pass_reads_nothing_or_the_negative_prompt(stable: StableAudioOpen) -> None:
    """What the labels call null is what the pipeline guides away from."""
    site = Site(1, "cross_attn.k")
    capture = Capture((site,), (0,), ("cond", "null"))
    cond, null = (
        stable.generate_batch([LONG, Clip("low quality", 7)], SETTINGS, capture=capture)
        .activations[site][:, 0]
        .unbind(1)
    )
    assert (null == 0).all()
    assert (cond.abs().amax(dim=(1, 2)) > 0.01).all()
    _, negative = (
        stable.generate_batch([LONG, SHORT], NEGATIVE, capture=capture).activations[site][:, 0].unbind(1)
    )
    assert_close(negative[0], cond[1])
    assert_close(negative[0], negative[1])


@every_setting
def test_batch_rows_equal_single_runs(stable64: StableAudioOpen, settings: GenerationSettings) -> None:
    """Whatever the other prompts' lengths, and with the noise of every step."""
    clips = [SHORT, LONG, Clip(SHORT.prompt, 9)]
    together = stable64.generate_batch(clips, settings).latents
    for clip, row in zip(clips, together, strict=True):
        assert_close(stable64.generate_batch([clip], settings).latents[0], row)
    assert difference(together[0], together[2]) > 1e-3, "another seed"


def test_the_samplers_noise_follows_each_clips_seed_and_nothing_else(stable: StableAudioOpen) -> None:
    def noise(clips: list[Clip]) -> torch.Tensor:
        stable.generate_batch(clips, SETTINGS)
        scheduler = stable.pipeline.scheduler
        return scheduler.noise_sampler(scheduler.sigmas[1], scheduler.sigmas[2])

    first = noise([SHORT, LONG, Clip(LONG.prompt, SHORT.seed)])
    assert torch.equal(first[0], first[2])
    assert difference(first[0], first[1]) > 0.1
    assert torch.equal(noise([LONG])[0], first[1])
    assert first.std() == pytest.approx(1.0, abs=0.1)


def test_a_sampler_that_draws_from_the_generators_goes_on_where_the_initial_noise_ends(
    stable: StableAudioOpen, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=0.3,
        sigma_max=500,
        sigma_data=1.0,
        sigma_schedule="exponential",
        algorithm_type="sde-dpmsolver++",
    )
    monkeypatch.setattr(stable.pipeline, "scheduler", scheduler)
    run = stable.generate_batch([SHORT, LONG], SETTINGS)
    untraced = stock(stable, [SHORT, LONG], SETTINGS, output_type="latent")
    assert torch.equal(run.latents, untraced.transpose(1, 2))
    assert [call.sigma for call in run.calls] == stable.sigmas(SETTINGS)


# Sites and tokens


def test_captured_values_are_what_the_modules_gave(stable: StableAudioOpen) -> None:
    block = stable.pipeline.transformer.transformer_blocks[1]
    places = {
        "self_attn": (block.attn1, "output"),
        "self_attn.v": (block.attn1.to_v, "output"),
        "cross_attn.q": (block.attn2.to_q, "output"),
        "cross_attn.heads": (block.attn2.to_out[0], "input"),
        "cross_attn": (block.attn2, "output"),
        "mlp": (block.ff, "output"),
        "block": (block, "output"),
    }
    seen: dict[str, list[torch.Tensor]] = {part: [] for part in places}
    hooks = [
        module.register_forward_hook(
            lambda m, i, o, part=part, end=end: seen[part].append(o if end == "output" else i[0])
        )
        for part, (module, end) in places.items()
    ]
    stock(stable, [SHORT, LONG], SETTINGS, output_type="latent")
    for hook in hooks:
        hook.remove()
    sites = {part: Site(1, part) for part in places}
    capture = Capture(tuple(sites.values()), (1, 3), ("null", "cond"))
    kept = stable.generate_batch([SHORT, LONG], SETTINGS, capture=capture).activations
    for part, site in sites.items():
        assert kept[site].shape == (2, 2, 2, stable.tokens(2.0), stable.channels(site))
        for s, step in enumerate((1, 3)):
            assert torch.equal(kept[site][:, s, 0], seen[part][step][:2]), "null pass"
            assert torch.equal(kept[site][:, s, 1], seen[part][step][2:]), "cond pass"


def test_sizes(stable: StableAudioOpen) -> None:
    assert stable.n_blocks == 3
    assert stable.tokens(2.0) == stable.tokens(0.5) == FRAMES + 1
    assert stable.token_seconds == pytest.approx(FRAME_SECONDS)
    assert stable.window_seconds == pytest.approx(2.4)
    assert stable.sample_rate == 16000
    assert stable.channels(Site(0, "cross_attn.k")) == 16, "two of four heads are key-value heads"
    assert stable.channels(Site(0, "self_attn.k")) == stable.channels(Site(0, "block")) == 32
    assert (stable.head_dim(0), stable.heads("cross_attn.v"), stable.heads("cross_attn.q")) == (8, 2, 4)


@pytest.mark.parametrize("token", [0, 1, 25, FRAMES])
def test_token_0_is_the_global_one_and_token_i_is_frame_i_minus_1(
    stable64: StableAudioOpen, token: int
) -> None:
    """After the last block's last step nothing mixes tokens any more, and nothing reads the global one."""
    edit = ablate("tf2.block", tokens=(token, token), steps=(3, 3))
    plain, ablated = stable64.generate_batch([LONG, Run(LONG, (edit,))], SETTINGS).latents
    changed = (plain - ablated).abs().amax(dim=1) > FLOAT64
    assert changed.nonzero().flatten().tolist() == ([token - 1] if token else [])


def test_the_global_token_is_heard_through_self_attention(stable64: StableAudioOpen) -> None:
    edit = ablate("tf1.block", tokens=(0, 0))
    plain, ablated = stable64.generate_batch([LONG, Run(LONG, (edit,))], SETTINGS).latents
    assert difference(plain, ablated) > 1e-3


# The conditioning


def test_segments_cover_the_conditioning(stable: StableAudioOpen) -> None:
    spans = stable.segments(LONG, SETTINGS)
    assert spans == {"text": (0, MAX_TOKENS), "timing": (MAX_TOKENS, MAX_TOKENS + 2)}
    site = Site(0, "cross_attn.k")
    keys = stable.generate_batch([SHORT], SETTINGS, capture=Capture((site,), (0,), ("cond",))).activations[
        site
    ][0, 0, 0]
    assert len(keys) == MAX_TOKENS + 2
    silent = (keys == 0).all(dim=1).nonzero().flatten().tolist()
    assert silent == list(range(4, MAX_TOKENS)), "three words and an end, then padding, which is zero"


def test_timing_tells_the_duration_and_nothing_else(stable: StableAudioOpen) -> None:
    site = Site(0, "cross_attn.k")
    capture = Capture((site,), (0,), ("cond",))
    short = stable.generate_batch([SHORT], SETTINGS.model_copy(update={"duration": 1.0}), capture=capture)
    usual = stable.generate_batch([SHORT, LONG], SETTINGS, capture=capture).activations[site][:, 0, 0]
    start, end = MAX_TOKENS, MAX_TOKENS + 1
    assert_close(usual[0, start:], usual[1, start:])
    other = short.activations[site][0, 0, 0]
    assert_close(other[:end], usual[0, :end])
    assert difference(other[end], usual[0, end]) > 1e-6


def test_words_have_their_tokens(stable: StableAudioOpen) -> None:
    words = stable.conditioning(LONG, SETTINGS).words
    assert words == (
        ("a", 0, 1), ("fast", 1, 2), ("happy", 2, 3), ("violin", 3, 5), ("song", 5, 6), ("with", 6, 7), ("drums", 7, 8),
    )  # fmt: skip
    cut = Clip(" ".join(["happy"] * 14), 1)
    assert len(stable.conditioning(cut, SETTINGS).words) == MAX_TOKENS - 1
    assert stable.generate_batch([cut], SETTINGS).latents.isfinite().all()


# Patches


def pair(name: str = "aligned", seed: int = 7) -> list[Clip]:
    return [Clip(prompt, seed) for prompt in PROMPTS[name]]


def run(
    stable: StableAudioOpen,
    base: int,
    *arms: Sequence[Edit],
    prompts: str = "aligned",
    settings: GenerationSettings = SETTINGS,
) -> torch.Tensor:
    """Latents of clean, corrupt, and each arm: prompt `base` with patches from the other one."""
    clips = pair(prompts)
    runs = [edited(clips[base], edits, clips[1 - base]) for edits in arms]
    return stable.generate_batch([*clips, *runs], settings).latents


SINGLE: dict[str, Edit] = {
    "conditioning": patch(CROSS[1:2], "other"),
    "keys": patch(CROSS[1:2], "other", parts=("keys",)),
    "values": patch(CROSS[1:2], "other", parts=("values",)),
    "text": patch(CROSS[1:2], "other", segments=("text",)),
    "query head": patch("tf1.cross_attn.heads", "other", target="output", heads=(2,)),
    "key-value head": patch(("tf1.cross_attn.k", "tf1.cross_attn.v"), "other", target="output", heads=(1,)),
    "window of tokens": patch(CROSS[1:2], "other", target="output", tokens=(3, 20)),
    "global token": patch(CROSS[1:2], "other", target="output", tokens=(0, 0)),
    "window of steps": patch(CROSS[1:2], "other", steps=(2, 3)),
    "window of sigmas": patch(CROSS[1:2], "other", sigmas=(0.0, 50.0)),
    **{
        part: patch(f"tf1.{part}", "other", target="output")
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
ALL_BLOCKS: dict[str, list[Edit]] = {
    "conditioning": [patch(CROSS, "other")],
    "keys and values": [patch(CROSS, "other", parts=(carried,)) for carried in ("keys", "values")],
    "text alone, as the timing is the same": [patch(CROSS, "other", segments=("text",))],
    "all segments": [patch(CROSS, "other", segments=("text", "timing"))],
    "the cond pass alone, as the null pass reads nothing": [patch(CROSS, "other", passes=("cond",))],
    "cross-attention outputs": [patch(CROSS, "other", target="output")],
    "last block": [patch("tf2.block", "other", target="output")],
    "all query heads": [
        patch(tuple(f"{site}.heads" for site in CROSS), "other", target="output", heads=(head,)) for head in range(4)
    ],
    "all key and value heads": [
        patch(tuple(f"{site}.{part}" for site in CROSS for part in "kv"), "other", target="output", heads=(head,))
        for head in range(2)
    ],
    "all windows of steps": [patch(CROSS, "other", steps=window) for window in ((0, 0), (1, 2), (3, 3))],
    "all windows of sigmas": [patch(CROSS, "other", sigmas=w) for w in ((40.0, 501.0), (1.0, 40.0), (0.0, 1.0))],
    "all windows of tokens": [
        patch(CROSS, "other", target="output", tokens=window) for window in ((0, 0), (1, 30), (31, 99))
    ],
}  # fmt: skip


@both_directions
def test_identity_patches_change_nothing(stable64: StableAudioOpen, base: int) -> None:
    clips = pair("padded")
    runs = [edited(clips[base], [edit], clips[base]) for edit in SINGLE.values()]
    latents = stable64.generate_batch([*clips, *runs], SETTINGS).latents
    for kind, row in zip(SINGLE, latents[2:], strict=True):
        assert_close(row, latents[base], kind)


@pytest.mark.parametrize("prompts", PROMPTS)
@both_directions
def test_everything_patched_is_the_other_run(stable64: StableAudioOpen, base: int, prompts: str) -> None:
    latents = run(stable64, base, *ALL_BLOCKS.values(), prompts=prompts)
    assert difference(latents[1 - base], latents[base]) > 1e-3
    for kind, row in zip(ALL_BLOCKS, latents[2:], strict=True):
        assert_close(row, latents[1 - base], kind)


@pytest.mark.parametrize("settings", [NEGATIVE, UNGUIDED], ids=["negative prompt", "unguided"])
@both_directions
def test_everything_patched_is_the_other_run_whatever_the_guidance(
    stable64: StableAudioOpen, settings: GenerationSettings, base: int
) -> None:
    latents = run(stable64, base, ALL_BLOCKS["keys and values"], prompts="padded", settings=settings)
    assert_close(latents[2], latents[1 - base])
    assert difference(latents[2], latents[base]) > 1e-3


@both_directions
def test_patch_that_never_acts_is_the_base_run(stable64: StableAudioOpen, base: int) -> None:
    arms = [[patch(CROSS, "other", steps=(9, 9))], [patch(CROSS, "other", passes=("null",))]]
    latents = run(stable64, base, *arms, prompts="padded")
    assert_close(latents[2], latents[base])
    assert_close(latents[3], latents[base], "the null pass reads nothing that could be exchanged")


def test_a_batch_of_arms_equals_one_run_per_arm(stable64: StableAudioOpen) -> None:
    arms: list[list[Edit]] = [[spec] for spec in SINGLE.values()]
    arms += [
        [ablate("tf0.mlp")],
        [ablate("tf0.cross_attn", "mean", "other", steps=(1, 1))],
        [ablate("tf1.cross_attn", "resample", "other")],
        [add(tuple([0.5] * 32), "tf1.self_attn", strength=2.0, tokens=(0, 2))],
        [random_patch("tf1.cross_attn", "other", 3)],
    ]
    settings = SETTINGS.model_copy(update={"num_steps": 3})
    together = run(stable64, 1, *arms, prompts="padded", settings=settings)
    for i, arm in enumerate(arms):
        alone = run(stable64, 1, arm, prompts="padded", settings=settings)
        assert_close(together[2 + i], alone[2])
        assert difference(together[2 + i], together[1]) > 1e-9, f"{arm} does something"


@both_directions
def test_conditioning_is_its_parts(stable64: StableAudioOpen, base: int) -> None:
    site = ("tf0.cross_attn",)
    by_words = [patch(site, "other", segments=("swapped", "after"))]
    by_word = [patch(site, "other", segments=("word:slow", "word:happy", "word:song"))]
    rest = [patch(site, "other", segments=("before", "template", "timing"))]
    whole = [patch(site, "other")]
    latents = run(stable64, base, whole, by_words, by_word, [*by_words, *rest])
    assert difference(latents[2], latents[base]) > 1e-6
    assert_close(latents[3], latents[4])
    assert_close(latents[5], latents[2])


def test_a_blend_of_one_run_is_that_run(stable64: StableAudioOpen) -> None:
    clean, corrupt = pair()
    arms = [
        Run(corrupt, (blend(CROSS, [clean, corrupt], weights),))
        for weights in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
    ]
    found = stable64.generate_batch([clean, corrupt, *arms], SETTINGS).latents
    assert_close(found[2], found[0])
    assert_close(found[3], found[1])
    assert min(difference(found[4], found[0]), difference(found[4], found[1])) > 1e-6
    with pytest.raises(UserError, match="Cannot blend"):
        stable64.plan([Run(corrupt, (blend(CROSS, [corrupt, LONG], (0.5, 0.5)),))], SETTINGS)


def test_arms_cost_nothing_before_they_start(stable64: StableAudioOpen) -> None:
    clips = pair()
    specs = [patch("tf1.cross_attn", "other", steps=(step, step)) for step in range(4)]
    arms = [edited(clips[1], [spec], clips[0]) for spec in specs]
    shared = stable64.generate_batch([*clips, *arms], SETTINGS)
    assert shared.rows == sum(2 * (2 + step + 1) for step in range(4))
    for i, arm in enumerate(arms):
        alone = stable64.generate_batch([*clips, arm], SETTINGS)
        assert_close(shared.latents[2 + i], alone.latents[2])


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


@pytest.mark.parametrize(
    "name", ["transformer_blocks.1.attn2.to_k", "transformer_blocks.1.attn2.to_v", "cross_attention_proj.0"]
)
def test_the_conditioning_is_projected_in_the_first_call_only(stable64: StableAudioOpen, name: str) -> None:
    weight = stable64.pipeline.transformer.get_submodule(name).weight
    with LinearRows(weight) as plain:
        run(stable64, 1)
    assert plain.rows == [4] * 4, "untouched without edits"
    with LinearRows(weight) as patched:
        run(stable64, 1, [patch("tf0.cross_attn", "other", steps=(2, 2))])
    assert patched.rows == [4], "clean and corrupt, null and cond"


# A call repeated


def test_a_shadow_sees_the_others_latents_with_its_own_prompt(stable64: StableAudioOpen) -> None:
    clean, corrupt = pair()
    run = stable64.generate_batch(
        [Run(clean, follows=Run(corrupt)), corrupt], SETTINGS, velocity_steps=(0, 2)
    )
    assert_close(run.latents[1], stable64.generate_batch([corrupt], SETTINGS).latents[0])
    own = stable64.generate_batch([clean, corrupt], SETTINGS, velocity_steps=(0, 2))
    assert_close(run.velocities[0], own.velocities[0], "at the first step all see the same noise")
    assert_close(run.velocities[2][1], own.velocities[2][1])
    assert difference(run.velocities[2][0], own.velocities[2][0]) > 1e-6
    assert run.rows == 2 * 4 + 2, "idle shadows are not computed"


@pytest.mark.parametrize("settings", [SETTINGS, UNGUIDED], ids=["guided", "unguided"])
def test_a_call_is_repeated_and_differentiated(
    stable64: StableAudioOpen, settings: GenerationSettings
) -> None:
    run = stable64.generate_batch(pair("padded"), settings, velocity_steps=(1,))
    assert run.velocities[1].shape == (2, FRAMES, 8)
    direction = torch.randn(FRAMES, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sites = tuple(Site(2, part) for part in ("cross_attn.k", "cross_attn.heads", "mlp", "block"))
    mlp = stable64.pipeline.transformer.transformer_blocks[2].ff
    for clip in (0, 1):
        found = stable64.linearise(run.inputs[1], clip, sites, direction)
        assert_close(found.output[0], run.velocities[1][clip])
        assert {site: value.shape[1] for site, value in found.values.items()} == {
            sites[0]: MAX_TOKENS + 2, **dict.fromkeys(sites[1:], FRAMES + 1)
        }  # fmt: skip
        step = torch.randn(found.values[sites[2]].shape, generator=torch.Generator().manual_seed(2)).double()
        hook = mlp.register_forward_hook(lambda m, i, o, step=step: o + 1e-6 * step)
        moved = stable64.linearise(run.inputs[1], clip, ()).output[0]
        hook.remove()
        slope = float(((moved - found.output[0]) * direction).sum()) / 1e-6
        assert slope == pytest.approx(float((found.gradients[sites[2]] * step).sum()), rel=1e-4)


# What cannot be


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"duration": 2.5}, "at most 2.40 s .*; got 2.5 s"),
        (
            {"options": {"cfg_interval_end": 0.9}},
            "no option cfg_interval_end: its options are negative_prompt",
        ),
        ({"options": {"negative_prompt": 7}}, "negative_prompt must be text, not 7"),
    ],
)
def test_bad_settings_get_one_clear_sentence(
    stable: StableAudioOpen, change: dict[str, object], sentence: str
) -> None:
    settings = SETTINGS.model_copy(update=change)
    with pytest.raises(UserError, match=sentence):
        stable.check_settings(settings)
    with pytest.raises(UserError, match=sentence):
        stable.generate_batch([SHORT], settings)


def test_lyrics_are_refused(stable: StableAudioOpen) -> None:
    with pytest.raises(UserError, match="does not support lyrics"):
        stable.generate_batch([Clip("a song", 1, "la la")], SETTINGS)


def test_the_null_pass_needs_guidance(stable: StableAudioOpen) -> None:
    capture = Capture((Site(0, "mlp"),), (0,), ("null",))
    with pytest.raises(UserError, match="null pass needs a guidance"):
        stable.generate_batch([SHORT], UNGUIDED, capture=capture)


def test_settings_that_are_fine(stable: StableAudioOpen) -> None:
    for settings in (SETTINGS, NEGATIVE, UNGUIDED, SETTINGS.model_copy(update={"duration": 2.4})):
        stable.check_settings(settings)
    assert stable.pipeline.projection_model.config.conditioning_dim == CONDITIONING
