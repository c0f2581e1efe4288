"""Evaluate an organism and write its card: its recipe, and how well it follows its prompts."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from jaxtyping import Float
from pydantic import BaseModel

from benchmarks.organisms.embedded.fit_scorer import reconstruct
from benchmarks.organisms.labels import CONCEPTS, Labels, draw_labels
from benchmarks.organisms.pipeline import generate, load_pipeline
from benchmarks.organisms.synth import SAMPLE_RATE, dataset
from benchmarks.organisms.vocabulary import HELD_OUT_CAPTIONS, caption
from cache.errors import UserError
from workbench.documents import read_document
from workbench.provenance import weights_hash
from workbench.scorers.embedded import EmbeddedScorer

TARGETS = {"instrument": 0.95, "tempo": 0.90, "mood": 0.95, "drums": 0.95}
"""Fraction of generated clips that must show the value that their prompt names."""
KEPT_TARGET = 0.95
"""Fraction of the scorer's accuracy on raw audio that must remain after the autoencoder."""

_LARGEST_NOTE = 2**24
_EVALUATION_SEED = 3_000_000  # of labels, captions and noise: no training uses it


@dataclass(frozen=True)
class Evaluation:
    """Settings of the evaluation; half of its `prompts` are canonical, half have forms held out of training."""

    prompts: int = 200
    seconds: float = 4.0
    steps: int = 8
    guidance: float = 3.0
    shift: float = 3.0


def held_out_prompts(count: int) -> tuple[list[str], list[Labels]]:
    """Return prompts and their labels; even ones are canonical, odd ones have forms held out of training."""
    rng = np.random.default_rng(_EVALUATION_SEED)
    labels = [draw_labels(rng) for _ in range(count)]
    prompts = [
        label.prompt if number % 2 == 0 else caption(label, rng, forms=HELD_OUT_CAPTIONS)
        for number, label in enumerate(labels)
    ]
    return prompts, labels


def shown(
    scorer: EmbeddedScorer, clips: Float[np.ndarray, "clip sample"], labels: list[Labels]
) -> dict[str, list[bool]]:
    """Return, by concept, whether each clip's most probable value is that of its label."""
    predicted = scorer.most_probable(clips[:, None], SAMPLE_RATE)
    return {
        concept: [
            value == label.value(concept) for value, label in zip(predicted[concept], labels, strict=True)
        ]
        for concept in CONCEPTS
    }


def _fractions(right: dict[str, list[bool]], rows: slice = slice(None)) -> dict[str, float]:
    return {concept: float(np.mean(flags[rows])) for concept, flags in right.items()}


def signal_to_noise(
    clips: Float[np.ndarray, "clip sample"], copies: Float[np.ndarray, "clip sample"]
) -> float:
    """Return the energy of `clips` over that of their difference from `copies`, in dB."""
    return float(10 * np.log10(np.sum(clips**2) / np.sum((clips - copies) ** 2)))


def evaluate_vae(vae: AutoencoderOobleck, scorer: EmbeddedScorer, clips: int) -> dict[str, Any]:
    """Measure how well the autoencoder reconstructs held-out clips: dB, and the scorer's accuracy before and after."""
    raw, labels = dataset(clips, _EVALUATION_SEED)
    copies = reconstruct(vae, raw, 0.0, 0)
    before, after = _fractions(shown(scorer, raw, labels)), _fractions(shown(scorer, copies, labels))
    return {
        "clips": clips,
        "signal_to_noise_db": signal_to_noise(raw, copies),
        "scorer_accuracy_raw": before,
        "scorer_accuracy_reconstructed": after,
        "kept": {concept: after[concept] / before[concept] for concept in CONCEPTS},
    }


