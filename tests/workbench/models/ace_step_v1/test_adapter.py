"""The adapter of ACE-Step v1: its passes, segments, lyrics and rotary positions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cache.errors import UserError
from tests.edited import edited
from tests.tolerances import assert_close
from tests.workbench.models.ace_step_v1.tiny_lyrics import write_vocabulary
from tests.workbench.models.architectures import ace_step_v1
from workbench.engine.edits import Run, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step_v1.adapter import AceStepV1, CallOfAceStepV1, latents_by_frame
from workbench.models.ace_step_v1.lyrics import LyricTokenizer

SHORT = Clip("a slow song", 1)
LONG = Clip("a fast happy violin song with drums", 2)
BOTH = ("tf0.cross_attn", "tf1.cross_attn")


def settings(
    num_steps: int = 4, guidance_scale: float = 5.0, **options: bool | int | float | str
) -> GenerationSettings:
    return GenerationSettings(
        duration=1.0, num_steps=num_steps, guidance_scale=guidance_scale, options=options
    )


@pytest.fixture
def sung(tiny_v1_64: AceStepV1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AceStepV1:
    """The model with a vocabulary for lyrics."""
    tokenizer = LyricTokenizer(write_vocabulary(tmp_path / "vocab.json"))
    monkeypatch.setattr(tiny_v1_64.pipeline, "lyric_tokenizer", tokenizer)
    return tiny_v1_64


@pytest.mark.parametrize(
    ("chosen", "passes"),
    [
        (settings(guidance_interval=1.0), [("cond", "null")] * 4),
        (settings(), [("cond",), ("cond", "null"), ("cond", "null"), ("cond",)]),
        (settings(guidance_scale=1.0), [("cond",)] * 4),
        (
            settings(guidance_scale_text=6.0, guidance_scale_lyric=2.0),
            [("cond",), ("cond", "text", "null"), ("cond", "text", "null"), ("cond",)],
        ),
        (
            settings(guidance_scale_text=6.0, guidance_scale_lyric=1.0, guidance_interval=1.0),
            [("cond", "null")] * 4,
        ),
    ],
)
def test_guidance_acts_in_the_middle_and_may_have_a_pass_for_the_text(
    tiny_v1: AceStepV1, chosen: GenerationSettings, passes: list[tuple[str, ...]]
) -> None:
    assert tiny_v1.step_passes(chosen) == passes
    assert tiny_v1.passes(chosen) == max(passes, key=len)


def test_sigmas_are_shifted_twice_as_published(tiny_v1: AceStepV1) -> None:
    last = 3 * 0.001 / (1 + 2 * 0.001)
    even = torch.linspace(1, last, 5, dtype=torch.float64)
    assert tiny_v1.sigmas(settings(5)) == pytest.approx((3 * even / (1 + 2 * even)).tolist(), rel=1e-5)


def test_batch_rows_equal_single_runs(sung: AceStepV1) -> None:
    clips = [SHORT, LONG, Clip("a song", 3, "oh the end"), Clip("a sad flute song", 3, "ah")]
    chosen = settings(guidance_scale_text=3.0, guidance_scale_lyric=2.0)
    together = sung.generate_batch(clips, chosen).latents
    alone = torch.cat([sung.generate_batch([clip], chosen).latents for clip in clips])
    assert_close(together, alone)


def test_segments_cover_the_conditioning(sung: AceStepV1) -> None:
    assert sung.segments(SHORT, settings()) == {"speaker": (0, 1), "text": (1, 5), "lyrics": (5, 5)}
    n_lyrics = len(sung.pipeline.lyric_ids("oh"))
    clip = Clip("a slow song", 1, "oh")
    assert sung.segments(clip, settings())["lyrics"] == (5, 5 + n_lyrics)
    assert sung.conditioning(clip, settings()).words == (("a", 1, 2), ("slow", 2, 3), ("song", 3, 4))


def test_lyrics_of_a_batch_begin_at_one_token(sung: AceStepV1) -> None:
    clips = [Clip(SHORT.prompt, 1, "oh"), Clip(LONG.prompt, 1, "the end")]
    first, second = sung.conditionings(clips, settings())
    assert first.segments["text"] == second.segments["text"] == (1, 9)
    assert first.segments["lyrics"][0] == second.segments["lyrics"][0] == 9


def sung_pair() -> list[Clip]:
    """Prompts of different length, so that the same lyrics lie at different rotary positions."""
    return [Clip(SHORT.prompt, 7, "oh the end"), Clip(LONG.prompt, 7, "oh the end")]


@pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])
def test_keys_are_patched_with_their_rotary_positions(
    sung: AceStepV1, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sung_pair()
    run = Run(clips[base], (patch(BOTH, clips[1 - base]),))

    def patched() -> torch.Tensor:
        return sung.generate_batch([*clips, run], settings()).latents

    latents = patched()
    assert_close(latents[2], latents[1 - base])
    monkeypatch.setattr(CallOfAceStepV1, "move_positions", lambda self, block, moves: None)
    staying = patched()
    assert (staying[2] - staying[1 - base]).abs().max() > 1e-6, "keys alone are not the other prompt's"


def moved_table(moves: list[tuple[int, int, tuple[int, ...] | None]]) -> list[list[int]]:
    """The rotary table that three rows of five tokens get; a value is a row's number and the token's, 10 and 1 each."""
    table = 10.0 * torch.arange(3)[:, None, None] + torch.arange(5.0)[:, None].expand(5, 2)
    attention = SimpleNamespace(inputs=((), {"encoder_rotary": (table, table), "rotary": "stays"}))
    blocks = [None, SimpleNamespace(cross_attn=attention)]
    call = CallOfAceStepV1(SimpleNamespace(transformer_blocks=blocks, rope_theta=1.0))
    call._stored_positions = torch.zeros(0, 5, dtype=torch.int64)  # no row is read that is not computed
    call.move_positions(1, moves)
    cos, sin = attention.inputs[1]["encoder_rotary"]
    assert torch.equal(cos, sin)
    assert attention.inputs[1]["rotary"] == "stays"
    assert torch.equal(table[:, :, 0], 10.0 * torch.arange(3)[:, None] + torch.arange(5.0)), (
        "others share the table"
    )
    return cos[:, :, 0].int().tolist()


def test_moved_positions_are_the_sources_at_these_tokens_and_no_others() -> None:
    own = [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14], [20, 21, 22, 23, 24]]
    assert moved_table([(2, 0, None)]) == [own[0], own[1], own[0]]
    assert moved_table([(2, 0, (1, 2))]) == [own[0], own[1], [20, 1, 2, 23, 24]]
    assert moved_table([(0, 1, (4,)), (1, 0, (0,))]) == [[0, 1, 2, 3, 14], [0, 11, 12, 13, 14], own[2]]


@pytest.mark.parametrize("segment", ["speaker", "text", "lyrics"])
def test_a_segment_moves_its_own_tokens(
    sung: AceStepV1, segment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, moves = sung_pair(), []

    def record(self: CallOfAceStepV1, block: int, given: list[tuple[int, int, tuple[int, ...]]]) -> None:
        moves.extend((block, row != source, tokens) for row, source, tokens in given)

    monkeypatch.setattr(CallOfAceStepV1, "move_positions", record)
    edit = patch(BOTH, clips[0], segments=(segment,), passes=("cond",))
    sung.generate_batch([*clips, Run(clips[1], (edit,))], settings())
    spans = {
        "speaker": [0],
        "text": range(1, 9),
        "lyrics": range(9, 9 + len(sung.pipeline.lyric_ids("oh the end"))),
    }
    assert set(moves) == {(block, True, tuple(spans[segment])) for block in (0, 1)}


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])
def test_a_patch_is_an_exchange_of_states_mask_and_rotary_table(
    sung: AceStepV1, base: int, block: int
) -> None:
    """The definition of TADA's reference, done to the untraced pipeline with a hook."""
    clips, chosen = sung_pair(), settings(guidance_scale_text=3.0, guidance_scale_lyric=2.0)
    exchanged = ("encoder_hidden_states", "encoder_attention_mask", "encoder_rotary")

    def exchange(module: torch.nn.Module, args: tuple, given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """In every pass the base run reads what the other one reads."""
        rows = torch.arange(len(given["hidden_states"]))
        rows[base::2] = rows[1 - base :: 2]
        take = {name: given[name] for name in exchanged}
        take["encoder_rotary"] = tuple(table[rows] for table in given["encoder_rotary"])
        return args, {**given, **{k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in take.items()}}

    attention = sung.pipeline.transformer.transformer_blocks[block].cross_attn
    hook = attention.register_forward_pre_hook(exchange, with_kwargs=True)
    exchanged_run = latents_by_frame(ace_step_v1(sung, clips, chosen, output_type="latent"))[base]
    hook.remove()
    run = Run(clips[base], (patch(f"tf{block}.cross_attn", clips[1 - base]),))
    patched = sung.generate_batch([*clips, run], chosen).latents
    assert_close(patched[2], exchanged_run)
    assert (patched[2] - patched[base]).abs().max() > 1e-6


@pytest.mark.parametrize("base", [0, 1], ids=["necessity", "sufficiency"])
def test_segments_together_are_the_whole(sung: AceStepV1, base: int) -> None:
    clips = sung_pair()
    arms = [
        [patch(BOTH, "other", segments=(name,)) for name in names]
        for names in (("text",), ("lyrics",), ("speaker", "text", "lyrics"))
    ]
    runs = [edited(clips[base], edits, clips[1 - base]) for edits in arms]
    latents = sung.generate_batch([*clips, *runs], settings()).latents
    assert_close(latents[4], latents[1 - base])
    for arm in (2, 3):
        assert (latents[arm] - latents[base]).abs().max() > 1e-6
        assert (latents[arm] - latents[1 - base]).abs().max() > 1e-6


def test_a_text_pass_is_patched_by_name(tiny_v1_64: AceStepV1) -> None:
    chosen = settings(guidance_scale_text=6.0, guidance_scale_lyric=2.0, guidance_interval=1.0)
    clean, corrupt = Clip(SHORT.prompt, 7), Clip(LONG.prompt, 7)
    each = {name: patch(BOTH, clean, passes=(name,)) for name in ("cond", "text", "null")}
    runs = [clean, corrupt, Run(corrupt, tuple(each.values())), Run(corrupt, (each["text"],))]
    latents = tiny_v1_64.generate_batch(runs, chosen).latents
    assert_close(latents[2], latents[0], "all passes")
    assert (latents[3] - latents[1]).abs().max() > 1e-6
    assert (latents[3] - latents[0]).abs().max() > 1e-6


@pytest.mark.parametrize(("seconds", "tokens"), [(30.0, 322), (10.0, 107), (240.0, 2583)])
def test_tokens_are_the_published_pipelines(tiny_v1: AceStepV1, seconds: float, tokens: int) -> None:
    assert tiny_v1.tokens(seconds) == tokens


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (settings(cfg_type="star"), "ACE-Step v1.* cfg_type must be"),
        (settings(guidance_interval=0.0), "guidance_interval must be above 0"),
        (settings(scheduler="heun"), "scheduler must be"),
        (settings(cfg_interval_start=0.1), "no option cfg_interval_start.*guidance_interval"),
        (settings().model_copy(update={"duration": 0.05}), "shorter than a latent frame"),
    ],
)
def test_bad_settings_get_one_clear_sentence(
    tiny_v1: AceStepV1, chosen: GenerationSettings, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        tiny_v1.generate_batch([SHORT], chosen)


def test_edits_need_rows_that_do_not_mix(tiny_v1: AceStepV1) -> None:
    patched = Run(LONG, (patch(BOTH, SHORT),))
    with pytest.raises(UserError, match="omega_reduction=sample"):
        tiny_v1.generate_batch([SHORT, patched], settings(omega_reduction="batch"))


def test_lyrics_without_their_vocabulary_say_where_to_get_it(tiny_v1: AceStepV1) -> None:
    with pytest.raises(UserError, match=r"lyric vocabulary.*vocab\.json"):
        tiny_v1.generate_batch([Clip("a song", 1, "oh")], settings())
