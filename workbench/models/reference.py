"""References to models, by which a unit of work in another process or machine loads them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.models import load_model, located

if TYPE_CHECKING:
    from workbench.models.base import AudioDiffusionModel


@dataclass(frozen=True)
class ModelReference:
    """A model by its name (see `load_model`), on a device, with weights in a dtype."""

    name: str
    device: str = "cpu"
    dtype: str = "float32"

    @classmethod
    def of(cls, model: "AudioDiffusionModel") -> "ModelReference":
        """Return the reference to a loaded model; a folder becomes an absolute path."""
        return cls(located(model.name), model.device, model.dtype)

    def load(self) -> "AudioDiffusionModel":
        """Load the model; raise UserError as `load_model` does."""
        return load_model(self.name, self.device, self.dtype)
