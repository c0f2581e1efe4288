"""Audio and pictures are served from the study alone, and seeking works."""

from pathlib import Path

import dash
import numpy as np
import pytest
import soundfile
from flask.testing import FlaskClient

from dashboards.app import create_app
from dashboards.media import activation_url, audio_url, find_audio, level_url, spectrogram_url
from dashboards.pictures import activation_svg
from dashboards.traces import activation_trace
from tests.dashboards.synthetic_study import SAE_SITES
from workbench.listening.loudness import loudness
from workbench.studies.study import Study

CLIP = "audio/clips/00003.flac"


@pytest.fixture
def client(app: dash.Dash) -> FlaskClient:
    return app.server.test_client()


def test_audio_is_served_whole_and_in_ranges(client: FlaskClient, study: Study) -> None:
    content = (study.path / CLIP).read_bytes()
    whole = client.get(audio_url(CLIP))
    assert (whole.status_code, whole.mimetype, whole.data) == (200, "audio/flac", content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = client.get(audio_url(CLIP), headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.data) == (206, content[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(content)}"
    end = client.get(audio_url(CLIP), headers={"Range": "bytes=-50"})
    assert (end.status_code, end.data) == (206, content[-50:])
    assert client.get(audio_url(CLIP), headers={"Range": f"bytes={len(content)}-"}).status_code == 416


def test_audio_of_a_set_of_blocks_is_served(client: FlaskClient) -> None:
    assert client.get("/audio/patching/blocks/drums/000-0/tf3%2Btf4.flac").status_code == 200


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_media_of_a_study_at_a_relative_path_are_served(
    study: Study, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """The path may be the folder's name, have further parts, or be "." in the study itself."""
    folder = [study.path, *study.path.parents][depth]
    monkeypatch.chdir(folder)
    client = create_app(study.path.relative_to(folder)).server.test_client()
    for name in (CLIP, "audio/patching/blocks/drums/000-0/tf3+tf4.flac"):
        answer = client.get(audio_url(name))
        assert (answer.status_code, answer.data) == (200, (study.path / name).read_bytes())
        assert client.get(spectrogram_url(name)).status_code == 200
    assert client.get(activation_url(SAE_SITES[0], 0, 3, "svg")).status_code == 200


@pytest.mark.parametrize("route", ["/audio/", "/spectrogram/", "/level/"])
@pytest.mark.parametrize(
    "name",
    [
        "../study.json",
        "clips/../../study.json",
        "..%2Fstudy.json",
        "%2e%2e/clips.parquet",
        "clips/..%2f..%2f..%2fmodel/truth.json",
        "//etc/passwd",
        "%2Fetc%2Fpasswd",
        "clips/00003.flac%00",
        "clips",
        "clips/99999.flac",
        "",
    ],
)
def test_nothing_else_is_served(client: FlaskClient, route: str, name: str) -> None:
    suffix = {"/spectrogram/": ".png", "/level/": ".json"}.get(route, "")
    assert client.get(f"{route}{name}{suffix}").status_code == 404


def test_files_of_other_kinds_in_the_audio_folder_are_not_served(client: FlaskClient, study: Study) -> None:
    (study.path / "audio" / "notes.txt").write_text("private")
    assert client.get("/audio/notes.txt").status_code == 404


def test_links_out_of_the_study_are_refused(client: FlaskClient, study: Study, outside: Path) -> None:
    file, folder = study.path / "audio" / "file-link.flac", study.path / "audio" / "folder-link"
    file.symlink_to(outside)
    folder.symlink_to(outside.parent, target_is_directory=True)
    loop = study.path / "audio" / "loop.flac"
    loop.symlink_to(loop)
    for name in ("file-link.flac", f"folder-link/{outside.name}", "loop.flac"):
        assert client.get(f"/audio/{name}").status_code == 404
        assert find_audio(study, name) is None
    for link in (file, folder, loop):  # other tests copy the study
        link.unlink()


def test_a_spectrogram_is_a_picture_of_that_clip(client: FlaskClient) -> None:
    first, second = (client.get(spectrogram_url(f"audio/clips/0000{clip}.flac")) for clip in (0, 1))
    assert first.mimetype == "image/png"
    assert first.data.startswith(b"\x89PNG")
    assert first.data != second.data


def test_the_level_of_a_recording_is_measured(client: FlaskClient, study: Study) -> None:
    audio, rate = study.read_audio(CLIP)
    answer = client.get(level_url(CLIP))
    assert answer.json == {"lufs": loudness(audio, rate, CLIP)}


def test_a_silent_recording_has_no_level_but_a_sentence(client: FlaskClient, study: Study) -> None:
    file = study.path / "audio" / "silent.flac"
    soundfile.write(file, np.zeros(16000), 16000)
    answer = client.get(level_url("audio/silent.flac"))
    file.unlink()
    assert answer.status_code == 422
    assert "is silent" in answer.text


def test_browsers_keep_pictures_and_ask_whether_they_have_changed(client: FlaskClient) -> None:
    for url in (spectrogram_url(CLIP), activation_url(SAE_SITES[0], 5, 3, "png")):
        picture = client.get(url)
        again = client.get(url, headers={"If-None-Match": picture.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        assert client.get(url, headers={"If-None-Match": '"other"'}).data == picture.data
        assert "no-cache" in picture.headers["Cache-Control"]


def test_activation_pictures_exist_for_known_features_and_clips_only(client: FlaskClient) -> None:
    address = f"/activation/{SAE_SITES[0]}/5/3"
    assert client.get(f"{address}.png").data.startswith(b"\x89PNG")
    assert client.get(f"{address}.svg").mimetype == "image/svg+xml"
    for unknown in (f"/activation/{SAE_SITES[0]}/999/3.svg", f"/activation/{SAE_SITES[0]}/5/99.svg"):
        assert client.get(unknown).status_code == 404
    assert client.get("/activation/tf0.cross_attn/5/3.svg").status_code == 404
    assert client.get(f"{address}.txt").status_code == 404


def test_the_line_over_a_spectrogram_follows_the_activation(study: Study) -> None:
    trace = activation_trace(study, SAE_SITES[0], 5, 3)
    maximum = float(trace.max())
    line = activation_svg(trace, maximum).split('<polyline points="')[1].split('"')[0]
    points = np.array([[float(number) for number in pair.split(",")] for pair in line.split()])
    assert points[0, 0] == 0
    assert points[-1, 0] == 100
    heights = trace.max("step").values / maximum
    assert points[::2, 1] == pytest.approx(97 - 90 * heights, abs=0.006)
