"""Players, and what stands in their place when the audio is gone."""

from dashboards.components.player import player
from workbench.study import Study


def test_a_player_names_its_sound_and_its_pictures(study: Study) -> None:
    text = str(
        player(study, "audio/patching/drums/000-100/tf3+tf4.flac", 2.0, overlay="/a.svg", strip="/a.png")
    )
    assert "src='/audio/patching/drums/000-100/tf3%2Btf4.flac'" in text
    assert "src='/spectrogram/patching/drums/000-100/tf3%2Btf4.flac.png'" in text
    assert "src='/a.svg'" in text
    assert "src='/a.png'" in text
    assert "2 s" in text


def test_audio_that_is_gone_is_told(study: Study) -> None:
    text = str(player(study, "audio/clips/99999.flac", 2.0))
    assert "audio/clips/99999.flac is not in the study any more" in text
    assert "Audio(" not in text
