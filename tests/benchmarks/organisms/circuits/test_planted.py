"""Circuits, their truth as sets, and the read-outs: all in closed form."""

import pytest
import torch

from benchmarks.organisms.circuits.planted import BLOCKS, CIRCUITS, HEADS, SETTINGS, presence_pairs
from benchmarks.organisms.circuits.readout import (
    AMPLITUDE,
    FRAMES,
    background,
    concept_readout,
    decoy_readout,
    patterns,
)

# name: (sufficient alone, necessary alone, mediators)
TRUTH = {
    "one-block": ({2}, {2}, {2}),
    "redundant": ({1, 3}, set(), {1, 3}),
    "complementary": (set(), {1, 3}, {1, 3}),
    "step-window": ({2}, {2}, {2}),
    "one-head": ({2}, {2}, {2}),
    "decoy": ({3}, {3}, {3}),
}


def test_every_circuit_states_its_truth() -> None:
    assert {name: (c.sufficient, c.necessary, c.mediators) for name, c in CIRCUITS.items()} == TRUTH


def test_cells_are_stated_where_they_are_planted_only() -> None:
    assert {name: c.head_cells for name, c in CIRCUITS.items() if c.head_cells} == {"one-head": {(2, 2)}}
    cells = {name: c.step_cells for name, c in CIRCUITS.items() if c.step_cells}
    assert cells == {"step-window": {(2, 2), (2, 3), (2, 4), (2, 5)}}


def test_circuits_fit_the_network_and_the_run() -> None:
    for circuit in CIRCUITS.values():
        assert set(circuit.readers + circuit.decoys) <= set(range(BLOCKS))
        assert not set(circuit.readers) & set(circuit.decoys)
        assert all(head < HEADS for _, head in circuit.head_cells or ())
        assert all(step < SETTINGS.num_steps for _, step in circuit.step_cells or ())


def test_pairs_run_from_drums_to_none_and_differ_in_nothing_else() -> None:
    pairs = presence_pairs(20, seed=0)
    assert len({pair.clean.text for pair in pairs}) == 20
    for pair in pairs:
        assert pair.clean.text.endswith(" with drums")
        assert pair.corrupt.text == pair.clean.text.replace("with drums", "without drums")


def test_patterns_are_orthogonal_and_of_length_one() -> None:
    flat = patterns().flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(2))


def test_background_holds_nothing_of_the_patterns_and_differs_between_clips() -> None:
    clips = background(200, torch.Generator().manual_seed(0))
    for readout in (concept_readout(), decoy_readout()):
        assert readout.score(clips).abs().max() < 1e-6
    assert clips.std() == pytest.approx(1, abs=0.05)
    assert (clips[0] - clips[1]).abs().mean() > 0.5
    assert (clips[:, 1:] - clips[:, :-1]).std() < 0.5 * clips.std()  # smooth: white noise would give 1.4


def test_score_is_the_projection_in_units_of_the_amplitude() -> None:
    planted = patterns()
    clips = background(3, torch.Generator().manual_seed(1))
    strengths = torch.tensor([0.0, 1.0, -0.25])
    mixed = clips + AMPLITUDE * strengths[:, None, None] * planted[0] + 7 * planted[1]
    torch.testing.assert_close(concept_readout().score(mixed), strengths, atol=1e-5, rtol=0)
    torch.testing.assert_close(decoy_readout().score(mixed), torch.full((3,), 7 / AMPLITUDE))


def test_the_readout_is_made_for_clips_of_the_settings_duration() -> None:
    assert SETTINGS.duration * 25 == FRAMES  # 25 latents per second
