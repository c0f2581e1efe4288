"""What a study keeps of its arms: scores under what decides them, whole maps or none, nothing of broken numbers."""

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.execution import Worker
from analyses.patching import run, sweep
from analyses.patching.arms import Request, blocks_arms, null_arms, paths_arms
from analyses.patching.contexts import PairContext
from analyses.patching.run import run_patching, settled
from analyses.patching.spec import PatchingSpec
from analyses.patching.sweep import Sweep
from cache.errors import UserError
from tests.analyses.patching.test_run import Loudness
from tests.tolerances import assert_close
from tests.workbench.studies.test_study import study_spec
from workbench.engine.batch import plan_batch
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import Pair, Prompt
from workbench.studies.study import Study

SPEC = PatchingSpec(concepts=("tempo",), pairs=1, directions=("sufficiency",))
PAIRS = "original_feature,clean_prompt,corrupted_prompt,concept,counterfactual_feature,scorer_text\n"


class Judge(Loudness):
    """Loudness, plus the length of the text: its scores tell which text they are for."""

    def score(self, audio, sample_rate, texts):
        return super().score(audio, sample_rate, texts) + [len(text) for text in texts]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    made = Judge()
    monkeypatch.setattr(run, "load_scorer", lambda name, device="cpu": made)
    monkeypatch.setattr(run, "scorer_identity", lambda name: made.identity)
    return made


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path, judge: Judge) -> Study:
    return Study.create(tmp_path / "study", study_spec(tiny), tiny.describe(), str)


def pairs_file(folder: Path, *rows: str, concept: str = "tempo") -> str:
    file = folder / "pairs.csv"
    file.write_text(PAIRS + "".join(row.replace("CONCEPT", f'"{concept}"') for row in rows))
    return str(file)


def row(text: str = "fast", clean: str = "a fast song", corrupt: str = "a slow song") -> str:
    return f"fast,{clean},{corrupt},CONCEPT,slow,{text}\n"


def kept(study: Study) -> dict[Path, dict]:
    """The runs that a study keeps, by the document of their clip."""
    return {file: json.loads(file.read_text())["runs"] for file in sorted(study.path.rglob("runs.json"))}


def nothing_more(*args, **kwargs):
    raise AssertionError("nothing is to be run")


def test_batches_are_counted_as_they_are_planned(tiny: AceStep15) -> None:
    clean, corrupt = (Prompt(f"a {tempo} song", {"tempo": tempo}) for tempo in ("fast", "slow"))
    context = PairContext(Pair("tempo", clean, corrupt, "fast"), "a", "b", ("c", "d", "e", "f"))
    spec = PatchingSpec(directions=("sufficiency",), ablations=("zero", "mean", "resample"))
    request = Request(tiny, GenerationSettings(num_steps=4), spec)
    blocks, paths = blocks_arms(request), paths_arms(request)
    for arms in ([], blocks, null_arms(blocks, ("unrelated", "random", "control")), paths, [*blocks, *paths]):
        planned = plan_batch(sweep.runs_of_pair(context, 1, arms))
        assert len(planned.rows) == sweep._n_rows(arms)


# Stale scores


