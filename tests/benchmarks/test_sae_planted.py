"""Planted features and how well an autoencoder finds them: closed forms and invariants."""

import sys

import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks.planted_features import (
    CHANNELS,
    FEATURES,
    ROOTS,
    Family,
    PlantedFeatures,
    compensated,
    frequencies,
    separated,
    trees,
)
from benchmarks.planted_metrics import planted_metrics
from benchmarks.planted_report import below, by_side, differences, differences_table
from benchmarks.sae_planted import KINDS, check_environment, chosen
from tests.tolerances import FLOAT32, assert_close
from workbench.sae.standard import StandardConfig, StandardSAE

ROWS = 10_000
WIDTH = 4


@pytest.fixture(scope="module")
def planted() -> PlantedFeatures:
    return PlantedFeatures.draw(0)


@pytest.fixture(scope="module")
def magnitudes(planted: PlantedFeatures) -> Tensor:
    return planted.magnitudes(ROWS, torch.Generator().manual_seed(0))


def test_frequencies_are_a_power_law_between_two_ends() -> None:
    share = (torch.tensor([1, 2**-0.5, 3**-0.5, 0.5]) - 0.5) / 0.5
    assert_close(frequencies(4), 5e-4 + (0.4 - 5e-4) * share)


def test_every_feature_of_a_tree_has_one_parent() -> None:
    children = torch.cat([family.children.flatten() for family in trees()])
    assert children.tolist() == list(range(ROOTS, ROOTS + 16 + 64 + 256))
    parents = torch.cat([family.parent for family in trees()])
    assert parents.tolist() == list(range(ROOTS + 16 + 64))


def test_chances_make_up_for_parents_and_siblings() -> None:
    family = Family(torch.tensor([0]), torch.tensor([[1, 2]]))
    chance = compensated(torch.tensor([0.5, 0.1, 0.2]), (family,))
    assert_close(chance, torch.tensor([0.5, 0.2 * (1 + 0.4), 0.4 * (1 + 0.2)]))


def test_a_child_never_fires_without_its_parent_or_with_a_sibling(
    planted: PlantedFeatures, magnitudes: Tensor
) -> None:
    fires = magnitudes > 0
    for family in planted.families:
        children = fires[:, family.children]
        assert children.any()
        assert not (children & ~fires[:, family.parent, None]).any()
        assert children.sum(2).max() == 1


def test_a_child_is_as_large_as_its_parent(planted: PlantedFeatures) -> None:
    roots = planted._replace(spread=torch.where(torch.arange(FEATURES) < ROOTS, planted.spread, 0))
    values = roots.magnitudes(1000, torch.Generator().manual_seed(1)) / planted.mean
    for family in planted.families:
        child, parent = values[:, family.children], values[:, family.parent, None]
        assert_close(child[child > 0], parent.expand_as(child)[child > 0])


def test_roots_and_features_in_no_tree_fire_as_often_as_wanted(magnitudes: Tensor) -> None:
    wanted = frequencies(FEATURES)
    outside = [*range(ROOTS), *range(ROOTS + 16 + 64 + 256, FEATURES)]
    apart = ((magnitudes > 0).double().mean(0) - wanted)[outside]
    assert (apart.abs() < 5 * (wanted[outside] / ROWS).sqrt()).all()


def test_features_fire_together_as_their_shared_part_says(planted: PlantedFeatures) -> None:
    shared = torch.zeros_like(planted.shared)
    shared[:3, 0] = torch.tensor([0.7, 0.7, -0.7])
    correlated = planted._replace(shared=shared, own=(1 - shared.square().sum(1)).sqrt())
    fires = (correlated.magnitudes(ROWS, torch.Generator().manual_seed(2)) > 0)[:, :4].double()
    correlation = torch.corrcoef(fires.T)
    assert correlation[0, 1] > 0.1
    assert correlation[0, 2] < -0.1
    assert correlation[0, 3].abs() < 5 * ROWS**-0.5


def test_directions_have_unit_norm_and_overlap_less_than_random_ones() -> None:
    random = torch.randn(FEATURES, CHANNELS, generator=torch.Generator().manual_seed(3))
    random /= random.norm(dim=1, keepdim=True)
    apart = separated(random)
    assert_close(apart.norm(dim=1), torch.ones(FEATURES))
    # No directions overlap less than 1 / channels in the mean square (Welch 1974).
    least = 1 / CHANNELS
    excess = [(each @ each.T).square().mean() - least for each in (apart, random)]
    assert 0 <= excess[0] < 0.5 * excess[1]


