"""Alignment against preservation, the ranking of methods and their leakage: planted slopes come out in order."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cache.errors import UserError
from dashboards.figures import (
    FIGURES,
    alignment_preservation,
    leakage,
    make_spec,
    method_ranking,
    screen_figure,
)
from dashboards.latex import latex_table
from tests.dashboards.figures.helpers import HOSTILE, caption, expect_text, table_of
from tests.dashboards.synthetic_benchmark import DISTANCE, ORDER, SLOPES, SPEC, STRENGTHS, benchmark
from workbench.studies.study import Study

NEAR = 0.1  # the noise of the simulated trials
NAMES = ("alignment-preservation", "method-ranking", "leakage")
DEAF = "the judge does not tell the real prompts apart"


@pytest.fixture(scope="module")
def result(study: Study) -> xr.Dataset:
    return study.result("benchmark-strict")


@pytest.mark.parametrize("concept", ["tempo", "mood", ""])
def test_methods_stand_in_the_order_of_their_planted_slopes(study: Study, concept: str) -> None:
    table = table_of(study, "method-ranking", concept=concept)
    assert set(table["concept"]) == {concept or "all concepts"}
    for direction in ("towards", "away"):
        part = table[table["direction"] == direction]
        assert part["way"].tolist() == ORDER
        planted = [SLOPES[way] * max(STRENGTHS) for way in ORDER]
        np.testing.assert_allclose(part["ratio"], planted, atol=NEAR)
        np.testing.assert_array_equal(part["rank"], [1.0, 2.0, np.nan])
        np.testing.assert_array_equal(part["first"], [1.0, 0.0, np.nan])
        np.testing.assert_array_equal(part["common_distance"], DISTANCE if concept else np.nan)
        assert set(part["limited_by"]) == {"caa (localised)" if concept else ""}
        assert set(part["verdict"]) == {"clear"}
        assert (part["ratio_lo"] < part["ratio"]).all() and (part["ratio"] < part["ratio_hi"]).all()
        assert set(part["n"]) == ({6} if concept else {2})


def test_the_ranking_draws_its_table(study: Study, result: xr.Dataset) -> None:
    table = table_of(study, "method-ranking", concept="tempo")
    figure = screen_figure(study, "method-ranking", concept="tempo")
    towards, _ = figure.data
    assert list(towards.x) == table.loc[table["direction"] == "towards", "ratio"].tolist()
    assert list(figure.layout.yaxis.ticktext) == ORDER
    assert [note.text for note in figure.layout.annotations[:2]] == [
        "towards the value",
        "away from the value",
    ]
    one = result.sel(
        concept="tempo", sign="positive", scorer="embedded", measure="mel", way="caa (localised)"
    )
    band = [float(one[f"null_effect_at_distance_{end}"] / one["control"]) for end in ("lo", "hi")]
    shown = table[(table["direction"] == "towards") & (table["way"] == "caa (localised)")]
    assert shown[["band_lo", "band_hi"]].iloc[0].tolist() == band
    (grey,) = [shape for shape in figure.layout.shapes if shape.type == "rect" and shape.xref == "x"]
    assert [grey.x0, grey.x1] == band
    hollow = table.assign(verdict="not clear")
    assert set(method_ranking.draw_screen(hollow).data[1].marker.color) == {"white"}
    axes = FIGURES["method-ranking"].paper(study, make_spec(study, "method-ranking", {}), table).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ORDER
    assert [one.get_title() for one in axes] == ["towards", "away"]


def test_what_random_vectors_do_too_is_hollow(result: xr.Dataset) -> None:
    same = result.copy(deep=True)
    for end, value in (("lo", -1.0), ("hi", 1.0)):
        same[f"null_effect_at_distance_{end}"] = same[f"null_effect_at_distance_{end}"] * 0 + value
    verdicts = method_ranking.ranking(same, "tempo").set_index("way")["verdict"]
    assert set(verdicts["caa (localised)"]) == {"inside random band"}
    small = result.assign(ratio_at_distance_lo=result["ratio_at_distance_lo"] * 0 - 1.0)
    assert set(method_ranking.ranking(small, "tempo")["verdict"]) == {"not clear"}


def test_curves_have_the_results_numbers(study: Study, result: xr.Dataset) -> None:
    table = table_of(study, "alignment-preservation", concept="tempo")
    cells = table[table["role"] == "cell"]
    assert len(cells) == 2 * len(SLOPES) * len(STRENGTHS)
    for row in cells.to_dict("records"):
        sign = "positive" if row["strength"] > 0 else "negative"
        assert row["direction"] == {"positive": "towards", "negative": "away"}[sign]
        one = result.sel(concept="tempo", sign=sign, arm=row["arm"], scorer="embedded", measure="mel")
        for name in ("ratio", "ratio_lo", "distance", "distance_hi", "preservation", "effect"):
            assert row[name] == float(one[name]), name
        assert row["ratio"] == pytest.approx(SLOPES[row["way"]] * abs(row["strength"]), abs=NEAR)
    assert set(table["common_distance"]) == {DISTANCE}
    real = table[table["arm"] == "clean"]
    assert real["ratio"].tolist() == [1.0, 1.0] and real["distance"].tolist() == [2.0, 2.0]


def traces_of(figure: Any, axis: str) -> list[Any]:
    """The traces in the panel of an x axis."""
    return [trace for trace in figure.data if (trace.xaxis or "x") == axis]


def curves_of(figure: Any, axis: str) -> list[Any]:
    """The curves in a panel, without the areas of their intervals and the keys of the legend."""
    lines = [trace for trace in traces_of(figure, axis) if trace.mode == "lines" and trace.fill is None]
    return [trace for trace in lines if len(trace.x) > 1]


def test_curves_are_drawn_by_place_and_begin_at_the_unsteered_run(study: Study) -> None:
    figure = screen_figure(study, "alignment-preservation", concept="tempo")
    for axis in ("x", "x2"):
        curves = curves_of(figure, axis)
        assert [curve.line.dash for curve in curves] == ["dash", "solid", "dot"]
        assert all((curve.x[0], curve.y[0]) == (0.0, 0.0) for curve in curves)
        assert all(curve.x[-1] == DISTANCE for curve in curves)
        ends = {way: curve.y[-1] for way, curve in zip(SLOPES, curves, strict=True)}
        assert sorted(ends, key=lambda way: -ends[way]) == sorted(SLOPES, key=lambda way: -SLOPES[way])
        (star,) = [trace for trace in traces_of(figure, axis) if trace.name == "real prompt"]
        assert (star.x[0], star.y[0]) == (2.0, 1.0)
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert names == ["caa", "pci", "real prompt", "localised blocks", "all blocks", "other blocks"]
    assert [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1] == [DISTANCE] * 2
    one = screen_figure(study, "alignment-preservation", concept="tempo", method="pci")
    assert {trace.name for trace in one.data} >= {"pci"} and "caa" not in {trace.name for trace in one.data}


def test_a_point_says_what_was_clicked(study: Study) -> None:
    table = table_of(study, "alignment-preservation", concept="tempo")
    figure = alignment_preservation.draw_screen(table, selected="caa (all) × 2")
    points = [trace for trace in figure.data if trace.mode == "markers" and trace.customdata[0][0]]
    clicks = {tuple(one[:2]) for trace in points for one in trace.customdata}
    assert clicks == {
        (f"{way} × {sign * strength:g}", direction)
        for way in SLOPES
        for sign, direction in ((1, "towards"), (-1, "away"))
        for strength in STRENGTHS
    }
    assert [max(trace.marker.size) for trace in points].count(14) == 1


def test_random_vectors_are_a_band_around_nothing(study: Study) -> None:
    table = table_of(study, "alignment-preservation", concept="tempo")
    nulls = table[(table["role"] == "null") & (table["direction"] == "away")]
    figure = screen_figure(study, "alignment-preservation", concept="tempo")
    grey = next(trace for trace in traces_of(figure, "x2") if trace.fill and trace.opacity == 0.25)
    assert (min(grey.y), max(grey.y)) == (nulls["ratio_lo"].min(), nulls["ratio_hi"].max())
    assert "intervals of 3 random vectors" in caption(study, "alignment-preservation")


def test_preservation_falls_from_one(study: Study) -> None:
    figure = screen_figure(study, "alignment-preservation", concept="tempo", across="preservation")
    curves = [*curves_of(figure, "x"), *curves_of(figure, "x2")]
    assert [list(curve.x) for curve in curves] == [[1.0, 0.75, 0.5]] * 6
    assert not [shape for shape in figure.layout.shapes if shape.x0 == shape.x1]


def test_leakage_is_the_slope_on_the_diagonal_and_nothing_beside_it(study: Study) -> None:
    for direction in ("towards", "away"):
        table = table_of(study, "leakage", direction=direction)
        assert len(table) == len(SLOPES) * 2 * 2
        own, others = table[table["own"]], table[~table["own"]]
        planted = [SLOPES[way] * max(STRENGTHS) for way in own["way"]]
        np.testing.assert_allclose(own["leakage"], planted, atol=NEAR)
        assert set(own["status"]) == {"clear"}
        assert others["leakage"].abs().max() < NEAR
        assert (others["leakage_lo"] <= others["leakage"]).all()
    assert set(table_of(study, "leakage", method="pci")["way"]) == {"pci (others)"}


def test_leakage_has_no_empty_panels(study: Study) -> None:
    table = FIGURES["leakage"].table(study, make_spec(study, "leakage", {"name": "strict"}))
    first, *others = dict.fromkeys(table["way"])
    without = table.assign(leakage=table["leakage"].where(table["way"] != first))
    assert [way for way, _ in leakage._panels(without)] == others
    assert leakage._without_numbers(without) == [first]
    none = table.assign(leakage=np.nan)
    assert [way for way, _ in leakage._panels(none)] == [first], "one that says that there is nothing"


def test_leakage_has_diverging_colours_and_framed_diagonals(study: Study) -> None:
    figure = screen_figure(study, "leakage")
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(maps) == len(SLOPES)
    frames = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines"]
    assert [(min(frame.x[6:11]), max(frame.x[6:11])) for frame in frames] == [(1.02, 1.98)] * 3
    table = leakage.leakages(study.result("benchmark-strict"))
    lost = table.assign(leakage=-1.0)
    (first, *_) = [
        trace for trace in leakage.draw_screen(lost).data if trace.type == "scatter" and trace.mode == "text"
    ]
    assert first.text[0].startswith("−1.00")
    assert leakage.level(np.array([-3.0, -1.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert "∗: the interval includes 0" in caption(study, "leakage")


@pytest.mark.parametrize("figure", NAMES)
def test_a_deaf_judge_gives_no_number_but_a_reason(study: Study, figure: str) -> None:
    options: dict[str, str] = (
        {"scorer": "deaf"} if figure == "leakage" else {"scorer": "deaf", "concept": "mood"}
    )
    table = table_of(study, figure, **options)
    assert (
        table[[name for name in ("ratio", "leakage", "rank", "effect") if name in table]]
        .isna()
        .all(axis=None)
    )
    told = caption(study, figure, **options)
    assert "No numbers by deaf of " in told and DEAF in told
    assert DEAF not in caption(study, figure)
    drawn = screen_figure(study, figure, **options)
    marks = [trace for trace in drawn.data if trace.type == "scatter" and trace.mode in ("markers", "text")]
    assert marks and not [value for trace in marks for value in trace.x]
    if figure != "leakage":
        reasons = [note.text for note in drawn.layout.annotations if "not interpretable" in note.text]
        assert reasons == [DEAF.replace(" the real", "<br>the real").join(("not interpretable:<br>", ""))] * 2
    spec = make_spec(study, figure, options)
    FIGURES[figure].paper(study, spec, table)


def test_a_way_without_numbers_has_no_row_and_is_named(study: Study, result: xr.Dataset) -> None:
    spec = make_spec(study, "method-ranking", {"concept": "tempo"})
    table = table_of(study, "method-ranking", concept="tempo")
    assert "no row" not in method_ranking.write_caption(study, result, table, spec)
    table.loc[table["way"] == ORDER[1], "ratio"] = np.nan
    figure = method_ranking.draw_screen(table)
    assert list(figure.layout.yaxis.ticktext) == [ORDER[0], ORDER[2]]
    assert [len(trace.x) for trace in figure.data] == [2, 2]
    told = method_ranking.write_caption(study, result, table, spec)
    assert f"Not that far from the unsteered clips, so no row: {ORDER[1]}." in told


def test_captions_name_value_judge_distance_and_sample(study: Study) -> None:
    told = caption(study, "alignment-preservation", concept="mood", measure="stft")
    for words in (
        "steering towards happy and away from it",
        "Judge embedded, distance stft; 6 held-out prompts × 1 seed",
        "Solid: all blocks; dashed: localised blocks; dotted: other blocks.",
        "95 % bootstrap intervals",
    ):
        assert words in told
    ranked = caption(study, "method-ranking")
    assert "2 (towards) and 2 (away)" in ranked
    assert "controls, which neither limit the distance nor have a rank" in ranked
    assert "mood, away: 1.00 (limit: caa (localised)); tempo, towards: 1.00" in ranked


@pytest.mark.parametrize("figure", NAMES)
def test_tables_for_a_paper_are_rounded(study: Study, figure: str) -> None:
    printed = FIGURES[figure].latex(table_of(study, figure))
    text = latex_table(printed, "a caption", figure)
    assert r"\begin{tabular}" in text and r"\toprule" in text
    assert not pd.Series(text.split()).str.fullmatch(r"[0-9]*\.[0-9]{4,}").any()
    if figure == "method-ranking":
        assert printed[""].tolist() == ORDER
        assert printed["rank, away"].tolist() == ["1.0 [1.0, 1.0]", "2.0 [2.0, 2.0]", "–"]
    if figure == "leakage":
        assert list(printed) == ["steering", "steered", "mood", "tempo"]


@pytest.mark.parametrize(
    ("figure", "options", "named"),
    [
        ("leakage", {"method": "lora"}, "There is no method 'lora'"),
        ("alignment-preservation", {"concept": "key"}, "There is no concept 'key'"),
        ("method-ranking", {"measure": "cosine"}, "There is no distance 'cosine'"),
        ("method-ranking", {"scorer": "clap"}, "There is no scorer 'clap'"),
        ("leakage", {"direction": "up"}, "direction"),
        ("leakage", {"name": "other"}, "benchmark result 'other'"),
    ],
)
def test_unknown_choices_are_named(study: Study, figure: str, options: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        table_of(study, figure, **options)


def test_the_published_protocol_has_no_figures(study: Study) -> None:
    areas = benchmark().drop_dims(["arm", "judged"])
    areas = areas[[name for name in areas.data_vars if str(name).startswith("published_")]]
    areas.attrs |= {"protocol": "published"}
    study.save_result("benchmark-published", areas, SPEC, 1.0)
    try:
        with pytest.raises(UserError, match=r"only gives areas.*workbench steer evaluate"):
            table_of(study, "leakage", name="published")
    finally:
        study.remove_result("benchmark-published")


def test_names_are_text(study: Study) -> None:
    curves = table_of(study, "alignment-preservation")
    expect_text(alignment_preservation.draw_screen(curves.assign(measure=HOSTILE)))
    ranked = table_of(study, "method-ranking")
    ranked["way"] = HOSTILE + ranked["way"]
    drawn = method_ranking.draw_screen(ranked)
    for trace in drawn.data:  # its first entry is what a click selects; it is not shown
        trace.customdata = [row[1:] for row in trace.customdata]
    expect_text(drawn)
    leaks = table_of(study, "leakage")
    expect_text(leakage.draw_screen(leaks.assign(way=HOSTILE + leaks["way"])))
    named = {column: HOSTILE + leaks[column] for column in ("concept", "judged")}
    expect_text(leakage.draw_screen(leaks.assign(**named)))
