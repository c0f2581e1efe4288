"""A study whose extension broke off says what it holds, is read by nothing as whole, and goes on."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.patching.run import check_patching
from analyses.patching.spec import PatchingSpec
from analyses.probes.run import run_probes
from analyses.probes.spec import ProbeSpec
from analyses.sae.run import run_sae
from analyses.sae.train import TrainSpec
from cache.errors import CacheBusy, CacheError, UserError
from cache.local_storage import LocalStorage
from cache.storage import open_storage
from dashboards import shell
from dashboards.app import create_app
from dashboards.export import export_figure
from dashboards.pages import overview
from dashboards.results import outdated, outdated_result, unfinished
from tests.dashboards.test_pages import callback
from tests.workbench.studies.test_study import contents, interrupted, study_spec
from tests.workbench.test_nothing_left import Break, break_at, full_disk
from workbench.models.ace_step import AceStep15
from workbench.sae.topk import TopKObjective
from workbench.scorers.embedded import EmbeddedScorer
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

__all__ = ["break_at"]

TRAINING = TrainSpec(site="tf1.block", objective=TopKObjective(k=2), expansion=1, train_steps=1)
SMALL, LARGE = {"n_prompts": 2, "seeds": 2}, {"n_prompts": 4, "seeds": 2}


@pytest.fixture
def small(tiny: AceStep15, tmp_path: Path) -> Study:
    """A study of 4 clips in shards of 3; with 8 clips it has three shards, of which it keeps the first."""
    return trace_study(tmp_path / "study", study_spec(tiny, **SMALL), tiny)


@pytest.fixture(scope="module")
def whole(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study, extended without interruption."""
    path = tmp_path_factory.mktemp("whole") / "study"
    trace_study(path, study_spec(tiny, **SMALL), tiny)
    return trace_study(path, study_spec(tiny, **LARGE), tiny)


