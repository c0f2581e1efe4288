"""What a study's dashboard compares with: another study, a published table, its own published maps, or nothing."""

from dataclasses import dataclass, replace
from pathlib import Path

from analyses.patching.published_map import published_names
from dashboards.figures.patching_comparison import PatchingComparisonSpec
from workbench.artefacts.published import load_published, published_models
from workbench.studies.study import Study


@dataclass(frozen=True)
class Others:
    """Another study's folder and a published table's file, each where one was given; models of `imported` maps."""

    study: Path | None = None
    published: Path | None = None
    imported: tuple[str, ...] = ()

    def with_imported(self, study: Study) -> "Others":
        """The same with the published maps that were imported into `study`."""
        return replace(self, imported=tuple(published_names(study)))

    def check(self) -> None:
        """Raise UserError when what was given cannot be read."""
        if self.study is not None:
            Study.open(self.study)
        if self.published is not None:
            load_published(self.published)

    @property
    def choices(self) -> dict[str, dict[str, str]]:
        """What a map can stand beside: a name for people, and the options of a figure."""
        found = {}
        if self.study is not None:
            found[self.study.resolve().name] = {"compare": str(self.study)}
        if self.published is not None:
            for model in published_models(load_published(self.published)):
                found[f"{self.published.stem}, {model}"] = {"published": str(self.published), "model": model}
        for model in self.imported:
            found[f"published, {model}"] = {"imported": model}
        return found

    def spec(self, choice: str, **options: str) -> PatchingComparisonSpec:
        """The figure of a map beside one of `choices`."""
        return PatchingComparisonSpec.model_validate({**options, **self.choices[choice]})
