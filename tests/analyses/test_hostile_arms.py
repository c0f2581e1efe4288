"""The records of arms in a study from elsewhere: links, paths that lead out, and absurd sizes are refused."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analyses.patching.sweep import CLEAN, MAX_RECORDS_BYTES, ArmRecord, _Unit
from cache.errors import UserError
from cache.opening import UnsafeFile


@pytest.fixture
def unit(tmp_path: Path) -> Any:
    """A pair's unit of a study, without the study."""
    made: Any = object.__new__(_Unit)
    (tmp_path / "study" / "unit").mkdir(parents=True)
    made.study = SimpleNamespace(path=tmp_path / "study")
    made._file = tmp_path / "study" / "unit" / "arms.json"
    made.arms = {}
    return made


def test_no_records_are_none(unit: Any) -> None:
    assert unit._read() == {}


def test_links_and_huge_files_are_not_read(unit: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"a": {"name": "secret", "audio": ""}}')
    unit._file.symlink_to(tmp_path / "secret.json")
    with pytest.raises(UnsafeFile, match="link"):
        unit._read()
    unit._file.unlink()
    with unit._file.open("wb") as file:
        os.truncate(file.fileno(), MAX_RECORDS_BYTES + 1)
    with pytest.raises(UnsafeFile, match="at most"):
        unit._read()


@pytest.mark.parametrize("audio", ["../secret.flac", "{outside}/secret.flac", "unit/link.flac"])
def test_recordings_outside_of_the_study_are_not_looked_for(unit: Any, tmp_path: Path, audio: str) -> None:
    (tmp_path / "secret.flac").touch()
    (tmp_path / "study" / "unit" / "link.flac").symlink_to(tmp_path / "secret.flac")
    record = ArmRecord(name=CLEAN.name, audio=audio.format(outside=tmp_path), sha256="")
    with pytest.raises(UnsafeFile):
        unit._is_whole(record)


@pytest.mark.parametrize("score", ["1e999", "-1e999", "NaN", "Infinity"])
def test_scores_that_are_no_numbers_are_damage(unit: Any, score: str) -> None:
    unit._file.write_text(
        f'{{"a": {{"name": "clean", "audio": "", "sha256": "", "scores": {{"judge": {score}}}}}}}'
    )
    with pytest.raises(UserError, match="is damaged"):
        unit._read()
