"""nnsight's names, without the method `save` that importing nnsight adds to every Python object.

The method misleads: every object seems to have one, which writes no file. torchsde, which diffusers imports with some
schedulers, lists the attributes of its objects, and fails on it. The function `nnsight.save` does the same and stays.
"""

from nnsight import NNsight, save
from nnsight._c import unmount
from nnsight.modeling.diffusion import DiffusionModel

if hasattr(object, "save"):
    unmount("save")

__all__ = ["DiffusionModel", "NNsight", "save"]
