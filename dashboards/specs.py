"""Figure specs: which numbers a figure shows and how wide it is; together with a result it fixes a figure."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dashboards.drawing.paper import Width

Quantity = Literal["accuracy", "control", "selectivity"]


class FigureSpec(BaseModel):
    """What every figure says: its width on paper (`single` or `double` column)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width = "double"

    @property
    def result_name(self) -> str:
        """Name of the result that the numbers come from."""
        raise NotImplementedError

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells this figure's files from those of the same figure with another selection."""
        return ()


class PatchingNameSpec(FigureSpec):
    """One patching result, by its `name` (its question, unless it was given another), and one of its scorers.

    Without a name it is the study's first result, without a scorer the result's first.
    """

    name: str = ""
    scorer: str = ""

    @property
    def result_name(self) -> str:
        """The patching result."""
        return f"patching-{self.name}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Name, and scorer where one was asked for."""
        return tuple(filter(None, (self.name, self.scorer)))


class PatchingSpec(PatchingNameSpec):
    """Patching map; `truth` marks the blocks that the model's truth card names.

    `concept` is one concept, whose columns go across, or `all`; `column` is what a map of all concepts shows.
    """

    width: Width = "double"
    concept: str = ""
    column: str = ""
    truth: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """What was asked for."""
        asked = (self.name, self.concept, self.column, self.scorer, "truth" if self.truth else "")
        return tuple(filter(None, asked))


class PatchingPairsSpec(PatchingNameSpec):
    """What one arm of a patching result moves in each pair of a concept."""

    width: Width = "single"
    concept: str
    arm: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The cell."""
        return tuple(filter(None, (self.name, self.concept, self.arm, self.scorer)))


class PatchingCompareSpec(PatchingNameSpec):
    """A patching map beside another study's, a published table, or a published map of the study; exactly one of them.

    `compare` is the other study's folder, `published` the table's file, `model` a model of the table (may be left
    out where there is one), `imported` the model of a published map that the study has, `column` the map's column
    (the first by default), `top` how many blocks are on top.
    """

    column: str = ""
    compare: str = ""
    published: str = ""
    model: str = ""
    imported: str = ""
    top: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _one_other(self) -> "PatchingCompareSpec":
        if sum(map(bool, (self.compare, self.published, self.imported))) != 1:
            raise ValueError("give one: imported=MODEL, compare=STUDY or published=TABLE.csv")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Name, column, scorer, and what it stands beside."""
        other = self.model or self.imported or Path(self.compare or self.published).stem
        return tuple(filter(None, (self.name, self.column, self.scorer, f"vs-{other}")))


class ProbesSpec(FigureSpec):
    """Probe maps of one part of the network, a panel a concept."""

    part: str
    quantity: Quantity = "accuracy"

    @property
    def result_name(self) -> str:
        """The probes result."""
        return "probes"

    @property
    def labels(self) -> tuple[str, ...]:
        """Part and quantity."""
        return (self.part, self.quantity)


class ProbeFoldsSpec(FigureSpec):
    """The folds behind one probe."""

    width: Width = "single"
    concept: str
    site: str
    step: int

    @property
    def result_name(self) -> str:
        """The probes result."""
        return "probes"

    @property
    def labels(self) -> tuple[str, ...]:
        """The probe."""
        return (self.concept, self.site, f"step{self.step}")


class SaeSpec(FigureSpec):
    """The sparse autoencoder of one site."""

    site: str

    @property
    def result_name(self) -> str:
        """The result of the site's autoencoder."""
        return f"sae-{self.site}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)


class FeatureSpec(SaeSpec):
    """One feature of a site's autoencoder."""

    feature: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Site and feature."""
        return (self.site, str(self.feature))


class FeatureClipSpec(FeatureSpec):
    """One feature's activation in one clip."""

    clip: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Site, feature and clip."""
        return (self.site, str(self.feature), f"clip{self.clip}")
