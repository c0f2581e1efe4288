"""Fits that continue after they were interrupted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.steering import clip_stream, fit_state
from analyses.steering.austeer import AUSteer
from analyses.steering.caa import CAA
from analyses.steering.capture import fit
from analyses.steering.descriptor import measured_clips
from analyses.steering.fit_state import FitState
from analyses.steering.probe_direction import Probe
from analyses.steering.sae_features import SAEFeatures
from analyses.steering.shuffled import shuffled
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering.test_run import PROMPTS
from tests.e2e.cli import Workbench, workbench
from tests.resealed import resealed
from tests.tolerances import FLOAT32, difference
from tests.workbench.engine.test_feature_edits import random_sae
from tests.workbench.studies.test_study import study_spec
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study
from workbench.tensor_files import load_tensors, write_tensors

__all__ = ["workbench"]

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
SETTINGS = GenerationSettings(duration=1.0, num_steps=1)
TEMPO = ("--concept", "tempo", "--sites", "all")
FIRST, SECOND, ALL = 2, 4, 6
"""Clips after each batch."""


@pytest.fixture(autouse=True)
def small_batches_that_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_stream, "CLIPS_PER_BATCH", FIRST)
    monkeypatch.setattr(fit_state, "SHARE", np.inf)


class Interrupted(BaseException):
    """Raised where a process is killed."""


def killed_at(clips: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done == clips:
            raise Interrupted

    return progress


class Notes(list[str]):
    """What is said about the states of fits."""

    def state(self, folder: Path) -> FitState:
        return FitState(folder, folder / "mood.fit", self.append)


def fitted(model: AceStep15, methods: Sequence[Any] = (CAA(),), **options: Any) -> list[Vector]:
    return fit(model, "mood", SITES, methods, **{"pairs": 3, "seed": 7, "settings": SETTINGS, **options})


def interrupted(folder: Path, model: AceStep15, *methods: Any, at: int = FIRST) -> Path:
    """The folder, with the state of a fit that was interrupted after so many clips."""
    with pytest.raises(Interrupted):
        fitted(model, methods or (CAA(),), state=Notes().state(folder), progress=killed_at(at))
    return folder


def is_close(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether numbers that come from float32 outputs are equal, and NaN at the same places."""
    known = ~np.isnan(other)
    return np.array_equal(known, ~np.isnan(one)) and difference(one[known], other[known]) <= FLOAT32


def same(one: Vector, other: Vector) -> bool:
    """Whether everything but the time is the same, up to the rounding of clips that are generated again."""
    arrays = [(one.directions[site], other.directions[site]) for site in one.directions]
    arrays += [(one.reliability[name], other.reliability[name]) for name in one.reliability]
    return all(is_close(mine.values, own.values) for mine, own in arrays) and (
        (one.method, one.concept, one.examples) == (other.method, other.concept, other.examples)
    )


def test_every_method_continues_to_the_same_vector(tiny64: AceStep15, tmp_path: Path) -> None:
    saes = {site: random_sae(tiny64.channels(Site.parse(site)), 40) for site in SITES}
    of_features = SAEFeatures(saes=saes, k=3, score="logistic")
    of_one_site = SAEFeatures(saes={SITES[1]: saes[SITES[1]]}, k=3)
    methods = [CAA(time="token"), AUSteer(k=9), Probe(), of_features, *shuffled(of_features, 1), of_one_site]
    whole = fitted(tiny64, methods)
    notes, counted = Notes(), []
    state = notes.state(interrupted(tmp_path, tiny64, *methods))
    again = fitted(tiny64, methods, state=state, progress=lambda *done: counted.append(done))
    assert all(map(same, again, whole))
    assert counted == [(FIRST, ALL), (SECOND, ALL), (ALL, ALL)]
    assert not notes
    state.remove()
    assert not list(tmp_path.iterdir())


def test_a_descriptor_continues_to_the_same_clips(tiny64: AceStep15, tmp_path: Path) -> None:
    clips = [Clip(f"song {place}", place) for place in range(ALL)]
    notes = Notes()

    def measured(descriptor: Any = "level", **options: Any) -> Any:
        return measured_clips(tiny64, descriptor, SITES, clips, settings=SETTINGS, **options)

    whole = measured()
    with pytest.raises(Interrupted):
        measured(state=notes.state(tmp_path), progress=killed_at(SECOND))
    again = measured(state=notes.state(tmp_path))
    assert is_close(again.values, whole.values)
    assert all(is_close(again.outputs[site], whole.outputs[site]) for site in SITES)
    assert not notes
    with pytest.raises(UserError, match="given by its name"):
        measured(lambda *_: 1.0, state=notes.state(tmp_path))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("other", [{"seed": 8}, {"methods": [AUSteer(k=3)]}, cut, flip])
