"""The names of `import workbench as wb`. `__init__.py` reads the relative imports here, and repeats the aliases."""

import analyses.steering.austeer as _austeer
import analyses.steering.caa as _caa
import analyses.steering.concept_slider as _concept_slider
import analyses.steering.descriptor as _descriptor
import analyses.steering.feature_steering as _feature_steering
import analyses.steering.free_sliders as _free_sliders
import analyses.steering.pci as _pci
import analyses.steering.sae_features as _sae_features
import analyses.steering.slider as _slider
import analyses.steering.stacking as _stacking
import analyses.steering.text_embedding as _text_embedding
import analyses.steering.token_embedding as _token_embedding
import analyses.steering.vector as _vector
import cache.errors as _errors
import dashboards.notebook as _notebook
import workbench.models as _models

from .engine.edits import (
    Run,
    ablate,
    add,
    add_difference,
    add_to_conditioning,
    add_velocity,
    blend,
    clamp,
    edit_features,
    low_rank,
    patch,
    patch_reconstruction,
    random_patch,
    steer_back,
)
from .engine.runs import Clip
from .engine.settings import GenerationSettings
from .prompts.clips import clips

UserError = _errors.UserError
austeer = _austeer.austeer
caa = _caa.caa
concept_slider = _concept_slider.concept_slider
descriptor = _descriptor.descriptor
feature_steering = _feature_steering.feature_steering
free_sliders = _free_sliders.free_sliders
interference = _stacking.interference
load = _models.load_model
load_slider = _slider.load_slider
load_vector = _vector.load_vector
open = _notebook.open_study
pci = _pci.pci
published_slider = _slider.published_slider
sae_features = _sae_features.sae_features
stack = _stacking.stack
text_embedding = _text_embedding.text_embedding
token_embedding = _token_embedding.token_embedding
trace = _notebook.trace

__all__ = [
    "Clip",
    "GenerationSettings",
    "Run",
    "UserError",
    "ablate",
    "add",
    "add_difference",
    "add_to_conditioning",
    "add_velocity",
    "austeer",
    "blend",
    "caa",
    "clamp",
    "clips",
    "concept_slider",
    "descriptor",
    "edit_features",
    "feature_steering",
    "free_sliders",
    "interference",
    "load",
    "load_slider",
    "load_vector",
    "low_rank",
    "open",
    "patch",
    "patch_reconstruction",
    "pci",
    "published_slider",
    "random_patch",
    "sae_features",
    "stack",
    "steer_back",
    "text_embedding",
    "token_embedding",
    "trace",
]
