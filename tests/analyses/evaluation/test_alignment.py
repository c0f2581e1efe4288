"""Alignment against preservation: the published figures, closed forms, and properties of the area."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.evaluation.alignment import Curve, alignment, area, curve_of, cutoff_of, quality, smoothness
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.artefacts.steering_metrics import load_steering_metrics

PUBLISHED = Path(__file__).parent / "published_piano.csv"
"""The published curves of PCI for piano: 31 strengths with all blocks and with the localised ones."""


@pytest.fixture(scope="module")
def piano() -> pd.DataFrame:
    return alignment(load_steering_metrics(PUBLISHED), ("muqt", "clap")).set_index(["cell", "judge"])


def test_cutoffs_are_the_published_ones(piano: pd.DataFrame) -> None:
    assert piano["cutoff_positive"].tolist() == [3.803909] * 4
    assert piano["cutoff_negative"].tolist() == [3.491554] * 4


@pytest.mark.parametrize(
    ("cell", "judge", "positive", "negative", "mean", "unevenness"),
    [
        ("pci_all", "muqt", 0.10418, 0.00449, 0.05434, 0.24182),
        ("pci_all", "clap", 0.04359, 0.00093, 0.02226, 0.28860),
        ("pci_loc", "muqt", 0.08081, 0.00676, 0.04378, 0.31315),
        ("pci_loc", "clap", 0.02679, 0.01004, 0.01841, 0.18185),
    ],
)
def test_areas_and_smoothness_are_the_published_ones(
    piano: pd.DataFrame,
    cell: str,
    judge: str,
    positive: float,
    negative: float,
    mean: float,
    unevenness: float,
) -> None:
    row = piano.loc[(cell, judge)]
    found = [round(row[name], 5) for name in ("area_positive", "area_negative", "area", "smoothness")]
    assert found == [positive, negative, mean, unevenness]


def test_a_concept_without_references_has_no_area() -> None:
    metrics = load_steering_metrics(PUBLISHED)
    alone = alignment(metrics[metrics["cell"] == "pci_loc"], ("clap",))
    assert alone[["area", "smoothness"]].isna().all(axis=None)


def test_the_area_of_a_line_is_a_triangle_up_to_the_cutoff() -> None:
    line = Curve(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 6.0]))
    assert_close(area(line, 2.0), 4.0)  # (2, 4) lies between two points
    assert_close(area(line, 3.0), 9.0)
    assert_close(area(line, 8.0), 9.0)  # never reached: nothing is added


def test_a_distance_that_falls_again_takes_area_back() -> None:
    there = Curve(np.array([0.0, 1.0, 2.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert_close(area(there, 5.0), 0.5 + 1.0 - 1.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-1, 1)), min_size=2, max_size=12), st.floats(0.1, 6))
def test_the_area_is_linear_and_a_change_of_one_is_the_distance_reached(
    points: list[tuple[float, float]], cutoff: float
) -> None:
    distance = np.array([0.0, *(d for d, _ in points)])
    change = np.array([0.0, *(c for _, c in points)])
    curve, ones = Curve(distance, change), Curve(distance, np.ones_like(distance))
    size = 1 + 3 * np.abs(change).max() * np.abs(np.diff(distance)).sum()  # areas of both signs cancel
    assert_close(area(curve._replace(change=3 * change), cutoff) + size, 3 * area(curve, cutoff) + size)
    end = cutoff if (distance > cutoff).any() else distance[-1]
    assert_close(area(ones, cutoff) + 1, end + 1)


def test_each_sign_has_its_own_curve_and_direction() -> None:
    strength, distance = np.array([2.0, -1.0, 0.0, 1.0]), np.array([4.0, 1.5, 0.0, 3.0])
    score = np.array([0.9, 0.2, 0.5, 0.6])
    up, down = (curve_of(strength, distance, score, sign) for sign in (1, -1))
    assert up.distance.tolist() == [0, 3, 4]
    assert_close(up.change, [0, 0.1, 0.4])
    assert_close(down.change, [0, 0.3])
    assert cutoff_of([up, down]) == 1.5
    with pytest.raises(ValueError, match="strength 0"):
        curve_of(strength[:2], distance[:2], score[:2], 1)


def test_an_even_rise_is_smooth_and_what_does_not_rise_has_no_smoothness() -> None:
    distance = np.arange(4.0)
    assert_close(1 + smoothness(Curve(distance, 2 * distance), 9.0), 1.0)
    assert_close(smoothness(Curve(distance, np.array([0.0, 0, 0, 2.0])), 9.0), np.std([0, 0, 1]))
    assert_close(smoothness(Curve(distance, np.array([0.0, 1, 1, 9])), 2.0), np.std([1, 0]))
    assert np.isnan(smoothness(Curve(distance, -distance), 9.0))
    assert np.isnan(smoothness(Curve(distance, 2 * distance), 1.0)), "a single difference"


def test_quality_is_the_mean_over_distances_within_the_methods_reach() -> None:
    distance = np.array([2.0, 0.0, 1.0])
    scores = np.stack([5 + distance, np.full(3, 1.0)], axis=1)
    assert_close(quality(distance, scores, 2.0), (6 + 1) / 2)
    assert_close(quality(distance, scores, 28.0), (6 + 1) / 2)  # at 0 and 2 only


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("muqt", "muq", "lacks the column muqt"),
        ("3.543369", "far", r"the lpaps 'far' in row 1"),
        ("0.103255", "inf", "must be a number"),
        ("piano,lpaps,-28", "piano,lpaps,-30", "same strength twice"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(PUBLISHED.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=words):
        load_steering_metrics(file)
