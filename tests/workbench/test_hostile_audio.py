"""Recordings from elsewhere: bombs, links and pipes are refused before they are decoded."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cache.errors import UserError
from cache.opening import UnsafeFile
from dashboards.media import find_audio
from tests.full_disk import full_disk
from tests.workbench.studies.foreign_study import make_foreign_study
from workbench.audio import read_audio, write_audio, write_flac
from workbench.studies.study import Study

RATE = 16_000
NAME = "audio/clips/00000.flac"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of clips of one second, with one recording."""
    study = make_foreign_study(tmp_path / "study")
    write_flac(study.path / NAME, np.full((2, RATE), 0.5, np.float32), RATE, study.path)
    return study


def test_a_recording_is_read_as_it_was_written(study: Study) -> None:
    """What the others differ from."""
    audio, rate = study.read_audio(NAME)
    assert (audio.shape, rate) == ((2, RATE), RATE)
    assert np.all(np.abs(audio - 0.5) < 1e-4)


def silence(file: Path, seconds: float, rate: int = RATE, channels: int = 1, form: str = "FLAC") -> None:
    with soundfile.SoundFile(file, "w", rate, channels, "PCM_16", format=form) as writing:
        for _ in range(round(seconds)):
            writing.write(np.zeros((rate, channels), np.int16))


def test_hours_in_kilobytes_are_not_decoded(study: Study) -> None:
    silence(study.path / NAME, 3600)
    assert (study.path / NAME).stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(UserError, match="must be at most 3 s long"):
        study.read_audio(NAME)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with pytest.raises(UserError, match="at most 1200 s long"):
        read_audio(study.path / NAME)


@pytest.mark.parametrize("frames", [0, 2**36 - 1, 2**35], ids=["unknown", "all bits", "days"])
def test_a_header_that_lies_about_the_length_is_refused(study: Study, frames: int) -> None:
    file = study.path / NAME
    content = bytearray(file.read_bytes())
    # STREAMINFO: 4 bits of the number of frames end byte 13 of the block, which begins at 8; 32 bits follow.
    content[21] = (content[21] & 0xF0) | frames >> 32
    content[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    file.write_bytes(bytes(content))
    tracemalloc.start()
    try:
        audio, _ = study.read_audio(NAME)
        assert audio.shape[1] <= 3 * RATE
    except UserError:
        pass
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("rate", "channels", "form"), [(RATE, 8, "FLAC"), (500, 1, "FLAC"), (RATE, 1, "WAV")]
)
def test_recordings_of_another_kind_are_refused(study: Study, rate: int, channels: int, form: str) -> None:
    silence(study.path / NAME, 1, rate, channels, form)
    with pytest.raises(UserError, match="the workbench did not write"):
        study.read_audio(NAME)


@pytest.mark.parametrize("content", [b"", b"fLaC", b"fLaC" + b"\0" * 100, b"RIFF", os.urandom(300)])
def test_damaged_recordings_get_a_sentence(study: Study, content: bytes) -> None:
    (study.path / NAME).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        study.read_audio(NAME)


@pytest.mark.parametrize(
    ("name", "command"),
    [(NAME, "`workbench trace`"), ("audio/runs/00000/0.flac", "the command that needs it")],
)
def test_a_recording_that_was_cut_says_how_to_get_it_again(study: Study, name: str, command: str) -> None:
    file, content = study.path / name, (study.path / NAME).read_bytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content[: len(content) // 2])
    advice = f"run {command} again with the same options, or restore it from a copy"
    with pytest.raises(UserError, match=f"is damaged. Delete it, then {advice}"):
        study.read_audio(name)
    file.unlink()
    with pytest.raises(UserError, match=f"There is no recording .* To get it, {advice}"):
        study.read_audio(name)


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "a folder that is a link"])
def test_what_is_no_recording_of_the_study_is_not_opened(study: Study, tmp_path: Path, kind: str) -> None:
    file, outside = study.path / NAME, tmp_path / "outside"
    outside.mkdir()
    file.rename(outside / file.name)
    if kind == "link":
        file.symlink_to(outside / file.name)
    elif kind == "dangling":
        file.symlink_to(outside / "nothing.flac")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.parent.rmdir()
        file.parent.symlink_to(outside)
    with pytest.raises(UnsafeFile, match=r"is a (link|named pipe|folder)"):
        study.read_audio(NAME)
    assert find_audio(study, NAME.removeprefix("audio/")) is None
    if kind == "a folder that is a link":
        with pytest.raises(UnsafeFile, match="is a link"):
            write_flac(file, np.zeros((1, RATE), np.float32), RATE, study.path)
    elif kind in ("link", "dangling"):  # which is replaced itself
        write_flac(file, np.zeros((1, RATE), np.float32), RATE, study.path)
    assert sorted(path.name for path in outside.iterdir()) == [file.name]
    assert np.all(read_audio(outside / file.name)[0] > 0.4)


@pytest.mark.parametrize(
    "name", ["../outside.flac", "audio/../../outside.flac", "/etc/passwd", "audio/\0.flac", ""]
)
def test_names_that_lead_elsewhere_are_refused(study: Study, tmp_path: Path, name: str) -> None:
    (study.path / NAME).rename(tmp_path / "outside.flac")
    with pytest.raises(UserError):
        study.read_audio(name)
    assert find_audio(study, name) is None


def test_a_missing_recording_gets_a_sentence(study: Study) -> None:
    with pytest.raises(UserError, match="There is no recording"):
        study.read_audio("audio/clips/00009.flac")


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_a_full_disk_is_a_user_s_error(tmp_path: Path, ending: str) -> None:
    """libsndfile itself would say "System error"."""
    noise = np.random.default_rng(0).uniform(-1, 1, (1, RATE)).astype(np.float32)
    file = tmp_path / f"a.{ending}"
    with full_disk(), pytest.raises(UserError, match=rf"{file} cannot be written .*Free some space"):
        write_audio(file, noise, RATE)
    with full_disk(), pytest.raises(UserError, match=rf"{file} cannot be written .*Free some space"):
        write_flac(file, noise, RATE, tmp_path)
    assert list(tmp_path.iterdir()) == []
