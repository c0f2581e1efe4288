"""Probes against planted concepts, unreadable labels, and scikit-learn's own scores."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold, cross_val_score

from analyses.probes import significance
from analyses.probes.folds import ProbeTask, probe_task
from analyses.probes.run import _concept_task, _escaped, asked_probes, pooled_activations, run_probes
from analyses.probes.scores import ProbeScores, accuracy_interval, probe_arrays, score_task
from analyses.probes.spec import ProbeSpec
from analyses.statistics import MIN_P
from cache.errors import UserError
from tests.analyses.planted_study import CONCEPTS, PLANTED, SEEDS, SITES, STEPS
from tests.tolerances import assert_close
from workbench.studies.study import Study

SPEC = ProbeSpec(folds=4, shuffles=2)


@pytest.fixture(scope="module", autouse=True)
def _small_nulls() -> Iterator[None]:
    """Fewer refitted probes: what is tested here is not how well the p-values are calibrated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "LEAST_SHUFFLED", 24)
        yield


@pytest.fixture(scope="module")
def result(planted_folder: object) -> xr.Dataset:
    return run_probes(Study.open(planted_folder), SPEC)


def crossed(n_contexts: int, clips: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, groups and contexts of two prompts for each context, `clips` clips for each prompt."""
    prompts = np.repeat(np.arange(2 * n_contexts), clips)
    return np.where(prompts % 2, "fast", "slow"), prompts, prompts // 2


def test_a_planted_concept_is_read_only_where_it_is(result: xr.Dataset) -> None:
    site, step, _ = PLANTED
    tempo = result.accuracy_mean.sel(concept="tempo")
    assert tempo.sel(site=site, step=step) == 1.0
    elsewhere = tempo.where((result.site != site) | (result.step != step))
    assert elsewhere.max() < 0.7
    others = result.sel(concept=[concept for concept in CONCEPTS if concept != "tempo"])
    assert (others.accuracy_mean - others.chance).max() < 0.2
    assert result.p_value.sel(concept="tempo", site=site, step=step) == MIN_P
    assert (result.p_value < 1e-3).sum() == 1


def test_the_result_has_its_schema(result: xr.Dataset) -> None:
    cell = ("concept", "site", "step")
    assert {name: variable.dims for name, variable in result.data_vars.items()} == {
        "accuracy": (*cell, "fold"),
        "control": (*cell, "fold"),
        **dict.fromkeys(
            ("accuracy_mean", "accuracy_lo", "accuracy_hi", "control_mean", "selectivity", "p_value"), cell
        ),
        **dict.fromkeys(
            ("null_mean", "null_sd", "null_n", "chance", "n", "groups", "held_together"), ("concept",)
        ),
    }
    assert (result.attrs["kind"], result.attrs["schema_version"], result.attrs["pass"]) == (
        "probes",
        3,
        "cond",
    )
    assert list(result.concept.values) == list(CONCEPTS)
    assert list(result.site.values) == list(SITES)
    assert list(result.step.values) == list(STEPS)
    np.testing.assert_allclose(result.sigma, [1.0, 0.5])
    np.testing.assert_allclose(result.chance, [1 / 2, 1 / 2, 1 / 5, 1 / 2])
    assert (result.n == 40 * SEEDS).all()
    assert (result.groups == 40).all()
    assert (result.held_together == "context").all()
    xr.testing.assert_allclose(result.selectivity, result.accuracy.mean("fold") - result.null_mean)
    np.testing.assert_allclose(result.null_mean, result.control_mean.mean(("site", "step")))
    assert ((result.accuracy_lo <= result.accuracy_mean) & (result.accuracy_mean <= result.accuracy_hi)).all()


def test_the_result_is_saved(planted_study: Study) -> None:
    calls: list[tuple[int, int]] = []
    spec = ProbeSpec(sites=SITES[1:], steps=STEPS[1:], concepts=("tempo",), folds=4)
    given = run_probes(planted_study, spec, lambda done, total: calls.append((done, total)))
    xr.testing.assert_identical(given, planted_study.result("probes"))
    assert dict(given.sizes) == {"concept": 1, "site": 1, "step": 1, "fold": 4}
    assert calls == [(0, 1), (1, 1)]
    assert planted_study.is_done("probes", spec)


def test_equal_accuracies_have_equal_selectivity(result: xr.Dataset) -> None:
    """A cell's own control, of a few shuffles, differs between cells."""
    for concept in CONCEPTS:
        one = result.sel(concept=concept)
        assert len(np.unique(one.control_mean)) > 2
        np.testing.assert_allclose(one.accuracy_mean - one.selectivity, one.null_mean)
        assert one.selectivity.max() <= 1 - one.null_mean + 1e-12


def test_other_pass_other_activations(planted_study: Study) -> None:
    site, step, _ = PLANTED
    spec = ProbeSpec(sites=(site,), steps=(step,), concepts=("tempo",), pass_name="null", folds=4)
    result = run_probes(planted_study, spec)
    assert result.accuracy_mean.item() < 0.7
    assert result.attrs["pass"] == "null"


def test_pooling_is_the_mean_over_tokens_of_every_clip(planted_study: Study) -> None:
    pooled = pooled_activations(planted_study.cache, "tf0.cross_attn", 4, "null")
    whole = planted_study.cache.read("tf0.cross_attn")[:, 1, 1]
    assert_close(pooled, whole.mean(axis=1))


def test_clips_without_a_value_are_left_out(planted_study: Study) -> None:
    unlabelled = planted_study.clips["prompt_id"] < 8
    planted_study.clips.loc[unlabelled, "label_tempo"] = ""
    result = run_probes(planted_study, ProbeSpec(sites=SITES[1:], steps=(4,), concepts=("tempo",), folds=3))
    assert (result.n.item(), result.groups.item()) == (32 * SEEDS, 32)
    assert result.chance.item() == 0.5
    assert result.accuracy_mean.item() == 1.0


def test_a_study_of_one_concept_holds_out_prompts(planted_study: Study) -> None:
    planted_study.clips = planted_study.clips.drop(columns=["label_mood", "label_instrument", "label_drums"])
    result = run_probes(planted_study, ProbeSpec(sites=SITES[1:], steps=(4,), folds=3))
    assert list(result.concept.values) == ["tempo"]
    assert result.held_together.item() == "prompt"
    assert result.accuracy_mean.item() == 1.0


def test_random_labels_give_chance_and_no_selectivity() -> None:
    labels, groups, contexts = crossed(20, clips=2)
    rng = np.random.default_rng(0)
    task = probe_task(labels, groups, contexts, SPEC)
    scores = [score_task(rng.normal(size=(80, 10)), task) for _ in range(10)]
    accuracy = np.array([score.accuracy.mean() for score in scores])
    control = np.array([score.control.mean() for score in scores])
    assert abs(accuracy.mean() - 0.5) < 0.05
    assert abs((accuracy - control).mean()) < 0.05
    covered = [score.accuracy_lo <= 0.5 <= score.accuracy_hi for score in scores]
    assert sum(covered) >= 7
    assert sum(score.p_value < 0.05 for score in scores) <= 3


def test_what_only_tells_prompts_apart_gives_chance() -> None:
    rng = np.random.default_rng(1)
    _, groups, _ = crossed(20, clips=4)
    ungrouped_folds = KFold(4, shuffle=True, random_state=0)
    accuracies, ungrouped = [], []
    for _ in range(4):
        labels = rng.permutation(np.arange(40) % 2)[groups]
        activations = rng.normal(size=(40, 60))[groups] + 0.01 * rng.normal(size=(160, 60))
        accuracies.append(probe_arrays(activations, labels, groups, groups, SPEC).accuracy.mean())
        ungrouped.append(
            cross_val_score(LogisticRegression(), activations, labels, cv=ungrouped_folds).mean()
        )
    assert np.mean(ungrouped) > 0.95
    assert abs(np.mean(accuracies) - 0.5) < 0.08


def test_partners_are_held_out_together() -> None:
    labels, groups, contexts = crossed(20)
    activations = np.random.default_rng(2).normal(size=(20, 40))[contexts]
    together = probe_arrays(activations, labels, groups, contexts, SPEC)
    apart = probe_arrays(activations, labels, groups, groups, SPEC)
    assert together.accuracy.mean() == 0.5
    assert apart.accuracy.mean() < 0.2


@pytest.mark.parametrize(("n_contexts", "held_together"), [(20, "context"), (2, "prompt")])
def test_folds_share_no_prompt_and_no_context(n_contexts: int, held_together: str) -> None:
    groups = np.repeat(np.arange(40), 2)
    labels = np.where(groups % 2, "fast", "slow")
    contexts = groups // 2 % n_contexts
    task = probe_task(labels, groups, contexts, SPEC)
    assert task.held_together == held_together
    for folds in (task.true, *task.shuffled(3)):
        for train, test in folds.splits:
            assert not set(groups[train]) & set(groups[test])
            assert held_together == "prompt" or not set(contexts[train]) & set(contexts[test])
            assert set(folds.labels[test]) == {"slow", "fast"}
        assert sorted(np.concatenate([test for _, test in folds.splits])) == list(range(80))


def test_control_labels_are_shuffled_between_prompts() -> None:
    labels, groups, contexts = crossed(20, clips=2)
    controls = list(probe_task(labels, groups, contexts, SPEC).shuffled(5))
    assert len(controls) == 5
    for control in controls:
        assert (control.labels[::2] == control.labels[1::2]).all()
        assert (control.labels == "fast").sum() == (labels == "fast").sum()
        assert 0.2 < (control.labels == labels).mean() < 0.8
    assert len({tuple(control.labels) for control in controls}) == 5


def test_accuracy_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 3)
    labels = np.array(["slow", "fast", "fast"])[groups % 3]
    activations = rng.normal(size=(90, 5)) + (labels == "fast")[:, None]
    task = probe_task(labels, groups, groups, SPEC)
    scores = probe_arrays(activations, labels, groups, groups, SPEC)
    for (train, test), accuracy in zip(task.true.splits, scores.accuracy, strict=True):
        mean, deviation = activations[train].mean(axis=0), activations[train].std(axis=0)
        probe = LogisticRegression(C=SPEC.C, class_weight="balanced")
        probe.fit((activations[train] - mean) / deviation, labels[train])
        predicted = probe.predict((activations[test] - mean) / deviation)
        assert accuracy == pytest.approx(balanced_accuracy_score(labels[test], predicted))


