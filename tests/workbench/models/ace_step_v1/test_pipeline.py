"""ACE-Step v1's pipeline on a random tiny model: rows and passes of its calls, conditioning, folders, errors, audio."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import accelerate.hooks
import numpy as np
import pytest
import torch
from torch import nn

from cache.errors import UserError
from tests.tiny_ace_step_v1 import save_tiny_v1
from tests.tolerances import assert_close, difference
from tests.wide_umt5 import widen
from tests.workbench.models.ace_step_v1.tiny_lyrics import write_vocabulary
from workbench.models.ace_step_v1.pipeline import FOLDERS, AceStepV1Pipeline, Guidance

SECONDS, FRAMES = 0.5, 5
CLIPS = [
    ("a slow sad violin song", "[verse]\nthe end", 3),
    ("fast drums", "", 4),
    ("a happy song with a calm flute by the violin", "the", 5),
]
EVERYWHERE = Guidance(interval=1.0)
DOUBLE = Guidance(interval=1.0, text_scale=6.0, lyric_scale=2.0)
GUIDANCES = {
    "apg": EVERYWHERE,
    "apg half the steps": Guidance(),
    "cfg": Guidance(cfg_type="cfg", interval=1.0, scale=5.0),
    "cfg_star": Guidance(cfg_type="cfg_star", interval=1.0, scale=5.0),
    "double": DOUBLE,
    "double without weak lyrics": Guidance(interval=1.0, text_scale=6.0, lyric_scale=2.0, erg_lyric=False),
    "no weakening": Guidance(interval=1.0, erg_tag=False, erg_lyric=False, erg_diffusion=False),
    "none": Guidance(scale=1.0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published layout with a lyric vocabulary."""
    return save(tmp_path_factory.mktemp("v1"))


def save(folder: Path, **changes: Any) -> Path:
    write_vocabulary(folder / "lyric_tokenizer" / "vocab.json")
    return save_tiny_v1(folder, **changes)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> AceStepV1Pipeline:
    pipeline = AceStepV1Pipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def plain(folder: Path) -> AceStepV1Pipeline:
    """The pipeline in float32."""
    return load(folder)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> AceStepV1Pipeline:
    """One in float64, with two of the blocks whose queries guidance weakens."""
    pipeline = load(save(tmp_path_factory.mktemp("v1"), num_layers=17), torch.float64)
    widen(pipeline.text_encoder)
    return pipeline


def generate(
    pipeline: AceStepV1Pipeline, clips: Sequence[tuple[str, str, int]], **settings: Any
) -> torch.Tensor:
    """Latents of (prompt, lyrics, seed), unless the settings say otherwise."""
    prompts, lyrics, seeds = (list(values) for values in zip(*clips, strict=True))
    given = {"audio_duration": SECONDS, "num_inference_steps": 4, "output_type": "latent"} | settings
    return pipeline(prompts, lyrics, seeds=seeds, **given).audios


@pytest.fixture
def calls(plain: AceStepV1Pipeline) -> Iterator[list[dict[str, Any]]]:
    """Arguments of the denoiser's calls, as they come."""
    seen: list[dict[str, Any]] = []
    hook = plain.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs),
        with_kwargs=True,
    )
    yield seen
    hook.remove()


# Rows


@pytest.mark.parametrize("guidance", GUIDANCES.values(), ids=GUIDANCES)
def test_a_batch_gives_what_each_clip_gives_alone(exact: AceStepV1Pipeline, guidance: Guidance) -> None:
    batch = generate(exact, CLIPS, guidance=guidance)
    assert batch.shape == (3, 8, 16, FRAMES)
    assert batch.dtype == torch.float64
    for row, clip in enumerate(CLIPS):
        assert_close(batch[row : row + 1], generate(exact, [clip], guidance=guidance))


@pytest.mark.parametrize("scheduler", ["heun", "pingpong"])
def test_so_it_does_with_other_schedulers(exact: AceStepV1Pipeline, scheduler: str) -> None:
    settings = {"scheduler": scheduler, "guidance": Guidance(interval=1.0, scale=4.0)}
    batch = generate(exact, CLIPS, **settings)
    for row, clip in enumerate(CLIPS):
        assert_close(batch[row : row + 1], generate(exact, [clip], **settings))


