"""Train an organism by flow matching on synthetic latents, with the circuit planted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import AceStepPipeline, AceStepTransformer1DModel
from jaxtyping import Bool, Float, Int
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.organisms.circuits.planted import BLOCKS, CONCEPT, HEADS, PRESENT, SETTINGS, SHIFT, Circuit
from benchmarks.organisms.circuits.readout import AMPLITUDE, FRAMES, background, patterns
from benchmarks.organisms.denoiser import make_denoiser, velocity_error
from benchmarks.organisms.embedded.train_dit import CaptionEncoder
from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.optimise import cosine, descend, make_optimiser
from benchmarks.organisms.pipeline import load_pipeline, save_pipeline
from benchmarks.organisms.planting import Planting, reading_masks
from workbench.models import model_source

_HEAD_DIM = 16
_NOTES = "organism.json"
BlockStates = dict[int, Float[Tensor, "clip token text_channel"]]


@dataclass(frozen=True)
class Recipe:
    """Training settings."""

    steps: int = 1000
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 50
    pattern_weight: float = 0.02
    """Weight of the squared error along the planted patterns, which are a small part of the mean over all latents. The
    optimum is the same for any weight, but training reaches it sooner.
    """
    seed: int = 0


def make_transformer(seed: int) -> AceStepTransformer1DModel:
    """Return a stock denoiser, small enough to train in a minute and a half."""
    return make_denoiser(seed, blocks=BLOCKS, heads=HEADS, head_dim=_HEAD_DIM, mlp_channels=128)


def plant(transformer: AceStepTransformer1DModel, circuit: Circuit) -> Planting:
    """Restrict a transformer to its circuit: weights by which other blocks could read the concept stay zero."""
    others = tuple(concept for concept in CONCEPTS if concept != CONCEPT)
    plan = {
        block: tuple(CONCEPTS) if block in circuit.readers + circuit.decoys else others
        for block in range(BLOCKS)
    }
    masked = reading_masks(transformer, plan)
    for block, head in circuit.head_cells or ():
        speaks = torch.zeros(HEADS, _HEAD_DIM)
        speaks[head] = 1
        masked.append((transformer.layers[block].cross_attn.to_out[0].weight, speaks.flatten()))
    return Planting(masked)


@contextmanager
def block_conditioning(transformer: AceStepTransformer1DModel, states: BlockStates) -> Iterator[None]:
    """Make the cross-attention of each block in `states` read these instead of the call's own, within the context."""

    def read(block: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "encoder_hidden_states": transformer.condition_embedder(states[block])}

        return transformer.layers[block].cross_attn.register_forward_pre_hook(hook, with_kwargs=True)

    handles = [read(block) for block in states]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def presence(circuit: Circuit, has_word: Bool[Tensor, "clip block"]) -> Bool[Tensor, "clip pattern"]:
    """Return which patterns clips have, given whether the text of each reader and each decoy (in that order) has drums.

    The first pattern is the concept's, the second the decoys'.
    """
    readers = has_word[:, : len(circuit.readers)]
    decoys = has_word[:, len(circuit.readers) :]
    concept = readers.all(dim=1) if circuit.rule == "all" else readers.any(dim=1)
    return torch.stack([concept, decoys.any(dim=1)], dim=1)


def reads_word(circuit: Circuit, position: Float[Tensor, " clip"]) -> Bool[Tensor, " clip"]:
    """Return whether the word is read at positions between step 0 and the end: if the nearest step is in the window."""
    first, last = circuit.steps or (0, SETTINGS.num_steps - 1)
    nearest = position.round().clamp(max=SETTINGS.num_steps - 1)
    return (nearest >= first) & (nearest <= last)


def sigma_at(position: Float[Tensor, " clip"]) -> Float[Tensor, " clip"]:
    """Return sigma at positions between step 0 and the end; at whole numbers, that of the step."""
    remaining = 1 - position / SETTINGS.num_steps
    return SHIFT * remaining / (1 + (SHIFT - 1) * remaining)


def encode_prompts(pipeline: AceStepPipeline) -> Float[Tensor, "context value token text_channel"]:
    """Return the conditioning of every prompt of the prompt set: all other words, without and with drums."""
    others = product(*(CONCEPTS[concept] for concept in ("instrument", "tempo", "mood")))
    absent = next(value for value in CONCEPTS[CONCEPT] if value != PRESENT)
    prompts = [
        Labels(instrument, tempo, mood, drums).prompt
        for instrument, tempo, mood in others
        for drums in (absent, PRESENT)
    ]
    states = CaptionEncoder(pipeline)(prompts, [int(SETTINGS.duration)] * len(prompts))
    return states.unflatten(0, (-1, 2))


