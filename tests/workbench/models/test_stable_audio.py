"""The adapter of Stable Audio Open: its schedule, its noise, its window and global token, its timing."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler

from cache.errors import UserError
from tests.tiny_stable_audio import FRAME_SECONDS, FRAMES, MAX_TOKENS, save_tiny_stable_audio
from tests.tolerances import FLOAT64, assert_close, difference
from tests.workbench.models.architectures import stable_audio
from workbench.engine.edits import Run, ablate, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.stable_audio import StableAudioOpen

SHORT = Clip("a slow song", 7)
LONG = Clip("a fast happy violin song with drums", 8)
SETTINGS = GenerationSettings(duration=2.0, num_steps=4, guidance_scale=3.0)
NEGATIVE = SETTINGS.model_copy(update={"options": {"negative_prompt": "low quality"}})
UNGUIDED = SETTINGS.model_copy(update={"guidance_scale": 1.0})
CROSS = tuple(f"tf{block}.cross_attn" for block in range(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_audio(tmp_path_factory.mktemp("stable") / "audio")


@pytest.fixture(scope="module")
def stable(folder: Path) -> StableAudioOpen:
    return StableAudioOpen("tiny", str(folder))


@pytest.fixture(scope="module")
def stable64(folder: Path) -> StableAudioOpen:
    return StableAudioOpen("tiny", str(folder), dtype="float64")


# A run as it is


def test_audio_beyond_full_scale_is_clipped(stable: StableAudioOpen) -> None:
    latents = 100 * stable.generate_batch([SHORT], UNGUIDED).latents
    (raw,) = stable.pipeline.vae.decode(latents.transpose(1, 2)).sample
    assert raw.abs().max() > 1
    assert_close(stable.decode(latents)[0], raw.clamp(-1, 1))


def test_sigmas_fall_exponentially(stable: StableAudioOpen) -> None:
    sigmas = [math.exp(math.log(500) + step / 3 * math.log(0.3 / 500)) for step in range(4)]
    assert stable.sigmas(SETTINGS) == pytest.approx(sigmas)


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
    untraced = stable_audio(stable, [SHORT, LONG], SETTINGS, output_type="latent")
    assert torch.equal(run.latents, untraced.transpose(1, 2))
    assert [call.sigma for call in run.calls] == stable.sigmas(SETTINGS)


# Sites and tokens


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


@pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])
def test_the_text_of_the_cond_pass_is_all_that_prompts_differ_in(
    stable64: StableAudioOpen, base: int
) -> None:
    """The timing is the same, and the null pass reads nothing."""
    clips = [SHORT, Clip(LONG.prompt, SHORT.seed)]
    own, other = clips[base], clips[1 - base]
    arms = [patch(CROSS, other, segments=("text",)), patch(CROSS, other, passes=("cond",))]
    none = patch(CROSS, other, passes=("null",))
    latents = stable64.generate_batch(
        [own, other, *(Run(own, (arm,)) for arm in (*arms, none))], SETTINGS
    ).latents
    assert_close(latents[2], latents[1])
    assert_close(latents[3], latents[1])
    assert_close(latents[4], latents[0])


# What cannot be


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"duration": 2.5}, "2.40 s"),
        ({"options": {"negative_prompt": 7}}, "negative_prompt must be text"),
    ],
)
def test_bad_settings_get_one_clear_sentence(
    stable: StableAudioOpen, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        stable.check_settings(SETTINGS.model_copy(update=change))
