"""A page to send: everything is inside, nothing runs but its own script, and all texts are text."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import dash
import numpy as np
import pytest
import soundfile

from cache.errors import UserError
from dashboards import standalone
from dashboards.pages import patching_cell
from dashboards.standalone import Part, embedded, export_page, html_page
from tests.dashboards.test_pages import callback
from workbench.studies.study import Study

CELL = {"concept": "drums", "arm": "tf3"}


def written(study: Study, folder: Path, figure: str = "", **options: Any) -> tuple[str, list[str]]:
    said: list[str] = []
    file = export_page(study, figure, folder, warn=said.append, **options)
    return file.read_text(encoding="utf-8"), said


def played(page: str, attribute: str) -> list[Any]:
    return [json.loads(unescape(text)) for text in re.findall(f'{attribute}="([^"]*)"', page)]


def test_a_cell_has_the_recordings_of_its_pairs(study: Study, tmp_path: Path) -> None:
    page, said = written(study, tmp_path, "patching-pairs", **CELL)
    groups = played(page, "data-sides")
    assert [[side["name"] for side in group["sides"]] for group in groups] == [
        ["clean", "corrupt", "patched"]
    ] * 4
    sound = groups[0]["sides"][2]["audio"].removeprefix("data:audio/flac;base64,")
    file = study.path / "audio" / "patching" / "blocks" / "drums" / "000-0" / "tf3.flac"
    assert base64.b64decode(sound) == file.read_bytes()
    assert groups[0]["sides"][2]["level"] == pytest.approx(-20, abs=1)
    assert "Effect of patching in each pair of drums" in page
    assert "by workbench export. All sounds and pictures are inside this file.</footer>" in page
    assert said == ["patching-pairs-blocks-drums-tf3.html has 0.9 MiB."]


def test_a_feature_has_its_top_clips(study: Study, tmp_path: Path) -> None:
    page, _ = written(study, tmp_path, "feature", name="tf3.cross_attn", feature=16)
    clips = [one for group in played(page, "data-recordings") for one in group]
    assert len(clips) == 5
    assert {clip["overlay"].partition(";")[0] for clip in clips} == {"data:image/svg+xml"}


def test_a_study_has_its_figures(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = ("patching", "patching-pairs", "ladder")  # the second one must be told which cell
    monkeypatch.setattr(standalone, "FIGURES", {name: standalone.FIGURES[name] for name in some})
    page, _ = written(study, tmp_path)
    assert f"<h1>{study.path.name}</h1>" in page
    headings = re.findall("<h2>([^<,]*)", page)
    assert headings == ["Study", "patching", "ladder"]
    assert "by workbench export. All pictures are inside this file.</footer>" in page


def test_counts_are_whole_and_other_numbers_short(study: Study, tmp_path: Path) -> None:
    page, _ = written(study, tmp_path, "sae-training", name="tf3.cross_attn")
    cells = re.findall("<td>(.*)</td>", page)
    assert cells
    digits = [cell.replace(".", "").strip("−0") for cell in cells if re.fullmatch(r"−?[\d.]+", cell)]
    assert max(map(len, digits)) <= 4
    table = standalone.pd.DataFrame({"n": [2176.0, 123456.0, None], "value": [0.123456, 2.5, np.nan]})
    page = html_page("a", [Part("b", table=table)], "c")
    assert re.findall("<td>(.*)</td>", page) == ["2176", "0.1235", "123456", "2.5", "–", "–"]


def test_a_page_without_pictures_promises_none() -> None:
    assert standalone._what_is_inside([Part("a")]) == ""
    assert standalone._what_is_inside([Part("a", sides=["{}"])]) == " All sounds are inside this file."


def test_nothing_comes_from_elsewhere() -> None:
    page = html_page("a", [Part("b", b"<svg/>")], "c")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"']""", page.partition("<script>")[0])
    assert "default-src 'none'; script-src 'sha256-" in page


def test_no_text_of_a_table_is_cut() -> None:
    name = "a study's own long name, which a table must not cut in the middle of R&amp;"
    page = html_page("a", [Part("b", table=standalone.pd.DataFrame({name: [name]}))], "c")
    assert (
        unescape(re.findall("<td>(.*)</td>", page)[0])
        == unescape(re.findall("<th>(.*)</th>", page)[0])
        == name
    )


def test_texts_stay_text(study: Study) -> None:
    bad = "<img src=x onerror=alert(1)>\"'</script>"
    part = Part(bad, b"<svg/>", bad, standalone.pd.DataFrame({bad: [bad]}), ['{"a": "\\"><b>"}'], [], [bad])
    page = html_page(bad, [part], bad)
    assert "<img src=x" not in page
    assert page.count("</script>") == 1
    assert played(page, "data-sides") == [{"a": '"><b>'}]


def test_a_page_has_a_limit(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "LARGEST", 500_000)
    page, _ = written(study, tmp_path, "patching-pairs", **CELL)
    assert len(played(page, "data-sides")) == 2
    assert "2 pairs left out: the file would be too large to send." in page


def test_a_silent_recording_has_no_level(study: Study) -> None:
    file = study.path / "audio" / "silent.flac"
    soundfile.write(file, np.zeros(16000), 16000)
    found = embedded(study, "audio/silent.flac")
    file.unlink()
    assert found["level"] is None
    assert str(found["audio"]).startswith("data:audio/flac;base64,")


def test_a_page_needs_a_folder(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        written(study, tmp_path / "file")
    with pytest.raises(UserError, match="Unknown figure"):
        written(study, tmp_path, "nonsense")


def test_the_page_of_a_cell_is_sent(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Study.open(shutil.copytree(study.path, tmp_path / "study"))
    told: list[str] = []
    monkeypatch.setattr(patching_cell, "notify", lambda *parts: told.append(" ".join(parts)))
    app = dash.Dash()
    patching_cell.register(app, own)
    send = callback(app, patching_cell, "send_page")
    data = {"figure": "patching-pairs", "options": {"name": "blocks", **CELL}}
    found = send(1, data)
    assert found["filename"] == "patching-pairs-blocks-drums-tf3.html"
    assert "0.9 MiB" in told[0]
    assert send(None, data) is send(1, None) is dash.no_update


def test_it_can_be_imported_first() -> None:
    """As the command does; here, the pages are there already."""
    subprocess.run([sys.executable, "-c", "import dashboards.standalone"], check=True)
