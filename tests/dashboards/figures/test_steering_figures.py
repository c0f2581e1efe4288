"""Dose and response, the ladder, effects on every concept, and the reliability of vectors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses.steering.pack_summary import pack_sites
from dashboards.drawing import palette
from dashboards.figures import (
    FIGURES,
    dose_response,
    ladder,
    screen_figure,
    steering_effects,
    vector_reliability,
)
from dashboards.figures.ladder import LadderSpec
from dashboards.figures.vector_reliability import reliability_frame
from tests.dashboards.figures.helpers import HOSTILE, caption, expect_text, table_of
from tests.dashboards.synthetic_steering import BAND, EFFECTS, LEAK, PATCH, SITE, VECTOR, WIDTH, vector
from workbench.studies.study import Study

REAL = EFFECTS["clean"]


@pytest.fixture(scope="module")
def result(study: Study) -> xr.Dataset:
    return study.result("steering-tempo")


def with_pairs(result: xr.Dataset, n: int) -> xr.Dataset:
    """The result with fewer pairs."""
    return result.isel(pair=slice(n))


def test_doses_have_the_results_numbers(study: Study, result: xr.Dataset) -> None:
    table = table_of(study, "dose-response")
    assert table["way"].tolist() == ["real prompt", "unsteered", PATCH, *[VECTOR] * 3]
    assert table["effect"].tolist() == [REAL, 0.0, REAL, -0.1, 0.3, 0.45]
    assert table["score"].to_numpy() == pytest.approx(
        result["score"].sel(concept="tempo", scorer="embedded").mean(("pair", "seed")).values[: len(table)]
    )
    assert np.isnan(table["strength"].iloc[0])
    assert table["status"].tolist() == [*["unsteered"] * 2, "clear", "not significant", "clear", "clear"]
    assert table.loc[table["way"] == VECTOR, ["null_lo", "null_hi"]].to_numpy().tolist() == [list(BAND)] * 3


def test_doses_of_another_concept_are_its_leakage(study: Study) -> None:
    table = table_of(study, "dose-response", concept="mood")
    assert table["effect"].tolist() == [0.0] * 5 + [LEAK]
    assert "mood, which is not steered" in caption(study, "dose-response", concept="mood")


def test_leakage_is_drawn_on_the_scale_of_the_change_that_is_wanted(study: Study) -> None:
    for concept in ("tempo", "mood", "drums"):
        low, high = screen_figure(study, "dose-response", concept=concept).layout.yaxis.range
        assert low < 0
        assert REAL < high < 1.2 * REAL
    assert low == pytest.approx(BAND[0], abs=0.06)
    assert screen_figure(study, "dose-response", concept="mood").layout.yaxis.range[0] < LEAK - WIDTH


def test_a_line_goes_through_the_unsteered_run(study: Study) -> None:
    figure = screen_figure(study, "dose-response")
    (line,) = [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None]
    assert list(line.y) == [-0.1, 0.0, 0.3, 0.45]
    assert line.x[1] == 0.0
    (shaded,) = [trace for trace in figure.data if trace.fill == "toself"]
    assert (max(shaded.y), min(shaded.y)) == (BAND[1], BAND[0])
    assert [shape.y0 for shape in figure.layout.shapes] == [0, REAL]


def test_points_that_are_not_clear_are_hollow(study: Study) -> None:
    points = {
        trace.name: trace
        for trace in screen_figure(study, "dose-response").data
        if trace.customdata is not None
    }
    colour = palette.LINES[1]
    assert list(points[VECTOR].marker.color) == ["white", colour, colour]
    assert [one[0] for one in points[VECTOR].customdata] == ["vector × -1", "vector × 1", "vector × 2"]
    assert list(points[VECTOR].error_y.array) == pytest.approx([WIDTH] * 3)
    ringed = dose_response.draw_screen(table_of(study, "dose-response"), "vector × 1")
    (chosen,) = [trace for trace in ringed.data if trace.name == VECTOR]
    assert list(chosen.marker.line.color) == [colour, palette.PLANTED, colour]
    assert chosen.marker.size[1] > chosen.marker.size[0]


def test_many_ways_look_different(study: Study) -> None:
    table = table_of(study, "dose-response")
    one = table[table["way"] == VECTOR]
    more = [one.assign(way=f"way {number}") for number in range(18)]
    many = pd.concat([table, *more], ignore_index=True)
    points = [trace for trace in dose_response.draw_screen(many).data if trace.customdata is not None]
    looks = {(trace.error_y.color, trace.marker.symbol) for trace in points}
    assert len(points) == len(looks) == 20


def test_each_way_stands_at_its_best_strength_or_the_given_one(study: Study) -> None:
    best = table_of(study, "ladder")
    assert best["arm"].tolist() == [f"{PATCH} × 1", f"{VECTOR} × 2"]
    assert best["impact"].tolist() == [1.0, EFFECTS[VECTOR, 2.0] / REAL]
    assert best["best"].all()
    assert best.loc[1, ["band_lo", "band_hi"]].tolist() == [edge / REAL for edge in BAND]
    assert best.loc[0, ["band_lo", "band_hi"]].isna().all()
    minus = table_of(study, "ladder", strength=-1)
    assert minus["arm"].tolist() == [f"{PATCH} × 1", f"{VECTOR} × -1"]
    assert minus["best"].tolist() == [True, False]
    assert f"Strength -1 ({PATCH}: at the strength with the largest change)" in caption(
        study, "ladder", strength=-1
    )
    assert "chosen on the same prompts" in caption(study, "ladder")


def test_the_ladder_draws_its_table(study: Study) -> None:
    (points,) = screen_figure(study, "ladder").data
    assert list(points.x) == [1.0, EFFECTS[VECTOR, 2.0] / REAL]
    assert list(points.y) == [0, 1]
    axes = FIGURES["ladder"].paper(study, LadderSpec(name="tempo"), table_of(study, "ladder")).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{PATCH} × 1", f"{VECTOR} × 2"]
    (patch,) = axes.patches
    assert (patch.get_x(), patch.get_x() + patch.get_width()) == pytest.approx([edge / REAL for edge in BAND])


def test_effects_are_relative_to_the_real_prompt(study: Study) -> None:
    table = table_of(study, "steering-effects").set_index(["arm", "concept"])
    assert table.loc[("clean", "tempo"), "relative"] == 1.0
    assert table.loc[(f"{VECTOR} × 2", "mood"), "relative"] == pytest.approx(LEAK / REAL)
    assert table.loc[(f"{VECTOR} × 2", "mood"), "effect"] == LEAK
    assert table.loc[(f"{VECTOR} × 2", "drums"), "status"] == "not significant"
    figure = screen_figure(study, "steering-effects")
    assert np.nanmin(np.array(figure.data[0].z, dtype=float)) >= 0, "coloured by size"
    assert "−0.20" in [
        text
        for trace in figure.data
        for text in (trace.text if trace.type == "scatter" and trace.mode == "text" else ())
    ]


@pytest.mark.parametrize("figure", ["dose-response", "ladder", "steering-effects"])
def test_a_scorer_that_cannot_tell_the_real_prompts_apart_is_named(study: Study, figure: str) -> None:
    told = caption(study, figure, scorer="clap")
    assert "Not interpretable: the scorer does not clearly tell fast from slow" in told
    assert f"Steers backwards: {VECTOR}." in told
    told = caption(study, figure)
    assert "Not interpretable" not in told
    assert "backwards" not in told


def test_without_a_clear_denominator_there_are_no_impacts(study: Study) -> None:
    rungs, leaks = (
        table_of(study, "ladder", scorer="clap"),
        table_of(study, "steering-effects", scorer="clap"),
    )
    assert rungs["impact"].isna().all()
    assert set(rungs["status"]) == set(leaks["status"]) == {"undefined"}
    assert [note.text for note in screen_figure(study, "ladder", scorer="clap").layout.annotations][2:] == [
        "undefined"
    ] * 2
    assert "Hollow" not in caption(study, "ladder", scorer="clap")


def test_too_few_pairs_are_said(result: xr.Dataset) -> None:
    few = with_pairs(result, 3)
    said = "3 pairs: smallest possible p is 0.25"
    doses = dose_response.response_frame(few)
    assert set(doses["status"]) == {"unsteered", "too few pairs"}
    assert said in dose_response.write_caption(few, doses)
    assert said in ladder.write_caption(few, ladder.rungs_frame(few), LadderSpec(name="tempo"))
    spec = steering_effects.SteeringEffectsSpec(name="tempo")
    assert said in steering_effects.write_caption(few, steering_effects.leaks_frame(few), spec)
    assert "Sign check: too few pairs to tell" in dose_response.write_caption(few, doses)


def two_ways(result: xr.Dataset, of_second: int) -> xr.Dataset:
    """The result with some of the vector's random vectors again, for the patch."""
    nulls = result.isel(arm=(result["role"] == "null") & (result["strength"] == 1.0)).isel(
        arm=slice(of_second)
    )
    again = nulls.assign_coords(
        arm=[f"{name}, again" for name in nulls["arm"].values],
        row=("arm", [f"{row}, again" for row in nulls["row"].values]),
        null_of=("arm", [f"{PATCH} × 1"] * of_second),
    )
    return xr.concat([result, again], "arm", data_vars="minimal")


