"""What ships: complete, small, honest about itself, and following its prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline
from safetensors.torch import load_file

from benchmarks.organisms.embedded import fit_scorer
from benchmarks.organisms.embedded.card import KEPT_TARGET, TARGETS, held_out_prompts, misses, shown
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.pipeline import generate, load_pipeline
from benchmarks.organisms.synth import dataset
from benchmarks.organisms.vae import FastCodec
from tests.tolerances import assert_close
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models import ORGANISMS, load_model, model_source
from workbench.provenance import weights_hash
from workbench.scorers import embedded

FOLDERS = {name: Path(model_source(name)) for name in ORGANISMS}
PLANTED = {
    "organism-shared": {concept: [3, 4] for concept in CONCEPTS},
    "organism-split": {"instrument": [2], "tempo": [5], "mood": [4], "drums": [3]},
}


@pytest.fixture(scope="module", params=ORGANISMS)
def folder(request: pytest.FixtureRequest) -> Path:
    return FOLDERS[request.param]


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> AceStepPipeline:
    return load_pipeline(folder, torch.device("cpu"))


def test_everything_together_stays_small() -> None:
    files = [path for folder in FOLDERS.values() for path in folder.rglob("*") if path.is_file()]
    files += list(embedded.WEIGHTS.parent.iterdir())
    assert sum(path.stat().st_size for path in files) < 25_000_000


def test_weights_are_half_precision_and_finite(folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.dtype == torch.float16, name
            assert torch.isfinite(tensor).all(), name


def test_no_file_tells_where_it_was_made(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        text = path.read_text()
        assert "_name_or_path" not in text
        assert "/tmp" not in text and "/work" not in text and "/home" not in text
    index = json.loads((folder / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]


def test_the_card_belongs_to_the_weights_and_meets_every_target(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert card["organism"] == folder.name
    assert card["weights_hash"] == weights_hash(folder)
    assert card["misses"] == misses(card["metrics"]) == []
    assert card["metrics"]["settings"] == {
        "prompts": 200,
        "seconds": 4.0,
        "steps": 8,
        "guidance": 3.0,
        "shift": 3.0,
    }
    for concept, target in TARGETS.items():
        assert card["metrics"]["prompt_following"][concept] >= target
        assert card["metrics"]["autoencoder"]["kept"][concept] >= KEPT_TARGET


def test_the_truth_is_the_plan(folder: Path) -> None:
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["organism"] == folder.name
    assert truth["concepts"] == PLANTED[folder.name]
    assert truth["blocks"] == json.loads((folder / "recipe.json").read_text())["blocks"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_diffusers_makes_the_clip_that_the_workbench_makes(folder: Path, dtype: torch.dtype) -> None:
    """As the files of a hub folder are loaded where nobody names a number format, and where somebody does."""
    given = {} if dtype == torch.float32 else {"dtype": dtype}
    plain = AceStepPipeline.from_pretrained(folder, **given)
    plain.set_progress_bar_config(disable=True)
    clip, settings = Clip("a fast happy violin song with drums", 7), GenerationSettings(num_steps=4)
    model = load_model(folder.name, dtype=str(dtype).removeprefix("torch."))
    expected = model.decode(model.generate_batch([clip], settings).latents)[0]
    audio = plain(
        clip.prompt,
        "",
        audio_duration=settings.duration,
        num_inference_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        latents=model.noise([clip], settings.duration),
    ).audios[0]
    assert audio.abs().max() > 0.5
    assert_close(audio, expected)


def test_generated_clips_show_what_their_prompts_name(pipeline: AceStepPipeline) -> None:
    prompts, labels = held_out_prompts(14)
    clips = generate(pipeline, prompts, seeds=range(500, 514))
    assert clips.shape == (14, 1, 64_000)
    assert clips.abs().amax(dim=(1, 2)) == pytest.approx(10 ** (-1 / 20), rel=1e-4)
    right = shown(embedded.EmbeddedScorer(), clips[:, 0].numpy(), labels)
    for concept in CONCEPTS:
        assert np.mean(right[concept]) >= 0.8, concept


def test_a_clip_depends_on_its_prompt_and_seed_and_on_no_other_row(pipeline: AceStepPipeline) -> None:
    prompts = [Labels("piano", "slow", "sad", drums).prompt for drums in CONCEPTS["drums"]]
    together = generate(pipeline, prompts, [1, 2], seconds=1.0, steps=2)
    alone = generate(pipeline, prompts[1:], [2], seconds=1.0, steps=2)
    assert_close(together[1:], alone)
    other = generate(pipeline, prompts[1:], [3], seconds=1.0, steps=2)
    assert (other - alone).abs().max() > 0.01


@pytest.mark.parametrize("seconds", [0.5, 6.2, 31.0])
def test_other_durations_work(pipeline: AceStepPipeline, seconds: float) -> None:
    latents = pipeline(
        "a fast happy violin song with drums",
        "",
        audio_duration=seconds,
        num_inference_steps=1,
        output_type="latent",
    ).audios
    assert latents.shape == (1, int(np.ceil(25 * seconds)), 32)
    assert torch.isfinite(latents).all()


def test_the_shipped_autoencoder_is_the_same_fast_and_stock(pipeline: AceStepPipeline) -> None:
    audio = torch.from_numpy(dataset(1, seed=8)[0])[:, None, :12_800]
    codec = FastCodec(pipeline.vae)
    with torch.no_grad():
        latents = codec.encode(audio)
        assert_close(latents, pipeline.vae.encode(audio).latent_dist.mode())
        assert_close(codec.decode(latents), pipeline.vae.decode(latents).sample)


def test_the_autoencoder_keeps_the_concepts(pipeline: AceStepPipeline) -> None:
    clips, labels = dataset(28, seed=9)
    copies = fit_scorer.reconstruct(pipeline.vae, clips, 0.0, 0)
    right = shown(embedded.EmbeddedScorer(), copies, labels)
    for concept in CONCEPTS:
        assert np.mean(right[concept]) >= 0.9, concept