def found_by(decoder: Tensor, encoder: Tensor) -> dict[str, float]:
    """Metrics of an autoencoder on orthogonal planted features and a bias; of each row, two fire or one."""
    magnitudes = torch.tensor([[1.0, 2, 0, 0], [0, 3, 1, 0], [2, 0, 0, 1], [0, 0, 2, 0]])
    bias = torch.tensor([0.5, -1, 2, 0])
    sae = StandardSAE(
        StandardConfig(d_in=WIDTH, d_sae=len(decoder)),
        {"W_enc": encoder, "b_enc": torch.zeros(len(decoder)), "W_dec": decoder, "b_dec": bias},
    )
    return planted_metrics(sae, torch.eye(WIDTH), [(magnitudes + bias, magnitudes)])


def test_the_true_features_are_perfect() -> None:
    order = torch.eye(WIDTH)[[2, 0, 3, 1]]
    perfect = {"f1": 1, "mcc": 1, "uniqueness": 1, "explained_variance": 1, "l0": 7 / 4, "dead": 0}
    assert found_by(order, order.T) == pytest.approx(perfect, abs=FLOAT32)


def test_metrics_of_a_feature_found_twice_one_missed_and_one_dead() -> None:
    decoder = torch.eye(WIDTH)[[0, 0, 1, 2]]
    encoder = torch.eye(WIDTH)[:, [0, 1, 1, 3]]
    encoder[:, 3] = -encoder[:, 3]
    found = found_by(decoder, encoder)
    # The second fires where planted feature 1 does, of which one in two rows also has planted feature 0.
    assert found["f1"] == pytest.approx((1 + 2 * 1 / (2 + 2) + 1 + 0) / 4)
    assert found["mcc"] == pytest.approx(3 / 4)
    assert found["uniqueness"] == 3 / 4
    assert found["dead"] == 1 / 4


def rows(f1: float) -> pd.DataFrame:
    same = {"mcc": 0.5, "uniqueness": 1.0, "explained_variance": 0.9, "l0": 4.0, "dead": 0.0}
    sides = {"ours": f1, "SAELens": 0.6}
    return pd.DataFrame(
        {"kind": kind, "side": side, "seed": seed, "f1": value + 0.01 * seed, **same}
        for kind in KINDS
        for side, value in sides.items()
        for seed in (0, 1)
    )


def test_ours_is_below_by_more_than_the_margin_only() -> None:
    assert below(rows(0.595)) == []
    assert below(rows(0.585)) == [f"{kind} f1" for kind in KINDS]


def test_the_table_has_means_and_ranges_of_both_sides() -> None:
    made = by_side(rows(0.7))
    assert made["side"].tolist() == ["ours", "SAELens"] * len(KINDS)
    assert made["F1"].iloc[0] == "0.705 (0.700 to 0.710)"


def test_differences_are_of_the_same_seed_with_an_interval() -> None:
    found = rows(0.7)
    found.loc[(found["side"] == "ours") & (found["seed"] == 1), "f1"] += 0.02
    first = differences(found).iloc[0]
    assert (first["kind"], first["metric"]) == (next(iter(KINDS)), "f1")
    assert first["mean"] == pytest.approx(0.11)  # 0.10 and 0.12
    assert first["high"] - first["mean"] == pytest.approx(12.706 * 0.01, rel=1e-4)  # t of 1 degree of freedom
    assert first["low"] == pytest.approx(2 * first["mean"] - first["high"])
    made = differences_table(found)
    assert made["kind"].tolist() == list(KINDS)
    assert made["F1"].iloc[0] == "+0.110 (-0.017 to +0.237)"
    assert made["MCC"].iloc[0] == "+0.000 (+0.000 to +0.000)"


def test_the_coefficient_is_found_between_two_trials() -> None:
    trials = pd.DataFrame({"coefficient": [0.5, 2.0], "l0": [8.0, 0.5]})
    assert chosen(trials) == pytest.approx(0.5 * 2**0.5)  # l0 falls with the coefficient's square


def test_an_environment_without_saelens_is_refused_in_one_sentence() -> None:
    for python in (sys.executable, "no-python"):
        with pytest.raises(SystemExit, match=r"^\S+ has no sae-lens 6\.54\.12: give the Python of"):
            check_environment(python)