def test_prompt_lyrics_and_seed_each_make_another_clip(exact: AceStepV1Pipeline) -> None:
    prompt, lyrics, seed = CLIPS[0]
    others = [("fast drums", lyrics, seed), (prompt, "the", seed), (prompt, "", seed), (prompt, lyrics, 9)]
    batch = generate(exact, [CLIPS[0], CLIPS[0], *others])
    assert_close(batch[1], batch[0])
    for other in batch[2:]:
        assert difference(other, batch[0]) > 1e-4


def test_one_prompt_lyric_or_seed_serves_all(plain: AceStepV1Pipeline) -> None:
    settings = {"audio_duration": SECONDS, "num_inference_steps": 2, "output_type": "latent"}
    lists = plain(["a song", "a song"], ["the", "the"], seeds=[0, 0], **settings).audios
    assert torch.equal(plain(["a song", "a song"], "the", seeds=0, **settings).audios, lists)
    alone = plain(["a song"], ["the"], seeds=[0], **settings).audios
    assert torch.equal(plain("a song", "the", **settings).audios, alone)
    assert_close(alone, lists[:1])


def test_the_same_seed_gives_the_same_clip_bit_for_bit(plain: AceStepV1Pipeline) -> None:
    for scheduler in ("euler", "heun", "pingpong"):
        first, again = (generate(plain, CLIPS, scheduler=scheduler) for _ in range(2))
        assert torch.equal(first, again)


