"""The adapter of AudioLDM 2: its blocks at several resolutions, its two encoders, its schedule."""

from collections import defaultdict
from collections.abc import Sequence
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
from tests.workbench.models.architectures import audioldm2
from workbench.engine.edits import Edit, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.audioldm2 import AudioLDM2, CallOfAudioLDM2, conditioned_blocks, frames_first
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
    audioldm2(tiny, [SHORT], SETTINGS.model_copy(update={"num_steps": 1}))
    for hook in hooks:
        hook.remove()
    assert order == list(BLOCKS)
    assert tiny.block_names == NAMES
    assert tiny.describe()["block_names"] == list(NAMES)


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


# Encoding


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


def test_the_untouched_pipeline_lets_padding_through(tiny64: AudioLDM2) -> None:
    """So that prompts are encoded alone."""
    together = frames_first(audioldm2(tiny64, [SHORT, LONG], SETTINGS, output_type="latent"))
    assert difference(together[0], tiny64.generate_batch([SHORT], SETTINGS).latents[0]) > 1e-3


def test_each_prompt_is_encoded_once(tiny64: AudioLDM2) -> None:
    rows: list[int] = []
    hook = tiny64.pipeline.text_encoder_2.register_forward_hook(
        lambda _, args, output: rows.append(len(output[0]))
    )
    tiny64.generate_batch([SHORT, LONG, SHORT, SHORT], SETTINGS)
    hook.remove()
    assert rows == [1] * 4, "two prompts and what each is held against"


# Steps


def test_sigmas_are_those_of_the_noise_schedule(tiny: AudioLDM2) -> None:
    alpha_bar = torch.cumprod(1 - torch.linspace(0.0015**0.5, 0.0195**0.5, 1000).double() ** 2, 0)
    sigmas = [(1 - float(alpha_bar[timestep])) ** 0.5 for timestep in (751, 501, 251, 1)]
    assert tiny.sigmas(SETTINGS) == pytest.approx(sigmas, rel=1e-5)


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


def test_a_clip_that_ends_within_a_frame_of_the_spectrogram_is_shorter(tiny: AudioLDM2) -> None:
    duration = 1.005  # and 0.01 s per frame
    latents = torch.zeros(1, tiny.frames(duration), int(tiny.config.in_channels) * tiny.bands)
    audio = tiny.decode(latents, duration)
    assert audio.shape[-1] / tiny.sample_rate == tiny.seconds(duration) == 1.0


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
    assert tiny.conditioning(LONG, SETTINGS).words[2] == ("happy", GENERATED_TOKENS + 2, GENERATED_TOKENS + 3)
    assert [tiny.reads(block) for block in BLOCKS] == [
        slice(3, None) if block in TEXT else slice(0, 3) for block in BLOCKS
    ]


# Patches

ALL_SITES = tuple(f"tf{block}.cross_attn" for block in BLOCKS)


def sites(blocks: Sequence[int], part: str = "cross_attn") -> tuple[str, ...]:
    return tuple(f"tf{block}.{part}" for block in blocks)


def run(model: AudioLDM2, base: int, *arms: Sequence[Edit], prompts: str = "aligned") -> torch.Tensor:
    """Latents of the clean run, the corrupt run, and arms: edits of the `base` run that read from the other one."""
    clips = [Clip(prompt, 7) for prompt in PROMPTS[prompts]]
    runs = [edited(clips[base], edits, clips[1 - base]) for edits in arms]
    return model.generate_batch([*clips, *runs], SETTINGS).latents


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


# Bad requests


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"options": {"negative_prompt": 3}},
            "Invalid options of AudioLDM 2: negative_prompt must be text, not 3",
        ),
        ({"duration": 0.01}, "at least 0.02 s"),
        ({"num_steps": 1001}, "at most 1000"),
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
    with pytest.raises(UserError, match="Paths are not supported for this model"):
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
