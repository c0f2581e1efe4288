"""Edits of the velocity that the sampler follows."""

from typing import Unpack

from workbench.engine.edits.edit import Edit, Source, make_edit
from workbench.engine.edits.window import WindowOptions


def add_velocity(plus: Source, minus: Source, strength: float = 1.0, **window: Unpack[WindowOptions]) -> Edit:
    """Add `strength` times the difference of two runs' velocities to the velocity that the sampler follows.

    The runs' velocities are those of the cond pass, or another one of `passes`; that of the edited run is what guidance
    makes of its passes. Runs that follow the edited one, `Run(clip, follows=Run("self"))`, give their velocities at its
    latents, as in FreeSliders.
    """
    given: WindowOptions = {"passes": ("cond",), **window}
    return make_edit(
        "add_difference", (), (plus, minus), given, "velocity", strength=strength, constant=False
    )
