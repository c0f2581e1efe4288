"""Which features of SAEs are changed at once: the best of a concept value in each SAE, and random ones as a null."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from analyses.evaluation.spec import EffectsSpec
from cache.errors import UserError

Features = tuple[int, ...]


class FeatureSet(NamedTuple):
    """Features that are changed at once: one or several of each SAE, the same number of all."""

    features: tuple[Features, ...]  # of each SAE
    is_random: bool = False
    name: str = ""  # of the set in the study's notes

    @property
    def size(self) -> int:
        """Number of features of each SAE."""
        return len(self.features[0])

    def arm(self, factor: float) -> str:
        """Return the name of the arm that multiplies them by a factor."""
        return f"{self.row} × {factor:g}"

    @property
    def row(self) -> str:
        """What is changed, in words; the features of each SAE stand behind those of the one before it."""
        word = "feature" if self.size == 1 and len(self.features) == 1 else "features"
        return f"{word} {'; '.join(map(numbers, self.features))}"


def numbers(features: Features) -> str:
    """Return the numbers of features with commas."""
    return ", ".join(map(str, features))


def chosen_features(
    trained: Sequence[xr.Dataset], concepts: Sequence[str], spec: EffectsSpec
) -> dict[str, list[FeatureSet]]:
    """Return what is changed on prompts with each value: features with the highest AUROC, and random active ones.

    Of each SAE, `spec.features` features alone, then the `spec.together` best at once, or, where an SAE has fewer than
    twice as many active features, half of these. The n-th best features of all SAEs are changed at once, as are their
    sets, and those of `spec.members`. As many random sets of each size are their null.

    Args:
        trained: the results of the SAEs.
        concepts: the concepts whose values are wanted.
        spec: how many features there are to be.

    Raises:
        UserError: if no value of these concepts has features with an AUROC in all SAEs, or an SAE has too few other
            features for random sets as large as one of the sets.
    """
    found = {}
    alive = [of_sae["feature"].values[of_sae["alive"].values].tolist() for of_sae in trained]
    for value in trained[0]["value"].values.tolist():
        best = [_best(of_sae, value) for of_sae in trained]
        if value.split("=", 1)[0] not in concepts or not all(best):
            continue
        draw = random.Random(f"{value}-{spec.seed}")
        together = min(spec.together, *(len(of_sae) // 2 for of_sae in best))
        singles = list(zip(*([(each,) for each in of_sae[: spec.features]] for of_sae in best), strict=False))
        chosen = [FeatureSet(each) for each in singles]
        if together > 1:
            chosen.append(FeatureSet(tuple(tuple(of_sae[:together]) for of_sae in best)))
        chosen += [FeatureSet(features, name=name) for name, features in spec.members.items()]
        distinct = {each.features: each for each in chosen}  # a set may be a single one of the best
        sizes = dict.fromkeys(each.size for each in chosen)
        found[value] = [
            each
            for size in sizes
            for each in _with_randoms(
                [one for one in distinct.values() if one.size == size], alive, spec.randoms, draw
            )
        ]
    if not found:
        raise UserError(
            f"No value of {', '.join(concepts)} has features with an AUROC. Trace more prompts, and train again."
        )
    return found


def _best(trained: xr.Dataset, value: str) -> list[int]:
    """Return the features of an SAE that have an AUROC for a value, those with the highest first.

    Many tell clips apart without an error. Of equal ones, the first is the one that is more active with the value by
    the largest difference.
    """
    of_value = trained[["auroc", "diff"]].sel(value=value).dropna("feature", subset=["auroc"])
    order = np.lexsort((-of_value["diff"].values, -of_value["auroc"].values))
    return of_value["feature"].values[order].tolist()


def _with_randoms(
    chosen: Sequence[FeatureSet], alive: Sequence[Sequence[int]], randoms: int, draw: random.Random
) -> list[FeatureSet]:
    """Return sets of one size, and up to this many random ones of the same size without any of their features."""
    size = chosen[0].size
    drawn = []
    for place, of_sae in enumerate(alive):
        others = sorted(set(of_sae) - {feature for each in chosen for feature in each.features[place]})
        if 1 < size > len(others) and randoms:
            raise UserError(
                f"A set of {size} features leaves {len(others)} other active ones, too few for random sets. "
                "Choose a smaller set, or no random ones (--randoms 0)."
            )
        drawn.append(_drawn(others, size, randoms, draw))
    return [
        *chosen,
        *(FeatureSet(each, is_random=True) for each in zip(*drawn, strict=False)),
    ]


def _drawn(others: Sequence[int], size: int, randoms: int, draw: random.Random) -> list[Features]:
    """Return random sets of one size; those of a single feature are distinct, and there are no more than features."""
    if size == 1:
        return [(each,) for each in draw.sample(others, min(randoms, len(others)))]
    return [tuple(draw.sample(others, size)) for _ in range(randoms)]
