"""The truth check, on a stand-in that plays a circuit exactly."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from benchmarks.organisms.circuits.planted import BLOCKS, CIRCUITS, HEADS, SETTINGS, Circuit
from benchmarks.organisms.circuits.readout import AMPLITUDE, patterns
from benchmarks.organisms.circuits.train import presence
from benchmarks.organisms.circuits.verify import arms, verify
from workbench.engine.edits import Run, as_run
from workbench.engine.runs import Clip, Generation
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site


class Exact:
    """Plays what the circuit says of each row, given what every block, head and step of it reads."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit

    def generate_batch(self, runs: Sequence[Clip | Run], settings: GenerationSettings) -> Generation:
        """Latents of runs, with patches as their only edits."""

        def says(run: Run) -> bool:
            return run.clip.prompt.endswith("with drums")

        read = torch.tensor([says(as_run(run)) for run in runs])
        read = read[:, None, None, None].repeat(1, settings.num_steps, BLOCKS, HEADS)
        for row, run in enumerate(map(as_run, runs)):
            for edit in run.edits:
                first, last = edit.window.steps or (0, settings.num_steps - 1)
                for site in edit.sites:
                    heads = list(edit.window.heads or range(HEADS))
                    read[row][slice(first, last + 1), Site.parse(site).block, heads] = says(edit.sources[0])
        blocks = list(self.circuit.readers + self.circuit.decoys)
        step, head = (self.circuit.steps or (0, 0))[0], self.circuit.head or 0
        strength = AMPLITUDE * presence(self.circuit, read[:, step, blocks, head]).float()
        return Generation(latents=torch.einsum("bp,pfc->bfc", strength, patterns()), calls=[])


@pytest.mark.parametrize("name", list(CIRCUITS))
def test_an_exact_organism_passes(name: str) -> None:
    report = verify(Exact(CIRCUITS[name]), CIRCUITS[name], n_pairs=2)
    assert report.holds
    assert (report.clean, report.corrupt) == (pytest.approx(1), pytest.approx(0))
    assert [check.arm for check in report.checks[:BLOCKS]] == [f"tf{block}" for block in range(BLOCKS)]


WRONG = {
    "one-block": ({"readers": (3,)}, {"tf2", "tf3"}),
    "redundant": ({"rule": "all"}, {"tf1", "tf3"}),
    "complementary": ({"rule": "any"}, {"tf1", "tf3"}),
    "step-window": ({"steps": (0, 1)}, {"steps 2 to 5", "all other steps"}),
    "one-head": ({"head": 0}, {"tf2 head 0", "tf2 head 2"}),
    "decoy": ({"readers": (1,), "decoys": (3,)}, {"tf1", "tf3", "tf1, own pattern"}),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_an_organism_with_another_circuit_fails_at_the_arms_that_differ(name: str) -> None:
    changes, arms_that_differ = WRONG[name]
    report = verify(Exact(replace(CIRCUITS[name], **changes)), CIRCUITS[name], n_pairs=2)
    assert {check.arm for check in report.checks if not check.holds} == arms_that_differ
    assert not report.holds


def test_an_organism_that_plays_too_softly_fails_although_the_shares_are_right() -> None:
    class Soft(Exact):
        def generate_batch(self, *request: object) -> Generation:
            whole = super().generate_batch(*request)
            return Generation(latents=0.8 * whole.latents, calls=[])

    report = verify(Soft(CIRCUITS["one-block"]), CIRCUITS["one-block"], n_pairs=2)
    assert all(check.holds for check in report.checks)
    assert not report.holds


def test_steps_outside_a_window_at_the_start_are_one_stretch() -> None:
    early = arms(replace(CIRCUITS["step-window"], steps=(0, 3)))
    outside = next(arm for arm in early if arm.name == "all other steps")
    assert [patch.window.steps for patch in outside.patches] == [(4, SETTINGS.num_steps - 1)]
