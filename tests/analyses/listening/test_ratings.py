"""Mean ratings, the mixed model, and agreement."""

import numpy as np
import pandas as pd
import pytest

from analyses.listening.agreement import agreement, answers_table
from analyses.listening.ratings import mean_ratings, modelled_means

CONDITIONS = ("a", "b")


def ratings(seed: int = 0, listeners: int = 8, items: int = 5) -> pd.DataFrame:
    """Ratings with effects of conditions (3 and 4), listeners and items, and noise."""
    rng = np.random.default_rng(seed)
    of_listener, of_item = rng.normal(0, 0.5, listeners), rng.normal(0, 0.3, items)
    rows = [
        (who, f"item {item}", name, 3 + place + of_listener[who] + of_item[item] + rng.normal(0, 0.2))
        for who in range(listeners)
        for item in range(items)
        for place, name in enumerate(CONDITIONS)
    ]
    return pd.DataFrame(rows, columns=["listener", "item", "condition", "rating"])


def test_means_and_model_agree_where_the_design_is_balanced() -> None:
    table = ratings()
    mean, model = mean_ratings(table, CONDITIONS, 0.95, 0), modelled_means(table, CONDITIONS, 0.95)
    expected = table.groupby("condition")["rating"].mean()
    assert mean.value == pytest.approx(expected)
    assert model.value == pytest.approx(expected, abs=1e-4)
    for interval in (mean, model):
        assert (interval.low < interval.value).all() and (interval.value < interval.high).all()
    # Listeners and items are random: the model's interval is as wide as their means tell, not as 40 ratings would.
    assert (model.high - model.low)[0] > 4 * 0.2 / np.sqrt(40)


@pytest.mark.parametrize("seed", range(4))
def test_in_a_balanced_design_the_model_is_the_analysis_of_variance(seed: int) -> None:
    """Restricted maximum likelihood has its estimates, where they are positive."""
    table = ratings(seed)
    cells = table["rating"].to_numpy().reshape(8, 5, 2)
    of_listener, of_item = cells.mean(axis=(1, 2)), cells.mean(axis=(0, 2))
    error = np.sqrt(of_listener.var(ddof=1) / 8 + of_item.var(ddof=1) / 5)
    found = modelled_means(table, CONDITIONS, 0.95)
    assert found.value == pytest.approx(cells.mean(axis=(0, 1)))
    assert found.high - found.low == pytest.approx([2 * 1.959964 * error] * 2, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_where_listeners_and_items_do_not_differ_the_model_is_that_of_independent_ratings(seed: int) -> None:
    """Both variances are 0 where means of listeners and items vary less than those of independent ratings would."""
    table = ratings()
    noise = np.random.default_rng(seed).normal(size=(8, 5, 2))
    for axis in (0, 1, 2):
        noise -= noise.mean(axis=axis, keepdims=True)
    table["rating"] = [50.0 + 10 * (name == "b") for name in table["condition"]] + noise.ravel()
    error = np.sqrt((noise**2).sum() / (80 - 2) / 40)
    found = modelled_means(table, CONDITIONS, 0.95)
    assert found.value == pytest.approx([50, 60])
    assert found.high - found.low == pytest.approx([2 * 1.959964 * error] * 2, rel=1e-4)


def test_the_model_corrects_for_who_rated_what() -> None:
    """A condition that only severe listeners rated is not worse."""
    table = ratings(listeners=12)
    severe = table.groupby("listener")["rating"].transform("mean").rank(pct=True) < 0.4
    table = table[(table["condition"] == "a") | severe]
    mean, model = mean_ratings(table, CONDITIONS, 0.95, 0), modelled_means(table, CONDITIONS, 0.95)
    assert model.value[1] - model.value[0] == pytest.approx(1, abs=0.15)
    assert mean.value[1] - mean.value[0] < 0.8


def test_what_cannot_be_modelled_is_undefined() -> None:
    table = ratings(listeners=1)
    assert np.isnan(modelled_means(table, CONDITIONS, 0.95).value).all()
    found = modelled_means(ratings(), ("a", "b", "anchor"), 0.95)
    assert np.isnan(found.value).tolist() == [False, False, True]


def test_alpha_of_krippendorff_s_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C."""
    nan = np.nan
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    for level, alpha in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        found = agreement(table, level, 0.95)
        assert found.alpha == pytest.approx(alpha, abs=6e-4)
        assert found.low < found.alpha < found.high <= 1


def test_alpha_is_undefined_without_variation_or_company() -> None:
    assert np.isnan(agreement(np.ones((3, 4)), "nominal", 0.95).alpha)
    assert np.isnan(agreement(np.array([[1.0, 2.0]]), "ordinal", 0.95).alpha)
    two = agreement(np.array([[1.0, 2.0], [1.0, 2.0]]), "ordinal", 0.95)
    assert two.alpha == 1 and np.isnan(two.low)


def test_answers_become_a_row_for_each_listener() -> None:
    table = answers_table(ratings(listeners=2, items=1).iloc[:3], ["item", "condition"], "rating")
    assert table.shape == (2, 2) and np.isnan(table).sum() == 1
