"""Organisms: tiny ACE-Step 1.5 models with planted circuits of known shape, trained on demand.

`load("redundant")` gives the model behind its adapter, its `Circuit` with the truth as sets, and the `Readout` that
scores latents; `circuits.SETTINGS` is how to generate and `circuits.presence_pairs` what.
"""

from benchmarks.organisms.circuits.loading import FOLDER, load
from benchmarks.organisms.circuits.planted import CIRCUITS, SETTINGS, Circuit, presence_pairs
from benchmarks.organisms.circuits.readout import Readout

__all__ = ["CIRCUITS", "FOLDER", "SETTINGS", "Circuit", "Readout", "load", "presence_pairs"]
