"""Ways of steering compared over concepts: the summaries of their trials, leakage, and a ranking over all."""

import itertools
from collections.abc import Mapping, Sequence

import xarray as xr

from analyses.evaluation.alignment import SIGNS
from analyses.evaluation.dose_curves import TrialMeans, signs_of, trial_means
from analyses.evaluation.leakage import leakage
from analyses.evaluation.overall_ranking import overall_ranking
from analyses.evaluation.replicates import CONFIDENCE, Replicates
from analyses.evaluation.steering_summary import summarise
from analyses.statistics import CLUSTER_RESAMPLES


def compare(
    trials: Mapping[str, Sequence[xr.Dataset]],
    selections: Mapping[str, Sequence[xr.Dataset]] | None = None,
    resamples: int = CLUSTER_RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Summarise the trials of several concepts, with the leakage between them and a ranking over all.

    Args:
        trials: of each concept a trial with strengths of both signs, or one of each sign; with the same judges and
            distances, and the other concepts judged, too (see `summarise`).
        selections: trials that choose the strengths of `trials`, in the same places.
        resamples: number of resamples of each trial's pairs.
        seed: seed of the resamples.

    Returns:
        The summaries with the dims `concept` and `sign`, those of `leakage`, and those of `overall_ranking`. The
        attribute `warnings` has a sentence a line on what makes numbers look too good.
    """
    summaries: dict[str, dict[str, xr.Dataset]] = {sign: {} for sign in SIGNS}
    of_sign: dict[str, dict[str, xr.Dataset]] = {sign: {} for sign in SIGNS}
    means: dict[str, dict[str, TrialMeans]] = {sign: {} for sign in SIGNS}
    warnings = []
    for number, (concept, of_concept) in enumerate(trials.items()):
        choosing = selections[concept] if selections else [None] * len(of_concept)
        for trial, selection in zip(of_concept, choosing, strict=True):
            summary = summarise(trial, selection, resamples=resamples, seed=seed)
            warnings += [f"{concept}: {line}" for line in summary.attrs["warnings"].splitlines()]
            # Other draws for each concept: their pairs have nothing in common.
            own = trial_means(trial, Replicates(trial.sizes["pair"], resamples, seed + 1 + number))
            for sign in signs_of(trial):
                summaries[sign][concept] = summary.sel(sign=sign, drop=True)
                of_sign[sign][concept], means[sign][concept] = trial, own
    found = {
        sign: _of_sign(of_concepts, of_sign[sign], means[sign], sign)
        for sign, of_concepts in summaries.items()
        if of_concepts
    }
    result = _side_by_side("sign", found)
    result.attrs = {"confidence": CONFIDENCE, "warnings": "\n".join(dict.fromkeys(warnings))}
    return result


def _of_sign(
    summaries: Mapping[str, xr.Dataset],
    trials: Mapping[str, xr.Dataset],
    means: Mapping[str, TrialMeans],
    sign: str,
) -> xr.Dataset:
    """Return the summaries of one sign along `concept`, with the leakage and the ranking."""
    found = _side_by_side("concept", summaries)
    able = found.interpretable.transpose("concept", "scorer").values
    ranking = overall_ranking(trials, means, able, sign).reindex(way=found.way)
    return found.merge(leakage(trials, means, sign), join="exact").merge(ranking, join="exact")


def _side_by_side(dim: str, summaries: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return summaries along a new dim; what one of them lacks is NaN or "" there."""
    labels: dict[str, dict[str, object]] = {name: {} for name in ("row", "strength", "role", "null_of")}
    for summary in summaries.values():
        for name, known in labels.items():
            known |= dict(zip(summary["arm"].values.tolist(), summary[name].values.tolist(), strict=True))
    arms = list(labels["row"])
    of_arms = {name: ("arm", [known[arm] for arm in arms]) for name, known in labels.items()}
    indexes = {"arm": arms}
    for name in {"way", "concept", "judged"} & {*next(iter(summaries.values())).dims}:
        of_all = [summary[name].values.tolist() for summary in summaries.values()]
        indexes[str(name)] = list(dict.fromkeys(itertools.chain(*of_all)))
    whole = []
    for summary in summaries.values():
        texts = [name for name, values in summary.data_vars.items() if values.dtype == object]
        filled = summary.reindex(indexes).assign_coords(of_arms)
        whole.append(filled.assign({name: filled[name].fillna("") for name in texts}))
    along = xr.Variable(dim, list(summaries))
    return xr.concat(whole, along, coords="minimal", compat="override", join="exact", data_vars="all")
