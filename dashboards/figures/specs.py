"""What figures can be asked to show: the fields that all of them have, and those of one kind of result."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from cache.errors import UserError
from dashboards.drawing.paper import Width
from dashboards.results import patching_names, problem, sae_sites
from workbench.studies.study import Study

Options = Mapping[str, Any]
SHOWN_CHOICES = 12  # in a sentence about a choice that does not exist


class FigureSpec(BaseModel):
    """What every figure says: its width on paper (`single` or `double` column).

    Together with a result it fixes a figure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width = "double"

    @property
    @abstractmethod
    def result_name(self) -> str:
        """Name of the result that the numbers come from."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells this figure's files from those of the same figure with another selection."""
        return ()

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """`options`, and what follows from the study where they leave it open.

        Raises:
            UserError: when they name a result that the study does not have, or that is damaged.
        """
        del study
        return dict(options)

    @classmethod
    def required(cls) -> list[str]:
        """The fields without a default; `complete` finds some of them."""
        return [name for name, field in cls.model_fields.items() if field.is_required()]

    @classmethod
    def example(cls, study: Study, options: Options) -> dict[str, Any]:
        """A selection that has something to show, as an example for people who left out an option."""
        del study, options
        return {}

    def compared_with(self, study: Study) -> dict[str, Any] | None:
        """Provenance of what a result of `study` is compared with; None where it stands alone."""
        del study
        return None


class PatchingFigureSpec(FigureSpec):
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

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with the name of a result that the study has."""
        known = patching_names(study)
        name = options.get("name") or (known[0] if known else "blocks")
        _refuse_damaged(study, f"patching-{name}")
        if known:
            check_choice("patching result", name, known)
        return {**options, "name": name}


class ProbesFigureSpec(FigureSpec):
    """The study's probes."""

    @property
    def result_name(self) -> str:
        """The probes result."""
        return "probes"


class SaeFigureSpec(FigureSpec):
    """The sparse autoencoder of one site; without `site` it is the study's first."""

    site: str

    @property
    def result_name(self) -> str:
        """The result of the site's autoencoder."""
        return f"sae-{self.site}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)

    @classmethod
    def complete(cls, study: Study, options: Options) -> dict[str, Any]:
        """The options with a site that has an autoencoder, where there is any."""
        sites = sae_sites(study)
        if not sites:
            return dict(options)
        site = options.get("site", sites[0])
        _refuse_damaged(study, f"sae-{site}")
        check_choice("sparse autoencoder for site", site, sites)
        return {**options, "site": site}


def check_choice(what: str, value: object, choices: list[Any]) -> None:
    """Raise UserError, listing the choices, when `value` is none of them."""
    if value not in choices:
        shown = ", ".join(map(str, choices[:SHOWN_CHOICES])) + (" …" if len(choices) > SHOWN_CHOICES else "")
        raise UserError(f"There is no {what} '{value}' in this study's results: they have {shown}.")


def _refuse_damaged(study: Study, name: str) -> None:
    fault = problem(study, name)
    if fault is not None:
        raise UserError(fault)


def best_row(frame: pd.DataFrame, measure: str, options: Options) -> pd.Series:
    """The row with the highest `measure` among those that have what was asked for, or among all where none has."""
    asked = [frame[option].astype(str) == str(options[option]) for option in options if option in frame]
    some = frame[pd.concat(asked, axis=1).all(axis=1)] if asked else frame
    return (some if len(some) else frame).sort_values(measure, ascending=False, kind="stable").iloc[0]
