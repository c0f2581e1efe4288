"""Choosing a strength for each way of steering by other prompts and other judges than those that report.

What is best on the clips that report is so partly by luck and by the judge's own errors: its score there is too high.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.evaluation.dose_curves import arms_of, signs_of, ways_of

SAME_PROMPTS = (
    "The strengths were chosen on the prompts that report them: their scores are too high. "
    "Choose them on other prompts."
)
REPORTED = ("effect", "on_target", "preservation", "quality", "harmonic")


def selecting_judges(scorer: str, interpretable: xr.DataArray) -> list[str]:
    """Return the judges that choose for a reporting one: the other interpretable ones or, if there are none, itself."""
    able = [str(name) for name in interpretable.scorer.values[interpretable.values]]
    return [name for name in able if name != scorer] or [name for name in able if name == scorer]


def selected(trial: xr.Dataset, of_arms: xr.Dataset, chooser: xr.Dataset) -> xr.Dataset:
    """Report each way of steering at the strength that a trial on other prompts chooses.

    Chosen is the arm with the largest harmonic mean of on-target, preservation and quality, on average over the judges
    of `selecting_judges`; none if all of several strengths have the same mean, such as 0. Which judges are
    interpretable is known from the trial that reports, which has more pairs.

    Args:
        trial: the trial that reports.
        of_arms: its summaries by arm (see `REPORTED`), with `interpretable` (scorer).
        chooser: the same summaries of the trial that selects.

    Returns:
        By (way, sign, scorer, measure): `selected_arm` ("" if none is chosen), `selected_strength`, and what is
        reported there, `selected_effect` and so on, with the arm's intervals. By scorer: `selected_by`, the judges that
        chose, separated by commas.
    """
    ways, scorers, measures = ways_of(trial), trial.scorer.values.tolist(), trial.measure.values.tolist()
    judges = {scorer: selecting_judges(scorer, of_arms.interpretable) for scorer in scorers}
    signs = signs_of(trial)
    shape = (len(ways), len(signs), len(scorers), len(measures))
    arm = np.full(shape, "", dtype=object)
    for w, way in enumerate(ways):
        for s, sign in enumerate(signs):
            for c, scorer in enumerate(scorers):
                arms = arms_of(trial, way, sign)[1:]
                choosing = chooser if len(arms) > 1 else of_arms  # one strength alone is no choice
                arm[w, s, c] = _best(choosing, arms, judges[scorer], measures)
    dims = ("way", "sign", "scorer", "measure")
    coords = {"way": ways, "sign": signs, "scorer": scorers, "measure": measures}
    chosen = xr.DataArray(arm, coords, dims)
    found = xr.Dataset({"selected_arm": chosen, "selected_strength": _at(trial.strength, chosen)})
    for name in REPORTED:
        for end in ("", "_lo", "_hi"):
            found[f"selected_{name}{end}"] = _at(of_arms[name + end], chosen)
    found["selected_by"] = "scorer", [", ".join(judges[scorer]) for scorer in scorers]
    return found


def selection_warnings(trial: xr.Dataset, selection: xr.Dataset | None, chosen: xr.Dataset) -> list[str]:
    """Return a sentence for each reason why selected strengths look better than they are, or are missing.

    Args:
        trial: the trial that reports.
        selection: the trial that selects, or None for the same one.
        chosen: what `selected` returns.
    """
    found, judges = [], chosen.selected_by
    if selection is None or _prompts(trial) & _prompts(selection):
        found.append(SAME_PROMPTS)
    found += [
        f"The judge '{name}' chose the strengths that it reports: its scores there are too high. Add another judge."
        for name, chose in zip(judges.scorer.values, judges.values, strict=True)
        if chose == name
    ]
    return found + [
        f"{', '.join(ways)}: no strength is chosen that the judge '{scorer}' reports, as none does better than another."
        for scorer in judges.scorer.values[judges.values != ""]
        if (ways := _not_chosen(chosen.sel(scorer=scorer)))
    ]


def _not_chosen(chosen: xr.Dataset) -> list[str]:
    """Return the ways without a chosen strength of some sign and measure."""
    missing = (chosen.selected_arm == "").any([dim for dim in chosen.selected_arm.dims if dim != "way"])
    return [str(way) for way in chosen.way.values[missing.values]]


def _prompts(trial: xr.Dataset) -> set[str]:
    return {*trial.corrupt_prompt.values.tolist(), *trial.clean_prompt.values.tolist()}


def _best(
    chooser: xr.Dataset, arms: Sequence[str], judges: Sequence[str], measures: Sequence[str]
) -> list[str]:
    """Return the best arm by each measure, "" where none is known or none is better than another."""
    common = [arm for arm in arms if arm in chooser["arm"].values]
    merit = chooser.harmonic.sel(arm=common, scorer=list(judges)).mean("scorer")
    return [_largest(merit.sel(measure=measure).values, common) for measure in measures]


def _largest(merit: Float[np.ndarray, " arm"], arms: Sequence[str]) -> str:
    """Return the arm of the largest merit, the weakest of equals; "" if all are the same or none is known."""
    known = merit[~np.isnan(merit)]
    if not known.size or (len(arms) > 1 and np.ptp(known) == 0):
        return ""
    return arms[int(np.nanargmax(merit))]


def _at(of_arm: xr.DataArray, chosen: xr.DataArray) -> xr.DataArray:
    """Return the values of the chosen arms, NaN where there is none."""
    none = of_arm["arm"].values[0]
    found = of_arm.reset_coords(drop=True).sel(arm=chosen.where(chosen != "", none)).drop_vars("arm")
    return found.where(chosen != "").transpose(*(dim for dim in chosen.dims))
