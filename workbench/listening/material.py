"""The clips that a listening study is made of: those of a steering result, or files named in a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cache.errors import UserError
from workbench.documents import parse_document
from workbench.listening.request import MOST_ITEMS, ListeningRequest
from workbench.validation import name_problem

if TYPE_CHECKING:
    import xarray as xr

    from workbench.studies.study import Study

LONGEST_SECONDS = 120.0
MOST_CHANNELS = 2
LOWEST_RATE, HIGHEST_RATE = 8000, 96_000
UNSTEERED, REAL = "unsteered", "real prompt"
COLUMNS = ("stimulus", "condition", "reference", "item", "text")
KIND = "steering"


@dataclass(frozen=True)
class Recording:
    """An audio file; links below `root` are not followed if it is given."""

    path: Path
    root: Path | None = None

    def read(self) -> tuple[Float[np.ndarray, "channel sample"], int]:
        """Return samples and sample rate.

        Raises:
            UserError: if the file is missing, cannot be read, is too long, or has too many channels.
        """
        if self.root is not None:
            from workbench.studies.recordings import read_recording

            return read_recording(self.root, self.path.relative_to(self.root).as_posix(), LONGEST_SECONDS / 2)
        return _read_any(self.path)


@dataclass(frozen=True)
class Item:
    """What is compared: a name, a text for the questions, the clip of each condition, and the reference or None.

    `pairs` are the conditions that are compared in pairs; all, if there are none.
    """

    name: str
    text: str
    clips: Mapping[str, Recording]
    reference: Recording | None = None
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Material:
    """The items of a listening study, one more for training if there is one, and where they are from."""

    items: tuple[Item, ...]
    training: Item
    source: Mapping[str, Any]

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of all items, in order."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.clips))

    @property
    def all_items(self) -> tuple[Item, ...]:
        """The items, with that of the training."""
        return self.items if self.training in self.items else (*self.items, self.training)


def from_result(study: "Study", name: str, asked: ListeningRequest) -> Material:
    """Return clips of a steering result: steered from the same prompt and noise, unsteered, and of the real prompt.

    Raises:
        UserError: if there is no such result, it has no such way or strength, or fewer clips.
    """
    result = study.result(name)
    if result.attrs["kind"] != KIND:
        raise UserError(f"'{name}' is not a result of steering. Make one with `workbench steer apply`.")
    arms = _arms(result, asked)
    text = _text_of(study, result)
    items = [
        item
        for pair in range(result.sizes["pair"])
        for seed in range(result.sizes["seed"])
        if (item := _item(study, result, arms, pair, seed, text, asked)) is not None
    ]
    if not items:
        raise UserError(f"The result '{name}' has no prompt whose clips are all there. Steer other prompts.")
    # One prompt after another, then their further seeds.
    items.sort(key=lambda item: int(item.name.rpartition(" ")[2]))
    source = {"study": study.path.resolve().name, "result": name, "result_id": result.attrs["result_id"]}
    return _with_training(items, asked.items, source)


def from_table(path: Path, asked: ListeningRequest) -> Material:
    """Return the clips named in a table with the columns stimulus (a file), condition, reference (a file), item, text.

    Files are relative to the table. Rows with the same item (by default, the same reference) are compared.

    Raises:
        UserError: if a column or a file is missing, or an item does not have the same conditions as the others.
    """
    from workbench.tables import place, read_table, text_columns

    whole = read_table(path)
    table = text_columns(whole, COLUMNS, str(path))
    if missing := [name for name in COLUMNS[:2] if name not in table]:
        raise UserError(f"{path} must have the column '{missing[0]}'.")
    if "item" not in table and "reference" not in table:
        raise UserError(
            f"{path} must have the column 'item' or 'reference', to tell which clips are compared."
        )
    rows: dict[str, list[dict[str, str]]] = {}
    for label, row in table.iterrows():
        cells = {str(name): str(cell).strip() for name, cell in row.items()}
        item = cells.get("item") or cells.get("reference", "")
        for column, cell in (
            ("stimulus", cells["stimulus"]),
            ("condition", cells["condition"]),
            ("item", item),
        ):
            if problem := name_problem(cell) or ("" if cell else "must not be empty"):
                raise UserError(f"{path}, {place(whole, label)}: {column} {problem}.")
        rows.setdefault(item, []).append(cells)
    items = [_table_item(path, name, cells) for name, cells in rows.items()]
    _check_complete(path, items)
    return _with_training(items, asked.items, {"table": path.name})


def _with_training(items: Sequence[Item], count: int, source: Mapping[str, Any]) -> Material:
    """Keep as many items as asked for; the training has the next one, or the first if there are no more."""
    kept = tuple(items[:count])
    return Material(kept, items[count] if len(items) > count else kept[0], source)


def _table_item(path: Path, name: str, rows: Sequence[Mapping[str, str]]) -> Item:
    clips: dict[str, Recording] = {}
    for row in rows:
        if row["condition"] in clips:
            raise UserError(f"{path} has the condition '{row['condition']}' of '{name}' twice.")
        clips[row["condition"]] = Recording(path.parent / row["stimulus"])
    for column in ("reference", "text"):
        if len({row.get(column, "") for row in rows}) > 1:
            raise UserError(f"{path} has several values of '{column}' for '{name}'. Give the same one.")
    reference = rows[0].get("reference", "")
    return Item(
        name, rows[0].get("text", ""), clips, Recording(path.parent / reference) if reference else None
    )


def _check_complete(path: Path, items: Sequence[Item]) -> None:
    """Raise UserError unless all items have the same conditions, not too many."""
    if len(items) > MOST_ITEMS:
        raise UserError(f"{path} must have at most {MOST_ITEMS} items, not {len(items)}.")
    for item in items:
        if missing := [name for name in items[0].clips if name not in item.clips]:
            raise UserError(
                f"{path} has no '{missing[0]}' of '{item.name}'. Every item needs every condition."
            )
        if more := [name for name in item.clips if name not in items[0].clips]:
            raise UserError(
                f"{path} has no '{more[0]}' of '{items[0].name}'. Every item needs every condition."
            )


def check_conditions(names: Sequence[str], most: int) -> None:
    """Raise UserError if an item has too many conditions, or fewer than two."""
    if len(names) < 2:
        raise UserError("A listening study needs at least two conditions to compare.")
    if len(names) > most:
        raise UserError(
            f"A listening study of this design can compare at most {most} conditions, not {len(names)}: choose some "
            "with --way and --strength."
        )


def _arms(result: "xr.Dataset", asked: ListeningRequest) -> dict[str, str]:
    """Return the arms that are compared, by the name of their condition."""
    is_cell = result["role"].values == "cell"
    ways = list(dict.fromkeys(map(str, result["row"].values[is_cell])))
    strengths = list(dict.fromkeys(map(float, result["strength"].values[is_cell])))
    if unknown := [way for way in asked.ways if way not in ways]:
        raise UserError(f"No way of steering is called '{unknown[0]}' (--way). Ways: {', '.join(ways)}.")
    if missing := [one for one in asked.strengths if one not in strengths]:
        given = ", ".join(f"{one:g}" for one in strengths)
        raise UserError(f"No clip has the strength {missing[0]:g} (--strength). Strengths: {given}.")
    cells = {
        str(arm): str(arm)
        for arm, row, strength, cell in zip(
            result["arm"].values, result["row"].values, result["strength"].values, is_cell, strict=True
        )
        if cell and row in (asked.ways or ways) and float(strength) in (asked.strengths or strengths)
    }
    return {UNSTEERED: "corrupt", **cells, REAL: "clean"}


def _item(
    study: "Study",
    result: "xr.Dataset",
    arms: Mapping[str, str],
    pair: int,
    seed: int,
    text: str,
    asked: ListeningRequest,
) -> Item | None:
    """Return the clips of one prompt and noise; None if one failed."""
    audio = result["audio"].isel(pair=pair, seed=seed)
    files = {name: str(audio.sel(arm=arm).item()) for name, arm in arms.items()}
    if not all(files.values()):
        return None
    clips = {name: Recording(study.path / file, study.path) for name, file in files.items()}
    return Item(f"pair {pair}, seed {seed}", text, clips, clips[asked.reference])


def _text_of(study: "Study", result: "xr.Dataset") -> str:
    """Return the words of the value that a result steers towards: the negative one if it steers positive prompts."""
    is_away = parse_document(result.attrs["spec"]).get("steered") == "positive"
    value = str(result.attrs["negative" if is_away else "positive"])
    values = study.spec.prompts.concepts.get(str(result.attrs["concept"]), {})
    return str(values[value].text) if value in values else value


def _read_any(path: Path) -> tuple[Float[np.ndarray, "channel sample"], int]:
    """Read an audio file of a user, in any format of libsndfile."""
    import soundfile

    from workbench.text_files import no_file

    if not path.is_file():
        raise UserError(f"{no_file(path)} Give the path of an audio file.")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if not LOWEST_RATE <= rate <= HIGHEST_RATE or channels > MOST_CHANNELS:
                raise UserError(
                    f"{path} must have one or two channels at {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {channels} at "
                    f"{rate} Hz."
                )
            if not 0 <= frames <= LONGEST_SECONDS * rate:
                raise UserError(f"{path} must have at most {LONGEST_SECONDS:g} s.")
            audio = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio: {str(error).rstrip('.')}.") from error
    return np.ascontiguousarray(audio.T), int(rate)
