"""The gate of an autoencoder: which steps it closes, and what keeps and reads it."""

from pathlib import Path

import pytest

from cache.errors import UserError
from tests.workbench.sae.random_sae import random_sae
from workbench.sae.folder import load_folder, save_folder
from workbench.sae.gate import Gate, GatedStep, check_steps, closed_steps, gate_of, set_gate

GATE = Gate(
    steps=(0, 3, 7),
    sigmas=(1.0, 0.6, 0.1),
    explained_variance=(0.9, 0.5, 0.32),
    loss_recovered=(0.49, None, 0.9),
)


def test_steps_below_either_threshold_are_closed() -> None:
    assert list(GATE.closed) == [
        (0, 1.0, "its loss recovered there is 0.49, less than 0.5"),
        (7, 0.1, "its explained variance there is 0.32, less than 0.5"),
    ]


def test_undefined_metrics_close_nothing() -> None:
    gate = Gate(steps=(0,), sigmas=(1.0,), explained_variance=(None,), loss_recovered=(None,))
    assert not list(gate.closed)


def test_it_is_kept_with_the_folder(tmp_path: Path) -> None:
    sae = random_sae(4, 6, 2)
    assert gate_of(sae) is None
    set_gate(sae, GATE)
    save_folder(sae, tmp_path / "sae")
    assert gate_of(load_folder(tmp_path / "sae")) == GATE


@pytest.mark.parametrize(
    "damaged",
    [
        "closed",
        {"steps": [0]},
        {**GATE.model_dump(mode="json"), "sigmas": [1.0]},
        {**GATE.model_dump(mode="json"), "steps": ["a", 3, 7]},
    ],
)
def test_a_damaged_one_is_refused(damaged: object) -> None:
    sae = random_sae(4, 6, 2)
    sae.config = sae.config.model_copy(update={"metadata": {"gate": damaged}})
    with pytest.raises(UserError, match=r"[Ee]valuate"):
        gate_of(sae)


def test_only_what_acts_at_closed_steps_is_refused() -> None:
    sae = random_sae(4, 6, 2)
    check_steps(sae, lambda step, sigma: True)
    set_gate(sae, GATE)
    check_steps(sae, lambda step, _: step == 3)
    check_steps(sae, lambda _, sigma: 0.1 < sigma < 1.0)
    with pytest.raises(GatedStep, match=r"step 7 \(sigma 0.1\): its explained variance there is 0.32"):
        check_steps(sae, lambda step, _: step > 3)


def test_other_steps_are_judged_by_the_nearest_sigma() -> None:
    sae = random_sae(4, 6, 2)
    assert closed_steps(sae, [0.01]) == {}
    set_gate(sae, GATE)
    found = closed_steps(sae, [0.7, 0.4, 0.34])
    assert list(found) == [2]
    assert found[2].startswith("its explained variance there is 0.32")