def separable(spec: ProbeSpec, noise: float) -> ProbeScores:
    labels, groups, contexts = crossed(20, clips=2)
    activations = np.random.default_rng(4).normal(size=(80, 6)) * noise
    activations[labels == "fast", 0] += 1
    return probe_arrays(activations, labels, groups, contexts, spec)


def test_a_perfect_probe_has_an_exact_interval_and_the_smallest_p() -> None:
    scores = separable(SPEC, noise=0.01)
    assert (scores.accuracy == 1).all()
    assert (scores.accuracy_lo, scores.accuracy_hi) == (pytest.approx(0.025 ** (1 / 40)), 1)
    assert scores.p_value == MIN_P


def planned(n_contexts: int, clips: int = 1) -> ProbeTask:
    return probe_task(*crossed(n_contexts, clips), SPEC)


@pytest.mark.parametrize(
    ("right", "interval"),
    [
        ([True, True], (0.025 ** (1 / 40), 1)),
        ([False, False], (0, 1 - 0.025 ** (1 / 40))),
        ([True, False], binomtest(20, 40).proportion_ci(method="exact")),  # one clip of every prompt
    ],
)
def test_prompts_that_are_all_equally_right_have_an_exact_interval(
    right: list[bool], interval: tuple[float, float]
) -> None:
    assert accuracy_interval(np.array(right * 40), planned(20, clips=2)) == pytest.approx(tuple(interval))


