"""Score tables: how specific each feature of a published autoencoder is to a concept (TADA, arXiv 2602.11910, Eq. 12).

`tf6_scores.pkl` is a dict of the torch tensors `tfidf`, `diff` and `mean_pos` [step, feature], and the concept.
With μ⁺ and μ⁻ the mean activations over positive and negative prompts, tfidf is μ⁺ · log(1 + 1 / (μ⁻ + 1e-6)), diff is
μ⁺ − μ⁻ and mean_pos is μ⁺.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.artefacts.base import Artefact
from workbench.artefacts.checks import mapping, one_shape, table
from workbench.artefacts.concepts import find_concept
from workbench.artefacts.sources import find_artefact
from workbench.artefacts.torch_files import read_tensors

TABLES = ("tfidf", "diff", "mean_pos")
_BLOCK = re.compile(r"(tf\d+)_")


@dataclass(frozen=True, kw_only=True)
class ScoreTables(Artefact):
    """Scores of the features of one site's autoencoder for a concept.

    `sites` is empty: the last axis is features, not channels.
    """

    kind: ClassVar[str] = "scores"

    site: str
    tables: dict[str, Float[np.ndarray, "step feature"]]

    @property
    def name(self) -> str:
        return f"scores-{self.concept.name}-{self.site}"

    @property
    def steps(self) -> int:
        return len(self.tables["tfidf"])

    def arrays(self) -> dict[str, np.ndarray]:
        """`tfidf`, `diff` and `mean_pos` [step, feature]."""
        return dict(self.tables)

    def metadata(self) -> dict[str, Any]:
        return {"site": self.site, "steps": self.steps, "features": self.tables["tfidf"].shape[1]}


def read_scores(source: str, concept: str = "", site: str = "") -> ScoreTables:
    """Read and validate score tables: the file, or a folder with one.

    Args:
        source: file, folder or hub id.
        concept: required if the file does not give it.
        site: required if the file's name does not give it.

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format.
    """
    pattern = f"{site.partition('.')[0]}_scores.pkl" if site else "*_scores.pkl"
    origin = find_artefact(source, pattern)
    what = str(origin.file)
    block = _BLOCK.match(origin.file.name)
    if not site and block is None:
        raise UserError(f"The name of {what} does not include the site (tf6_scores.pkl). Give the site.")
    contents = mapping(read_tensors(origin.file), what)
    scored = find_concept(concept or contents.get("concept"), what)
    missing = [name for name in TABLES if name not in contents]
    if missing:
        raise UserError(f"{what} lacks the tables {', '.join(missing)}. Required: {', '.join(TABLES)}.")
    tables = {name: table(contents[name], f"{what}, {name}") for name in TABLES}
    one_shape(tables, what)
    site = site or f"{block[1]}.cross_attn" if block else site
    return ScoreTables(concept=scored, origin=origin, site=site, tables=tables)