@pytest.mark.parametrize(("of_second", "said"), [(2, "2 random vectors"), (1, "1 to 2 random vectors")])
def test_the_random_vectors_of_one_band_are_counted(result: xr.Dataset, of_second: int, said: str) -> None:
    both = two_ways(result, of_second)
    doses, rungs = dose_response.response_frame(both), ladder.rungs_frame(both)
    for told in (
        dose_response.write_caption(both, doses),
        ladder.write_caption(both, rungs, LadderSpec(name="tempo")),
    ):
        assert f"null bands, each of {said} at the same strength" in told


def test_long_names_of_ways_leave_room_for_the_map(study: Study) -> None:
    path = f"/home/somebody/{'a-long-folder/' * 5}"
    leaks, rungs = table_of(study, "steering-effects"), table_of(study, "ladder")
    long = [table.assign(arm=path + table["arm"]) for table in (leaks, rungs)]
    figures = steering_effects.draw_screen(long[0]), ladder.draw_screen(long[1])
    for figure, most in zip(figures, (30, ladder.LONGEST_LABEL), strict=True):
        names = [name.replace("<br>", " ") for name in figure.layout.yaxis.ticktext]
        assert max(map(len, names)) <= most
        assert len(set(names)) == len(names)
        assert names[-1].endswith(("× 1", "× 2"))
    arms = steering_effects.frame_for_clicks(long[0])["arm"]
    assert arms.tolist() == long[0]["arm"].tolist(), "a click selects the whole name"


