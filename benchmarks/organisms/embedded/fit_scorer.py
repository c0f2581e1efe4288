"""Fit the embedded scorer: logistic regression on synthesised clips, raw and reconstructed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.organisms.labels import CONCEPTS, Labels
from benchmarks.organisms.synth import dataset
from benchmarks.organisms.vae import FastCodec, load_vae
from workbench.files import replacing
from workbench.scorers.embedded import SAMPLE_RATE, EmbeddedScorer, features

_BATCH = 20
_BINS = 10


@dataclass(frozen=True)
class ScorerRecipe:
    """Settings of the fit. The three seeds name data sets that nothing else is trained on."""

    fit_clips: int = 1400
    calibration_clips: int = 400
    test_clips: int = 700
    fit_seed: int = 2_000_001
    calibration_seed: int = 2_000_002
    test_seed: int = 2_000_003
    noise: float = 0.3
    """Largest standard deviation of the noise added to latents, as a generator's errors would be."""
    inverse_penalty: float = 0.02


Clips = Float[np.ndarray, "clip sample"]
Features = Float[np.ndarray, "clip feature"]


@torch.no_grad()
def reconstruct(vae: AutoencoderOobleck, clips: Clips, noise: float, seed: int) -> Clips:
    """Clips through the autoencoder, each with latent noise of a standard deviation drawn up to `noise`."""
    codec, rng = FastCodec(vae), torch.Generator().manual_seed(seed)
    decoded = []
    for batch in torch.from_numpy(clips)[:, None].split(_BATCH):
        latents = codec.encode(batch)
        level = noise * torch.rand(len(latents), 1, 1, generator=rng)
        decoded.append(codec.decode(latents + level * torch.randn(latents.shape, generator=rng)))
    return torch.cat(decoded)[:, 0].numpy()


def _features(clips: Clips) -> Features:
    return np.stack([features(clip) for clip in clips])


def _targets(labels: list[Labels], concept: str) -> Int[np.ndarray, " clip"]:
    return np.array([CONCEPTS[concept].index(label.value(concept)) for label in labels])


def _temperature(logits: Float[np.ndarray, "clip value"], targets: Int[np.ndarray, " clip"]) -> float:
    """Return the divisor of `logits` that makes `targets` most likely (Guo et al. 2017).

    Targets are smoothed by one over the number of clips (Platt 1999): without that, a concept that is never mistaken
    would get arbitrarily sharp probabilities, which no finite number of clips can justify.
    """
    clips, values = logits.shape
    doubt = 1 / (clips + 2)
    wanted = np.full((clips, values), doubt / (values - 1))
    wanted[np.arange(clips), targets] = 1 - doubt

    def loss(log_temperature: float) -> float:
        return float(-(wanted * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def _fit_head(
    fit: tuple[Features, Int[np.ndarray, " clip"]],
    calibration: tuple[Features, Int[np.ndarray, " clip"]],
    penalty: float,
) -> tuple[Float[np.ndarray, "value feature"], Float[np.ndarray, " value"]]:
    """Return weight and bias of calibrated logits on raw audio features; scaling and temperature are folded in."""
    scaler = StandardScaler().fit(fit[0])
    model = LogisticRegression(C=penalty, max_iter=1000).fit(scaler.transform(fit[0]), fit[1])
    weight, bias = (
        model.coef_ / scaler.scale_,
        model.intercept_ - model.coef_ @ (scaler.mean_ / scaler.scale_),
    )
    if len(bias) == 1:  # two values: scikit-learn keeps the second one's logit only
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    temperature = _temperature(calibration[0] @ weight.T + bias, calibration[1])
    return weight / temperature, bias / temperature


def calibration_error(
    probabilities: Float[np.ndarray, "clip value"], targets: Int[np.ndarray, " clip"]
) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over ten bins of confidence."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(_BINS)]
    return float(sum(gaps) / len(targets))


def brier_score(probabilities: Float[np.ndarray, "clip value"], targets: Int[np.ndarray, " clip"]) -> float:
    """Return the Brier score: mean squared error of the probabilities, summed over values (0 best, 2 worst)."""
    return float(np.square(probabilities - np.eye(probabilities.shape[1])[targets]).sum(axis=1).mean())


def evaluate(scorer: EmbeddedScorer, clips: Clips, labels: list[Labels]) -> dict[str, dict[str, float]]:
    """Accuracy, calibration error and Brier score of each concept."""
    metrics = {}
    for concept, values in CONCEPTS.items():
        probabilities = scorer.score(clips[:, None], SAMPLE_RATE, values)
        targets = _targets(labels, concept)
        metrics[concept] = {
            "accuracy": float((probabilities.argmax(axis=1) == targets).mean()),
            "calibration_error": calibration_error(probabilities, targets),
            "brier": brier_score(probabilities, targets),
        }
    return metrics


def _mixture(vae: AutoencoderOobleck, clips: int, seed: int, noise: float) -> tuple[Clips, list[Labels]]:
    """Each clip raw, through the autoencoder, and through it with noise."""
    raw, labels = dataset(clips, seed)
    return np.concatenate(
        [raw, reconstruct(vae, raw, 0.0, seed), reconstruct(vae, raw, noise, seed)]
    ), 3 * labels


def fit_scorer(vae_folder: Path, weights: Path, recipe: ScorerRecipe) -> dict[str, Any]:
    """Fit the scorer with the autoencoder in `vae_folder`, write it to `weights` and its card beside it;
    gives the card. Raises UserError when there is no autoencoder.
    """
    vae = load_vae(vae_folder).eval()
    weights.parent.mkdir(parents=True, exist_ok=True)
    clips, labels = _mixture(vae, recipe.fit_clips, recipe.fit_seed, recipe.noise)
    spare_clips, spare_labels = _mixture(vae, recipe.calibration_clips, recipe.calibration_seed, recipe.noise)
    fit, calibration = _features(clips), _features(spare_clips)
    arrays: dict[str, np.ndarray] = {}
    for concept, values in CONCEPTS.items():
        weight, bias = _fit_head(
            (fit, _targets(labels, concept)),
            (calibration, _targets(spare_labels, concept)),
            recipe.inverse_penalty,
        )
        arrays[f"{concept}.values"] = np.array(values)
        arrays[f"{concept}.weight"], arrays[f"{concept}.bias"] = weight, bias
    with replacing(weights) as partial, partial.open("wb") as file:  # by name, savez would add an ending
        np.savez(file, **arrays)
    test, test_labels = dataset(recipe.test_clips, recipe.test_seed)
    scorer = EmbeddedScorer(weights)
    card = {
        "scorer": "embedded",
        "method": "logistic regression on log-mel, chroma and onset features; temperature-scaled",
        "recipe": asdict(recipe),
        "held_out": {
            "clips": recipe.test_clips,
            "raw": evaluate(scorer, test, test_labels),
            "reconstructed": evaluate(scorer, reconstruct(vae, test, 0.0, 0), test_labels),
            "reconstructed_with_noise": evaluate(
                scorer, reconstruct(vae, test, recipe.noise, 0), test_labels
            ),
        },
    }
    (weights.parent / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card
