"""Listening studies are made whole or not at all, blind, equally loud, and the same from the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cache.errors import UserError
from tests.workbench.listening.small import NOISES, TEXT, make_small, write_table
from workbench.listening import making
from workbench.listening.config import ListeningConfig
from workbench.listening.folder import read_config
from workbench.listening.loudness import common_loudness, in_stereo, loudness, true_peak
from workbench.listening.making import make_listening_study
from workbench.listening.material import Recording, from_table
from workbench.listening.request import ListeningRequest


@pytest.fixture(scope="module")
def folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "mushra"
    make_small(table, out, design="mushra", items=2)
    return out


@pytest.fixture(scope="module")
def config(folder: Path) -> ListeningConfig:
    return read_config(folder)


def test_file_names_and_sizes_tell_no_condition(folder: Path, config: ListeningConfig) -> None:
    files = list((folder / "audio").iterdir())
    assert sorted(file.stem for file in files) == sorted(config.by_token)
    for file in files:
        assert not any(word in file.name for name in NOISES for word in name.split())
    clips = [stimulus for stimulus in config.stimuli if stimulus.role != "headphones"]
    assert len({(folder / "audio" / f"{clip.token}.wav").stat().st_size for clip in clips}) == 1


def test_the_hidden_reference_sounds_like_the_open_one_under_another_name(
    folder: Path, config: ListeningConfig
) -> None:
    trial = config.trials[-1]
    hidden = next(t for t in trial.stimuli if config.by_token[t].role == "hidden reference")
    assert trial.reference and hidden != trial.reference
    contents = {(folder / "audio" / f"{token}.wav").read_bytes() for token in (hidden, trial.reference)}
    assert len(contents) == 1


def test_all_clips_have_the_same_loudness_and_none_clips(folder: Path, config: ListeningConfig) -> None:
    for stimulus in config.stimuli:
        if stimulus.role != "headphones":
            audio, rate = soundfile.read(folder / "audio" / f"{stimulus.token}.wav", always_2d=True)
            assert loudness(audio.T, rate, "clip") == pytest.approx(config.loudness, abs=0.02)
            assert np.abs(audio).max() < 1
    assert config.loudness == -23


def test_the_loudness_is_lowered_where_a_clip_would_clip() -> None:
    assert common_loudness(-23.0, [(-30.0, -12.0), (-20.0, -6.0)]) == -23
    assert common_loudness(-10.0, [(-30.0, -12.0), (-20.0, -6.0)]) == pytest.approx(
        -19
    )  # 18 dB from its peak, 1 spared


def test_a_full_scale_sine_has_its_known_loudness_and_peak() -> None:
    """A sine of 997 Hz in both channels has -3.01 + 3.01 LUFS (ITU-R BS.1770-4, table of calibration)."""
    sine = np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000)[None]
    assert loudness(in_stereo(sine), 48_000, "sine") == pytest.approx(0, abs=0.05)
    assert true_peak(sine) == pytest.approx(0, abs=0.05)


def test_the_same_seed_makes_the_same_study_and_another_one_other_names(table: Path, tmp_path: Path) -> None:
    same = [make_small(table, tmp_path / name, items=1, any_device=True) for name in "ab"]
    other = make_small(table, tmp_path / "c", items=1, any_device=True, seed=1)
    assert same[0] == same[1]
    assert not set(same[0].by_token) & set(other.by_token)


def test_designs_have_their_trials(table: Path, tmp_path: Path) -> None:
    pairs = make_small(table, tmp_path / "pairs", items=2, checks=1, any_device=True)
    ratings = make_small(table, tmp_path / "ratings", design="ratings", items=2, checks=1, any_device=True)
    kinds = {
        config.design: [trial.kind for trial in config.trials].count("trial") for config in (pairs, ratings)
    }
    assert kinds == {"pairs": 2 * 3, "ratings": 2 * 3}
    assert ratings.shown_questions[0] == f"How well does the clip match “{TEXT}”?"
    # The training has an item of its own where there is one.
    assert pairs.trials[0].kind == "training" and pairs.trials[0].item not in pairs.items


def test_nothing_is_left_of_a_study_that_fails(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise UserError("no room")

    monkeypatch.setattr(making, "write_config", fail)
    with pytest.raises(UserError, match="no room"):
        make_small(table, tmp_path / "study", items=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("little0.wav,little noise", "little0.wav,other"), "has no .other. of .tune 1."),
        (("little0.wav", "missing.wav"), "There is no file"),
        (("little0.wav", "clips.csv"), "cannot be read as audio"),
        (("stimulus,", "sound,"), "must have the column 'stimulus'"),
        ((TEXT, ""), "has no text"),
        (("much0.wav,much noise", "much0.wav,"), "condition must not be empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    table = write_table(tmp_path, items=1 if "other" not in change[1] else 2)
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(UserError, match=sentence):
        make_small(table, tmp_path / "out", items=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["hidden reference", "Anchor 3.5 kHz"])
def test_a_condition_named_as_one_that_mushra_adds_is_refused(tmp_path: Path, name: str) -> None:
    """Its clips would be replaced by those of the hidden reference or the anchor."""
    table = write_table(tmp_path, items=1)
    table.write_text(table.read_text().replace("little noise", name))
    with pytest.raises(UserError, match=f"give the condition '{name}' another name"):
        make_small(table, tmp_path / "out", design="mushra", items=1)
    assert not (tmp_path / "out").exists()


def test_a_condition_that_is_the_reference_is_rated_as_the_hidden_one_and_not_listed(tmp_path: Path) -> None:
    table, notes = write_table(tmp_path, items=2), list[str]()
    table.write_text(table.read_text().replace("little0", "tone0").replace("little1", "tone1"))
    request = ListeningRequest(design="mushra", items=2)
    config = make_listening_study(tmp_path / "out", from_table(table, request), request, notes.append)
    assert config.conditions == ("much noise", "some noise")
    assert [note for note in notes if "'little noise' is the reference itself" in note]
    for name in ("much", "some"):
        table.write_text(table.read_text().replace(f"{name}0", "tone0").replace(f"{name}1", "tone1"))
    with pytest.raises(UserError, match="Every clip is the reference itself"):
        make_listening_study(tmp_path / "all", from_table(table, request), request, notes.append)


def test_a_silent_or_short_clip_is_named(tmp_path: Path) -> None:
    for samples, sentence in ((22_050, "is silent"), (2000, "too short")):
        soundfile.write(tmp_path / "clip.wav", np.zeros(samples), 22_050)
        audio, rate = Recording(tmp_path / "clip.wav").read()
        with pytest.raises(UserError, match=sentence):
            loudness(audio, rate, "clip")


def test_a_damaged_document_is_refused(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "study.json").read_text())
    document["trials"][0]["stimuli"][0] = "0" * 20
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="damaged"):
        read_config(tmp_path)
    with pytest.raises(UserError, match="not a listening study"):
        read_config(tmp_path / "none")
