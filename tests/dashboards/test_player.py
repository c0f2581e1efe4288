"""Players, and what stands in their place when the audio is gone."""

from dashboards.components.ab import Side, ab_player
from dashboards.components.player import player
from workbench.studies.study import Study


def test_a_player_names_its_sound_and_its_pictures(study: Study) -> None:
    text = str(
        player(study, "audio/patching/blocks/drums/000-0/tf3+tf4.flac", 2.0, overlay="/a.svg", strip="/a.png")
    )
    assert "src='/audio/patching/blocks/drums/000-0/tf3%2Btf4.flac'" in text
    assert "src='/spectrogram/patching/blocks/drums/000-0/tf3%2Btf4.flac.png'" in text
    assert "src='/a.svg'" in text
    assert "src='/a.png'" in text
    assert "2 s" in text


def test_audio_that_is_gone_is_told(study: Study) -> None:
    text = str(player(study, "audio/clips/99999.flac", 2.0))
    assert "audio/clips/99999.flac is missing from the study" in text
    assert "Audio(" not in text


def sides(*names: str) -> list[Side]:
    folder = "audio/patching/blocks/drums/000-0"
    return [Side(name, "0.5", "a prompt", f"{folder}/{name}.flac") for name in names]


def test_a_comparison_by_ear_has_one_transport_and_a_switch_for_each_side(study: Study) -> None:
    text = str(ab_player(study, sides("clean", "corrupt", "tf3"), 2.0))
    assert text.count("Audio(") == text.count("role='radio'") == 3
    assert text.count("role='slider'") == text.count("className='ab-play'") == 1
    assert "controls" not in text
    assert text.count("'aria-checked': 'true'") + text.count("aria-checked='true'") == 1
    assert "src='/audio/patching/blocks/drums/000-0/tf3.flac'" in text


def test_a_lost_recording_cannot_be_chosen(study: Study) -> None:
    group = ab_player(study, sides("lost", "clean"), 2.0)
    lost, clean = (card.children[0] for card in group.children[0].children)
    assert (lost.disabled, clean.disabled) == (True, False)
    assert (getattr(lost, "aria-checked"), getattr(clean, "aria-checked")) == ("false", "true")
    assert "lost.flac is missing from the study" in str(group)
