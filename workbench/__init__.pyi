"""The names of `import workbench as wb`. `__init__.py` reads the relative imports here, and repeats the aliases."""

import analyses.steering as _steering
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
austeer = _steering.austeer
caa = _steering.caa
concept_slider = _steering.concept_slider
descriptor = _steering.descriptor
feature_steering = _steering.feature_steering
free_sliders = _steering.free_sliders
interference = _steering.interference
load = _models.load_model
load_slider = _steering.load_slider
load_vector = _steering.load_vector
open = _notebook.open_study
pci = _steering.pci
published_slider = _steering.published_slider
sae_features = _steering.sae_features
stack = _steering.stack
text_embedding = _steering.text_embedding
token_embedding = _steering.token_embedding
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