def test_another_text_is_scored_anew_and_is_another_map(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    spec = SPEC.model_copy(update={"pairs_file": pairs_file(tmp_path, row("fast"))})
    old = run_patching(study, tiny, spec)
    assert study.is_done(spec.result_name, settled(spec))
    pairs_file(tmp_path, row("very fast"))
    assert not study.is_done(spec.result_name, settled(spec))
    new = run_patching(study, tiny, spec)
    np.testing.assert_allclose(new.score - old.score, len("very fast") - len("fast"), atol=1e-6)
    assert list(new.audio.values.flat) == list(old.audio.values.flat), "scored again, not run again"


def test_another_judge_of_the_same_name_scores_anew(study: Study, tiny: AceStep15, judge: Judge) -> None:
    run_patching(study, tiny, SPEC)
    scored = judge.scored
    judge.identity = "the same with other weights"
    assert not study.is_done(SPEC.result_name, settled(SPEC))
    result = run_patching(study, tiny, SPEC)
    assert judge.scored == 2 * scored
    assert json.loads(result.attrs["spec"])["judges"] == {"embedded": judge.identity}


def test_a_map_of_another_schema_is_not_done(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_patching(study, tiny, SPEC)
    assert study.is_done(SPEC.result_name, settled(SPEC))
    monkeypatch.setattr(run, "SCHEMA_VERSION", run.SCHEMA_VERSION + 1)
    assert not study.is_done(SPEC.result_name, settled(SPEC))


def test_runs_of_other_settings_are_not_taken(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    first = run_patching(study, tiny, SPEC)
    document = json.loads((study.path / "study.json").read_text())
    document["spec"]["settings"]["guidance_scale"] = 7.0
    (study.path / "study.json").write_text(json.dumps(document))
    changed = Study.open(study.path)
    assert not changed.is_done(SPEC.result_name, settled(SPEC))
    assert set(run_patching(changed, tiny, SPEC).audio.values.flat).isdisjoint(first.audio.values.flat)


def test_another_model_is_refused(study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "weights_hash", "another")
    with pytest.raises(UserError, match=r"weights .* have changed"):
        run_patching(study, tiny, SPEC)


# Several at once


def test_what_others_added_meanwhile_stays(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other sweep runs while this one's batch is generated: what was read at first is old by then."""
    generate, other = (
        tiny.generate_batch,
        SPEC.model_copy(update={"question": "steps", "windows": 3, "name": "other"}),
    )

    def with_another_sweep(*args, **kwargs):
        monkeypatch.setattr(tiny, "generate_batch", generate)
        assert not np.isnan(run_patching(study, tiny, other).score).any()
        return generate(*args, **kwargs)

    monkeypatch.setattr(Sweep, "rows_per_batch", 100)
    monkeypatch.setattr(tiny, "generate_batch", with_another_sweep)
    assert not np.isnan(run_patching(study, tiny, SPEC).score).any()
    assert sum(len(runs) for runs in kept(study).values()) == 2 + 2 + 6
    monkeypatch.setattr(tiny, "generate_batch", nothing_more)
    run_patching(study, tiny, other)


def test_one_result_is_made_by_one_process(study: Study, tiny: AceStep15) -> None:
    with study.making(SPEC.result_name), pytest.raises(UserError, match="Another process is computing"):
        run_patching(study, tiny, SPEC)
    run_patching(study, tiny, SPEC)


def test_a_map_without_all_its_runs_is_not_saved(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Worker.make

    def forgetful(self, unit):
        rows = make(self, unit)
        file, runs = next((file, runs) for file, runs in kept(study).items() if len(runs) > 1)
        last = next(name for name, record in runs.items() if "tf1" in str(record["edits"]))
        document = json.loads(file.read_text())
        del document["runs"][last]
        file.write_text(json.dumps(document))
        return rows

    monkeypatch.setattr(Worker, "make", forgetful)
    with pytest.raises(UserError, match="1 runs of the map are missing, such as 'tf1'"):
        run_patching(study, tiny, SPEC)
    assert study.result_names() == []


def test_an_arm_whose_audio_was_deleted_is_run_again(study: Study, tiny: AceStep15) -> None:
    file = study.path / run_patching(study, tiny, SPEC).audio.sel(arm="tf1").item()
    file.unlink()
    run_patching(study, tiny, SPEC)
    assert file.is_file()


# Broken numbers


def breaking(generate, place: int):
    """A generation whose clip at `place` broke in step 1."""

    def run(*args, **kwargs):
        made = generate(*args, **kwargs)
        if len(made.latents) <= place:
            return made
        made.latents[place] = torch.nan
        broke_at = tuple(1 if clip == place else None for clip in range(len(made.latents)))
        return replace(made, broke_at=broke_at)

    return run


def test_an_arm_of_nan_has_no_score(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Sweep, "rows_per_batch", 100)
    monkeypatch.setattr(tiny, "generate_batch", breaking(tiny.generate_batch, 3))
    with caplog.at_level(logging.ERROR):
        result = run_patching(study, tiny, SPEC)
    score = result.score.squeeze(drop=True)
    assert np.isnan(score.sel(arm="tf1")) and not np.isnan(score.drop_sel(arm="tf1")).any()
    assert result.audio.sel(arm="tf1").item() == ""
    assert "'tf1' of" in caplog.text and "step 1" in caplog.text and "smaller strengths" in caplog.text
    monkeypatch.setattr(tiny, "generate_batch", nothing_more)
    assert np.isnan(run_patching(study, tiny, SPEC).score.sel(arm="tf1")).all(), "it is not run again"


@pytest.mark.parametrize("place", [0, 1])
def test_a_base_run_of_nan_ends_the_sweep(
    study: Study, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(Sweep, "rows_per_batch", 100)
    monkeypatch.setattr(tiny, "generate_batch", breaking(tiny.generate_batch, place))
    with pytest.raises(UserError, match=r"NaN or infinite in step 1 \(the model runs in float32\): check"):
        run_patching(study, tiny, SPEC)
    assert not kept(study) and study.result_names() == []


def test_a_silent_clip_is_not_judged(
    study: Study, tiny: AceStep15, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "decode", lambda latents, duration: torch.zeros(1, 1, 32000))
    assert np.isnan(run_patching(study, tiny, SPEC).score).all()
    assert judge.scored == 0


# What the model cannot tell apart


def test_pairs_that_are_one_to_the_model_are_dropped_with_the_reason(
    study: Study, tiny: AceStep15, tmp_path: Path
) -> None:
    unknown = row(clean="a jazz song", corrupt="a funk song")
    beyond = row(clean="a fast song" + " the" * 300 + " sad", corrupt="a fast song" + " the" * 300 + " happy")
    file = pairs_file(tmp_path, unknown, row(), beyond)
    result = run_patching(study, tiny, SPEC.model_copy(update={"pairs_file": file, "pairs": 3}))
    assert result.n.item() == 1 and result.clean_prompt.values.tolist() == [["a fast song"]]
    dropped = json.loads(result.attrs["dropped"])
    assert [entry["clean"][:11] for entry in dropped] == ["a jazz song", "a fast song"]
    assert all("same tokens" in entry["reason"] for entry in dropped)


def test_a_concept_without_a_visible_pair_is_refused(study: Study, tiny: AceStep15, tmp_path: Path) -> None:
    file = pairs_file(tmp_path, row(clean="a jazz song", corrupt="a funk song"))
    with pytest.raises(UserError, match="No pair of tempo is left: the model reads both as the same tokens"):
        run_patching(study, tiny, SPEC.model_copy(update={"pairs_file": file, "concepts": ()}))


# Names


@pytest.mark.parametrize(
    "concept", ["../../../escaped", "/tmp/absolute", "x" * 200, "con", "a b", "音楽", "tempo."]
)
def test_a_concept_is_a_name_and_no_path(study: Study, tiny: AceStep15, tmp_path: Path, concept: str) -> None:
    file = pairs_file(tmp_path, row(), concept=concept)
    spec = SPEC.model_copy(update={"pairs_file": file, "concepts": ()})
    result = run_patching(study, tiny, spec)
    assert result.concept.values.tolist() == [concept]
    file = study.path / result.audio.values.flat[0]
    assert file.is_file() and file.parent.parent == study.path / "audio" / "runs"


def test_another_arms_recording_is_not_scored(study: Study, tiny: AceStep15, judge: Judge) -> None:
    """Two files swapped, or two names in the document: the sound is not that of the arm. The advice given helps."""
    honest = run_patching(study, tiny, SPEC)
    again = SPEC.model_copy(update={"name": "again"})
    judge.identity = "another"
    document, runs = next((file, runs) for file, runs in kept(study).items() if len(runs) > 1)
    first, second = (record["audio"] for record in list(runs.values())[:2])
    assert first != second
    text = document.read_text()
    document.write_text(text.replace(first, "?").replace(second, first).replace("?", second))
    with pytest.raises(UserError, match="has changed since it was generated"):
        run_patching(study, tiny, again)
    document.write_text(text)
    one, other = study.path / first, study.path / second
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"Delete the folder {document.parent};")):
        run_patching(study, tiny, again)
    shutil.rmtree(document.parent)
    assert_close(run_patching(study, tiny, again).score.values, honest.score.values)
