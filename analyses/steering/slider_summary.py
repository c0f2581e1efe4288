"""Summaries of concept sliders for people."""

from typing import TYPE_CHECKING

from analyses.steering.pack_summary import sites_in_words
from cache.wording import counted, quoted

if TYPE_CHECKING:
    from analyses.steering.slider import Slider  # imports torch, which is slow


def slider_facts(slider: "Slider") -> dict[str, str]:
    """Return what a slider is and what it was made from, by name; a text is empty if it does not apply."""
    model, training = slider.model, slider.training
    of_model = "" if model is None else f"{model['model']} (weights {model['weights_hash']})"
    return {
        "concept": slider.concept,
        "+ is": slider.positive,
        "− is": slider.negative,
        "method": slider.method,
        "sites": ", ".join(slider.sites),
        "rank": str(slider.rank),
        "strength 1 adds": f"{slider.alpha / slider.rank:.4g} times the product of the factors to each weight",
        "model": of_model or "unknown weights",
        "steps": f"{len(slider.sigmas)}, sigma {slider.sigmas[0]:.4g} to {slider.sigmas[-1]:.4g}",
        "trained on": _prompts(training.get("prompts", [])),
        "steps trained": _trained(slider),
        "source": str(training.get("source", "")),
    }


def slider_line(name: str, slider: "Slider") -> dict[str, str]:
    """Return one line about a slider, by column."""
    return {
        "name": name,
        "concept": slider.concept,
        "+ is": slider.positive,
        "− is": slider.negative,
        "sites": sites_in_words(slider.sites),
        "rank": str(slider.rank),
        "steps trained": _trained(slider),
    }


def _prompts(pairs: list[list[str]]) -> str:
    if not pairs:
        return ""
    return f"{counted(len(pairs), 'pair')}, such as {' and '.join(map(quoted, pairs[0]))}"


def _trained(slider: "Slider") -> str:
    return str(slider.training.get("iterations", "unknown"))
