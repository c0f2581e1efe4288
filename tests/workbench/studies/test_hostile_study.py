"""A study from elsewhere reads, writes and asks nothing outside of its folder, and does not fill the memory."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.errors import UserError
from cache.opening import UnsafeFile
from tests.workbench.studies.foreign_study import make_foreign_study
from workbench.cli.cache import _location
from workbench.cli.console import open_study
from workbench.studies.confirmed import UnconfirmedStore, confirm
from workbench.studies.study import Study

URL = "s3://somebody/else.zarr"


@pytest.fixture(autouse=True)
def nothing_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of each test's own, who has confirmed nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A study whose study.json somebody else has written."""
    study = make_foreign_study(folder / "study")
    document = json.loads((study.path / "study.json").read_text())
    change(document)
    (study.path / "study.json").write_text(json.dumps(document))
    return study.path


def set_at(*keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_at("study_version", value="2"),
        set_at("study_version", value=[2]),
        set_at("study_version", value=None),
        set_at("spec", value=[]),
        set_at("spec", "model", value=3),
        set_at("spec", "n_prompts", value=10**9),
        set_at("spec", "seeds", value=-1),
        set_at("spec", "steps", value="all"),
        set_at("spec", "settings", value=None),
        set_at("spec", "prompts", value={"templates": 1}),
        set_at("model", value=None),
        set_at("model", value=[]),
        set_at("model", "weights_hash", value=7),
        set_at("model", "dtype", value=None),
        set_at("model", "block_names", value=3),
        set_at("model", "block_names", value=[["a"]]),
        set_at("model", "seed", value=1),
        set_at("store", value=7),
        set_at("store", value=["s3://a"]),
        set_at("provenance", value="yesterday"),
        lambda document: document.pop("model"),
        lambda document: document.pop("store"),
        lambda document: document.pop("study_version"),
    ],
)
def test_a_study_of_wrong_types_gets_a_sentence(tmp_path: Path, change: Callable[..., object]) -> None:
    with pytest.raises(UserError, match=r"study.json is damaged. Make the study again"):
        Study.open(changed(tmp_path, change))


@pytest.mark.parametrize("name", ["study.json", "clips.parquet"])
def test_the_advice_on_a_damaged_study_is_not_to_trace_into_it(tmp_path: Path, name: str) -> None:
    """A trace opens the study first, so it would fail in the same way."""
    study = make_foreign_study(tmp_path / "study")
    (study.path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"in another folder, or in this one after deleting {study.path}"):
        Study.open(study.path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x89PNG\r\n\x1a\n\0",
        b"\xff\xfe{",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"study_version": 3, "a": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"study_version": ' + b"2" * 10_000 + b"}",
        b"[2]",
        b"null",
    ],
    ids=["empty", "binary", "UTF-16", "brackets", "objects", "nested", "digits", "list", "null"],
)
def test_a_study_that_is_no_json_gets_a_sentence(tmp_path: Path, text: bytes) -> None:
    study = make_foreign_study(tmp_path / "study")
    (study.path / "study.json").write_bytes(text)
    with pytest.raises(UserError, match=r"study.json is damaged"):
        Study.open(study.path)


def test_a_study_json_that_is_huge_is_not_read(tmp_path: Path) -> None:
    study = make_foreign_study(tmp_path / "study")
    with (study.path / "study.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UnsafeFile, match="at most"):
        Study.open(study.path)


@pytest.mark.parametrize("name", ["study.json", "clips.parquet"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, name: str, kind: str) -> None:
    study = make_foreign_study(tmp_path / "study")
    file = study.path / name
    content = file.read_bytes()
    file.unlink()
    if kind == "link":
        (tmp_path / "outside").write_bytes(content)
        file.symlink_to(tmp_path / "outside")
    elif kind == "dangling":
        file.symlink_to(tmp_path / "nothing")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(UnsafeFile, match="must be a file"):
        Study.open(study.path)


def test_a_study_that_was_made_here_opens_its_store(tmp_path: Path) -> None:
    make_foreign_study(tmp_path / "study", store=URL)
    (tmp_path / "study").rename(tmp_path / "moved")
    assert Study.open(tmp_path / "moved").cache_location == URL


@pytest.mark.parametrize("store", [URL, "http://169.254.169.254/x.zarr", "file:///etc", "/etc", ""])
def test_a_study_from_elsewhere_asks_no_store_before_it_is_confirmed(tmp_path: Path, store: str) -> None:
    path = changed(tmp_path, set_at("store", value=store))
    study = Study.open(path)
    for use in (lambda: study.cache, lambda: study.cache_location, lambda: _location(str(path))):
        with pytest.raises(UnconfirmedStore, match=r"workbench cache info .* --allow-store"):
            use()
    assert open_study(path, allow_store=True).cache_location == store
    assert Study.open(path).cache_location == store
    document = json.loads((path / "study.json").read_text())
    (path / "study.json").write_text(json.dumps({**document, "store": "s3://another/one.zarr"}))
    with pytest.raises(UnconfirmedStore):
        _ = Study.open(path).cache_location


def test_tracing_again_with_the_same_store_confirms_it(tmp_path: Path) -> None:
    path = changed(tmp_path, set_at("store", value=URL))
    with pytest.raises(UserError, match="not in its folder"):
        make_foreign_study(path)
    with pytest.raises(UnconfirmedStore):
        _ = Study.open(path).cache_location
    assert make_foreign_study(path, store=URL).cache_location == URL
    assert Study.open(path).cache_location == URL


def test_where_nothing_can_be_remembered_it_is_confirmed_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(tmp_path, set_at("store", value=URL))
    (tmp_path / "full").write_bytes(b"a file where the folder would be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "full"))
    assert open_study(path, allow_store=True).cache_location == URL
    with pytest.raises(UnconfirmedStore):
        _ = Study.open(path).cache_location


def test_the_truth_of_a_folder_that_a_foreign_study_names_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "model"
    secret.mkdir()
    (secret / "model_index.json").write_text("{}")
    (secret / "truth.json").write_text('{"concepts": {"password": [1]}}')
    path = changed(tmp_path, set_at("spec", "model", value=str(secret)))
    assert Study.open(path).truth_card() is None
    confirm((path / "study.json").read_bytes(), path)
    assert Study.open(path).truth_card() == {"concepts": {"password": [1]}}
    (secret / "truth.json").write_bytes(b"{" * 1000)
    with pytest.raises(UserError, match=r"truth\.json is damaged"):
        Study.open(path).truth_card()
    own = make_foreign_study(tmp_path / "own", model=str(secret))
    (secret / "truth.json").write_text('{"concepts": {}}')
    assert own.truth_card() == {"concepts": {}}


def test_an_organisms_truth_needs_nothing(tmp_path: Path) -> None:
    path = changed(tmp_path, set_at("spec", "seed", value=3))
    card = Study.open(path).truth_card()
    assert card is not None
    assert "concepts" in card


def test_confirming_leaves_the_study_as_it_is(tmp_path: Path) -> None:
    path = changed(tmp_path, set_at("store", value=URL))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    open_study(path, allow_store=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
