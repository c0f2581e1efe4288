"""Sparse codes of clips: what is kept is what the SAE gives, and what is damaged is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from analyses.sae import codes as codes_module
from analyses.sae.codes import (
    Axes,
    ClipCodes,
    StoredCodes,
    by_feature,
    keep_codes,
    new_codes,
    read_codes,
    write_codes,
)
from analyses.sae.encoding import encode_clip
from cache.checksum import xxh3
from cache.errors import UserError
from cache.opening import UnsafeFile
from tests.analyses.sae.sparse_codes import AXES, random_acts, sparse
from tests.tolerances import assert_close
from workbench.sae.base import SAE
from workbench.sae.topk import TopKConfig, TopKSAE

FOLDER = Path("sae/some/codes")


class ByStep(TopKSAE):
    """An SAE whose inputs are scaled by step + 1."""

    def at(self, step: int) -> SAE:
        """Return the plain SAE for a step's inputs."""
        scaled = TopKSAE(self.config, {name: value.clone() for name, value in self.state_dict().items()})
        with torch.no_grad():
            scaled.W_enc.mul_(step + 1)
        return scaled


@pytest.fixture
def sae() -> ByStep:
    sae = ByStep(TopKConfig(d_in=3, d_sae=7, k=2))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(3, 7, generator=torch.Generator().manual_seed(0)))
    return sae


@pytest.fixture
def stored(tmp_path: Path) -> StoredCodes:
    acts = random_acts(3, 6)
    return write_codes(tmp_path, FOLDER, [0, 1, 2], map(sparse, acts), AXES)


def test_a_clip_is_encoded_with_the_sae_of_each_step(sae: ByStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.sae.encoding.ROWS_AT_ONCE", 3)  # two parts of five tokens
    acts = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    expected = [sae.at(step).encode(torch.from_numpy(acts[i])) for i, step in enumerate(AXES.steps)]
    codes = encode_clip(sae, acts, AXES.steps)
    found = np.stack([codes.dense(feature, AXES.rows) for feature in range(7)], axis=-1)
    assert_close(found, torch.cat(expected))
    assert codes.counts.sum() == len(codes.value) == (torch.cat(expected) > 0).sum()


def test_what_is_read_is_what_was_written(stored: StoredCodes, tmp_path: Path) -> None:
    acts = random_acts(3, 6)
    for of_clip, expected in zip(stored, acts, strict=True):
        for feature in range(6):
            np.testing.assert_array_equal(of_clip.dense(feature, AXES.rows), expected[:, feature])
    assert read_codes(tmp_path, FOLDER, 1)[1] == AXES


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_blocks_of_features_have_all_codes_in_order(stored: StoredCodes, most: int) -> None:
    acts = random_acts(3, 6)
    count = (acts > 0).sum(axis=(0, 1))
    first = 0
    for block in by_feature(stored, count, most):
        assert block.first == first
        for feature in range(len(block.pointer) - 1):
            some = slice(block.pointer[feature], block.pointer[feature + 1])
            of_feature = acts[..., first + feature]
            assert (np.diff(block.value[some]) >= 0).all()
            np.testing.assert_array_equal(of_feature[block.clip[some], block.row[some]], block.value[some])
            assert len(block.value[some]) == (of_feature > 0).sum()
        assert len(block.value) <= most or len(block.pointer) == 2
        first += len(block.pointer) - 1
    assert first == 6


def test_a_clip_with_too_many_activations_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes_module, "MOST_BYTES", 64)
    with pytest.raises(UserError, match="too many to be kept"):
        write_codes(tmp_path, FOLDER, [0], [sparse(random_acts(1, 6)[0])], AXES)
    assert not (tmp_path / FOLDER).exists()


def _file(root: Path) -> Path:
    return root / FOLDER / "00001.safetensors"


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        arrays = load_file(file)
        rewrite(file, {**arrays, name: change(arrays[name])}, AXES.model_dump_json())

    return spoil


def axes(text: str) -> Callable[[Path], None]:
    return lambda file: rewrite(file, load_file(file), text)


