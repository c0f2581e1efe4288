"""A steering vector on disk: everything that it has comes back, and other files are refused in one sentence."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import save_file

from analyses.steering import Vector, load_vector
from analyses.steering.reliability import reliability
from analyses.steering.vector import labelled
from cache.errors import UserError
from tests.full_disk import full_disk
from workbench.engine.settings import GenerationSettings
from workbench.tensor_files import load_tensors

SITES = ("tf4.cross_attn", "tf3.cross_attn")  # not in alphabetical order
MODEL = {
    "model": "tiny",
    "weights_hash": "ab" * 32,
    "device": "cpu",
    "dtype": "float32",
    "block_names": ["a", "b"],
}


@pytest.fixture
def vector() -> Vector:
    draw = np.random.default_rng(0)
    directions = {
        site: labelled(draw.standard_normal((2, 2, 4, 3)), site, ("cond", "null"), (1.0, 0.1 + 0.2))
        for site in SITES
    }
    settings = GenerationSettings(duration=1.0, num_steps=2, options={"shift": 3.0})
    reliable = reliability(
        {site: draw.standard_normal((2, 2, 2, 4, 3)) for site in SITES}, ["cond", "null"], 5
    )
    reliable["split_half"][:] = np.nan  # as of one pair
    return Vector(
        "Stimmung", "fröhlich", "sad or angry", directions, MODEL, settings, 5, reliable, cycle=True
    )


def test_it_comes_back_as_it_was(vector: Vector, tmp_path: Path) -> None:
    file = vector.save(f"{tmp_path}/vectors/mood")
    assert file == tmp_path / "vectors" / "mood"
    assert os.listdir(file.parent) == ["mood"]
    back = load_vector(file)
    assert list(back.directions) == list(SITES)
    for site in SITES:
        xr.testing.assert_identical(back.directions[site], vector.directions[site])
    xr.testing.assert_identical(back.reliability, vector.reliability)
    for name in ("concept", "positive", "negative", "model", "settings", "n_pairs", "cycle"):
        assert getattr(back, name) == getattr(vector, name), name
    assert back.at(2.0) == vector.at(2.0)
    assert [edit.hash for edit in back.at(-1.5)] == [edit.hash for edit in vector.at(-1.5)]


def test_values_in_single_precision_stay_so(vector: Vector, tmp_path: Path) -> None:
    for site in SITES:
        vector.directions[site] = vector.directions[site].astype(np.float32)
    back = load_vector(vector.save(tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back.directions[SITES[0]], vector.directions[SITES[0]])
    assert back.directions[SITES[0]].dtype == np.float32


def changed(file: Path, arrays: dict[str, np.ndarray] | None = None, **fields: Any) -> None:
    """Write the file again with other fields in its header, or other arrays."""
    old, texts = load_tensors(file.parent, file.name)
    header = {**json.loads(texts["steering_vector"]), **fields}
    save_file(arrays or old, file, {"steering_vector": json.dumps(header)})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 1}, "version must be 2"),
        ({"n_pairs": 0}, "n_pairs must be at least 1"),
        ({"n_pairs": "many"}, "n_pairs must be a whole number"),
        ({"extra": 1}, "extra is not a known name"),
        ({"model": {"model": "tiny"}}, "weights_hash"),
        ({"settings": {"num_steps": 0}}, "settings.num_steps must be at least 1"),
        ({"sigmas": [1.0]}, "one direction for each pass and step"),
        ({"passes": ["cond"]}, "one direction for each pass and step"),
        ({"passes": ["cond", "x"]}, "passes.1 must be"),
        ({"sites": [SITES[0]]}, "not those of its sites"),
        ({"pairs": [1, 2]}, "conflicting sizes"),
        ({"sites": [*SITES, SITES[0]]}, "not those of its sites"),
        ({"sites": ["x"], "arrays": {"x": np.ones((2, 2, 3))}}, "not a site"),
        ({"arrays": {site: np.full((2, 2, 3), np.nan) for site in SITES}}, "finite numbers"),
        ({"arrays": {site: np.ones((2, 2, 3)) for site in SITES}}, "its numbers are not those"),
        ({"arrays": {site: np.ones((2, 2, 3), dtype=int) for site in SITES}}, "finite numbers"),
        ({"arrays": {site: np.ones((2, 2)) for site in SITES}}, "one direction for each pass and step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_refused(
    vector: Vector, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    changed(file, **fields)
    with pytest.raises(UserError, match=f"mood.safetensors is not a vector, or is damaged .*{words}"):
        load_vector(file)


@pytest.mark.parametrize("from_end", [1, 3, 40])
def test_a_changed_number_is_noticed(vector: Vector, tmp_path: Path, from_end: int) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    data = bytearray(file.read_bytes())
    data[-from_end] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"is not a vector, or is damaged .*its numbers are not those"):
        load_vector(file)


def test_control_characters_are_not_printed(vector: Vector) -> None:
    assert repr(replace(vector, concept="\x1b[31mmood\n")).startswith("Vector(�[31mmood�: + is fröhlich")


def test_a_pipe_is_not_replaced(vector: Vector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="must be a file; it is a named pipe"):
        vector.save(tmp_path / "pipe")
    assert os.listdir(tmp_path) == ["pipe"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_files_of_other_kinds_are_refused(vector: Vector, tmp_path: Path) -> None:
    tensors, text, cut = tmp_path / "tensors", tmp_path / "text", tmp_path / "cut"
    save_file({"value": np.ones(3)}, tensors, {"format": "workbench-artefact"})
    text.write_text("a vector")
    cut.write_bytes(vector.save(tmp_path / "whole").read_bytes()[:-8])
    for file in (tensors, text, cut):
        with pytest.raises(UserError, match="is not a vector, or is damaged"):
            load_vector(file)
    for missing in (tmp_path / "nowhere", tmp_path / "text" / "x", tmp_path / "no" / "x"):
        with pytest.raises(UserError, match="cannot be read"):
            load_vector(missing)
    (tmp_path / "link").symlink_to(tmp_path / "whole")
    for other in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match="must be a file"):
            load_vector(other)


def test_a_place_where_no_file_can_be_is_refused(vector: Vector, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(UserError):
            vector.save(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_a_user_s_error(vector: Vector, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(UserError, match="mood cannot be written"):
        vector.save(tmp_path / "mood")
    assert not os.listdir(tmp_path)
