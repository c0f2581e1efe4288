"""Base classes of figure specs: the fields of all figures, and those of each kind of result."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
import xarray as xr
from pydantic import BaseModel, ConfigDict

from cache.errors import UserError
from dashboards.drawing.paper import Width
from dashboards.results import (
    command,
    default_of_kind,
    load_result,
    names_of_kind,
    problem,
    result_origin,
    sae_names,
)
from workbench.studies.study import Study

Options = Mapping[str, Any]
SHOWN_CHOICES = 12  # listed in an error message


class FigureSpec(BaseModel):
    """Base class of figure specs, with the width on paper (`single` or `double` column).

    A spec and a result together determine a figure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width = "double"

    @property
    @abstractmethod
    def result_name(self) -> str:
        """Name of the result that the numbers come from."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts of a file name that distinguish this figure from the same one with another selection."""
        return ()

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """`options` with missing ones filled in from the study.

        Raises:
            UserError: they name a result that the study does not have, or that is damaged.
        """
        del study
        return dict(options)

    @classmethod
    def required(cls) -> list[str]:
        """The fields without a default; `complete` fills in some of them."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """An example selection with something to show, for users who left out an option."""
        del study, options
        return {}

    def origin(self, study: Study) -> dict[str, Any]:
        """Provenance of what the numbers come from."""
        return result_origin(study, self.result_name)

    def compared_with(self, study: Study) -> dict[str, Any] | None:
        """Provenance of the result that a result of `study` is compared with, if any."""
        del study
        return None


class ScoredFigureSpec(FigureSpec):
    """One result of a kind with several, by its `name`, and one of its scorers.

    The defaults are the study's first result (damaged or not) and the result's first scorer.
    """

    kind: ClassVar[str]
    name: str = ""
    scorer: str = ""

    @property
    def result_name(self) -> str:
        """The result."""
        return f"{self.kind}-{self.name}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, scorer."""
        return tuple(filter(None, (self.name, self.scorer)))

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with `name` filled in."""
        name = options.get("name", "")
        if name == "":
            name = default_of_kind(study, cls.kind) or cls._usual_name(study)
        _refuse_damaged(study, f"{cls.kind}-{name}")
        if known := names_of_kind(study, cls.kind):
            check_choice(f"{cls.kind} result", name, known)
        return {**options, "name": name}

    @classmethod
    @abstractmethod
    def _usual_name(cls, study: Study) -> str:
        """The name of the result that the study would have first."""


class PatchingFigureSpec(ScoredFigureSpec):
    """One patching result, by its `name` (its question unless it was named), and one of its scorers."""

    kind: ClassVar[str] = "patching"

    @classmethod
    def _usual_name(cls, study: Study) -> str:
        del study
        return "blocks"


class SteeringFigureSpec(ScoredFigureSpec):
    """One steering result, by its `name` (its concept unless it was named), and one of its scorers."""

    kind: ClassVar[str] = "steering"

    @classmethod
    def _usual_name(cls, study: Study) -> str:
        return next(iter(study.spec.prompts.concepts))

    def load(self, study: Study) -> xr.Dataset:
        """The result; raise UserError if it is missing or damaged, or has no such scorer."""
        result = load_result(study, self.result_name)
        if self.scorer:
            check_choice("scorer", self.scorer, result["scorer"].values.tolist())
        return result


class BenchmarkFigureSpec(ScoredFigureSpec):
    """One evaluation of steering methods, by its `name` (its protocol unless it was named), one judge, one distance.

    The default distance, the `measure`, is the result's first.
    """

    kind: ClassVar[str] = "benchmark"
    measure: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and, if given, scorer and distance."""
        return tuple(filter(None, (self.name, self.scorer, self.measure)))

    @classmethod
    def _usual_name(cls, study: Study) -> str:
        del study
        return "strict"

    def load(self, study: Study) -> xr.Dataset:
        """The result; raise UserError if it is missing or damaged, lacks the scorer or distance, or is not strict."""
        result = load_result(study, self.result_name)
        for what, value, dim in (("scorer", self.scorer, "scorer"), ("distance", self.measure, "measure")):
            if value:
                check_choice(what, value, result[dim].values.tolist())
        if result.attrs["protocol"] != "strict":
            raise UserError(
                f"The result {self.result_name} has the published protocol, which only gives areas. For this figure, "
                f"run `{command(study, 'benchmark')}`."
            )
        return result


class ProbesFigureSpec(FigureSpec):
    """The study's probes."""

    @property
    def result_name(self) -> str:
        """The probes result."""
        return "probes"


class SaeFigureSpec(FigureSpec):
    """One sparse autoencoder, by its `name`; by default the study's first (damaged or not)."""

    name: str

    @property
    def result_name(self) -> str:
        """The result of the autoencoder."""
        return f"sae-{self.name}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The name."""
        return (self.name,)

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with `name` filled in, if the study has an autoencoder."""
        default = default_of_kind(study, "sae")
        if default is None:
            return dict(options)
        name = options.get("name", default)
        _refuse_damaged(study, f"sae-{name}")
        if names := sae_names(study):
            check_choice("sparse autoencoder", name, names)
        return {**options, "name": name}


def check_choice(what: str, value: object, choices: list[Any]) -> None:
    """Raise UserError, listing the choices, if `value` is not one of them."""
    if value not in choices:
        shown = ", ".join(map(str, choices[:SHOWN_CHOICES])) + (" …" if len(choices) > SHOWN_CHOICES else "")
        raise UserError(f"There is no {what} '{value}' in this study's results: choose one of {shown}.")


def _refuse_damaged(study: Study, name: str) -> None:
    fault = problem(study, name)
    if fault is not None:
        raise UserError(fault)


def best_row(frame: pd.DataFrame, measure: str, options: Options) -> pd.Series:
    """The row with the highest `measure` among those that match the options, or among all if none does."""
    asked = [frame[option].astype(str) == str(options[option]) for option in options if option in frame]
    some = frame[pd.concat(asked, axis=1).all(axis=1)] if asked else frame
    return (some if len(some) else frame).sort_values(measure, ascending=False, kind="stable").iloc[0]