@pytest.mark.parametrize("ways", [2, 22, 90])
def test_a_legend_of_many_names_leaves_the_plot_its_room(study: Study, ways: int) -> None:
    doses = table_of(study, "dose-response")
    cell = doses[doses["way"] == VECTOR]
    many = pd.concat([doses[:2], *(cell.assign(way=f"method {n}") for n in range(ways))], ignore_index=True)
    layout = dose_response.draw_screen(many).layout
    assert (layout.legend.yref, layout.legend.y, layout.legend.yanchor) == ("container", 0, "bottom")
    assert layout.legend.maxheight <= layout.margin.b - 40, "the axis stands between them"
    assert layout.height - layout.margin.b - layout.margin.t > 290
    assert layout.height <= 620


RUNGS = [
    f"{name}{end}"
    for name in ("same-pair difference", "same-pair mean over time", "vector by token", "vector")
    for end in ("", " (same latents)")
] + ["conditioning patch", "output patch", "SAE reconstruction at tf3+tf4", "SAE features at tf3+tf4"]


@pytest.mark.parametrize("width", ["single", "double"])
def test_no_name_of_a_rung_is_cut(study: Study, width: Any) -> None:
    rungs = table_of(study, "ladder").iloc[[1]]
    rungs = pd.concat([rungs.assign(way=name, arm=f"{name} × 0.25") for name in RUNGS], ignore_index=True)
    arms = [f"{name} × 0.25" for name in RUNGS]
    lines = [name.split("<br>") for name in ladder.draw_screen(rungs).layout.yaxis.ticktext]
    assert [" ".join(parts) for parts in lines] == arms
    assert all(len(parts) == 1 + (len(arm) > 24) for parts, arm in zip(lines, arms, strict=True))
    labels = ladder.draw_paper(rungs, width).axes[0].get_yticklabels()
    assert [label.get_text().replace("\n", " ") for label in labels] == arms
    doses = table_of(study, "dose-response")
    cell = doses[doses["way"] == VECTOR]
    runs = doses[doses["way"].isin(["real prompt", "unsteered"])]
    doses = pd.concat([runs, *(cell.assign(way=name) for name in RUNGS)], ignore_index=True)
    assert {trace.name for trace in dose_response.draw_screen(doses).data} >= set(RUNGS)
    (legend,) = dose_response.draw_paper(doses, width).legends
    assert {text.get_text() for text in legend.get_texts()} >= set(RUNGS)


