"""The data shared by a dashboard's pages: the study, and the maps it can be compared with."""

from dataclasses import dataclass, field
from pathlib import Path

from analyses.patching.published_map import published_names
from dashboards.figures.patching_comparison import PatchingComparisonSpec
from dashboards.jobs import Jobs
from dashboards.studies_folder import Listed, StudiesFolder
from workbench.artefacts.published import load_published, published_models
from workbench.studies.study import Study


@dataclass(frozen=True)
class Context:
    """The study shown and, optionally, another study's folder and a published table to compare it with.

    `folder` is the folder of studies that it is opened from, if any, whose other studies it can be compared with.
    `jobs` runs the study's model in the background, for all pages.
    """

    study: Study
    compare: Path | None = None
    published: Path | None = None
    folder: StudiesFolder | None = None
    jobs: Jobs = field(default_factory=Jobs, compare=False)

    def check(self) -> None:
        """Raise UserError if `compare` or `published` cannot be read."""
        if self.compare is not None:
            Study.open(self.compare)
        if self.published is not None:
            load_published(self.published)

    @property
    def comparisons(self) -> dict[str, dict[str, str]]:
        """The maps to compare with: their display names and the options of the figure."""
        choices = {}
        if self.folder is not None:
            with_maps = [one.name for one in self.neighbours if "patching" in one.results]
            choices = {name: {"compare": str(self.folder.path / name)} for name in with_maps}
        if self.compare is not None:
            choices[self.compare.resolve().name] = {"compare": str(self.compare)}
        if self.published is not None:
            for model in published_models(load_published(self.published)):
                name = f"{self.published.stem}, {model}"
                choices[name] = {"published": str(self.published), "model": model}
        for model in published_names(self.study):
            choices[f"published, {model}"] = {"imported": model}
        return choices

    @property
    def neighbours(self) -> list[Listed]:
        """The other studies of the folder that can be opened."""
        listed = [] if self.folder is None else self.folder.listed()
        return [one for one in listed if not one.fault and one.name != self.study.path.name]

    def comparison_spec(self, beside: str, /, **options: str) -> PatchingComparisonSpec:
        """The spec of a comparison with one of `comparisons`, by name; `options` are its other fields."""
        return PatchingComparisonSpec.model_validate({**options, **self.comparisons[beside]})