def test_the_rarest_value_limits_an_exact_interval() -> None:
    task = probe_task(*small(*UNBALANCED), ProbeSpec(folds=2))
    low, high = accuracy_interval(np.ones(22, dtype=bool), task)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 4)), 1), "two values, as if both had two prompts"


def test_probes_without_an_error_are_rarely_surer_than_the_truth() -> None:
    """Whatever the accuracy, a perfect probe's lower end is above it in at most 2.5 % of draws (0 if it is a point)."""
    task = planned(8)
    rng = np.random.default_rng(0)
    low, _ = accuracy_interval(np.ones(16, dtype=bool), task)
    for accuracy in (0.7, 0.75, 0.79, 0.8, 0.9, 0.97):
        perfect = (rng.random((4000, 16)) < accuracy).all(axis=1).mean()
        assert perfect < 0.03 or low <= accuracy


def test_one_error_leaves_the_bootstrap() -> None:
    right = np.ones(40, dtype=bool)
    right[0] = False
    low, high = accuracy_interval(right, planned(20))
    assert 0.85 < low < 39 / 40
    assert high == 1


def test_the_interval_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(5)
    widths = []
    for n_contexts in (15, 150):
        labels, groups, contexts = crossed(n_contexts)
        activations = rng.normal(size=(2 * n_contexts, 2)) + (labels == "fast")[:, None]
        scores = probe_arrays(activations, labels, groups, contexts, SPEC)
        assert scores.accuracy_lo < scores.accuracy.mean() < scores.accuracy_hi
        widths.append(scores.accuracy_hi - scores.accuracy_lo)
    assert 2 < widths[0] / widths[1] < 5


