"""Settings that only one architecture has: `GenerationSettings.options`, checked by the class of its model."""

from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from cache.errors import UserError
from workbench.engine.settings import GenerationSettings
from workbench.validation import validated


class Options(BaseModel):
    """Base of the options of an architecture, which it names in `architecture`; a field has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: ClassVar[str]


Kind = TypeVar("Kind", bound=Options)


def options_of(kind: type[Kind], settings: GenerationSettings) -> Kind:
    """The options in the settings, with defaults for the others; raises UserError for unknown ones and wrong values."""
    unknown = sorted(settings.options.keys() - kind.model_fields.keys())
    if unknown:
        known = ", ".join(kind.model_fields)
        raise UserError(f"{kind.architecture} has no option {unknown[0]}: its options are {known}.")
    return validated(kind, settings.options, f"The options of {kind.architecture} cannot be used")