def evaluate(folder: Path, evaluation: Evaluation, device: torch.device) -> dict[str, Any]:
    """Measure how often the organism's clips have the values that their prompts name, by concept."""
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"There is no organism in {folder}: it has no model_index.json. Train one with "
            "`python -m benchmarks.organisms train`."
        )
    _notes(folder)  # raises early if the card could not be written
    pipeline, scorer = load_pipeline(folder, device), EmbeddedScorer()
    prompts, labels = held_out_prompts(evaluation.prompts)
    settings = asdict(evaluation)
    how = {key: value for key, value in settings.items() if key != "prompts"}
    seeds = range(_EVALUATION_SEED, _EVALUATION_SEED + len(prompts))
    clips = generate(pipeline, prompts, seeds, **how)[:, 0].numpy()
    right = shown(scorer, clips, labels)
    return {
        "settings": settings,
        "prompt_following": _fractions(right),
        "prompt_following_canonical": _fractions(right, slice(0, None, 2)),
        "prompt_following_held_out_forms": _fractions(right, slice(1, None, 2)),
        "autoencoder": evaluate_vae(pipeline.vae.cpu(), scorer, evaluation.prompts),
    }


class _Truth(BaseModel):
    """What the card reads from an organism's `truth.json`."""

    organism: str
    concepts: dict[str, list[int]]


def _notes(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an organism's truth and recipe; raise UserError if they are missing or damaged."""
    try:
        truth, recipe = (read_document(folder, name, _LARGEST_NOTE) for name in ("truth.json", "recipe.json"))
        if not CONCEPTS.keys() <= _Truth.model_validate(truth).concepts.keys():
            raise ValueError("a concept has no blocks")
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"The truth.json or recipe.json of the organism in {folder} is missing or damaged: "
            "train it again with `python -m benchmarks.organisms train`."
        ) from error
    return truth, recipe


def misses(metrics: dict[str, Any]) -> list[str]:
    """Describe the targets that `metrics` misses; empty if it meets all."""
    short = [
        f"{concept}: {metrics['prompt_following'][concept]:.3f} of prompts followed, target {target}"
        for concept, target in TARGETS.items()
        if metrics["prompt_following"][concept] < target
    ]
    kept = metrics["autoencoder"]["kept"]
    return short + [
        f"{concept}: {kept[concept]:.3f} kept by the autoencoder, target {KEPT_TARGET}"
        for concept in CONCEPTS
        if kept[concept] < KEPT_TARGET
    ]


_README = """\
# {organism}

A tiny ACE-Step 1.5 that generates 4 s of simple music at 16 kHz from prompts such as
"a fast happy violin song with drums". It is a model organism: by construction, its cross-attention can read
each concept only at the blocks listed here, so the right answer is known for methods that localise concepts.

| concept | read at blocks | prompts followed | target | kept by the autoencoder |
|---|---|---|---|---|
{rows}

Measured on {prompts} clips ({steps} steps, guidance {guidance:g}, shift {shift:g}, {seconds:g} s) with the
embedded scorer, which was not trained on generated clips. Half of the prompts are canonical, half have forms
that no training caption has. All metrics: `card.json`.

Limits: trained on synthesised 4 s clips (longer clips continue but drift); the text encoder does not mix words,
so word order has no effect; model and scorer were trained on clips of the same synthesiser; voices are vowels.
"""


def _readme(card: dict[str, Any], truth: dict[str, Any]) -> str:
    """Render the card as Markdown."""
    metrics = card["metrics"]
    followed, kept = metrics["prompt_following"], metrics["autoencoder"]["kept"]
    rows = []
    for concept in CONCEPTS:
        blocks = ", ".join(map(str, truth["concepts"][concept]))
        fractions = f"{followed[concept]:.3f} | {TARGETS[concept]:.2f} | {kept[concept]:.3f}"
        rows.append(f"| {concept} | {blocks} | {fractions} |")
    return _README.format(organism=card["organism"], rows="\n".join(rows), **metrics["settings"])


def write_card(folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write `card.json` and `README.md` to an organism's folder, from `metrics` and the recipe in the folder."""
    truth, recipe = _notes(folder)
    card = {
        "organism": truth["organism"],
        "weights_hash": weights_hash(folder),
        "metrics": metrics,
        "targets": {"prompt_following": TARGETS, "kept_by_autoencoder": KEPT_TARGET},
        "misses": misses(metrics),
        "recipe": recipe,
        "libraries": {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (folder / "README.md").write_text(_readme(card, truth))
    return card
