"""Tables of an evaluation: TADA's areas beside those of a study."""

from pathlib import Path

from analyses.evaluation.benchmark_result import benchmark_result
from dashboards.summaries import published_summary
from dashboards.tables.benchmark import areas_of_tada
from tests.analyses.evaluation.simulated_trial import simulated_trial
from workbench.artefacts.steering_metrics import load_steering_metrics

PUBLISHED = Path(__file__).parents[2] / "analyses" / "evaluation" / "published_piano.csv"


def test_published_areas_stand_beside_those_of_the_same_concept_and_method() -> None:
    metrics = load_steering_metrics(PUBLISHED)
    theirs = areas_of_tada(metrics).set_index(["concept", "way"])
    assert round(theirs.loc[("piano", "pci (all)"), "TADA MuQ"], 5) == 0.05434
    assert round(theirs.loc[("piano", "pci (localised)"), "TADA CLAP"], 5) == 0.01841
    ways = {"caa (all)": 0.4, "pci (localised)": 0.2, "pci (all)": 0.3}
    trials = {
        ("mood", direction, "report"): simulated_trial(ways, strengths, steered=steered)
        for direction, steered, strengths in (
            ("towards", "negative", (1.0, 2.0)),
            ("away", "positive", (-1.0, -2.0)),
        )
    }
    result = benchmark_result(trials, "published")
    of_other_concepts = published_summary(result, "one", metrics)
    assert (of_other_concepts["TADA MuQ"] == "").all()
    metrics["concept"] = "mood"
    shown = published_summary(result, "one", metrics).set_index("steering")
    assert shown.loc["pci (all)", "TADA MuQ"] == "0.054"
    assert shown.loc["caa (all)", "TADA MuQ"] == ""
    assert (
        shown.loc["caa (all)", "area"]
        == published_summary(result, "one").set_index("steering").loc["caa (all)", "area"]
    )
