"""Settings specific to an architecture: `GenerationSettings.options`, validated by the model's class."""

from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from cache.errors import UserError
from workbench.engine.settings import GenerationSettings
from workbench.validation import validated


class Options(BaseModel):
    """Base of the options of an architecture; `architecture` is its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: ClassVar[str]


Kind = TypeVar("Kind", bound=Options)


def options_of(kind: type[Kind], settings: GenerationSettings) -> Kind:
    """Return the options in the settings, with defaults; raise UserError for unknown options or invalid values."""
    unknown = sorted(settings.options.keys() - kind.model_fields.keys())
    if unknown:
        known = ", ".join(kind.model_fields)
        raise UserError(f"{kind.architecture} has no option {unknown[0]}. Options: {known}.")
    return validated(kind, settings.options, f"Invalid options of {kind.architecture}")
