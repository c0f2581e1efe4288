"""The run store of a study from elsewhere: links, paths that lead out, and absurd sizes are refused."""

import json
import os
from pathlib import Path

import pytest

from cache.errors import UserError
from cache.opening import UnsafeFile
from tests.workbench.studies.test_runs import CLIP, document_of, made_store
from workbench.engine.edits import Run
from workbench.studies.runs import MAX_DOCUMENT_BYTES, RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A store with a clip's run."""
    return made_store(tmp_path / "study", [Run(CLIP)])


def change(store: RunStore, **record: object) -> None:
    """Change the one record of the store."""
    file = document_of(store)
    document = json.loads(file.read_text())
    (name,) = document["runs"]
    document["runs"][name] |= record
    file.write_text(json.dumps(document))


def test_no_document_is_no_run(tmp_path: Path, store: RunStore) -> None:
    document_of(store).unlink()
    assert store.records([Run(CLIP)]) == [None]


@pytest.mark.parametrize("make", [os.symlink, lambda target, file: os.mkfifo(file)], ids=["link", "pipe"])
def test_links_and_pipes_are_not_read(store: RunStore, tmp_path: Path, make) -> None:
    file = document_of(store)
    file.rename(tmp_path / "secret.json")
    make(tmp_path / "secret.json", file)
    with pytest.raises(UnsafeFile, match=r"is a (link|named pipe)"):
        store.records([Run(CLIP)])


def test_a_huge_document_is_not_read(store: RunStore) -> None:
    with document_of(store).open("wb") as file:
        os.truncate(file.fileno(), MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(UnsafeFile, match="at most"):
        store.records([Run(CLIP)])


def test_a_clips_folder_that_is_a_link_is_not_written_to(store: RunStore, tmp_path: Path) -> None:
    folder = document_of(store).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    with pytest.raises(UnsafeFile, match="link"):
        made_store(store.root, [Run(CLIP)])
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


@pytest.mark.parametrize("audio", ["../secret.flac", "{outside}/secret.flac", "link.flac"])
def test_recordings_outside_of_the_study_are_not_looked_for(
    store: RunStore, tmp_path: Path, audio: str
) -> None:
    (tmp_path / "secret.flac").touch()
    (store.root / "link.flac").symlink_to(tmp_path / "secret.flac")
    change(store, audio=audio.format(outside=tmp_path))
    with pytest.raises(UnsafeFile):
        store.holds([Run(CLIP)])


@pytest.mark.parametrize("score", ["1e999", "-1e999", "NaN", "Infinity"])
def test_scores_that_are_no_numbers_are_damage(store: RunStore, score: str) -> None:
    change(store, scores={"judge": "SCORE"})
    file = document_of(store)
    file.write_text(file.read_text().replace('"SCORE"', score))
    with pytest.raises(UserError, match=r"runs\.json is damaged. Delete the folder"):
        store.records([Run(CLIP)])


@pytest.mark.parametrize("change_to", [{"edits": None}, {"audio": 3}, {"more": 1}])
def test_records_of_another_form_are_damage(store: RunStore, change_to: dict) -> None:
    change(store, **change_to)
    with pytest.raises(UserError, match="is damaged"):
        store.records([Run(CLIP)])