def test_another_or_damaged_state_is_not_used(tiny64: AceStep15, tmp_path: Path, other: Any) -> None:
    notes, counted = Notes(), []
    state = notes.state(interrupted(tmp_path, tiny64, at=SECOND))
    options = other if isinstance(other, dict) else other(state.file) or {}

    def first(done: int, _: int) -> None:
        counted.append(done)
        raise Interrupted

    with pytest.raises(Interrupted):
        fitted(tiny64, **options, state=state, progress=first)
    assert counted == [FIRST]
    assert notes.state(tmp_path).file.exists(), "it is replaced"
    (sentence,) = notes
    assert "another fit, or damaged" in sentence


@pytest.mark.parametrize("array", [np.zeros(()), np.zeros((3, 1, 2, 32)), np.zeros((3, 1, 32), "f4")])
def test_a_state_that_no_fit_writes_is_refused(tiny64: AceStep15, tmp_path: Path, array: np.ndarray) -> None:
    state = Notes().state(interrupted(tmp_path, tiny64))
    arrays, texts = load_tensors(state.file.parent, state.file.name)
    arrays[next(iter(arrays))] = array
    write_tensors(state.file, arrays, resealed(texts, arrays))
    with pytest.raises(UserError, match="state of this fit is damaged"):
        fitted(tiny64, state=state)


def test_autoencoders_and_draws_are_told_apart() -> None:
    one, other = (SAEFeatures(saes={SITES[0]: random_sae(seed=seed)}, k=3) for seed in (0, 1))
    assert one.identity == SAEFeatures(saes={SITES[0]: random_sae(seed=0)}, k=3).identity
    methods = (one, other, *shuffled(one, 2), *shuffled(one, 1, seed=1))
    assert len({str(method.identity) for method in methods}) == len(methods)


def test_what_takes_long_to_write_is_written_less_often(
    tiny64: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_state, "SHARE", 1e-9)
    file = Notes().state(interrupted(tmp_path, tiny64, at=SECOND)).file
    assert load_tensors(file.parent, file.name)[1]["clips"] == str(FIRST)


def test_a_fit_whose_state_cannot_be_written_is_completed(
    tiny64: AceStep15, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_state, "MAX_BYTES", 9)
    notes = Notes()
    (found,) = fitted(tiny64, state=notes.state(tmp_path))
    assert found.n_pairs == 3
    (sentence,) = notes
    assert "cannot be continued" in sentence and "too large" in sentence
    assert not list(tmp_path.iterdir())


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path) -> Path:
    spec = study_spec(tiny, prompts=PROMPTS)
    return Study.create(tmp_path / "study", spec, tiny.describe(), str).path


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are generated; the process is killed instead of a second one."""
    made: list[int] = []
    generate = AceStep15.generate_batch

    def generate_or_die(model: AceStep15, clips: Sequence[Any], *args: Any, **options: Any) -> Any:
        made.append(len(clips))
        if len(made) == 2:
            raise Interrupted
        return generate(model, clips, *args, **options)

    monkeypatch.setattr(AceStep15, "generate_batch", generate_or_die)
    return made


def test_the_command_continues_and_leaves_only_the_pack(
    workbench: Workbench, study: Path, batches: list[int]
) -> None:
    command = ("steer", "fit", study, *TEMPO, "--pairs", "2", "--check-pairs", "0")
    with pytest.raises(Interrupted):
        workbench(*command)
    with Study.open(study).making("tempo", "vector"):
        outcome = workbench(*command)
        assert outcome.code == 2 and "Another process is computing the vector 'tempo'" in outcome.err
    outcome = workbench(*command)
    assert (outcome.code, batches) == (0, [2, 2, 2]), outcome.err
    assert [file.name for file in (study / "packs").iterdir()] == ["tempo.safetensors"]
    assert workbench(*command, "--name", "again").code == 0
    assert same(*(load_vector(study / "packs" / f"{name}.safetensors") for name in ("tempo", "again")))


def test_the_ladder_continues_its_vector(
    workbench: Workbench, study: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("steer", "ladder", study, *TEMPO, "--fit-pairs", "2", "--pairs", "1")
    with pytest.raises(Interrupted):
        workbench(*command)
    monkeypatch.setattr("analyses.steering.run.run_steering", lambda *_: None)
    monkeypatch.setattr("workbench.cli.steer.report_steering", lambda *_: None)
    outcome = workbench(*command)
    again, same_latents = 1, 2
    assert (outcome.code, batches) == (0, [2] * (2 + again + same_latents)), outcome.err
    assert not list((study / "results").iterdir())


@pytest.mark.parametrize("progress", [True, 3, "bar"])
def test_what_is_no_progress_is_refused(progress: Any) -> None:
    with pytest.raises(UserError, match="must be a function"):
        clip_stream.check_progress(progress)
