"""Summaries of vectors for people: what a vector is, what it was made from, and how far it can be trusted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from analyses.steering.checks import NOT_JUDGED, Check, Interval
from analyses.steering.directions import hook
from analyses.steering.reliability import cosine_in_words, cosine_with_truth
from analyses.steering.vector_content import VectorContent
from cache.wording import counted, quoted
from workbench.scorers.descriptors import in_unit

LATENTS = {
    "own": "",
    "positive": "the latents of the positive run, for both prompts",
    "negative": "the latents of the negative run, for both prompts",
    "mixed": "different latents (a stack)",
    "unknown": "unknown latents",
}
NOTES = ("resampled", "source", "note")
"""Facts of the provenance that are shown, besides time and version."""


def pack_facts(vector: VectorContent) -> dict[str, str]:
    """Return what a vector is and what it was made from, by name; a text is empty if it does not apply."""
    model, sampling, sigmas = vector.model, vector.sampling, vector.sigmas
    return {
        "concept": vector.concept,
        "+ is": vector.positive,
        "− is": vector.negative,
        "method": vector.method,
        "operation": f"adds to the {', '.join(dict.fromkeys(map(hook, vector.directions)))}",
        "strength 1 adds": vector.unit,
        **_saes(vector),
        "raw norms": _raw_norms(vector),
        "along the clip": _time(vector),
        "pairs compared at": LATENTS[vector.latents],
        "steps": f"{len(sigmas)}, sigma {sigmas[0]:.4g} to {sigmas[-1]:.4g}",
        "model": f"{model['model']} (weights {model['weights_hash']}, {model.get('dtype', 'unknown dtype')})",
        "sampling": f"{sampling.scheduler}, guidance {sampling.guidance_scale:g}, {vector.settings.duration:g} s",
        "options": ", ".join(f"{name} = {value}" for name, value in sampling.options.items()),
        "adapters": ", ".join(sampling.adapters),
        "made from": _examples(vector),
        **_checks(vector),
        "made at": f"{vector.provenance['created']} by version {vector.provenance['code_version']}",
        **{name: str(vector.provenance[name]) for name in NOTES if name in vector.provenance},
    }


def pack_sites(vector: VectorContent) -> pd.DataFrame:
    """Return a table of texts with a row for each site and pass: norms and reliability, as means over the steps."""
    passes = next(iter(vector.directions.values()))["pass"].values.tolist()
    return pd.DataFrame(
        _site_row(vector, site, pass_name) for site in vector.directions for pass_name in passes
    )


def pack_line(name: str, vector: VectorContent) -> dict[str, str]:
    """Return one line about a vector, by column."""
    return {
        "name": name,
        "concept": vector.concept,
        "+ is": vector.positive,
        "− is": vector.negative,
        "method": vector.method,
        "sites": sites_in_words(list(vector.directions)),
        "split-half cosine": _cosine(vector.reliability["split_half"]),
        "judge": _verdicts(vector),
    }


def sites_in_words(sites: Sequence[str]) -> str:
    """Return the sites or, of many, the first and the last."""
    return ", ".join(sites) if len(sites) <= 4 else f"{sites[0]} … {sites[-1]} ({len(sites)})"


def _verdicts(vector: VectorContent) -> str:
    """Say in a few words what each judge says; the judge is named if there are several."""
    checks = vector.checks
    if len(checks) < 2:
        return checks[0].words if checks else NOT_JUDGED
    return "; ".join(f"{check.scorer}: {check.words}" for check in checks)


def _checks(vector: VectorContent) -> dict[str, str]:
    """Return what each judge says, with its numbers."""
    return {f"judge {check.scorer}": _check(check) for check in vector.checks} or {"judge": NOT_JUDGED}


def _saes(vector: VectorContent) -> dict[str, str]:
    """Return the autoencoder of each site, and where it may not be used."""
    found: dict[str, list[str]] = {}
    for sae in vector.saes:
        closed = ", ".join(str(each.step) for each in sae.closed) or "none"
        found.setdefault(f"autoencoder of {sae.site}", []).append(
            f"{sae.name} (weights {sae.weights}; closed steps: {closed})"
        )
    return {name: " and ".join(each) for name, each in found.items()}


def _check(check: Check) -> str:
    sign, control = check.sign, check.control
    effects = ", ".join(f"{_strength(each.strength)}: {_interval(each)}" for each in check.effects)
    start = f"strength {_strength(sign.minus)}" if sign.minus else "unsteered"
    return (
        f"{check.words} (change of the score from {start} to {_strength(sign.plus)}: {_interval(sign)}; at {effects}; "
        f"real prompts: {_interval(control)}; {counted(check.pairs, 'pair')})"
    )


def _interval(values: Interval) -> str:
    if values.mean is None:
        return "unknown"
    mean = _signed(values.mean)
    if values.low is None or values.high is None:
        return mean
    return f"{mean} [{_signed(values.low)}, {_signed(values.high)}]"


def _strength(number: float) -> str:
    return f"{number:g}".replace("-", "−")


def _signed(number: float) -> str:
    return format(number, "+.2g").replace("-", "−")


def _site_row(vector: VectorContent, site: str, pass_name: str) -> dict[str, str]:
    place = {"site": site, "pass": pass_name}
    reliable = vector.reliability.sel(place)
    low, high = _cosine(reliable["split_half_lo"]), _cosine(reliable["split_half_hi"])
    halves = _cosine(reliable["split_half"])
    return {
        "site": site,
        "pass": pass_name,
        "channels": str(vector.directions[site].sizes["channel"]),
        "norm": f"{vector.norms[site].sel({'pass': pass_name}).mean().item():.3g}",
        "split-half cosine": f"{halves} [{low}, {high}]" if low else halves,
        "learning curve": _learning(reliable["learning"]),
        "all pairs, estimated": _cosine(cosine_with_truth(reliable["split_half"])),
        "between steps": _cosine(_between_steps(reliable["steps"])),
    }


def _raw_norms(vector: VectorContent) -> str:
    """Say how long the directions were before they were normalised, unless they are not normalised."""
    raw = np.concatenate([norms.values.ravel() for norms in vector.raw_norms.values()])
    own = np.concatenate([norms.values.ravel() for norms in vector.norms.values()])
    if np.array_equal(raw, own):
        return ""
    return "unknown" if np.isnan(raw).all() else f"{np.nanmin(raw):.3g} to {np.nanmax(raw):.3g}"


def _learning(learning: xr.DataArray) -> str:
    """Return the last two points of a learning curve."""
    points = [(int(pairs), _cosine(learning.sel(pairs=pairs))) for pairs in learning["pairs"].values[-2:]]
    return ", ".join(f"{pairs}: {cosine}" for pairs, cosine in points if cosine)


def _between_steps(steps: xr.DataArray) -> xr.DataArray:
    """Return the cosines of the directions of different steps."""
    return steps.where(steps["step"] != steps["step_b"])


def _cosine(values: xr.DataArray) -> str:
    """Return the mean of the cosines that are defined, or "" if none is."""
    known = values.values[np.isfinite(values.values)]
    return cosine_in_words(float(known.mean())) if known.size else ""


def _time(vector: VectorContent) -> str:
    n_tokens = next(iter(vector.directions.values())).sizes.get("token")
    if n_tokens is None:
        return "constant"
    return f"a cycle of {counted(n_tokens, 'token')}" if vector.cycle else f"by token ({n_tokens})"


def _value(vector: VectorContent, value: str | float) -> str:
    return value if isinstance(value, str) else in_unit(vector.concept, value)


def _examples(vector: VectorContent) -> str:
    if not vector.examples:
        return "unknown clips"
    seeds = sorted({example.seed for example in vector.examples})
    number = counted(vector.n_pairs, "pair") if vector.n_pairs else counted(len(vector.examples), "clip")
    shown = " and ".join(
        f"{quoted(each.prompt)} ({_value(vector, each.value)})" for each in vector.examples[:2]
    )
    between = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{number} with {between}, such as {shown}"
