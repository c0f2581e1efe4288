"""Figure specs: which numbers a figure shows and how wide it is; together with a result it fixes a figure."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dashboards.paper.style import Width

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


class PatchingSpec(FigureSpec):
    """Patching map; `truth` marks the blocks that the model's truth card names."""

    width: Width = "single"
    truth: bool = False

    @property
    def result_name(self) -> str:
        """The patching result."""
        return "patching"

    @property
    def labels(self) -> tuple[str, ...]:
        """Whether the truth is marked."""
        return ("truth",) if self.truth else ()


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
