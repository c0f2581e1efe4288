"""Edits as data: what to change in a run, where and when, as frozen objects with canonical JSON.

`patch`, `random_patch`, `ablate`, `add`, `add_to_conditioning`, `add_difference`, `add_velocity`, `clamp`,
`steer_back`, `edit_features`, `patch_reconstruction`, `low_rank` and `blend` create them. A source is a run: a clip, a
`Run`, or a name to be bound to one later (`Run.bound`).
"""

from workbench.engine.edits.conditioning import add_to_conditioning, blend
from workbench.engine.edits.edit import SELF, Edit, Run, Source, all_edits, as_run
from workbench.engine.edits.features import edit_features, patch_reconstruction
from workbench.engine.edits.from_json import edit_from_json
from workbench.engine.edits.outputs import ablate, add, add_difference, clamp, steer_back
from workbench.engine.edits.patches import patch, random_patch
from workbench.engine.edits.velocity import add_velocity
from workbench.engine.edits.weights import low_rank
from workbench.engine.edits.window import Window

__all__ = [
    "SELF",
    "Edit",
    "Run",
    "Source",
    "Window",
    "ablate",
    "add",
    "add_difference",
    "add_to_conditioning",
    "add_velocity",
    "all_edits",
    "as_run",
    "blend",
    "clamp",
    "edit_features",
    "edit_from_json",
    "low_rank",
    "patch",
    "patch_reconstruction",
    "random_patch",
    "steer_back",
]
