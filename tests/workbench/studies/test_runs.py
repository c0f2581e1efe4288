"""The run store: what names a run, each recording once, and what others have added stays."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workbench.audio import read_audio
from workbench.engine.edits import Run, ablate, add, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.studies.runs import RunStore

CLIP, OTHER = Clip("a slow song", 3), Clip("a fast song", 3)
PLAIN = Run(CLIP)
PATCHED = Run(CLIP, (patch("tf0.cross_attn", OTHER),))
ABLATED = Run(CLIP, (ablate("tf0.cross_attn"),))
RUNS = [PLAIN, PATCHED, ABLATED]
SETTINGS = GenerationSettings(duration=0.5, num_steps=3)


def sound(place: int) -> np.ndarray:
    """Audio that tells its place."""
    return np.full((1, 8000), (place + 1) / 16, np.float32)


def made_store(root: Path, runs: Sequence[Run], shared_with: Sequence[int] | None = None) -> RunStore:
    """A store to which these runs were added."""
    store = RunStore(root, "0123", "float32", SETTINGS)
    root.mkdir(exist_ok=True)
    store.add(runs, shared_with or range(len(runs)), sound, 16000)
    return store


def document_of(store: RunStore) -> Path:
    """The document of the store's one clip."""
    (file,) = store.root.rglob("runs.json")
    return file


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return made_store(tmp_path / "study", RUNS)


def test_a_run_has_its_audio_its_edits_and_its_hash(store: RunStore) -> None:
    assert store.holds(RUNS) == [True] * 3
    for place, record in enumerate(store.records(RUNS)):
        audio, rate = read_audio(store.root / record.audio)
        assert rate == 16000
        np.testing.assert_allclose(audio, sound(place), atol=2**-15)
        store.check(record)
    document = json.loads(document_of(store).read_text())
    assert document["clip"] == {"prompt": "a slow song", "seed": 3, "lyrics": ""}
    assert [run["edits"] for run in document["runs"].values()] == [
        [edit.to_json() for edit in run.edits] for run in RUNS
    ]


@pytest.mark.parametrize(
    "other",
    [
        Run(OTHER),
        Run(replace(CLIP, seed=4)),
        Run(replace(CLIP, lyrics="la")),
        Run(CLIP, (patch("tf1.cross_attn", OTHER),)),
        Run(CLIP, (patch("tf0.cross_attn", replace(OTHER, seed=4)),)),
        Run(CLIP, (patch("tf0.cross_attn", Run(OTHER, (ablate("tf0.mlp"),))),)),
        Run(CLIP, (patch("tf0.cross_attn", OTHER, steps=(0, 1)),)),
        Run(CLIP, (add([1.0, 2.0], "tf0.cross_attn"),)),
        Run(CLIP, (*PATCHED.edits, *ABLATED.edits)),
    ],
)
def test_whatever_made_a_run_tells_it_apart(store: RunStore, other: Run) -> None:
    assert store.records([other]) == [None]


def test_vectors_tell_runs_apart_by_what_they_hold(tmp_path: Path) -> None:
    one, same, other = (Run(CLIP, (add(vector, "tf0.mlp"),)) for vector in ([1.0], [1.0], [1.5]))
    assert made_store(tmp_path / "study", [one]).holds([same, other]) == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_hash": "4567"},
        {"dtype": "bfloat16"},
        {"settings": SETTINGS.model_copy(update={"num_steps": 4})},
        {"settings": SETTINGS.model_copy(update={"options": {"shift": 2.0}})},
    ],
)
def test_another_model_or_other_settings_have_runs_of_their_own(store: RunStore, changes: dict) -> None:
    assert replace(store, **changes).records(RUNS) == [None] * 3


def test_a_store_is_plain_data(store: RunStore) -> None:
    assert pickle.loads(pickle.dumps(store)).records(RUNS) == store.records(RUNS)


def test_runs_that_were_one_row_share_a_file(tmp_path: Path) -> None:
    store = made_store(tmp_path / "study", RUNS, [0, 0, 2])
    plain, patched, ablated = store.records(RUNS)
    assert (plain.audio, plain.sha256) == (patched.audio, patched.sha256) != (ablated.audio, ablated.sha256)
    assert len(list(store.root.rglob("*.flac"))) == 2


def test_a_run_that_is_there_already_lends_its_file(tmp_path: Path) -> None:
    store = made_store(tmp_path / "study", [PLAIN])
    store.add([PATCHED, PLAIN], [0, 0], sound, 16000)
    store.add([PLAIN, ABLATED], [0, 0], lambda place: pytest.fail("decoded"), 16000)
    plain, patched, ablated = store.records(RUNS)
    assert plain.audio == ablated.audio != patched.audio


def test_what_is_there_is_never_changed(store: RunStore) -> None:
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in store.root.rglob("*.*")}
    store.add(RUNS, range(3), lambda place: sound(place + 3), 16000)
    store.add_scores(RUNS, "judge", {})
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in store.root.rglob("*.*")}
    assert before == after


def test_a_recording_without_a_record_stays(store: RunStore) -> None:
    """A process was killed after it had written them; who goes on may compute them in another batch."""
    files = {file: file.read_bytes() for file in store.root.rglob("*.flac")}
    document_of(store).unlink()
    store.add(RUNS, range(3), lambda place: sound(place + 3), 16000)
    assert {file: file.read_bytes() for file in store.root.rglob("*.flac")} == files
    for record in store.records(RUNS):
        store.check(record)


@pytest.mark.parametrize(("change", "scores"), [(0, {"judge": 0.5}), (3, {})], ids=["same", "other"])
def test_a_run_whose_recording_is_gone_is_made_again(store: RunStore, change: int, scores: dict) -> None:
    """Its scores stay where it comes out the same to the bit, as it need not in another batch."""
    store.add_scores(RUNS, "judge", {record.audio: 0.5 for record in store.records(RUNS)})
    (store.root / store.records([PATCHED])[0].audio).unlink()
    assert store.holds(RUNS) == [True, False, True]
    store.add(RUNS, range(3), lambda place: sound(place + change), 16000)
    assert store.holds(RUNS) == [True] * 3
    assert [record.scores for record in store.records(RUNS)] == [{"judge": 0.5}, scores, {"judge": 0.5}]
    for record in store.records(RUNS):
        store.check(record)


def test_a_run_without_audio_is_kept_as_such(tmp_path: Path) -> None:
    store = made_store(tmp_path / "study", [PLAIN])
    store.add([PLAIN, ABLATED], [0, 1], lambda place: None, 16000)
    assert store.holds([ABLATED]) == [True]
    assert store.records([ABLATED])[0].audio == ""


def test_what_others_add_meanwhile_stays(store: RunStore) -> None:
    """Another process writes between this one's look and its own writing."""
    more = Run(CLIP, (ablate("tf1.mlp"),))
    theirs = Run(CLIP, (ablate("tf1.cross_attn"),))

    def audio(place: int) -> np.ndarray:
        replace(store).add([theirs], [0], sound, 16000)
        return sound(place)

    store.add([more], [0], audio, 16000)
    assert store.holds([*RUNS, more, theirs]) == [True] * 5


def test_clips_have_folders_of_their_own(store: RunStore) -> None:
    store.add([Run(OTHER), Run(OTHER, (patch("tf0.cross_attn", CLIP),))], [0, 1], sound, 16000)
    sizes = [len(json.loads(file.read_text())["runs"]) for file in store.root.rglob("runs.json")]
    assert sorted(sizes) == [2, 3]