def test_the_noise_is_the_seeds(plain: AceStepV1Pipeline, calls: list[dict[str, Any]]) -> None:
    generate(plain, CLIPS, num_inference_steps=1, guidance=Guidance(scale=1.0))
    for row, (_, _, seed) in enumerate(CLIPS):
        drawn = torch.randn(8, 16, FRAMES, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(calls[0]["hidden_states"][row], drawn)


def test_omega_mixes_rows_only_where_it_is_asked_to(exact: AceStepV1Pipeline) -> None:
    alone = generate(exact, CLIPS[:1], omega_reduction="batch")
    assert_close(generate(exact, CLIPS[:1], omega_reduction="sample"), alone)
    mixed = generate(exact, CLIPS, omega_reduction="batch")[:1]
    assert difference(mixed, alone) > 1e-6
    assert_close(generate(exact, CLIPS, omega_reduction="sample")[:1], alone)
    assert difference(generate(exact, CLIPS, omega_reduction="batch", omega=0.0)[:1], alone) > 1e-6


# Passes


@pytest.mark.parametrize(
    ("interval", "num_steps", "guided"),
    [
        (1.0, 5, range(5)),
        (0.5, 60, range(15, 45)),
        (0.5, 5, range(1, 3)),
        (0.5, 6, range(1, 4)),
        (0.01, 60, range(29, 30)),
        (0.01, 5, range(2, 2)),
        (0.0, 60, range(30, 30)),
    ],
)
def test_guidance_acts_in_the_middle_of_the_steps(interval: float, num_steps: int, guided: range) -> None:
    guidance = Guidance(interval=interval)
    assert guidance.steps(num_steps) == guided
    for step in range(num_steps):
        passes = ("cond", "null") if step in guided else ("cond",)
        assert guidance.passes_at(step, num_steps) == passes


def test_two_scales_above_1_make_three_passes_and_scale_1_makes_one() -> None:
    assert DOUBLE.passes == ("cond", "text", "null")
    assert DOUBLE.passes_at(0, 4) == ("cond", "text", "null")
    for text_scale, lyric_scale in ((6.0, 1.0), (1.0, 2.0), (6.0, 0.0), (0.0, 0.0)):
        assert Guidance(text_scale=text_scale, lyric_scale=lyric_scale).passes == ("cond", "null")
    for scale in (0.0, 1.0):
        off = Guidance(scale=scale, interval=1.0, text_scale=6.0, lyric_scale=2.0)
        assert off.passes == off.passes_at(0, 4) == ("cond",)


def test_the_scale_falls_over_the_guided_steps() -> None:
    def scales(**changes: float) -> list[float]:
        guidance = Guidance(scale=15.0, min_scale=3.0, **changes)
        return [guidance.scale_at(step, 60) for step in guidance.steps(60)]

    assert scales(interval=0.5) == [15.0] * 30
    falling = scales(interval=0.5, interval_decay=1.0)
    np.testing.assert_allclose(falling, np.linspace(15, 3, 30), rtol=1e-12)
    np.testing.assert_allclose(scales(interval=1.0, interval_decay=0.5), np.linspace(15, 9, 60), rtol=1e-12)
    assert scales(interval=0.01, interval_decay=1.0) == [15.0]


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"guidance": EVERYWHERE}, [("cond", "null")] * 4),
        ({"guidance": Guidance()}, [("cond",), ("cond", "null"), ("cond", "null"), ("cond",)]),
        ({"guidance": Guidance(interval=0.01)}, [("cond",), ("cond", "null"), ("cond",), ("cond",)]),
        ({"guidance": DOUBLE}, [("cond", "text", "null")] * 4),
        ({"guidance": Guidance(scale=1.0)}, [("cond",)] * 4),
        ({"guidance": EVERYWHERE, "scheduler": "pingpong"}, [("cond", "null")] * 4),
        ({"guidance": EVERYWHERE, "scheduler": "heun"}, [("cond", "null")] * 7),
        (
            {"guidance": Guidance(), "scheduler": "heun"},
            [("cond",), *[("cond", "null")] * 4, ("cond",), ("cond",)],
        ),
    ],
)
def test_each_call_has_all_passes_of_all_clips_and_names_them(
    plain: AceStepV1Pipeline,
    calls: list[dict[str, Any]],
    settings: dict[str, Any],
    passes: list[tuple[str, ...]],
) -> None:
    generate(plain, CLIPS[:2], **settings)
    assert len(calls) == len(passes)
    for call, expected, timestep in zip(calls, passes, plain.scheduler.timesteps, strict=True):
        rows = 2 * len(expected)
        assert call["passes"] == tuple(name for name in expected for _ in range(2))
        assert torch.equal(call["timestep"], timestep.expand(rows))
        names = ("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "encoder_positions")
        assert {len(call[name]) for name in names} == {rows}
        for name in ("hidden_states", "encoder_attention_mask", "encoder_positions"):
            for chunk in call[name].chunk(len(expected)):
                assert torch.equal(chunk, call[name][:2])
        weak = [name == "null" for name in call["passes"]]
        assert call["weak_queries"].tolist() == weak


def test_without_a_shift_the_steps_are_even(plain: AceStepV1Pipeline, calls: list[dict[str, Any]]) -> None:
    generate(plain, CLIPS[:1], shift=1.0, num_inference_steps=4, guidance=Guidance(scale=1.0))
    timesteps = [float(call["timestep"][0]) for call in calls]
    np.testing.assert_allclose(timesteps, [1000, 667, 334, 1], rtol=1e-6)


def test_without_its_switch_no_queries_of_the_denoiser_are_weak(
    plain: AceStepV1Pipeline, calls: list[dict[str, Any]]
) -> None:
    generate(plain, CLIPS, guidance=Guidance(interval=1.0, erg_diffusion=False))
    assert len(calls) == 4
    assert not any(call["weak_queries"].any() for call in calls)


# Conditioning


@pytest.mark.parametrize("tag", [True, False])
@pytest.mark.parametrize("lyric", [True, False])
def test_each_pass_is_given_its_text_and_lyrics(plain: AceStepV1Pipeline, tag: bool, lyric: bool) -> None:
    """cond has both; text has weak lyrics, null also weak text; lyrics not weakened are emptied, and then text too."""
    given: list[tuple[Any, ...]] = []
    encode = plain.transformer.encode
    guidance = Guidance(interval=1.0, text_scale=6.0, lyric_scale=2.0, erg_tag=tag, erg_lyric=lyric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain.transformer, "encode", lambda *args: given.append(args) or encode(*args))
        generate(plain, CLIPS[:1], guidance=guidance, num_inference_steps=1)
    prompt, lyrics, _ = CLIPS[0]
    numbers = plain.lyric_ids(lyrics)
    assert len(numbers) > 5
    with torch.no_grad():
        full, _ = plain._encode_text([prompt])
    assert len(given) == 3
    for (text, text_mask, speaker, ids, mask, weak), name in zip(
        given, ("cond", "text", "null"), strict=True
    ):
        assert weak == (lyric and name != "cond")
        assert ids.tolist() == [numbers if lyric or name == "cond" else [0] * len(numbers)]
        assert text_mask.all()
        assert mask.all()
        assert not speaker.any()
        if name != "null":
            assert_close(text, full)
        elif tag and lyric:
            assert text.any()
            assert difference(text, full) > 1e-3
        else:
            assert not text.any()


def test_weakening_the_text_leaves_the_text_encoder_as_it_was(plain: AceStepV1Pipeline) -> None:
    before, _ = plain._encode_text(["a slow song"])
    generate(plain, CLIPS[:1], guidance=EVERYWHERE, num_inference_steps=1)
    assert torch.equal(plain._encode_text(["a slow song"])[0], before)


def test_positions_count_a_rows_own_tokens(plain: AceStepV1Pipeline, calls: list[dict[str, Any]]) -> None:
    """A speaker token, text, lyrics: what follows padding goes on as if there were none."""
    generate(plain, CLIPS, guidance=Guidance(scale=1.0), num_inference_steps=1)
    mask, positions = calls[0]["encoder_attention_mask"], calls[0]["encoder_positions"]
    texts = [plain.text_tokens(prompt) for prompt, _, _ in CLIPS]
    lyrics = [len(plain.lyric_ids(words)) for _, words, _ in CLIPS]
    assert mask.shape == (3, 1 + max(texts) + max(lyrics))
    for row, (n_text, n_lyrics) in enumerate(zip(texts, lyrics, strict=True)):
        expected = torch.zeros(mask.shape[1], dtype=torch.bool)
        expected[: 1 + n_text] = True
        expected[1 + max(texts) : 1 + max(texts) + n_lyrics] = True
        assert torch.equal(mask[row], expected)
        assert positions[row][mask[row]].tolist() == list(range(1 + n_text + n_lyrics))


def test_instrumental_clips_have_no_lyric_tokens(
    plain: AceStepV1Pipeline, calls: list[dict[str, Any]]
) -> None:
    generate(plain, [("fast drums", "", 0), ("a song", "", 0)], num_inference_steps=1)
    assert calls[0]["encoder_attention_mask"].shape[1] == 1 + plain.text_tokens("fast drums")


def test_long_prompts_are_cut_off(plain: AceStepV1Pipeline) -> None:
    assert plain.text_tokens("a song") == 3
    assert plain.text_tokens("a " * 300) == 256
    states, _ = plain._encode_text(["a " * 300])
    assert states.shape[1] == 256


# Folders


def test_what_is_saved_is_loaded_again(plain: AceStepV1Pipeline, tmp_path: Path) -> None:
    plain.save_pretrained(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == set(FOLDERS.values())
    again = load(tmp_path / "copy")
    clips = [("a slow song", "", 1), ("fast drums", "", 2)]
    first, second = (generate(pipeline, clips, output_type="audio") for pipeline in (plain, again))
    assert torch.equal(first, second)


def test_lyrics_need_a_vocabulary_and_instrumental_clips_do_not(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    shutil.rmtree(bare / "lyric_tokenizer")
    pipeline = load(bare)
    assert generate(pipeline, [("a song", "", 0)], num_inference_steps=1).isfinite().all()
    with pytest.raises(UserError, match=r"lyric_tokenizer/vocab\.json"):
        generate(pipeline, CLIPS, num_inference_steps=1)
    given = AceStepV1Pipeline.from_pretrained(
        bare, lyric_vocabulary=folder / "lyric_tokenizer" / "vocab.json"
    )
    assert given.lyric_ids("the") == load(folder).lyric_ids("the")


@pytest.mark.parametrize("missing", FOLDERS.values())
def test_a_missing_folder_is_one_sentence(folder: Path, tmp_path: Path, missing: str) -> None:
    partial = shutil.copytree(folder, tmp_path / "partial")
    shutil.rmtree(partial / missing)
    with pytest.raises(UserError, match=rf"lacks {missing}\. ") as error:
        AceStepV1Pipeline.from_pretrained(partial)
    assert "\n" not in str(error.value)


def test_weights_that_are_nowhere_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor in the hub cache") as error:
        AceStepV1Pipeline.from_pretrained(tmp_path / "nowhere")
    assert "\n" not in str(error.value)


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "The list of prompts is empty"),
        ({"lyrics": ["", ""]}, "Got 2 lyrics for 1 prompts"),
        ({"prompt": ["a", "b"], "lyrics": ["", "", ""]}, "Got 3 lyrics for 2 prompts"),
        ({"seeds": [1, 2]}, "Got 2 seeds for 1 prompts"),
        ({"audio_duration": 0.05}, r"at least 0\.09 s"),
        ({"audio_duration": 0.0}, "shorter than a latent frame"),
        ({"audio_duration": -1.0}, "shorter than a latent frame"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"scheduler": "dpm"}, "Unknown scheduler 'dpm'. Use one of euler, heun, pingpong"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    plain: AceStepV1Pipeline, calls: list[dict[str, Any]], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        plain(**({"prompt": "a song", "audio_duration": SECONDS} | arguments))
    assert "\n" not in str(error.value)
    assert not calls


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"cfg_type": "star"}, "Unknown guidance 'star'"), ({"interval": 1.5}, "from 0 to 1; got 1.5")],
)
def test_wrong_guidance_is_one_sentence(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Guidance(**wrong)


# Audio


def test_audio_is_48_khz_stereo_of_the_frames_and_each_row_its_own(plain: AceStepV1Pipeline) -> None:
    audio = generate(plain, CLIPS, output_type="audio")
    assert audio.shape == (3, 2, round(FRAMES * 8 * 512 * 48000 / 44100))
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1.01
    assert (audio.std(dim=-1) > 1e-3).all()
    for row, clip in enumerate(CLIPS):
        assert difference(audio[row : row + 1], generate(plain, [clip], output_type="audio")) < 1e-3
    assert difference(audio[0], audio[1]) > 0.1


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.1, 1), (0.5, 5), (10.0, 107), (30.0, 322), (40.96, 441), (240.0, 2583)]
)
def test_a_durations_last_part_of_a_frame_is_dropped(
    plain: AceStepV1Pipeline, seconds: float, frames: int
) -> None:
    assert plain.frames(seconds) == frames


