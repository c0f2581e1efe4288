"""What players are told to play, and what stands in their place when the audio is gone."""

import json
from typing import Any

import pytest

from dashboards.components.ab import Side, ab_player, ab_sides
from dashboards.components.player import Recording, player, players, recordings_data
from workbench.studies.study import Study

FOLDER = "audio/patching/blocks/drums/000-0"


def told(component: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(getattr(component, "data-recordings"))
    return found


def test_a_player_names_its_sound_and_its_pictures(study: Study) -> None:
    (one,) = told(player(study, f"{FOLDER}/tf3+tf4.flac", 2.0, overlay="/a.svg", strip="/a.png"))
    assert one["audio"] == "/audio/patching/blocks/drums/000-0/tf3%2Btf4.flac"
    assert one["mel"] == "/spectrogram/patching/blocks/drums/000-0/tf3%2Btf4.flac.png"
    assert (one["overlay"], one["strip"], one["seconds"]) == ("/a.svg", "/a.png", 2.0)


def test_players_have_titles_and_no_sound_at_first(study: Study) -> None:
    assert told(players("some")) == []
    recordings = [
        Recording(f"{FOLDER}/{name}.flac", 2.0, name, note=("a ", "b", "")) for name in ("tf3", "clean")
    ]
    one, other = json.loads(recordings_data(study, recordings))
    assert (one["title"], other["title"]) == ("tf3", "clean")
    assert one["note"] == ["a ", "b", ""]


def test_audio_that_is_gone_is_told(study: Study) -> None:
    (one,) = told(player(study, "audio/clips/99999.flac", 2.0))
    assert one["missing"].startswith(
        "The audio file audio/clips/99999.flac is missing from the study. Run `workbench trace`"
    )
    assert "audio" not in one


def sides(*names: str) -> list[Side]:
    return [Side(name, "0.5", ("a prompt",), f"{FOLDER}/{name}.flac") for name in names]


def test_a_comparison_by_ear_names_its_recordings_and_where_their_levels_are(study: Study) -> None:
    found = json.loads(ab_sides(study, sides("clean", "corrupt", "tf3"), 2.0, "Pair 0.", heard="tf3"))
    assert [side["name"] for side in found["sides"]] == ["clean", "corrupt", "tf3"]
    assert (found["seconds"], found["caption"], found["heard"]) == (2.0, "Pair 0.", "tf3")
    side = found["sides"][2]
    assert side["audio"] == "/audio/patching/blocks/drums/000-0/tf3.flac"
    assert side["level"] == "/level/patching/blocks/drums/000-0/tf3.flac.json"
    assert (side["detail"], side["note"], side["strength"]) == ("0.5", ["a prompt"], None)


def test_an_ab_player_is_empty_until_a_callback_fills_it() -> None:
    group = ab_player("some")
    assert getattr(group, "data-sides") == "{}"
    assert not getattr(group, "children", None), "what a callback returns as children is made anew"


def test_a_lost_recording_has_a_sentence_in_its_place(study: Study) -> None:
    lost, clean = json.loads(ab_sides(study, sides("lost", "clean"), 2.0))["sides"]
    assert lost["missing"].startswith(
        f"The audio file {FOLDER}/lost.flac is missing from the study. Run the command"
    )
    assert "audio" not in lost
    assert "missing" not in clean


@pytest.mark.parametrize("path", ["audio/../study.json", "/etc/passwd", "audio/../../secret.flac"])
def test_no_file_outside_the_audio_is_named(study: Study, path: str) -> None:
    (side,) = json.loads(ab_sides(study, [Side("a", "", ("",), path)], 2.0))["sides"]
    assert "audio" not in side
    assert "missing" in side