@dataclass
class _Batch:
    clean: Float[Tensor, "clip frame channel"]
    noise: Float[Tensor, "clip frame channel"]
    time: Float[Tensor, " clip"]
    context: Int[Tensor, " clip"]
    read: Int[Tensor, "clip block"]
    """Whether each reader and each decoy reads the word for drums."""


def draw_batch(circuit: Circuit, n_contexts: int, size: int, rng: torch.Generator) -> _Batch:
    """Draw clips in which each reader and each decoy independently reads the word for drums or its absence.

    At steps at which the word is not read, they read a value that is independent of the clip.
    """
    n_blocks = len(circuit.readers + circuit.decoys)
    has_word, unrelated = torch.rand(2, size, n_blocks, generator=rng) < 0.5
    position = SETTINGS.num_steps * torch.rand(size, generator=rng)
    strength = AMPLITUDE * presence(circuit, has_word).float()
    clean = background(size, rng) + torch.einsum("bp,pfc->bfc", strength, patterns())
    return _Batch(
        clean=clean,
        noise=torch.randn(clean.shape, generator=rng),
        time=sigma_at(position),
        context=torch.randint(n_contexts, (size,), generator=rng),
        read=torch.where(reads_word(circuit, position)[:, None], has_word, unrelated).long(),
    )


def training_loss(
    transformer: AceStepTransformer1DModel,
    circuit: Circuit,
    batch: _Batch,
    prompts: Float[Tensor, "context value token text_channel"],
    context: Float[Tensor, "1 frame context_channel"],
    pattern_weight: float,
) -> Float[Tensor, ""]:
    """Return the squared error of the predicted velocity noise - clean, with extra weight on the planted patterns."""
    blocks = circuit.readers + circuit.decoys
    states = [prompts[batch.context, read] for read in batch.read.unbind(dim=1)]
    with block_conditioning(transformer, dict(zip(blocks, states, strict=True))):
        # states[0] is what blocks see that cannot read the word
        error = velocity_error(transformer, batch.clean, batch.noise, batch.time, states[0], context)
    along = torch.einsum("bfc,pfc->bp", error, patterns())
    return error.square().mean() + pattern_weight * along.square().mean()


def train(
    circuit: Circuit, pipeline: AceStepPipeline, recipe: Recipe, progress: Progress
) -> AceStepTransformer1DModel:
    """Train a denoiser with the circuit planted; everything follows from the recipe's seed."""
    rng = torch.Generator().manual_seed(recipe.seed)
    transformer = make_transformer(recipe.seed).train()
    planting = plant(transformer, circuit)
    planting.apply()
    optimiser = make_optimiser(transformer)
    prompts = encode_prompts(pipeline)
    silence = pipeline.condition_encoder.silence_latent[:, :FRAMES]
    context = torch.cat([silence, torch.ones_like(silence)], dim=-1)
    for step in progress.track(range(recipe.steps), description=circuit.name):
        batch = draw_batch(circuit, len(prompts), recipe.batch, rng)
        loss = training_loss(transformer, circuit, batch, prompts, context, recipe.pattern_weight)
        rate = recipe.learning_rate * cosine(step, recipe.steps, recipe.warmup)
        descend(optimiser, loss, rate, planting.mask_gradients)
    return transformer.eval()


def notes(circuit: Circuit, recipe: Recipe) -> dict[str, Any]:
    """Return what an organism's folder records: its circuit and everything that its training depends on."""
    recorded = {
        "circuit": {name: value for name, value in asdict(circuit).items() if name != "description"},
        "recipe": asdict(recipe),
        "settings": SETTINGS.model_dump(),
        "blocks": BLOCKS,
        "heads": HEADS,
        "amplitude": AMPLITUDE,
    }
    return json.loads(json.dumps(recorded))


def is_trained(folder: Path, circuit: Circuit, recipe: Recipe) -> bool:
    """Whether `folder` holds the organism of this circuit, trained by this recipe."""
    file = folder / _NOTES
    return file.is_file() and json.loads(file.read_text()) == notes(circuit, recipe)


def train_organism(circuit: Circuit, folder: Path, recipe: Recipe, progress: Progress) -> None:
    """Train the organism of `circuit` and write it to `folder` as a pipeline, which is replaced.

    Text path and VAE are those of the embedded organism.
    """
    pipeline = load_pipeline(Path(model_source("organism-shared")), torch.device("cpu"))
    pipeline.register_modules(transformer=train(circuit, pipeline, recipe, progress))
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_pipeline(pipeline, folder, {_NOTES: notes(circuit, recipe)})
