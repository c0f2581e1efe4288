"""Load organisms by name through the ordinary adapter; missing ones are trained first."""

import logging
import time
import warnings
from pathlib import Path

import diffusers
import transformers
from rich.progress import Progress

from benchmarks.organisms.circuits.planted import CIRCUITS, Circuit
from benchmarks.organisms.circuits.readout import Readout, concept_readout
from benchmarks.organisms.circuits.train import Recipe, is_trained, train_organism
from cache.errors import UserError
from workbench.models.ace_step import AceStep15

FOLDER = Path(__file__).parents[2] / "build" / "organisms"
"""Folder of the trained organisms, one folder each; git ignores it."""
_LOG = logging.getLogger(__name__)


def find_circuit(name: str) -> Circuit:
    """Return the circuit `name`; raise UserError if it is unknown."""
    if name not in CIRCUITS:
        raise UserError(f"Unknown organism '{name}'. Choose from {', '.join(CIRCUITS)}.")
    return CIRCUITS[name]


def load(
    name: str, folder: Path = FOLDER, recipe: Recipe | None = None
) -> tuple[AceStep15, Circuit, Readout]:
    """Return the organism `name`, its circuit, and the readout of its concept.

    An organism that is not in `folder` is trained first, with a progress bar, in a minute and a half. Raises UserError
    if the name is unknown.
    """
    circuit = find_circuit(name)
    ensure(circuit, folder, recipe)
    return AceStep15(name, str(folder / name)), circuit, concept_readout()


def ensure(circuit: Circuit, folder: Path = FOLDER, recipe: Recipe | None = None) -> None:
    """Train the organism of `circuit` unless `folder` has it, trained with the same recipe for the same circuit."""
    recipe = recipe or Recipe()
    if is_trained(folder / circuit.name, circuit, recipe):
        return
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    started = time.monotonic()
    with Progress(transient=True) as progress, warnings.catch_warnings():
        # diffusers warns for every AutoencoderOobleck.
        warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
        train_organism(circuit, folder / circuit.name, recipe, progress)
    _LOG.info("trained %s in %.0f s", circuit.name, time.monotonic() - started)
