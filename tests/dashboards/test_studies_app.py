"""A folder of studies: its list, each study below a path of its own, and nothing from outside the folder."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner
from werkzeug.test import Client

from cache.errors import UserError
from dashboards import shell, studies_app
from dashboards.address import Address
from dashboards.app import open_context
from dashboards.studies_app import StudiesDashboard
from dashboards.studies_folder import StudiesFolder, is_folder_of_studies
from tests.dashboards.test_pages import callback
from workbench.cli.main import app as command
from workbench.studies.study import Study

ODD = "b<i> ä%"


@pytest.fixture(scope="module")
def folder(study: Study, bare_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies, a damaged one, a link to one, and a folder of something else."""
    folder = tmp_path_factory.mktemp("studies")
    shutil.copytree(study.path, folder / "A", ignore=shutil.ignore_patterns("activations.zarr", "sae"))
    shutil.copytree(bare_study.path, folder / ODD, ignore=shutil.ignore_patterns("activations.zarr"))
    (folder / "damaged").mkdir()
    (folder / "damaged" / "study.json").write_text("{")
    (folder / "linked").symlink_to(study.path, target_is_directory=True)
    (folder / "else").mkdir()
    return folder


@pytest.fixture
def client(folder: Path) -> Client:
    return Client(StudiesDashboard(folder, Address()))


def test_the_list_says_what_each_study_is_or_what_is_wrong(folder: Path) -> None:
    listed = {one.name: one for one in StudiesFolder(folder).listed()}
    assert list(listed) == ["A", ODD, "damaged", "linked"]
    assert (listed["A"].model, listed["A"].clips) == ("synthetic", 12)
    assert listed["A"].results == {"patching": 2, "probes": 1, "sae": 2, "steering": 1, "benchmark": 1}
    assert listed["A"].changed.endswith(" UTC")
    assert listed[ODD].results == {}
    assert "study.json is damaged" in listed["damaged"].fault
    assert "linked is a link, which is not followed" in listed["linked"].fault


def test_the_list_links_to_the_studies_that_can_be_opened(client: Client) -> None:
    layout = client.get("/_dash-layout").text.replace("\\u002f", "/")
    assert '"href":"/study/A/"' in layout
    assert '"href":"/study/b%3Ci%3E%20%C3%A4%25/"' in layout
    assert "/study/damaged/" not in layout and "/study/linked/" not in layout


def test_every_study_has_its_own_pages_sound_and_callbacks(client: Client) -> None:
    for path in ("/study/A/", "/study/b%3Ci%3E%20%C3%A4%25/"):
        assert f'"requests_pathname_prefix":"{path}"' in client.get(path).text.replace("\\u002f", "/")
        assert client.get(f"{path}audio/clips/00000.flac").data[:4] == b"fLaC"
        assert client.get(f"{path}_dash-layout").status_code == 200
    assert client.get("/audio/clips/00000.flac").data[:4] != b"fLaC"
    assert client.get("/study/A").headers["Location"] == "/study/A/"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("damaged", 422),
        ("linked", 404),
        ("else", 404),
        ("..", 404),
        ("%2e%2e", 404),
        ("..%2fA", 404),
        (".", 404),
        ("%ff", 404),
    ],
)
def test_what_is_no_study_of_the_folder_is_refused(client: Client, name: str, status: int) -> None:
    for rest in ("/", "/patching", "/audio/clips/00000.flac"):
        answer = client.get(f"/study/{name}{rest}")
        assert (answer.status_code, answer.mimetype) == (status, "text/plain")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("else", "There is no study 'else' in "), ("damaged", "study.json is damaged")],
)
def test_an_open_page_of_what_is_no_study_now_waits_for_it(client: Client, name: str, sentence: str) -> None:
    answer = client.post(f"/study/{name}/_dash-update-component", json={})
    assert (answer.status_code, answer.mimetype) == (503, "text/plain")
    assert sentence in answer.text


def test_a_folder_that_is_away_is_told(folder: Path) -> None:
    client = Client(StudiesDashboard(folder, Address()))
    before = client.get("/_alive").headers["Study-Version"]
    away = folder.rename(folder.with_name("away"))
    try:
        for path in ("/", "/_alive", "/_dash-layout", "/study/A/", "/study/A/_alive"):
            answer = client.get(path)
            assert (answer.status_code, answer.mimetype) == (503, "text/plain")
            assert answer.text == f"{folder} cannot be read: No such file or directory.\n"
    finally:
        away.rename(folder)
    assert client.get("/_alive").headers["Study-Version"] == before


def test_all_requests_are_guarded(client: Client) -> None:
    for path in ("/", "/_alive", "/study/A/", "/study/A/_dash-layout", "/study/else/"):
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 403
        assert "frame-ancestors 'none'" in client.get(path).headers["Content-Security-Policy"]


def test_a_new_study_appears(folder: Path) -> None:
    dashboard = StudiesDashboard(folder, Address())
    client = Client(dashboard)
    before = client.get("/_alive").headers["Study-Version"]
    shutil.copytree(folder / ODD, folder / "new")
    try:
        assert client.get("/_alive").headers["Study-Version"] != before
        assert "/study/new/" in str(callback(dashboard.app, studies_app, "show")(""))
        assert client.get("/study/new/").status_code == 200
    finally:
        shutil.rmtree(folder / "new")
    assert client.get("/study/new/").status_code == 404


def test_an_unknown_page_is_told_on_the_list(folder: Path) -> None:
    told = callback(StudiesDashboard(folder, Address()).app, studies_app, "show_remarks")
    assert "There is no page '/nope', so the list of studies is shown." in str(told("/nope"))
    assert told("/") is None


def test_a_study_leads_to_the_others_and_is_compared_with_those_that_have_maps(folder: Path) -> None:
    studies = StudiesFolder(folder)
    of_first, of_odd = (open_context(folder / name, folder=studies) for name in ("A", ODD))
    assert "/study/b%3Ci%3E%20%C3%A4%25/" in str(shell.shell(of_first))
    assert (list(of_first.comparisons), list(of_odd.comparisons)) == ([], ["A"])


def test_a_folder_of_studies_is_told_from_a_study(folder: Path, study: Study, tmp_path: Path) -> None:
    assert is_folder_of_studies(folder)
    assert not is_folder_of_studies(study.path)
    assert not is_folder_of_studies(tmp_path)
    with pytest.raises(UserError, match="no study 'x'"):
        StudiesFolder(folder).study_path("x")


def test_one_study_s_options_are_refused_for_a_folder(folder: Path) -> None:
    for option in ("--compare", "--sae"):
        run = CliRunner().invoke(command, ["dashboard", str(folder), option, str(folder / "A")])
        assert isinstance(run.exception, UserError)
        assert "--compare, --sae and --allow-store need one study's folder" in str(run.exception)
