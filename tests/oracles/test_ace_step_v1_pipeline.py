"""Whole generations of ACE-Step v1 against the original's: text, lyrics, passes, guidance and schedule together.

The original ran elsewhere (see README.md) with the networks and the settings of `pipeline.json`, weights drawn alike on
both sides by `recipe.fill`; `pipeline.npz` keeps some channels and bands of the final latents, and text states.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from diffusers import AutoencoderDC
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tests.oracles.recipe import fill
from tests.tiny_ace_step_v1_audio import TINY_DCAE, tiny_vocoder
from tests.tolerances import assert_close
from tests.wide_umt5 import widen
from workbench.models.ace_step_v1 import pipeline as pipeline_module
from workbench.models.ace_step_v1.pipeline import AceStepV1Pipeline, Guidance, _weak_queries
from workbench.models.ace_step_v1.transformer import AceStepV1Transformer

FIXTURES = Path(__file__).parent / "fixtures" / "ace_step_v1"
DESCRIPTION = json.loads((FIXTURES / "pipeline.json").read_text())
DEFAULTS, SETTINGS = DESCRIPTION["defaults"], DESCRIPTION["settings"]
WORDS = ["<pad>", "</s>", "<unk>", *DESCRIPTION["words"]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest difference, as a part of the largest value."""
KEPT = (slice(None), slice(None, None, 2), slice(None, None, 5))
"""Rows, channels and bands of the latents that the fixture has, at every frame."""


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """What the original gave, by `<dtype>.<setting>`."""
    with np.load(FIXTURES / "pipeline.npz") as file:
        return dict(file)


def build(dtype: torch.dtype) -> AceStepV1Pipeline:
    """The described networks; lyrics are names of lists of token numbers."""
    transformer = AceStepV1Transformer(**DESCRIPTION["transformer"])
    text_encoder = UMT5EncoderModel(
        UMT5Config(**DESCRIPTION["text_encoder"], tie_word_embeddings=False)
    ).eval()
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    pipeline = AceStepV1Pipeline(
        transformer,
        text_encoder,
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
        ),
        AutoencoderDC(**TINY_DCAE),
        tiny_vocoder(),
    ).to(dtype)
    # Drawn in `dtype`: weights rounded to float32 on the way would differ from the original's.
    fill(transformer, 0)
    fill(text_encoder, 1)
    if dtype == torch.float64:
        widen(text_encoder)
    pipeline.lyric_ids = DESCRIPTION["lyrics"].__getitem__
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipelines() -> dict[torch.dtype, AceStepV1Pipeline]:
    """The pipeline in float64 and in float32."""
    return {dtype: build(dtype) for dtype in TOLERANCE}


@pytest.fixture(autouse=True)
def originals_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise that the original started from: torch rounds its float32 normals as its processor's vectors do."""
    draw = pipeline_module._noise
    with np.load(FIXTURES / "noise.npz") as file:
        kept = {name: torch.from_numpy(noise) for name, noise in file.items()}

    def same(shape: tuple[int, ...], generators: list[torch.Generator]) -> torch.Tensor:
        drawn = draw(shape, generators)  # also moves the generators on, from which ping-pong draws more
        noise = torch.stack([kept[f"{generator.initial_seed()}.{shape[-1]}"] for generator in generators])
        assert_close(drawn, noise)
        return noise

    monkeypatch.setattr(pipeline_module, "_noise", same)


def run(pipeline: AceStepV1Pipeline, *changes: dict[str, Any]) -> np.ndarray:
    """Latents of one call with the prompts of several settings, which differ in nothing else."""
    settings = [DEFAULTS | change for change in changes]
    given = settings[0]
    prompts = [setting["prompt"] for setting in settings for _ in setting["seeds"]]
    lyrics = [setting["lyrics"] for setting in settings for _ in setting["seeds"]]
    seeds = [seed for setting in settings for seed in setting["seeds"]]
    guidance = Guidance(**given["guidance"])
    rest = {name: given[name] for name in given.keys() - {"prompt", "lyrics", "seeds", "guidance"}}
    latents = pipeline(prompts, lyrics, seeds=seeds, guidance=guidance, output_type="latent", **rest).audios
    return latents.numpy()


def check(found: np.ndarray, expected: np.ndarray, dtype: torch.dtype) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < TOLERANCE[dtype], difference


@pytest.mark.parametrize("name", SETTINGS)
def test_clips_are_the_originals(
    name: str, pipelines: dict[torch.dtype, AceStepV1Pipeline], theirs: dict[str, np.ndarray]
) -> None:
    found = run(pipelines[torch.float64], SETTINGS[name])
    check(found[KEPT], theirs[f"float64.{name}"], torch.float64)


@pytest.mark.parametrize("name", DESCRIPTION["float32"])
def test_clips_are_the_originals_in_float32(
    name: str, pipelines: dict[torch.dtype, AceStepV1Pipeline], theirs: dict[str, np.ndarray]
) -> None:
    found = run(pipelines[torch.float32], SETTINGS[name])
    check(found[KEPT], theirs[f"float32.{name}"], torch.float32)


def test_a_batch_of_different_texts_has_the_originals_single_clips(
    pipelines: dict[torch.dtype, AceStepV1Pipeline], theirs: dict[str, np.ndarray]
) -> None:
    """Prompts of 6, 3 and 6 tokens with lyrics of 5, 3 and none: the original, which pads nothing, ran each alone."""
    names = ("apg", "other_prompt", "instrumental")
    found = run(pipelines[torch.float64], *(SETTINGS[name] for name in names))[KEPT]
    check(found, np.concatenate([theirs[f"float64.{name}"] for name in names]), torch.float64)


def test_text_states_are_the_originals(
    pipelines: dict[torch.dtype, AceStepV1Pipeline], theirs: dict[str, np.ndarray]
) -> None:
    pipeline = pipelines[torch.float64]
    with torch.no_grad():
        plain, mask = pipeline._encode_text([DEFAULTS["prompt"]])
        with _weak_queries(pipeline.text_encoder):
            weak, _ = pipeline._encode_text([DEFAULTS["prompt"]])
        again, _ = pipeline._encode_text([DEFAULTS["prompt"]])
    assert mask.all()
    check(plain.numpy(), theirs["text"], torch.float64)
    check(weak.numpy(), theirs["weak_text"], torch.float64)
    assert torch.equal(again, plain)
    assert np.abs(theirs["text"] - theirs["weak_text"]).max() > 0.01


def test_the_settings_are_not_trivial(theirs: dict[str, np.ndarray]) -> None:
    """Every setting gives a clip of its own (but two that differ in what is without effect), so that each is seen."""
    assert {name.removeprefix("float64.") for name in theirs if name.startswith("float64.")} == set(SETTINGS)
    assert {name.removeprefix("float32.") for name in theirs if name.startswith("float32.")} == set(
        DESCRIPTION["float32"]
    )
    alone = {
        name: theirs[f"float64.{name}"]
        for name in SETTINGS
        if theirs[f"float64.{name}"].shape == (1, 4, 4, 6)
    }
    assert np.array_equal(alone.pop("not_double"), alone["apg"])
    for one, other in combinations(alone, 2):
        assert np.abs(alone[one] - alone[other]).max() > 1e-3, (one, other)