def rewrite(file: Path, arrays: dict[str, np.ndarray], axes: str) -> None:
    """Write a file whose checksum is right."""
    checksum = xxh3(
        b"".join([axes.encode(), *(arrays[name].tobytes() for name in ("pointer", "row", "value"))])
    )
    save_file(arrays, file, {"axes": axes, "xxh3": checksum})


def test_a_file_that_is_written_again_is_read(stored: StoredCodes, tmp_path: Path) -> None:
    changed("value", lambda array: array)(_file(tmp_path))
    assert read_codes(tmp_path, FOLDER, 1)[1] == AXES


def _set(place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[place] = value
        return array

    return change


SPOILED = {
    "no tensors": lambda file: file.write_bytes(b"{}"),
    "another bit": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x40"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-4]),
    "no axes": lambda file: save_file(load_file(file), file),
    "other axes": axes("[" * 100_000),
    "axes without tokens": axes(AXES.model_copy(update={"tokens": 0}).model_dump_json()),
    "axes of fewer rows": axes(AXES.model_copy(update={"tokens": 1}).model_dump_json()),
    "axes of too many rows": axes(AXES.model_copy(update={"tokens": 2**40}).model_dump_json()),
    "axes with too few sigmas": axes(AXES.model_copy(update={"sigmas": (1.0,)}).model_dump_json()),
    "pointer not from 0": changed("pointer", _set(0, 1)),
    "pointer beyond": changed("pointer", _set(-1, 2**30)),
    "pointer back": changed("pointer", _set(2, 0)),
    "pointer of another type": changed("pointer", lambda array: array.astype(np.int64)),
    "no features": changed("pointer", lambda array: array[:1] * 0),
    "row beyond": changed("row", _set(0, AXES.rows)),
    "row below": changed("row", _set(0, -1)),
    "fewer rows": changed("row", lambda array: array[:-1]),
    "values in a table": changed("value", lambda array: array[None]),
    "value NaN": changed("value", _set(0, np.nan)),
    "value infinite": changed("value", _set(0, np.inf)),
    "value 0": changed("value", _set(0, 0.0)),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_damaged_codes_get_a_sentence(
    stored: StoredCodes, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    assert len(list(stored)) == 3
    spoil(_file(tmp_path))
    with pytest.raises(UserError, match=r"of clip 1 in .* are damaged\. Run the command again .* sae train"):
        read_codes(tmp_path, FOLDER, 1)


def test_new_codes_replace_all_of_the_old_ones(stored: StoredCodes, tmp_path: Path) -> None:
    sae_folder = FOLDER.parent
    acts = random_acts(2, 6, seed=1)
    write_codes(tmp_path, new_codes(sae_folder), [0, 1], map(sparse, acts), AXES)
    keep_codes(tmp_path, sae_folder)
    names = sorted(
        file.relative_to(tmp_path / sae_folder).as_posix() for file in tmp_path.rglob("*.safetensors")
    )
    assert names == ["codes/00000.safetensors", "codes/00001.safetensors"]
    for of_clip, expected in zip(StoredCodes(tmp_path, FOLDER, stored.clips[:2]), acts, strict=True):
        np.testing.assert_array_equal(of_clip.dense(2, AXES.rows), expected[:, 2])


def test_missing_codes_get_a_sentence(stored: StoredCodes, tmp_path: Path) -> None:
    _file(tmp_path).unlink()
    with pytest.raises(UserError, match=r"has no feature activations of clip 1\. Run the command again"):
        list(stored)


def test_links_and_huge_files_are_not_opened(
    stored: StoredCodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    _file(tmp_path).rename(outside)
    _file(tmp_path).symlink_to(outside)
    with pytest.raises(UnsafeFile, match="it is a link"):
        read_codes(tmp_path, FOLDER, 1)
    monkeypatch.setattr(codes_module, "MOST_BYTES", 64)
    with pytest.raises(UnsafeFile, match="at most 64 bytes"):
        read_codes(tmp_path, FOLDER, 2)


def test_axes_are_those_of_the_cache_and_count_its_rows() -> None:
    assert AXES.rows == 10
    assert Axes.model_validate_json(AXES.model_dump_json()) == AXES
    empty = ClipCodes(np.zeros(3, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert empty.dense(1, AXES.rows).tolist() == [0.0] * 10
