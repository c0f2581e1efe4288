"""Labels, notes and stars of features as CSV: a row for each feature that has one."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cache.errors import UserError
from workbench.spreadsheet_cells import protected, unprotected
from workbench.studies.feature_notes import FIELDS, NoteField, checked, noted_saes, read_all, write_all

COLUMNS = ("sae", "feature", *FIELDS)
MOST_BYTES = 2**25
MOST_FEATURE = 2**31


def notes_csv(study: Path, sae: str | None = None) -> str:
    """Return what was written about the features of an autoencoder, or of all, as CSV with the columns `COLUMNS`.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, which `import_notes` takes away.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in noted_saes(study) if sae is None else [sae]:
        for feature, fields in read_all(study, name).items():
            values = [protected(fields.get(field, "")) for field in FIELDS]
            writer.writerow([protected(name), feature, *values])
    return text.getvalue()


def import_notes(study: Path, content: bytes, saes: Sequence[str]) -> int:
    """Write the labels, notes and stars in a CSV file; empty cells change nothing. Return how many fields changed.

    Replaced labels and notes are kept as earlier ones.

    Args:
        study: the study folder.
        content: the file, in UTF-8, with the columns `sae`, `feature`, and any of `label`, `note` and `star`.
        saes: the study's autoencoders.

    Raises:
        UserError: for another file; the sentence names the line. Then nothing is written.
    """
    if len(content) > MOST_BYTES:
        raise UserError(f"The CSV file is larger than {MOST_BYTES // 2**20} MiB. Import it in parts.")
    try:
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = lines.fieldnames or []
        if not {"sae", "feature"} <= set(names) <= set(COLUMNS) or len(set(names)) != len(names):
            raise UserError(
                f"The CSV file must have the columns sae and feature, and any of {', '.join(FIELDS)}; it has "
                f"{', '.join(names)[:200] or 'none'}."
            )
        return write_all(study, [_row(row, lines.line_num, saes) for row in lines])
    except UnicodeDecodeError as error:
        raise UserError("The CSV file is not text in UTF-8. Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"Line {lines.line_num + 1} of the CSV file cannot be read ({error}).") from error


def _row(
    row: dict[str | None, str | None], line: int, saes: Sequence[str]
) -> tuple[str, int, dict[NoteField, str]]:
    if None in row or None in row.values():
        raise UserError(f"Line {line} of the CSV file has another number of cells than the first line.")
    cells = {name: unprotected(cell) for name, cell in row.items() if name and cell is not None}
    sae, feature = cells["sae"], cells["feature"].strip()
    if sae not in saes:
        raise UserError(
            f"Line {line} of the CSV file is of the autoencoder '{sae[:100]}'; the study has {', '.join(saes)}."
        )
    if not (feature.isascii() and feature.isdigit() and len(feature) < 11 and int(feature) < MOST_FEATURE):
        raise UserError(
            f"Line {line} of the CSV file has the feature '{feature[:20]}', which is not a number."
        )
    try:
        fields = {field: checked(field, cells[field]) for field in FIELDS if cells.get(field, "").strip()}
    except UserError as error:
        raise UserError(f"Line {line} of the CSV file: {error}") from error
    return sae, int(feature), fields
