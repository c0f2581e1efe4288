"""AUSteer scores: how consistently each channel of a site changes with a concept (TADA, arXiv 2602.11910).

`austeer.pkl` is a dict of step → block (`tf6`) → the arrays `betas` and `scores`, one number per channel. `scores` is
the fraction of positive or of negative differences over pairs and frames, whichever is larger; `betas` is the same
with the sign of that difference.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.caa import site_name
from workbench.artefacts.checks import MemoryBudget, consecutive, mapping, one_shape, slug, vector
from workbench.artefacts.concepts import find_concept
from workbench.artefacts.pickles import read_pickle
from workbench.artefacts.sources import find_artefact

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class AuSteerScores(Artefact):
    """Signed and unsigned scores of each site, one row per step; `layers` names the authors' set of blocks."""

    kind: ClassVar[str] = "austeer"

    betas: dict[str, Float[np.ndarray, "_step _channel"]]
    scores: dict[str, Float[np.ndarray, "_step _channel"]]
    layers: str

    @property
    def name(self) -> str:
        return f"austeer-{self.concept.name}-{self.layers}"

    @property
    def sites(self) -> dict[str, int]:
        return {site: array.shape[1] for site, array in self.betas.items()}

    @property
    def steps(self) -> int:
        return len(next(iter(self.betas.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """`tf6.cross_attn.betas` and `.scores` [step, channel]."""
        kinds = {"betas": self.betas, "scores": self.scores}
        return {f"{site}.{name}": array for name, by_site in kinds.items() for site, array in by_site.items()}

    def metadata(self) -> dict[str, Any]:
        return {"sites": self.sites, "steps": self.steps, "passes": ["cond"], "layers": self.layers}


def read_austeer(source: str, concept: str = "") -> AuSteerScores:
    """Read and validate published scores; `concept` is required if the settings do not give one.

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format.
    """
    origin = find_artefact(source, "austeer.pkl", ["config.json"], config_needed=True)
    what = str(origin.file)
    steered = find_concept(concept or origin.settings.get("concept"), source)
    by_step = mapping(read_pickle(origin.file), what)
    steps = consecutive(by_step, what)
    sites = list(mapping(by_step[0], f"{what}, step 0"))
    if not all(isinstance(site, str) for site in sites):
        raise UserError(f"{what} must have text keys for sites.")
    budget = MemoryBudget(origin.file)
    kinds: dict[str, dict[str, np.ndarray]] = {"betas": {}, "scores": {}}
    for site in sites:
        for name, by_site in kinds.items():
            by_site[site_name(site)] = _rows(by_step, steps, site, name, what, budget)
    for site, betas in kinds["betas"].items():
        one_shape({"betas": betas, "scores": kinds["scores"][site]}, f"{what}, {site}")
        if (
            np.abs(np.abs(betas) - kinds["scores"][site]).max() > _ROUNDING
            or np.abs(betas).max() > 1 + _ROUNDING
        ):
            raise UserError(f"{what}, {site}: scores must be from 0 to 1, and betas the scores with a sign.")
    layers = slug(str(origin.settings.get("layers", f"{len(sites)}-sites")), f"the layer set of {source}")
    return AuSteerScores(concept=steered, origin=origin, layers=layers, **kinds)


def _rows(
    by_step: Any, steps: int, site: str, name: str, what: str, budget: MemoryBudget
) -> Float[np.ndarray, "step channel"]:
    rows = {}
    for step in range(steps):
        where = f"{what}, step {step}, {site[:80]}"
        arrays = mapping(mapping(by_step[step], where).get(site), where)
        budget.charge(arrays.get(name))
        rows[step] = vector(arrays.get(name), f"{where}, {name}")
    one_shape(rows, f"{what}, {site}, {name} by step")
    return np.stack(list(rows.values()))