def test_without_random_vectors_there_is_no_band(result: xr.Dataset) -> None:
    alone = result.isel(arm=result["role"].values != "null")
    alone = alone.assign(null_lo=alone["null_lo"] * np.nan, null_hi=alone["null_hi"] * np.nan)
    doses, rungs = dose_response.response_frame(alone), ladder.rungs_frame(alone)
    assert not [trace for trace in dose_response.draw_screen(doses).data if trace.fill]
    assert not [shape for shape in ladder.draw_screen(rungs).layout.shapes if shape.type == "rect"]
    for told in (
        dose_response.write_caption(alone, doses),
        ladder.write_caption(alone, rungs, LadderSpec(name="tempo")),
    ):
        assert "There are no random vectors to compare with." in told
        assert "Shaded" not in told
        assert "Grey" not in told


def test_a_way_without_scores_is_drawn_without_numbers(result: xr.Dataset) -> None:
    silent = result.copy(deep=True)
    for name in ("effect", "effect_lo", "effect_hi", "p", "p_adjusted", "impact", "impact_lo", "impact_hi"):
        silent[name] = silent[name].where(silent["row"] != PATCH)
    rungs = ladder.rungs_frame(silent)
    assert rungs["status"].tolist() == ["no score", "clear"]
    assert "no score" in [note.text for note in ladder.draw_screen(rungs).layout.annotations]
    assert steering_effects.leaks_frame(silent)["status"].tolist().count("no score") == 4
    doses = dose_response.response_frame(silent)
    (points,) = [trace for trace in dose_response.draw_screen(doses).data if trace.name == PATCH]
    assert len(points.x) == 0


def test_reliability_has_the_vectors_numbers(study: Study) -> None:
    table, known = (
        table_of(study, "vector-reliability"),
        vector().reliability.sel({"site": SITE, "pass": "cond"}),
    )
    for quantity, other in (("learning", "pairs"), ("steps", "step_b")):
        rows = table[table["quantity"] == quantity].pivot(index="step", columns="at", values="value")
        np.testing.assert_array_equal(rows.to_numpy(), known[quantity].transpose("step", other).values)
    halves = table[table["quantity"] == "split_half"]
    for column, name in (("value", "split_half"), ("low", "split_half_lo"), ("high", "split_half_hi")):
        assert halves[column].tolist() == known[name].values.tolist()
    told = caption(study, "vector-reliability")
    assert "computed from 5 pairs" in told
    assert "estimated cosine 0." in told


