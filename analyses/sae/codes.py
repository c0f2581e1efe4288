"""The sparse codes of a study's clips, kept beside the SAE, so that what a feature does in a clip is a look-up.

A safetensors file a clip, `<clip>.safetensors`, with the positive feature activations of the clip sorted by feature,
then by row. A row is a token of a denoising step: `step position * tokens + token`. Reading a file compares its content
with a checksum in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache import CachePlan
from cache.checksum import xxh3
from cache.errors import UserError
from cache.opening import UnsafeFile, move_file, remove_folder
from workbench.tensor_files import load_tensors, write_tensors

MOST_BYTES = 2**29
"""Of one clip's file: 67 million activations, those of 2,000 rows with 33,000 active features each."""
CODES = "codes"
"""Folder of the codes in that of the SAE."""
_AXES, _CHECKSUM = "axes", "xxh3"
_AGAIN = (
    "Run the command again that made the autoencoder (`workbench sae train` or `workbench sae import`, with the same "
    "options)."
)


class Axes(BaseModel):
    """What a clip's rows are: its denoising steps with their noise levels, and its tokens with their length."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: tuple[int, ...] = Field(min_length=1)
    sigmas: tuple[float, ...]
    tokens: int = Field(ge=1, le=2**24)
    token_seconds: float = Field(gt=0)

    @classmethod
    def of_plan(cls, plan: CachePlan) -> "Axes":
        """Return the axes of the clips in a cache."""
        return cls(steps=plan.steps, sigmas=plan.sigmas, tokens=plan.tokens, token_seconds=plan.token_seconds)

    @property
    def rows(self) -> int:
        """Number of rows of a clip."""
        return len(self.steps) * self.tokens


class ClipCodes(NamedTuple):
    """The positive feature activations of one clip; those of feature f are at `pointer[f]` to `pointer[f + 1]`."""

    pointer: Int32[np.ndarray, " feature_and_end"]
    row: Int32[np.ndarray, " code"]
    value: Float32[np.ndarray, " code"]

    @property
    def counts(self) -> Int32[np.ndarray, " feature"]:
        """Number of rows on which each feature is active."""
        return np.diff(self.pointer)

    @property
    def feature(self) -> Int[np.ndarray, " code"]:
        """Feature of each activation."""
        return np.repeat(np.arange(len(self.pointer) - 1), self.counts)

    def dense(self, feature: int, rows: int) -> Float32[np.ndarray, " row"]:
        """Return one feature's activation on every row of the clip."""
        of_feature = slice(self.pointer[feature], self.pointer[feature + 1])
        activation = np.zeros(rows, dtype=np.float32)
        activation[self.row[of_feature]] = self.value[of_feature]
        return activation


@dataclass(frozen=True)
class StoredCodes:
    """The codes of some clips in a folder inside `root`; iterating reads one clip at a time."""

    root: Path
    folder: Path
    clips: Sequence[int]

    def __iter__(self) -> Iterator[ClipCodes]:
        """Yield the codes of each clip, in order."""
        return (read_codes(self.root, self.folder, clip)[0] for clip in self.clips)


def write_codes(
    root: Path, folder: Path, clips: Sequence[int], codes: Iterable[ClipCodes], axes: Axes
) -> StoredCodes:
    """Write the codes of clips, one at a time, to a folder inside `root`, and return them as stored.

    Raises:
        UserError: if a clip has more than `MOST_BYTES` of codes, or the folder cannot be written.
    """
    for clip, of_clip in zip(clips, codes, strict=True):
        size = sum(array.nbytes for array in of_clip)
        if size > MOST_BYTES // 2:
            raise UserError(
                f"Clip {clip} has {len(of_clip.value)} positive feature activations, too many to be kept. A sparse "
                "autoencoder must be sparser: train it with a smaller k, or a larger sparsity coefficient."
            )
        file = root / folder / _file_name(clip)
        texts = {_AXES: axes.model_dump_json()}
        texts[_CHECKSUM] = _checksum(of_clip, texts[_AXES])
        write_tensors(file, of_clip._asdict(), texts, root)
    return StoredCodes(root, folder, clips)


