"""The front door, `import workbench as wb`: the names of `__init__.pyi`, each imported when it is first used."""

import importlib
import os
import sys
from typing import Any

import lazy_loader

# By default, threads that wait for each other spin; beside any other busy process, two of them then take five to forty
# times as long as one. OpenMP reads this when it is loaded, with torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    if "torch" in sys.modules:
        from workbench.threads import share_processors

        share_processors()

# Names that the stub can only alias: from upper rooms, which is allowed only here, or under another name.
_ALIASES = {
    "UserError": ("cache.errors", "UserError"),
    "austeer": ("analyses.steering.austeer", "austeer"),
    "caa": ("analyses.steering.caa", "caa"),
    "concept_slider": ("analyses.steering.concept_slider", "concept_slider"),
    "descriptor": ("analyses.steering.descriptor", "descriptor"),
    "feature_steering": ("analyses.steering.feature_steering", "feature_steering"),
    "free_sliders": ("analyses.steering.free_sliders", "free_sliders"),
    "interference": ("analyses.steering.stacking", "interference"),
    "load": ("workbench.models", "load_model"),
    "load_slider": ("analyses.steering.slider", "load_slider"),
    "load_vector": ("analyses.steering.vector", "load_vector"),
    "open": ("dashboards.notebook", "open_study"),
    "pci": ("analyses.steering.pci", "pci"),
    "published_slider": ("analyses.steering.slider", "published_slider"),
    "sae_features": ("analyses.steering.sae_features", "sae_features"),
    "stack": ("analyses.steering.stacking", "stack"),
    "text_embedding": ("analyses.steering.text_embedding", "text_embedding"),
    "token_embedding": ("analyses.steering.token_embedding", "token_embedding"),
    "trace": ("dashboards.notebook", "trace"),
}
_from_stub, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*_names, *_ALIASES])


def __getattr__(name: str) -> Any:
    if name not in _ALIASES:
        return _from_stub(name)
    module, attribute = _ALIASES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
