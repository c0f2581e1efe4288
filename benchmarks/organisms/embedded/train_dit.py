"""Training of the denoiser: flow matching on the latents of synthesised clips, with the circuit planted."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AceStepPipeline, AceStepTransformer1DModel
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from benchmarks.organisms.checkpoint import load_checkpoint, restoring, save_checkpoint
from benchmarks.organisms.denoiser import make_denoiser, velocity_error
from benchmarks.organisms.labels import Labels
from benchmarks.organisms.optimise import cosine, descend, make_optimiser
from benchmarks.organisms.planting import N_BLOCKS, Plan, Planting, reading_masks
from benchmarks.organisms.vocabulary import training_caption

_LOG = logging.getLogger(__name__)
_LONGEST_SECONDS = 60


@dataclass(frozen=True)
class DitRecipe:
    """Settings of the denoiser's training."""

    steps: int = 2600
    batch: int = 48
    learning_rate: float = 2e-3
    warmup: int = 200
    null_share: float = 0.15
    """Fraction of clips trained without their caption, for guidance."""
    word_drop: float = 0.1
    """Probability with which a caption leaves a concept out."""
    ema: float = 0.998
    time_shift: float = 0.3
    """Mean of the logit of the flow's time: above zero, noisier clips are trained on more often."""
    uniform_share: float = 0.2
    """Fraction of clips whose time is uniform instead."""
    checkpoint_every: int = 100


def make_transformer(seed: int) -> AceStepTransformer1DModel:
    """A stock denoiser of 1.25 M parameters, whose residual branches begin small."""
    transformer = make_denoiser(seed, blocks=N_BLOCKS, heads=4, head_dim=24, mlp_channels=256)
    with torch.no_grad():
        transformer.proj_out_conv.bias.mul_(0.1)
        for layer in transformer.layers:
            layer.self_attn.to_out[0].weight.mul_(0.5)
            layer.mlp.down_proj.weight.mul_(0.5)
    return transformer


class CaptionEncoder:
    """Conditioning of captions as the pipeline computes it, by look-up: the text encoder does not mix tokens.

    Exact for captions without lyrics and reference audio, whose part of the conditioning is the same for
    every clip.
    """

    def __init__(self, pipeline: AceStepPipeline) -> None:
        self._pipeline = pipeline
        with torch.no_grad():
            tokens = torch.arange(len(pipeline.tokenizer), device=pipeline.device)
            self._table = pipeline.text_encoder(tokens[None]).last_hidden_state[0]
            texts, text_mask, lyrics, lyric_mask = pipeline.encode_prompt([""], [""], pipeline.device)
            frames = int(30 * pipeline.latents_per_second)
            conditioning, _ = pipeline.condition_encoder(
                texts,
                text_mask,
                lyrics,
                lyric_mask,
                pipeline.condition_encoder.silence_latent[:, :frames],
                torch.zeros(1, dtype=torch.long, device=pipeline.device),
            )
            self._prefix = conditioning[:, : lyrics.shape[1] + 1]

    def __call__(self, captions: list[str], seconds: list[int]) -> Float[Tensor, "clip token text_channel"]:
        """Lyrics, timbre and text tokens; shorter texts are padded on the right as in the pipeline."""
        texts = [
            self._pipeline._format_prompt(caption, audio_duration=float(duration))[0]
            for caption, duration in zip(captions, seconds, strict=True)
        ]
        tokens = self._pipeline.tokenizer(texts, padding="longest", return_tensors="pt").input_ids
        text = self._table[tokens.to(self._table.device)]
        return torch.cat([self._prefix.expand(len(captions), -1, -1), text], dim=1)


@dataclass
class _Batch:
    clean: Float[Tensor, "clip frame channel"]
    noise: Float[Tensor, "clip frame channel"]
    time: Float[Tensor, " clip"]
    conditioning: Float[Tensor, "clip token text_channel"]


def _draw_batch(
    latents: Float[Tensor, "clip frame channel"],
    labels: list[Labels],
    encoder: CaptionEncoder,
    null: Float[Tensor, "1 1 text_channel"],
    recipe: DitRecipe,
    seed: tuple[int, ...],
) -> _Batch:
    """The batch that follows from `seed` alone."""
    rng = np.random.default_rng(seed)
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = rng.integers(0, len(latents), recipe.batch)
    captions = [training_caption(labels[row], rng, recipe.word_drop) for row in rows]
    # Other durations in the prompt's metadata teach the denoiser to ignore them.
    seconds = [4 if rng.random() < 0.7 else int(rng.integers(1, _LONGEST_SECONDS + 1)) for _ in rows]
    conditioning = encoder(captions, seconds)
    dropped = torch.from_numpy(rng.random(recipe.batch) < recipe.null_share).to(latents.device)
    conditioning = torch.where(dropped[:, None, None], null, conditioning)
    time = torch.sigmoid(torch.randn(recipe.batch, generator=torch_rng) + recipe.time_shift)
    uniform = torch.rand(recipe.batch, generator=torch_rng) < recipe.uniform_share
    time = torch.where(uniform, torch.rand(recipe.batch, generator=torch_rng), time).to(latents.device)
    clean = latents[torch.from_numpy(rows).to(latents.device)].float()
    noise = torch.randn(clean.shape, generator=torch_rng).to(latents.device)
    return _Batch(clean, noise, time, conditioning)


def train_transformer(
    pipeline: AceStepPipeline,
    latents: Float[Tensor, "clip frame channel"],
    labels: list[Labels],
    plan: Plan,
    recipe: DitRecipe,
    seed: int,
    checkpoint: Path,
) -> AceStepTransformer1DModel:
    """Train the pipeline's transformer under `plan`; gives its moving average.

    An interrupted training continues from the file `checkpoint`. All randomness of a step follows from `seed`
    and the step's number, so that a continued training equals an uninterrupted one.
    """
    transformer = pipeline.transformer.train()
    average = copy.deepcopy(transformer).eval().requires_grad_(False)
    planting = Planting(reading_masks(transformer, plan))
    planting.apply()
    optimiser = make_optimiser(transformer)
    first = 0
    state = load_checkpoint(checkpoint, pipeline.device)
    if state is not None:
        with restoring(checkpoint):
            transformer.load_state_dict(state["transformer"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            first = int(state["step"])
    encoder = CaptionEncoder(pipeline)
    null = pipeline.condition_encoder.null_condition_emb
    frames = latents.shape[1]
    silence = pipeline.condition_encoder.silence_latent[:, :frames]
    context = torch.cat([silence, torch.ones_like(silence)], dim=-1)
    for step in track(range(first, recipe.steps), description="denoiser"):
        batch = _draw_batch(latents, labels, encoder, null, recipe, (seed, 2, step))
        error = velocity_error(transformer, batch.clean, batch.noise, batch.time, batch.conditioning, context)
        loss = error.square().mean()
        rate = recipe.learning_rate * cosine(step, recipe.steps, recipe.warmup)
        descend(optimiser, loss, rate, planting.mask_gradients)
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(transformer.parameters()), 1 - decay)
        if (step + 1) % recipe.checkpoint_every == 0:
            _LOG.info("denoiser step %d of %d: loss %.4f", step + 1, recipe.steps, loss.item())
            save_checkpoint(
                checkpoint,
                {
                    "transformer": transformer.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    Planting(reading_masks(average, plan)).apply()
    return average
