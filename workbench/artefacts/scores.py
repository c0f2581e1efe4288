"""Score tables: how much each feature of a published autoencoder belongs to a concept (TADA, arXiv 2602.11910, Eq. 12).

`tf6_scores.pkl` holds a dictionary of torch tensors [step, feature], `tfidf`, `diff` and `mean_pos`, and the concept.
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
from workbench.artefacts.concepts import Concept, find_concept
from workbench.artefacts.sources import Origin, find_artefact
from workbench.artefacts.torch_files import read_tensors

TABLES = ("tfidf", "diff", "mean_pos")
_BLOCK = re.compile(r"(tf\d+)_")


@dataclass(frozen=True)
class ScoreTables(Artefact):
    """Scores of the features of one site's autoencoder for a concept, by name."""

    kind: ClassVar[str] = "scores"

    concept: Concept
    site: str
    tables: dict[str, Float[np.ndarray, "step feature"]]
    origin: Origin

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"scores-{self.concept.name}-{self.site}"

    @property
    def steps(self) -> int:
        """Its denoising steps."""
        return len(self.tables["tfidf"])

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays as they are written: `tfidf` [step, feature] and so on."""
        return dict(self.tables)

    def facts(self) -> dict[str, Any]:
        """What is written beside them."""
        return {"site": self.site, "steps": self.steps, "features": self.tables["tfidf"].shape[1]}


def read_scores(source: str, concept: str = "", site: str = "") -> ScoreTables:
    """Read and check a score table: the file, or a folder with one; `site` where the file's name does not tell it.

    Raises UserError for files that are missing, unsafe, damaged or not of the form.
    """
    pattern = f"{site.partition('.')[0]}_scores.pkl" if site else "*_scores.pkl"
    origin = find_artefact(source, pattern)
    what = str(origin.file)
    block = _BLOCK.match(origin.file.name)
    if not site and block is None:
        raise UserError(f"{what} does not tell its site by its name (tf6_scores.pkl): give the site.")
    held = mapping(read_tensors(origin.file), what)
    found = find_concept(concept or held.get("concept"), what)
    missing = [name for name in TABLES if name not in held]
    if missing:
        raise UserError(f"{what} lacks the tables {', '.join(missing)}: it needs {', '.join(TABLES)}.")
    tables = {name: table(held[name], f"{what}, {name}") for name in TABLES}
    one_shape(tables, what)
    return ScoreTables(found, site or f"{block[1]}.cross_attn" if block else site, tables, origin)