def test_every_field_of_the_spec_has_its_effect() -> None:
    base = separable(SPEC, noise=1.5)
    assert len(separable(ProbeSpec(folds=3), noise=1.5).accuracy) == 3
    assert (separable(ProbeSpec(folds=4, seed=1), noise=1.5).accuracy != base.accuracy).any()
    assert (separable(ProbeSpec(folds=4, C=1e-4), noise=1.5).accuracy != base.accuracy).any()
    more_shuffles = separable(ProbeSpec(folds=4, shuffles=30), noise=1.5)
    assert (more_shuffles.accuracy == base.accuracy).all()
    assert (more_shuffles.control != base.control).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ProbeSpec(sites=("tf9.mlp",)), "tf9.mlp"),
        (ProbeSpec(sites=("tf9.mlp",), folds=50), f"no site 'tf9.mlp'; it has {', '.join(SITES)}"),
        (ProbeSpec(steps=(3,), folds=50), "has no step 3"),
        (ProbeSpec(steps=(3,)), "has no step 3"),
        (ProbeSpec(concepts=("reggae",)), "no concept 'reggae'; they have tempo, mood, instrument, drums"),
        (ProbeSpec(pass_name="uncond"), "has no pass 'uncond'"),
        (
            ProbeSpec(folds=9, concepts=("instrument",)),
            "'instrument' cannot be probed: no 9 folds of its 40 prompts",
        ),
        (ProbeSpec(folds=50), "'tempo' cannot be probed: .*'mood' cannot be probed"),
    ],
)
def test_what_the_study_lacks_is_told_before_anything_runs(
    planted_study: Study, spec: ProbeSpec, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_probes(planted_study, spec, progress=lambda *_: pytest.fail("work was begun"))


def test_labels_that_cannot_be_probed() -> None:
    groups = np.repeat(np.arange(10), 2)
    with pytest.raises(UserError, match="prompt 0 have several"):
        probe_task(np.array(["slow", "fast"] * 10), groups, groups, SPEC)
    with pytest.raises(UserError, match="clips have 1"):
        probe_task(np.full(20, "slow"), groups, groups, SPEC)


def small(*prompts: tuple[str, str], clips: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, groups and contexts of prompts (label, context)."""
    labels, contexts = np.array(prompts * clips).T
    return labels, np.tile(np.arange(len(prompts)), clips), contexts


CROSSED = [(pace, who) for pace in ("slow", "fast") for who in ("violin", "flute")]
ONE_CONTEXT_HOLDS_MOST = [
    ("slow", ""),
    *((pace, who) for pace in ("slow", "fast") for who in "abcd"),
    ("fast", ""),
]
UNBALANCED = [("slow", str(number)) for number in range(9)] + [("fast", "0"), ("fast", "1")]


@pytest.mark.parametrize("prompts", [CROSSED, ONE_CONTEXT_HOLDS_MOST, UNBALANCED])
@pytest.mark.parametrize("seed", range(12))
def test_every_fold_trains_on_every_value_in_small_studies(prompts: list[tuple[str, str]], seed: int) -> None:
    """With shuffled labels, too: a fold of one class ends in scikit-learn's traceback, an empty one in NaN."""
    labels, groups, contexts = small(*prompts)
    task = probe_task(labels, groups, contexts, ProbeSpec(folds=2, seed=seed))
    for folds in (task.true, *task.shuffled(3)):
        for train, test in folds.splits:
            assert set(folds.labels[train]) == {"slow", "fast"}
            assert len(test)
    activations = np.random.default_rng(seed).normal(size=(len(labels), 3))
    scores = probe_arrays(activations, labels, groups, contexts, ProbeSpec(folds=2, seed=seed))
    assert np.isfinite([*scores.accuracy, *scores.control, scores.p_value]).all()


def test_the_advice_works() -> None:
    labels, groups, contexts = small(*[(pace, who) for pace in ("slow", "fast") for who in "abc"])
    with pytest.raises(
        UserError, match=r"'fast' has 3 prompts\): probe with 3 folds \(--folds 3\), or trace more"
    ):
        probe_task(labels, groups, contexts, ProbeSpec(folds=5))
    probe_task(labels, groups, contexts, ProbeSpec(folds=3))
    labels, groups, contexts = small(("slow", "a"), ("slow", "b"), ("fast", "a"))
    with pytest.raises(UserError, match=r"'fast' has 1 prompts\): trace more prompts\.") as error:
        probe_task(labels, groups, contexts, ProbeSpec(folds=2))
    assert "--folds" not in str(error.value)


def test_a_concept_that_cannot_be_probed_is_skipped_with_its_reason(planted_study: Study) -> None:
    notes: list[str] = []
    result = run_probes(
        planted_study, ProbeSpec(folds=9, steps=STEPS[:1], sites=SITES[:1]), note=notes.append
    )
    assert "instrument" not in result["concept"].values
    assert {"tempo", "mood"} <= set(result["concept"].values)
    (reason,) = [note for note in notes if "'instrument'" in note]
    assert json.loads(result.attrs["skipped"])["instrument"] == reason
    assert "'flute' has 8" in reason


def disjoint(task: ProbeTask, groups: np.ndarray) -> bool:
    """Whether no group is in both training and test, with true labels and with shuffled ones."""
    splits = [split for folds in (task.true, *task.shuffled(3)) for split in folds.splits]
    return not any(set(groups[train]) & set(groups[test]) for train, test in splits)


def test_contexts_with_a_prompt_in_common_are_held_out_together() -> None:
    groups = np.repeat(np.arange(16), 2)
    labels = np.where(groups % 2, "fast", "slow")
    contexts = np.array([f"{group // 2}{'ab'[clip % 2]}" for clip, group in enumerate(groups)])
    task = probe_task(labels, groups, contexts, ProbeSpec(folds=4))
    assert task.held_together == "context"
    assert disjoint(task, groups)
    assert disjoint(task, groups // 2), "partners, too"


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_prompts_that_the_model_reads_alike_are_held_out_together(planted_study: Study, folds: int) -> None:
    """The model knows two of the five instruments; the others are one unknown word to it."""
    study = Study.open(planted_study.path)
    study.clips["encoding"] = study.clips["prompt"].str.replace("piano|guitar|trumpet", "?", regex=True)
    encodings = study.clips["encoding"].to_numpy(str)
    assert len(set(encodings)) == 24
    for concept in ("tempo", "mood", "drums"):
        task = _concept_task(study, concept, ProbeSpec(folds=folds))
        assert disjoint(task, encodings)
        assert len(np.unique(task.groups)) == 24
    with pytest.raises(UserError, match=r"'instrument' cannot be probed: .* same tokens"):
        _concept_task(study, "instrument", ProbeSpec(folds=folds))


def test_contexts_are_drop_indistinguishable_whatever_their_values_are_called() -> None:
    assert len({"|".join(map(_escaped, pair)) for pair in [("a|b", "c"), ("a", "b|c"), ("a\\", "b|c")]}) == 3


def test_what_cannot_be_significant_is_said_before_anything_runs(planted_study: Study) -> None:
    clips = planted_study.clips
    kept = clips.drop_duplicates("prompt_id").groupby("label_tempo").head(3)["prompt_id"]
    clips.loc[~clips["prompt_id"].isin(kept), "label_tempo"] = ""
    notes: list[str] = []
    spec = ProbeSpec(concepts=("tempo",), folds=2, sites=SITES[:1], steps=STEPS[:1])
    result = run_probes(planted_study, spec, note=notes.append)
    (note,) = (note for note in notes if "significant" in note)
    assert note.startswith("No probe of tempo can be significant. 6 prompts")
    assert "smallest possible p is" in note
    assert (result.p_value > 0.05).all()


def test_it_is_said_if_a_single_probe_cannot_be_significant(
    planted_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(significance, "MIN_P", 0.02)
    notes: list[str] = []
    spec = ProbeSpec(concepts=("tempo", "mood"), folds=4, sites=SITES[:2], steps=STEPS[:1])
    run_probes(planted_study, spec, note=notes.append)
    (note,) = (note for note in notes if "significant" in note)
    assert "over 4 probes none can be significant unless at least 2 are" in note


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sites": ("tf0.mlp", "tf1.mlp", "tf0.mlp")}, "sites: 'tf0.mlp' is given twice"),
        ({"steps": (0, 4, 4)}, "steps: 4 is given twice"),
        ({"concepts": ("mood", "mood")}, "concepts: 'mood' is given twice"),
    ],
)
def test_a_thing_named_twice_is_refused(planted_study: Study, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        asked_probes(planted_study, **options)


def test_one_name_is_a_list_of_one(planted_study: Study) -> None:
    spec = asked_probes(planted_study, sites="tf0.mlp", concepts="mood", steps=4)
    assert (spec.sites, spec.concepts, spec.steps) == (("tf0.mlp",), ("mood",), (4,))