@pytest.mark.parametrize("width", ["single", "double"])
def test_a_single_halving_is_drawn_without_an_interval(width: Any) -> None:
    one = vector()
    ends = {name: one.reliability[name] * np.nan for name in ("split_half_lo", "split_half_hi")}
    one = replace(one, reliability=one.reliability.assign(ends))
    table = reliability_frame(one, "one", SITE, "cond")
    told = vector_reliability.write_caption(one, table)
    assert "halves of the pairs; the direction" in told
    (row,) = [
        row for row in pack_sites(one).to_dict("records") if row["site"] == SITE and row["pass"] == "cond"
    ]
    assert "[" not in row["split-half cosine"] and row["split-half cosine"]
    assert f"(estimated cosine {row['all pairs, estimated']}, mean" in told, "the digits of `show`"
    vector_reliability.draw_paper(table, width)
    vector_reliability.draw_screen(table)


@pytest.mark.parametrize("width", ["single", "double"])
def test_a_vector_of_unknown_pairs_says_so(width: Any) -> None:
    table = reliability_frame(vector(known=False), "elsewhere", SITE, "cond")
    assert set(table["quantity"]) == {"split_half", "steps"}
    told = vector_reliability.write_caption(vector(known=False), table)
    assert "unknown pairs" in told
    assert "How much it depends on the pairs is unknown." in told
    notes = [note.text for note in vector_reliability.draw_screen(table).layout.annotations]
    assert notes.count("unknown") == 2
    vector_reliability.draw_paper(table, width)
    assert not plt.get_fignums()


def test_a_vector_of_clips_has_no_pairs() -> None:
    one = vector()
    clips = tuple(replace(example, pair=None, value=1.5) for example in one.examples)
    one = replace(one, examples=clips, checks=())
    table = reliability_frame(one, "one", SITE, "cond")
    layout = vector_reliability.draw_screen(table).layout
    assert layout.xaxis.title.text == "clips in each set"
    assert "cosine by number of clips" in [note.text for note in layout.annotations]
    told = vector_reliability.write_caption(one, table)
    assert "computed from 10 clips." in told and "pairs" not in told


DRAWN: list[tuple[str, Callable[[Study], Any]]] = [
    ("way", lambda study: dose_response.draw_screen(table_of(study, "dose-response").assign(way=HOSTILE))),
    (
        "concept",
        lambda study: dose_response.draw_screen(table_of(study, "dose-response").assign(concept=HOSTILE)),
    ),
    ("arm", lambda study: ladder.draw_screen(table_of(study, "ladder").assign(arm=HOSTILE))),
]


@pytest.mark.parametrize(("name", "draw"), DRAWN, ids=lambda value: value if isinstance(value, str) else "")
def test_names_are_text(study: Study, name: str, draw: Callable[[Study], Any]) -> None:
    del name
    drawn = draw(study)
    for trace in drawn.data:
        if trace.customdata is not None:  # its first entry is what a click selects; it is not shown
            trace.customdata = [row[1:] for row in trace.customdata]
    expect_text(drawn)
    table = table_of(study, "steering-effects")
    expect_text(steering_effects.draw_screen(table.assign(concept=HOSTILE + table["concept"])))


def test_many_ways_have_lines_of_their_own(study: Study) -> None:
    table = table_of(study, "dose-response")
    cell = table[table["way"] == VECTOR]
    many = pd.concat(
        [table, *(cell.assign(way=f"way {k}", arm=f"way {k}") for k in range(20))], ignore_index=True
    )
    lines = [
        trace for trace in dose_response.draw_screen(many).data if trace.mode == "lines" and not trace.fill
    ]
    looks = {(line.line.color, line.line.dash) for line in lines}
    assert len(lines) == 21
    assert len(looks) >= 3 * len(palette.LINES) - 1


def test_another_vector_is_drawn_by_its_name(study: Study) -> None:
    other = replace(vector(), concept="mood")
    table = reliability_frame(other, "other", SITE, "cond")
    assert "direction other (caa; mood, from slow to fast)" in vector_reliability.write_caption(other, table)