def test_bfloat16_gives_finite_audio_of_nearly_the_same_latents(
    folder: Path, plain: AceStepV1Pipeline
) -> None:
    half = load(folder, torch.bfloat16)
    expected = generate(plain, CLIPS, guidance=Guidance(scale=1.0))
    latents = generate(half, CLIPS, guidance=Guidance(scale=1.0))
    assert latents.dtype == torch.bfloat16
    assert (latents - expected).std() < 0.1 * expected.std()
    audio = generate(half, CLIPS, output_type="audio")
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert (audio.std(dim=-1) > 1e-4).all()
    assert audio.abs().max() <= 1.01


# Offloading


def test_offloading_moves_each_model_before_it_is_used(
    folder: Path, plain: AceStepV1Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the CPU to the CPU: what is watched is which models lie on the device when one of their parts computes.

    Sending for a model sends the one before it in the sequence back.
    """
    pipeline = load(folder)
    names = {getattr(pipeline, name): name for name in FOLDERS}
    events: list[tuple[str, str]] = []
    move = accelerate.hooks.CpuOffload.pre_forward

    def recorded(hook: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        events.append(("moved", names[module]))
        return move(hook, module, *args, **kwargs)

    monkeypatch.setattr(accelerate.hooks.CpuOffload, "pre_forward", recorded)
    for model, name in names.items():
        for part in model.modules():
            if part is not model:
                part.register_forward_pre_hook(lambda *_, name=name: events.append(("used", name)))
    pipeline.enable_model_cpu_offload(device="cpu")
    audio = generate(pipeline, CLIPS, output_type="audio")
    assert {name for event, name in events if event == "used"} == set(FOLDERS)
    order, there = pipeline.model_cpu_offload_seq.split("->"), set[str]()
    for event, name in events:
        if event == "moved":
            there = (there | {name}) - {before for before, after in pairwise(order) if after == name}
        else:
            assert name in there, f"{name} computes where it does not lie"
            assert len(there - {"vocoder"}) == (name != "vocoder"), f"{there} take up memory together"
    assert_close(audio, generate(plain, CLIPS, output_type="audio"))
