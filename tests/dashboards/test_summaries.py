"""The tables that commands end with name the right cells, probes and features, with the result's numbers."""

import numpy as np
import pandas as pd
import xarray as xr

from dashboards.notebook import Result
from dashboards.summaries import (
    NO_SCORES,
    agreement_summary,
    has_impacts,
    patching_summary,
    probes_summary,
    sae_features_table,
    sae_metrics,
    sae_summary,
    steering_summary,
    undefined_notes,
)
from dashboards.tables.features import features_frame
from tests.dashboards.synthetic_study import SAE_SITES, UNDEFINED
from workbench.studies.study import Study

UNSCORED = f"undefined: {NO_SCORES}"


def test_the_cells_of_largest_impact_stand_first(study: Study) -> None:
    result = study.result("patching-blocks").isel(scorer=[0])
    table = patching_summary(result)
    assert list(dict.fromkeys(table["concept"])) == [str(name) for name in result["concept"].values]
    cells = result.sel(arm=result["role"] == "cell").squeeze("scorer")
    for concept in set(table["concept"]) - {UNDEFINED}:
        for direction in ("sufficiency", "necessity"):
            impacts = cells.impact.sel(concept=concept, arm=cells["direction"] == direction)
            expected = impacts.sortby(-impacts)["row"].values[:2].tolist()
            shown = table[(table["concept"] == concept) & (table["direction"] == direction)]
            assert shown["cell"].tolist() == expected
            assert float(shown["impact [95 %]"].iloc[0].split(" [")[0]) == round(float(impacts.max()), 2)
    assert set(table.loc[table["concept"] == UNDEFINED, "impact [95 %]"]) == {"undefined"}
    assert set(table.loc[table["concept"] == UNDEFINED, "p, adjusted"]) == {"–"}


def test_each_scorer_has_its_own_table_without_the_concepts_that_it_does_not_hear(study: Study) -> None:
    result = study.result("patching-blocks").copy(deep=True)
    result["n_pairs"].loc[{"scorer": "clap", "concept": "tempo"}] = 0
    result["impact"].loc[{"scorer": "clap", "concept": "tempo"}] = np.nan
    result["impact"].loc[{"scorer": "clap", "concept": "drums", "arm": "tf0"}] = 7.0
    pd.testing.assert_frame_equal(patching_summary(result), patching_summary(result, "embedded"))
    table = patching_summary(result, "clap")
    assert set(patching_summary(result)["concept"]) - set(table["concept"]) == {"tempo"}
    assert table.loc[table["concept"] == "drums", "cell"].iloc[0] == "tf0"
    assert undefined_notes(result, "clap")[-1] == f"{UNSCORED} (tempo: 0 pairs)."


def test_agreement_has_its_interval_and_numbers(study: Study) -> None:
    result = study.result("patching-blocks")
    table = agreement_summary(result).set_index("concept")
    assert UNDEFINED not in table.index
    assert table.loc["tempo"].tolist() == ["embedded, clap", "0.87 [0.71, 0.95]", "18", "12"]
    assert agreement_summary(result.isel(scorer=[0], scorer_b=[0])).empty


def test_cells_of_other_questions_are_named_by_row_and_column(study: Study) -> None:
    table = patching_summary(study.result("patching-steps"))
    assert table["cell"].str.match(r"tf\d+, steps \d").all()


def test_the_best_probe_of_each_concept(study: Study) -> None:
    result = study.result("probes")
    result["control_mean"] = result["control_mean"] + 0.1  # of few shuffles each: not what is shown
    table = probes_summary(result).set_index("concept")
    assert table.index.tolist() == [str(name) for name in result["concept"].values]
    for concept, row in table.iterrows():
        accuracy = result["accuracy_mean"].sel(concept=concept)
        assert float(accuracy.sel(site=row["site"], step=int(row["step"]))) == float(accuracy.max())
        assert float(row["accuracy [95 %]"].split(" [")[0]) == round(float(accuracy.max()), 2)
        null = (result["accuracy_mean"] - result["selectivity"]).sel(concept=concept).mean().item()
        assert row["shuffled"] == f"{null:.2f}"


def test_the_metrics_of_an_autoencoder_and_its_best_features(study: Study) -> None:
    result = study.result(f"sae-{SAE_SITES[0]}")
    metrics = sae_metrics(result).set_index("held-out metric")["value"]
    assert metrics["explained variance"] == f"{float(result['final_explained_variance']):.3f}"
    assert metrics["dead features"] == f"{float(result['final_dead_fraction']):.1%}"
    best = features_frame(result)["best_auroc"]
    table = sae_summary(result, study.clips)
    assert table["AUROC [95 %]"].iloc[0] == f"{np.nanmax(best):.2f} [0.92, 0.99]"
    assert set(table["p, adjusted"]) == {"0.004"}
    assert table["feature"].is_unique
    concept, _, value = table["responds to"].iloc[0].partition("=")
    assert table["clips"].iloc[0] == str((study.clips[f"label_{concept}"] == value).sum())


def test_labelled_features_come_first_with_their_scores(study: Study) -> None:
    result = study.result(f"sae-{SAE_SITES[0]}")
    table = sae_features_table(result, 20)
    assert len(table) == 20
    labelled = [str(label) for label in result["label"].values if label]
    assert table["label"].tolist() == [*labelled, *["–"] * (20 - len(labelled))]
    row = table.iloc[1]
    assert row["feature"] == "3"
    one = result.sel(feature=3, value=row["best value"])
    assert row["label"] == row["best value"] == str(result["label"].sel(feature=3).item())
    assert (row["tf-idf"], row["difference"]) == (f"{float(one['tfidf']):.3g}", f"{float(one['diff']):.3g}")
    assert row["d"] == f"{float(one['cohens_d']):.2f}"
    assert row["nearest"] == "4"


def test_undefined_impacts_have_their_reason(study: Study) -> None:
    result = study.result("patching-blocks")
    assert has_impacts(result)
    undefined, pairs = xr.zeros_like(result["defined"]), xr.ones_like(result["n_pairs"])
    for n, reason in (
        ("1 pair", "one pair has no interval; use more pairs"),
        ("2 pairs", "the clean and corrupt scores do not clearly differ"),
    ):
        few = result.assign(defined=undefined, n_pairs=int(n[0]) * pairs)
        assert not has_impacts(few)
        names = ", ".join(f"{name}: {n}" for name in result["concept"].values)
        assert undefined_notes(few) == [f"undefined: {reason} ({names})."]
    silent = result.assign(impact=result["impact"] * np.nan, defined=xr.ones_like(result["defined"]))
    assert [note.partition(" (")[0] for note in undefined_notes(silent)] == [UNSCORED]
    unscored = few.assign(impact=few["impact"] * np.nan, n_pairs=xr.zeros_like(result["n_pairs"]))
    names = ", ".join(f"{name}: 0 pairs" for name in result["concept"].values)
    assert undefined_notes(unscored) == [f"{UNSCORED} ({names})."]


def test_results_in_python_have_the_tables_of_the_commands(study: Study) -> None:
    site = SAE_SITES[0]
    table = Result(study, f"sae-{site}", study.result(f"sae-{site}")).table()
    pd.testing.assert_frame_equal(table, sae_summary(study.result(f"sae-{site}"), study.clips))
    steering = Result(study, "steering-tempo", study.result("steering-tempo"))
    pd.testing.assert_frame_equal(steering.table(), steering_summary(study.result("steering-tempo")))
    assert [trace.name for trace in steering.plot().data if trace.name] == [
        "output patch",
        "vector",
        "unsteered",
    ]
