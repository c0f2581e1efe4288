"""Labels, notes, stars and sets of features as CSV: a row for each feature that has one."""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cache.errors import UserError
from cache.wording import counted
from workbench.sae.stored import DIGITS
from workbench.spreadsheet_cells import protected, unprotected
from workbench.studies.feature_notes import (
    BETWEEN_SETS,
    FIELDS,
    Noted,
    checked,
    checked_set,
    read_everything,
    weights_of,
    write_all,
)
from workbench.tables import SEPARATORS

COLUMNS = ("sae", "feature", *FIELDS, "sets", "weights")
MOST_BYTES = 2**25
MOST_FEATURE = 2**31
_HASH = re.compile(rf"([0-9a-f]{{{DIGITS}}})?")


class Imported(NamedTuple):
    """How many labels, notes, stars and places in sets changed, and how many features have other weights."""

    changed: int
    others: int


def notes_csv(study: Path, sae: str | None = None) -> str:
    """Return what was written about the features of an autoencoder, or of all, as CSV with the columns `COLUMNS`.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, which `import_notes` takes away.
    `weights` is the hash of the weights that the autoencoder had then.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in read_everything(study):
        if sae in (None, each.sae):
            values = [protected(each.fields.get(field, "")) for field in FIELDS]
            sets = protected(f"{BETWEEN_SETS} ".join(each.sets))
            writer.writerow([protected(each.sae), each.feature, *values, sets, each.weights])
    return text.getvalue()


def import_notes(study: Path, content: bytes, saes: Mapping[str, int]) -> Imported:
    """Write the labels, notes and stars in a CSV file, and add its features to sets; empty cells change nothing.

    Replaced labels and notes are kept as earlier ones. A row with the hash of weights is of the autoencoder that had
    them, and one without is of that which the study has.

    Args:
        study: the study folder.
        content: the file, in UTF-8, separated by commas, semicolons or tabs, with the columns `sae`, `feature`, and
            any of the others of `COLUMNS`.
        saes: how many features the study's autoencoders have, by name.

    Raises:
        UserError: for another file; the sentence names the line. Then nothing is written.
    """
    if len(content) > MOST_BYTES:
        raise UserError(f"The CSV file is larger than {MOST_BYTES // 2**20} MiB. Import it in parts.")
    try:
        text = content.decode("utf-8-sig")
        separator = max(SEPARATORS[".csv"], key=text.partition("\n")[0].count)
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        names = lines.fieldnames or []
        if not {"sae", "feature"} <= set(names) <= set(COLUMNS) or len(set(names)) != len(names):
            raise UserError(
                f"The CSV file must have the columns sae and feature, and any of {', '.join(COLUMNS[2:])}; it has "
                f"{', '.join(names)[:200] or 'none'}."
            )
        weights = {sae: weights_of(study, sae) for sae in saes}
        features = [_row(row, lines.line_num, weights, saes) for row in lines]
    except UnicodeDecodeError as error:
        raise UserError("The CSV file is not text in UTF-8. Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"Line {lines.line_num + 1} of the CSV file cannot be read ({error}).") from error
    others = sum(each.weights != weights[each.sae] for each in features)
    return Imported(write_all(study, features), others)


def imported_sentence(imported: Imported) -> str:
    """Say what an import did."""
    said = f"{counted(imported.changed, 'change')} of labels, notes, stars and sets."
    if imported.others:
        features = counted(imported.others, "feature")
        said += (
            f" {features} of autoencoders with other weights than the study's, which its pages do not show."
        )
    return said


def _row(
    row: dict[str | None, str | None], line: int, weights: Mapping[str, str], sizes: Mapping[str, int]
) -> Noted:
    """Return what a row says; `weights` are the hashes of the study's autoencoders, and `sizes` their features."""
    if None in row or None in row.values():
        raise UserError(f"Line {line} of the CSV file has another number of cells than the first line.")
    cells = {name: unprotected(cell) for name, cell in row.items() if name and cell is not None}
    sae, feature, own = cells["sae"], cells["feature"].strip(), cells.get("weights", "").strip()
    if sae not in weights:
        raise UserError(
            f"Line {line} of the CSV file is of the autoencoder '{sae[:100]}'; the study has {', '.join(weights)}."
        )
    if not (feature.isascii() and feature.isdigit() and len(feature) < 11 and int(feature) < MOST_FEATURE):
        raise UserError(
            f"Line {line} of the CSV file has the feature '{feature[:20]}', which is not a number."
        )
    if not _HASH.fullmatch(own):
        raise UserError(
            f"Line {line} of the CSV file has the weights '{own[:20]}', which are not a hash of {DIGITS} digits. Leave "
            "the cell empty for the weights that the study has."
        )
    if own in ("", weights[sae]) and int(feature) >= sizes[sae]:
        raise UserError(
            f"Line {line} of the CSV file has the feature {feature}; {sae} has those from 0 to {sizes[sae] - 1}."
        )
    try:
        fields = {field: checked(field, cells[field]) for field in FIELDS if cells.get(field, "").strip()}
        names = (name for name in cells.get("sets", "").split(BETWEEN_SETS) if name.strip())
        sets = tuple(checked_set(name) for name in names)
    except UserError as error:
        raise UserError(f"Line {line} of the CSV file: {error}") from error
    return Noted(sae, own or weights[sae], int(feature), fields, sets)
