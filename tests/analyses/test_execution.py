"""Units of work are plain data: made in this process or in another one, the same runs come out."""

import multiprocessing
import pickle
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import ArrayLike

from analyses import execution
from analyses.execution import InProcess, Unit, Worker, make_unit
from analyses.patching.run import run_patching
from analyses.patching.spec import PatchingSpec
from cache.errors import UserError
from tests.e2e.killed import tree
from tests.forks import CONTEXT
from tests.tolerances import AUDIO_STEP, SCORE
from tests.workbench.studies.test_study import study_spec
from workbench.audio import read_audio
from workbench.engine.edits import Run, add, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.models.reference import ModelReference
from workbench.scorers import scorer_identity
from workbench.studies.runs import RunStore
from workbench.studies.study import Study

CLIP = Clip("a slow song", 1)
RUNS = {
    "plain": Run(CLIP),
    "patched": Run(CLIP, (patch("tf0.cross_attn", Clip("a fast song", 1)),)),
    "added": Run(CLIP, (add([0.5] * 32, "tf1.mlp"),)),
}


@dataclass
class OtherProcess:
    """An executor of another process, which starts with this one's rounding and otherwise as its context has it."""

    context: BaseContext

    def map(self, units: Iterable[Unit]) -> Iterator[int]:
        rounding = sys.modules.get("tests.rounding")  # where the plugin is on
        prepare = rounding.pytest_configure if rounding else None
        with ProcessPoolExecutor(1, self.context, prepare) as pool:
            yield from pool.map(make_unit, units)


def same_audio(names: Iterable[str], one: Path, other: Path) -> None:
    """Check that the recordings of two stores are the same, up to rounding."""
    for name in names:
        samples, others = (read_audio(store / name)[0] for store in (one, other))
        np.testing.assert_allclose(samples, others, rtol=0, atol=AUDIO_STEP, err_msg=name)


def same_scores(one: ArrayLike, other: ArrayLike) -> None:
    """Check that scores of audio that is equal up to rounding are the same."""
    np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=0, atol=SCORE)


@pytest.fixture
def unit(tiny: AceStep15, tmp_path: Path) -> Unit:
    """Three runs of a clip in two batches, judged."""
    settings = GenerationSettings(duration=2.0, num_steps=2)
    store = RunStore(tmp_path / "study", tiny.weights_hash, tiny.dtype, settings)
    store.root.mkdir()
    batches = tuple(
        tuple((name, RUNS[name]) for name in names) for names in (("plain", "patched"), ("added",))
    )
    return Unit(
        store=store,
        model=ModelReference.of(tiny),
        batches=batches,
        runs=tuple(RUNS.values()),
        judges={"embedded": scorer_identity("embedded")},
        texts={"embedded": ("slow",)},
    )


def test_a_unit_makes_what_is_missing_and_judges_it(unit: Unit, tiny: AceStep15) -> None:
    worker = Worker([tiny])
    rows = worker.make(unit)
    assert rows == 2 * 2 * (2 + 1) + 2, (
        "two steps and passes of plain, patched and added, and one call of the run that is patched from"
    )
    records = unit.store.records(unit.runs)
    assert len({record.audio for record in records}) == 3
    assert all(len(record.scores) == 1 for record in records)
    before = tree(unit.store.root)
    assert worker.make(unit) == 0
    assert tree(unit.store.root) == before


def test_units_travel(unit: Unit, tiny: AceStep15) -> None:
    """Through pickle to a process that has none of this one's modules, models and judges loaded."""
    there = replace(unit, store=replace(unit.store, root=unit.store.root.parent / "there"))
    there.store.root.mkdir()
    assert pickle.loads(pickle.dumps(unit)) == unit
    elsewhere = OtherProcess(multiprocessing.get_context("spawn"))
    assert list(elsewhere.map([there])) == list(InProcess(Worker([tiny])).map([unit]))
    one, other = (store.records(unit.runs) for store in (unit.store, there.store))
    assert [record.audio for record in one] == [record.audio for record in other]
    for record, again in zip(one, other, strict=True):
        assert list(record.scores) == list(again.scores)
        same_scores([*record.scores.values()], [*again.scores.values()])
    same_audio([record.audio for record in one], unit.store.root, there.store.root)


def test_a_map_by_another_executor(tiny: AceStep15, tmp_path: Path) -> None:
    spec = study_spec(tiny, settings=GenerationSettings(duration=2.0, num_steps=2))
    studies = [Study.create(tmp_path / name, spec, tiny.describe(), str) for name in ("here", "there")]
    map_spec = PatchingSpec(concepts=("tempo",), pairs=1, directions=("sufficiency",))
    here, there = (
        run_patching(study, tiny, map_spec, executor=executor)
        for study, executor in zip(studies, (None, OtherProcess(CONTEXT)), strict=True)
    )
    assert here.attrs["denoiser_rows"] == there.attrs["denoiser_rows"]
    xr.testing.assert_identical(here.audio, there.audio)
    same_scores(here.score, there.score)
    same_audio(here.audio.values.flat, *(study.path for study in studies))


def test_models_and_judges_are_loaded_once(
    unit: Unit, tiny: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    judges = execution.load_scorer

    def load(reference: ModelReference) -> AceStep15:
        loaded.append(reference.name)
        return tiny

    def load_scorer(name: str, device: str):
        loaded.append(name)
        return judges(name, device=device)

    monkeypatch.setattr(ModelReference, "load", load)
    monkeypatch.setattr(execution, "load_scorer", load_scorer)
    more = replace(
        unit, runs=(Run(replace(CLIP, seed=2)),), batches=((("more", Run(replace(CLIP, seed=2))),),)
    )
    assert len(list(InProcess(Worker()).map([unit, more]))) == 2
    assert loaded == [tiny.name, "embedded"]


@pytest.mark.parametrize("change", [{"weights_hash": "other"}, {"dtype": "bfloat16"}])
def test_another_model_is_refused(unit: Unit, tiny: AceStep15, change: dict) -> None:
    other = replace(unit, store=replace(unit.store, **change))
    with pytest.raises(UserError, match="must have the weights"):
        Worker([tiny]).make(other)
    assert not any(unit.store.root.iterdir())


def test_another_judge_is_refused(unit: Unit, tiny: AceStep15) -> None:
    with pytest.raises(UserError, match="The scorer embedded differs"):
        Worker([tiny]).make(replace(unit, judges={"embedded": "older"}))
