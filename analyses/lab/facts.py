"""What edits depend on of a model, kept beside a clip's runs, so that these are found before the model is loaded."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import UserError
from cache.opening import read_file
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.files import locked, replacing
from workbench.models.base import AudioDiffusionModel
from workbench.studies.runs import LOCK, RunStore

FILE = "model.json"
MOST_BLOCKS = 10_000
MAX_BYTES = 2**20


class ModelFacts(BaseModel):
    """The number of a model's blocks, and the sigma of each step of its runs with some settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_blocks: Annotated[int, Field(ge=1, le=MOST_BLOCKS)]
    sigmas: Annotated[tuple[float, ...], Field(min_length=1)]


def facts_of(model: AudioDiffusionModel, settings: GenerationSettings) -> ModelFacts:
    """Return the facts of a loaded model."""
    return ModelFacts(n_blocks=model.n_blocks, sigmas=tuple(model.sigmas(settings)))


def recorded_facts(store: RunStore, clip: Clip) -> ModelFacts | None:
    """Return what was recorded with a clip's runs; None if nothing was, or it cannot be read."""
    try:
        content = read_file(store.root, f"{store.folder(clip)}/{FILE}", MAX_BYTES)
        return ModelFacts.model_validate_json(content)
    except (OSError, UserError, ValidationError):
        return None


def record_facts(store: RunStore, clip: Clip, facts: ModelFacts) -> None:
    """Record facts beside a clip's runs, unless they are there already."""
    if recorded_facts(store, clip) == facts:
        return
    # Whoever else has the lock removes files that are only partly written.
    with (
        locked(store.root / store.folder(clip) / LOCK, store.root),
        replacing(store.root / store.folder(clip) / FILE, store.root) as partial,
    ):
        partial.write_text(facts.model_dump_json(), encoding="utf-8")
