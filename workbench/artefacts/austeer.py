"""AUSteer scores: how surely each channel of a site moves with a concept, as published with TADA (arXiv 2602.11910).

`austeer.pkl` holds a dictionary: by step and block (`tf6`) the arrays `betas` and `scores`, a number a channel.
`scores` is the larger of the shares of positive and of negative differences, over pairs and frames; `betas` is it with
the sign of that difference.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.caa import site_name
from workbench.artefacts.checks import Room, consecutive, mapping, one_shape, slug, vector
from workbench.artefacts.concepts import Concept, find_concept
from workbench.artefacts.pickles import read_pickle
from workbench.artefacts.sources import Origin, find_artefact

_ROUNDING = 1e-6


@dataclass(frozen=True)
class AuSteerScores(Artefact):
    """Signed and unsigned scores of each site, a row a step; `layers` names the set of blocks as its authors did."""

    kind: ClassVar[str] = "austeer"

    concept: Concept
    betas: dict[str, Float[np.ndarray, "_step _channel"]]
    scores: dict[str, Float[np.ndarray, "_step _channel"]]
    layers: str
    origin: Origin

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"austeer-{self.concept.name}-{self.layers}"

    @property
    def sites(self) -> dict[str, int]:
        """Its sites, each with its width."""
        return {site: array.shape[1] for site, array in self.betas.items()}

    @property
    def steps(self) -> int:
        """Its denoising steps."""
        return len(next(iter(self.betas.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays as they are written: `tf6.cross_attn.betas` and `.scores` [step, channel]."""
        named = {"betas": self.betas, "scores": self.scores}
        return {f"{site}.{name}": array for name, of_site in named.items() for site, array in of_site.items()}

    def facts(self) -> dict[str, Any]:
        """What is written beside them."""
        return {"sites": self.sites, "steps": self.steps, "passes": ["cond"], "layers": self.layers}


def read_austeer(source: str, concept: str = "") -> AuSteerScores:
    """Read and check published scores; `concept` is needed where the settings name none.

    Raises UserError for files that are missing, unsafe, damaged or not of the form.
    """
    origin = find_artefact(source, "austeer.pkl", ["config.json"], config_needed=True)
    what = str(origin.file)
    found = find_concept(concept or origin.settings.get("concept"), source)
    by_step = mapping(read_pickle(origin.file), what)
    steps = consecutive(by_step, what)
    sites = list(mapping(by_step[0], f"{what}, step 0"))
    if not all(isinstance(site, str) for site in sites):
        raise UserError(f"{what} has sites that are no text.")
    room = Room(origin.file)
    read: dict[str, dict[str, np.ndarray]] = {"betas": {}, "scores": {}}
    for site in sites:
        for name, of_site in read.items():
            of_site[site_name(site)] = _rows(by_step, steps, site, name, what, room)
    for site, betas in read["betas"].items():
        one_shape({"betas": betas, "scores": read["scores"][site]}, f"{what}, {site}")
        if (
            np.abs(np.abs(betas) - read["scores"][site]).max() > _ROUNDING
            or np.abs(betas).max() > 1 + _ROUNDING
        ):
            raise UserError(f"{what}, {site}: scores are shares from 0 to 1, and betas are they with a sign.")
    layers = slug(str(origin.settings.get("layers", f"{len(sites)}-sites")), f"the layer set of {source}")
    return AuSteerScores(found, read["betas"], read["scores"], layers, origin)


def _rows(
    by_step: Any, steps: int, site: str, name: str, what: str, room: Room
) -> Float[np.ndarray, "step channel"]:
    rows = {}
    for step in range(steps):
        where = f"{what}, step {step}, {site[:80]}"
        of_site = mapping(mapping(by_step[step], where).get(site), where)
        room.take(of_site.get(name))
        rows[step] = vector(of_site.get(name), f"{where}, {name}")
    one_shape(rows, f"{what}, {site}, {name} by step")
    return np.stack(list(rows.values()))
