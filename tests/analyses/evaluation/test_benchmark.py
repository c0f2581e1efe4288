"""The evaluation of steering methods, end to end on a tiny model, and its result from simulated trials."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.evaluation import benchmark, methods
from analyses.evaluation.alignment import area, curve_of, cutoff_of
from analyses.evaluation.benchmark import asked_benchmark, check_benchmark, run_benchmark
from analyses.evaluation.benchmark_price import benchmark_price
from analyses.evaluation.benchmark_result import benchmark_result
from analyses.evaluation.methods import Fitting, cells
from analyses.steering.run import run_steering
from cache.errors import UserError
from tests.analyses.evaluation.simulated_trial import simulated_trial
from tests.tolerances import SCORE, difference
from tests.workbench.studies.test_study import study_spec
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study

PROMPTS = PromptSet.model_validate(
    {
        "templates": ["a {tempo} {mood} song {drums}"],
        "concepts": {
            "tempo": {"slow": "slow", "fast": "fast"},
            "mood": {"happy": "happy", "sad": "sad"},
            "drums": {"with drums": "with drums", "without drums": "without drums"},
        },
    }
)
SETTINGS = GenerationSettings(duration=2.0, num_steps=2)
ASKED = {
    "concepts": ["tempo=fast"],
    "methods": ["caa", "pci"],
    "places": ["all"],
    "sites": ["tempo=tf1"],
    "pairs": 2,
    "selection_pairs": 1,
    "fit_pairs": 1,
    "parts": [1.0],
    "randoms": 1,
    "scorers": ["embedded"],
}


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path) -> Study:
    return Study.create(
        tmp_path / "study", study_spec(tiny, prompts=PROMPTS, settings=SETTINGS), tiny.describe(), str
    )


def silent(_: str) -> Callable[[int, int], None]:
    return lambda done, total: None


def test_methods_are_compared_in_both_directions_and_an_interrupted_evaluation_is_continued(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = asked_benchmark(study, **ASKED)
    price = benchmark_price(study, tiny, spec)
    asked: list[xr.Dataset] = []

    def interrupted(*given: Any) -> xr.Dataset:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(run_steering(*given))
        return asked[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(benchmark, "run_steering", interrupted)
        run_benchmark(study, tiny, spec, silent, print)
    monkeypatch.setattr(methods, "fit_vectors", None)  # what is computed is not computed again
    result = run_benchmark(study, tiny, spec, silent, print)
    names = [f"steering-benchmark-strict-tempo-{each}-report" for each in ("towards", "away")]
    towards, away = (study.result(name) for name in names)
    assert towards.attrs["result_id"] == asked[0].attrs["result_id"]
    assert towards.attrs["provenance"] == asked[0].attrs["provenance"], "the first trials were not made again"
    assert all("slow" in prompt for prompt in towards.corrupt_prompt.values)
    assert all("fast" in prompt for prompt in away.corrupt_prompt.values)
    steps = study.spec.settings.num_steps
    for trial, sign in ((towards, 1), (away, -1)):
        score = trial.score.sel(concept="tempo")
        whole = f"pci (all) × {sign * steps}"
        assert difference(score.sel(arm=whole), score.sel(arm="clean")) < SCORE
        floor = trial.distance.sel(arm=trial.role == "floor")
        assert (floor < 0.1 * trial.distance.sel(arm=f"caa (all) × {sign * 4}")).all()
    generated = [study.result(name).sizes for name in study.result_names() if "steering-" in name]
    assert sum(sizes["pair"] * sizes["seed"] * sizes["arm"] for sizes in generated) == price.steered
    assert price.fitted == 2 and price.seconds > 0
    assert result["way"].values.tolist() == ["caa (all)", "pci (all)"]
    shown = result.effect.sel(concept="tempo", sign="negative", arm=f"pci (all) × {-steps}")
    assert shown.isnull().all() or difference(shown, result.control.sel(sign="negative")) < SCORE
    xr.testing.assert_identical(study.result("benchmark-strict"), result)


def test_token_embeddings_are_added_at_the_words_that_the_real_prompt_has_instead(
    study: Study, tiny: AceStep15
) -> None:
    fitting = Fitting("tempo", "fast", ("slow",), "localised", ("tf1.cross_attn",), 2, frozenset(), 1, 1e-3)
    (found,), _ = cells(study, tiny, ["token-embedding"], fitting, print)
    for sign, end in ((1, "positive"), (-1, "negative")):
        assert {source.clip for edit in found.at(sign * 2.0) for source in edit.sources} == {end}
    assert found.way([0.5, 1.0], -1).strengths == (-1.0, -2.0)


def test_features_of_autoencoders_are_left_out_where_there_are_none(study: Study, tiny: AceStep15) -> None:
    sentences: list[str] = []
    fitting = Fitting("tempo", "fast", ("slow",), "all", ("tf1.cross_attn",), 2, frozenset(), 1, 1e-3)
    found, _ = cells(study, tiny, ["sae-features", "pci"], fitting, sentences.append)
    assert [cell.method for cell in found] == ["pci"]
    assert sentences == [
        "sae-features is left out at the blocks 'all': the study has no sparse autoencoder of tf1.cross_attn."
    ]


def test_what_fails_later_is_refused_before_anything_runs(study: Study, tiny: AceStep15) -> None:
    asked = {**ASKED, "sites": []}
    with pytest.raises(UserError, match="has no map of blocks"):
        check_benchmark(study, tiny, asked_benchmark(study, **asked))
    with pytest.raises(UserError, match=r"0\.1, --part\) is less than one of the 2 steps"):
        check_benchmark(study, tiny, asked_benchmark(study, **{**ASKED, "parts": [0.1, 1.0]}))
    assert check_benchmark(study, tiny, asked_benchmark(study, **{**ASKED, "pairs": 3, "randoms": 0})) == [
        "tempo has fewer different prompts than asked for, if some are left to compute directions from "
        "(report, towards: 2 of 3, report, away: 2 of 3)."
    ]
    (told,) = check_benchmark(study, tiny, asked_benchmark(study, **{**ASKED, "randoms": 2}))
    assert told.startswith("Fewer than 3 random vectors (--random 2) give no random band.")


def of_sign(steered: str, strengths: tuple[float, ...], **how: Any) -> xr.Dataset:
    ways = {"caa (all)": 0.4, "pci (localised)": 0.2, "pci (all)": 0.3}
    return simulated_trial(ways, strengths, steered=steered, **how)


def test_published_areas_are_those_of_the_means_of_all_clips() -> None:
    trials = {
        ("mood", "towards", "report"): of_sign("negative", (1.0, 2.0)),
        ("mood", "away", "report"): of_sign("positive", (-1.0, -2.0)),
    }
    found = benchmark_result(trials, "published").sel(concept="mood", measure="mel", scorer="one")
    for (_, direction, _), trial in trials.items():
        sign = {"towards": 1, "away": -1}[direction]
        of_sign_found = found.sel(sign="positive" if sign > 0 else "negative")
        score = trial.score.sel(concept="mood", scorer="one").mean(("pair", "seed"))
        distance = trial.distance.sel(measure="mel").mean(("pair", "seed"))
        curves = {}
        for way in found.way.values:
            arms = ["corrupt", *trial.arm.values[(trial.row == way) & (trial.role == "cell")]]
            one = trial.sel(arm=arms)
            curves[way] = curve_of(
                one.strength.values, distance.sel(arm=arms).values, score.sel(arm=arms).values, sign
            )
        cutoff = cutoff_of([curves["pci (localised)"], curves["pci (all)"]])
        assert float(of_sign_found.published_cutoff.sel(way="caa (all)")) == cutoff
        for way, curve in curves.items():
            assert float(of_sign_found.published_area.sel(way=way)) == pytest.approx(area(curve, cutoff))
    mean = found.published_area.mean("sign")
    np.testing.assert_allclose(found.published_area_mean.values, mean.values)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["caas"]}, "Unknown method 'caas'"),
        ({"concepts": ["tempo=quick"]}, "Unknown value 'quick'"),
        ({"protocol": "published", "places": ["all"]}, "Give both"),
        ({"protocol": "published", "places": ["localised", "all"], "methods": ["caa"]}, "cutoffs from PCI"),
        ({"sites": ["mood=tf1"]}, "is not evaluated"),
        ({"concepts": ["tempo=fast", "tempo=slow"]}, "tempo is asked for twice"),
        ({"parts": [0.0]}, "must be above 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(study: Study, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        asked_benchmark(study, **{**ASKED, **options})