def read_codes(root: Path, folder: Path, clip: int) -> tuple[ClipCodes, Axes]:
    """Read the codes of a clip from a folder inside `root`, with their axes.

    Raises:
        UserError: if they are missing or damaged.
        cache.opening.UnsafeFile: for a link or a file that is too large.
    """
    try:
        arrays, metadata = load_tensors(root, folder / _file_name(clip), MOST_BYTES)
        axes = Axes.model_validate_json(metadata[_AXES])
        codes = ClipCodes(arrays["pointer"], arrays["row"], arrays["value"])
        _check(codes, axes)
        if metadata[_CHECKSUM] != _checksum(codes, metadata[_AXES]):
            raise ValueError("the checksum differs")
    except UnsafeFile:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{root / folder} has no feature activations of clip {clip}. {_AGAIN}") from error
    except (UserError, ValidationError, KeyError, ValueError) as error:
        raise UserError(
            f"The feature activations of clip {clip} in {root / folder} are damaged. {_AGAIN}"
        ) from error
    return codes, axes


def are_whole(root: Path, folder: Path, clips: Sequence[int]) -> bool:
    """Whether the codes of all these clips are there and undamaged; reads them."""
    with suppress(UserError):
        return all(read_codes(root, folder, clip) for clip in clips)
    return False


def _checksum(codes: ClipCodes, axes: str) -> str:
    return xxh3(b"".join([axes.encode(), *(array.tobytes() for array in codes)]))


def _check(codes: ClipCodes, axes: Axes) -> None:
    """Raise ValueError unless these are the codes of a clip."""
    pointer, row, value = codes
    is_right = (
        (pointer.dtype, row.dtype, value.dtype) == (np.int32, np.int32, np.float32)
        and pointer.ndim == row.ndim == value.ndim == 1
        and len(pointer) > 1
        and len(axes.sigmas) == len(axes.steps)
        and pointer[0] == 0
        and pointer[-1] == len(row) == len(value)
        and bool((np.diff(pointer) >= 0).all())
        and bool(((row >= 0) & (row < axes.rows)).all())
        and bool((np.isfinite(value) & (value > 0)).all())
    )
    if not is_right:
        raise ValueError("these are not codes")


def _file_name(clip: int) -> str:
    return f"{clip:05d}.safetensors"


def new_codes(sae_folder: Path) -> Path:
    """Return the folder in which the codes of an SAE are written, before `keep_codes`."""
    return sae_folder / "codes.new"


def keep_codes(root: Path, sae_folder: Path) -> None:
    """Replace the codes of an SAE, in its folder inside `root`, by those in `new_codes`.

    Between the two there are none: the SAE must not be in use, that is, its configuration must have been removed.
    """
    remove_folder(root, sae_folder / CODES)
    move_file(root, str(new_codes(sae_folder)), str(sae_folder / CODES))


class FeatureCodes(NamedTuple):
    """The activations of the features from `first` on, in all clips, sorted by feature and then by value."""

    first: int
    pointer: Int[np.ndarray, " feature_and_end"]
    clip: Int32[np.ndarray, " code"]  # position in the clip table
    row: Int32[np.ndarray, " code"]
    value: Float32[np.ndarray, " code"]

    @property
    def feature(self) -> Int[np.ndarray, " code"]:
        """Feature of each activation, counted from `first`."""
        return np.repeat(np.arange(len(self.pointer) - 1), np.diff(self.pointer))


CODES_AT_ONCE = 2**22


def by_feature(
    codes: Iterable[ClipCodes], count: Int[np.ndarray, " feature"], most: int = CODES_AT_ONCE
) -> Iterator[FeatureCodes]:
    """Yield the codes of all clips for some features after the others, at most `most` codes at a time.

    Args:
        codes: the codes of each clip; iterated over once for each block of features.
        count: how many codes each feature has.
        most: bound on the codes of a block; a single feature may have more.
    """
    first = 0
    ends = np.cumsum(count)
    while first < len(count):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield _of_features(codes, first, last)
        first = last


def _of_features(codes: Iterable[ClipCodes], first: int, last: int) -> FeatureCodes:
    """Gather the codes of the features from `first` to before `last`."""
    counts, clips, rows, values = [], [], [], []
    for clip, of_clip in enumerate(codes):
        some = slice(of_clip.pointer[first], of_clip.pointer[last])
        counts.append(of_clip.counts[first:last])
        rows.append(of_clip.row[some].copy())  # a view would keep the whole clip in memory
        values.append(of_clip.value[some].copy())
        clips.append(np.full(len(rows[-1]), clip, dtype=np.int32))
    feature = np.concatenate([np.repeat(np.arange(last - first), count) for count in counts])
    value = np.concatenate(values)
    order = np.lexsort((value, feature))
    pointer = np.append(0, np.cumsum(np.sum(counts, axis=0)))
    return FeatureCodes(
        first, pointer, np.concatenate(clips)[order], np.concatenate(rows)[order], value[order]
    )