@pytest.fixture
def break_off(
    small: Study, tiny: AceStep15, break_at: Break, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Extends the small study until this happens; gives the error's text."""

    def extend(how: str) -> str:
        error: type[BaseException] = KeyboardInterrupt if how.startswith("killed") else UserError
        with monkeypatch.context() as patch, pytest.raises(error) as raised:
            if how == "nan":
                break_at(range(6, 8))
            elif how == "full":
                patch.setattr(LocalStorage, "put", full_disk("c.2.0.0.0.0"))
            elif how == "killed":
                patch.setattr("workbench.studies.tracing._clips_of", _killed_at(2))
            else:
                patch.setattr(Study, "extended", interrupted)
            trace_study(small.path, study_spec(tiny, **LARGE), tiny)
        break_at(range(0))
        return str(raised.value)

    return extend


@pytest.mark.parametrize("how", ["nan", "full", "killed", "killed early"])
def test_an_extension_that_broke_is_not_read_and_goes_on(
    small: Study,
    whole: Study,
    tiny: AceStep15,
    break_off: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(EmbeddedScorer, "min_seconds", 0.5)  # its clips are not scored here
    audio = [small.audio_path(clip).read_bytes() for clip in range(3)]
    there = 3 if how == "killed early" else 6
    sentence = f"{small.path} is half-written: {there} of its 8 clips are traced. Run `workbench trace` again"
    assert (sentence in break_off(how)) == (not how.startswith("killed"))
    broken = Study.open(small.path)
    for read in (
        lambda: broken.cache,
        lambda: run_probes(broken, ProbeSpec(concepts=("tempo",), folds=2)),
        lambda: run_sae(broken, TRAINING),
    ):
        with pytest.raises(CacheError) as refused:
            read()
        assert sentence in str(refused.value)
    patching = check_patching(broken, tiny, PatchingSpec(concepts=("tempo",), pairs=1))
    assert [sentence in note for note in patching.notes].count(True) == 1
    assert not broken.result_names()
    assert [sentence in each for each in unfinished(broken)] == [True]
    assert not outdated(broken)
    gone_on = trace_study(small.path, study_spec(tiny, **LARGE), tiny)
    assert gone_on.clips.equals(whole.clips)
    assert [gone_on.audio_path(clip).read_bytes() for clip in range(3)] == audio
    assert np.isfinite(gone_on.cache.read("tf1.block")).all()
    assert gone_on.cache.plan.n_clips == 8
    assert not unfinished(gone_on)


@pytest.mark.parametrize("how", ["full", "killed", "killed early"])
def test_the_smaller_study_comes_back(
    small: Study,
    whole: Study,
    tiny: AceStep15,
    break_off: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    before = contents(small.path)
    results = run_sae(small, TRAINING).attrs["result_id"]
    break_off(how)
    for n_prompts, seeds in ((3, 2), (2, 1), (5, 1)):  # not what it was
        with pytest.raises(UserError, match="differ"):
            trace_study(small.path, study_spec(tiny, n_prompts=n_prompts, seeds=seeds), tiny)
    left = contents(small.path)
    claim = open_storage(small.cache_location).claim(0, 2)
    with pytest.raises(CacheError, match="being written by another writer"):
        trace_study(small.path, study_spec(tiny, **SMALL), tiny)
    claim.close()
    assert contents(small.path) == left, "nothing is taken from a trace that is running"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cache.manifest.Manifest.drop", interrupted)
        trace_study(small.path, study_spec(tiny, **SMALL), tiny)
    assert "is half-written" in Study.open(small.path).unfinished()
    back = trace_study(small.path, study_spec(tiny, **SMALL), tiny)
    assert back.cache.plan.n_clips == 4 and back.made(back.result_attributes(f"sae-{TRAINING.site}"))
    assert back.result_attributes(f"sae-{TRAINING.site}")["result_id"] == results
    after = contents(small.path)
    assert {name for name in after if name.startswith(("audio", "activations"))} == {
        name for name in before if name.startswith(("audio", "activations"))
    }
    assert all(after[name] == before[name] for name in before if name.startswith("activations.zarr/tf"))
    grown = trace_study(small.path, study_spec(tiny, **LARGE), tiny)
    assert grown.clips.equals(whole.clips)


def test_a_whole_study_does_not_shrink(whole: Study, tiny: AceStep15) -> None:
    before = contents(whole.path)
    with pytest.raises(UserError, match="n_prompts differs"):
        trace_study(whole.path, study_spec(tiny, **SMALL), tiny)
    assert contents(whole.path) == before


def _killed_at(shard: int) -> Callable[..., Any]:
    from workbench.studies import tracing

    clips_of = tracing._clips_of
    asked: list[int] = []

    def killed(study: Study, plan: Any, number: int) -> Any:
        asked.append(number)
        if asked.count(number) == 2 and number == shard:  # once to count, once to run
            raise KeyboardInterrupt
        return clips_of(study, plan, number)

    return killed


def test_a_trace_that_meets_another_one_only_says_so(
    small: Study, tiny: AceStep15, break_off: Callable[[str], str]
) -> None:
    break_off("killed")
    claim = open_storage(small.cache_location).claim(0, 2)
    with pytest.raises(
        CacheBusy, match=r"another writer \(shards 0 to 2\).*Wait until it has finished, or stop it\.$"
    ):
        trace_study(small.path, study_spec(tiny, **LARGE), tiny)
    claim.close()


def test_a_result_from_before_the_extension_is_told_on_the_pages_and_in_figures(
    small: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    run_sae(small, TRAINING)
    assert not outdated(small)
    grown = trace_study(small.path, study_spec(tiny, **LARGE), tiny)
    told = outdated(grown)
    assert len(told) == 1
    assert (
        "results/sae-tf1.block.nc was computed before the study was extended: run `workbench sae" in told[0]
    )
    app = create_app(grown.path)
    hidden, summary, _, *old = callback(app, shell, "show_state")("", "/", "")
    assert hidden and summary == ""
    assert old[:2] == [False, "1 result was not computed from this study as it is now."]
    before, command, after = told[0].split("`")
    assert f"[Div(['{before}', Code('{command}'), '{after}'])]" == str(old[2])
    cards = [str(overview._result_card(grown, kind)) for kind in ("sae", "probes")]
    assert [card.count("out of date") for card in cards] == [1, 0]
    notes: list[str] = []
    figure = partial(export_figure, grown, "sae-training", "svg", tmp_path / "figures", warn=notes.append)
    files = {file.suffix: file.read_text() for file in figure()}
    assert notes == told
    assert "before the study was extended" in json.loads(files[".json"])["caption"]
    assert json.loads(files[".json"])["outdated"] is True
    assert "before the study was extended" in files[".txt"]
    run_sae(grown, TRAINING)
    assert not outdated(grown)
    assert not any("extended" in file.read_text() for file in figure() if file.suffix in (".txt", ".tex"))


def test_a_result_of_another_study_is_not_taken_for_one_from_before_an_extension(
    small: Study, whole: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    """The other study has other seeds, or is the same but has more clips than this one ever had."""
    other = trace_study(tmp_path / "other", study_spec(tiny, **SMALL, seed=7), tiny)
    name, copied = "sae-tf1.block", "results/sae-tf1.block.nc"
    (small.path / "results").mkdir()
    for source, differs in ((whole, "number of clips 8 instead of 4"), (other, "first seed 7 instead of 0")):
        run_sae(source, TRAINING)
        (small.path / copied).write_bytes((source.path / copied).read_bytes())
        sentence = outdated_result(small, name)
        assert f"results/{name}.nc was not computed from this study as it is now ({differs})" in sentence
    assert outdated(small) == [sentence]
    notes: list[str] = []
    files = export_figure(small, "sae-training", "svg", tmp_path / "figures", warn=notes.append)
    caption = next(file.read_text() for file in files if file.suffix == ".txt")
    assert notes == [sentence] and "The result was not computed from this study as it is now" in caption
    assert "extended" not in caption
    (small.path / copied).write_bytes((whole.path / copied).read_bytes())
    grown = trace_study(small.path, study_spec(tiny, **LARGE), tiny)
    assert not outdated(grown), "the study that the result was copied from is equal to this one now"
    (grown.path / copied).write_bytes((other.path / copied).read_bytes())
    assert "(first seed 7 instead of 0)" in outdated(grown)[0]


@pytest.mark.parametrize("before", [None, 3, "ab", [1], [1, 2, 3], [[], {}], {"a": 1}])
def test_a_study_from_elsewhere_may_say_anything_of_its_extension(whole: Study, before: object) -> None:
    document = json.loads((whole.path / "study.json").read_text())
    attributes = {"kind": "sae", "spec": "{}", "result_id": "0"}
    try:
        changed = {**document, "provenance": {**document["provenance"], "extended_from": before}}
        (whole.path / "study.json").write_text(json.dumps(changed))
        assert not Study.open(whole.path).made_before_extension(attributes)
    finally:
        (whole.path / "study.json").write_text(json.dumps(document, indent=2))


def test_a_continued_trace_that_breaks_says_what_is_there(
    tiny: AceStep15, tmp_path: Path, break_at: Break
) -> None:
    trace_study(tmp_path / "study", study_spec(tiny), tiny, job=(1, 2))
    break_at(range(6, 8))
    with pytest.raises(
        UserError, match=r"NaN or infinite.*is half-written: [36] of its 8 clips are traced\. Run"
    ):
        trace_study(tmp_path / "study", study_spec(tiny), tiny, job=(2, 2))
