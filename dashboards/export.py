"""Figures as files for papers: PDF, SVG or PNG, with numbers (CSV), provenance (JSON), table (LaTeX) and caption."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure as PaperFigure

from cache.errors import UserError
from dashboards.drawing.fonts import families, missing_letters, missing_sentence
from dashboards.drawing.paper import PAPER_STYLE
from dashboards.figures import find_figure, make_spec
from dashboards.figures.specs import FigureSpec
from dashboards.formats import DEFAULT_FORMAT
from dashboards.latex import latex_table
from dashboards.results import other_origin, outdated_result
from dashboards.spreadsheet import csv_text
from workbench.files import file_name, replacing
from workbench.provenance import code_version
from workbench.studies.study import Study
from workbench.validation import must_be

# No dates or version strings, so that the same figure always gives the same bytes.
METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
LIBRARIES = ("matplotlib", "numpy", "pandas", "xarray")
# matplotlib's settings are global, and the dashboard exports from several threads.
_DRAWING = threading.Lock()


LONGEST_STEM = 160  # characters; file names may have 255
_log = logging.getLogger(__name__)


def export_figure(
    study: Study,
    figure: str,
    format: str = DEFAULT_FORMAT,
    out_dir: Path | None = None,
    *,
    warn: Callable[[str], None] = _log.warning,
    **options: Any,
) -> list[Path]:
    """Write a figure with its numbers, provenance, table and caption.

    Args:
        study: the study whose result is shown.
        figure: a name in `FIGURES`.
        format: pdf, svg or png.
        out_dir: the folder to write to; by default the study's folder `figures`.
        warn: called with a warning if the result was not computed from the present study (the caption says so, too),
            and with one if no installed font has some of the letters.
        options: the fields of the figure's spec.

    Returns:
        The paths of the figure, the CSV, the JSON, the LaTeX table and the caption.

    Raises:
        UserError: unknown names or options, missing results, or a folder that cannot be written.
    """
    must_be(str, format, f"A format must be given by its name ({', '.join(METADATA)})")
    if format not in METADATA:
        raise UserError(f"Unknown format '{format}': choose one of {', '.join(METADATA)}.")
    folder = check_folder(study, out_dir)
    stem, contents = figure_contents(study, figure, format, warn, **options)
    root = None if out_dir else study.path
    try:
        return [_write(folder / f"{stem}.{suffix}", content, root) for suffix, content in contents.items()]
    except OSError as error:
        raise UserError(f"The figure could not be written to {folder}: {error.strerror}.") from error


def check_folder(study: Study, out_dir: Path | None) -> Path:
    """The folder of figures: the one given, or the study's; raise UserError if a file stands there."""
    folder = out_dir or study.path / "figures"
    if file := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise UserError(f"{file} is a file. Give a folder for the figure.")
    return folder


def figure_contents(
    study: Study, figure: str, format: str, warn: Callable[[str], None], /, **options: Any
) -> tuple[str, dict[str, bytes]]:
    """The name shared by a figure's files, and their contents by suffix; see `export_figure`."""
    kind = find_figure(figure)
    spec = make_spec(study, figure, options)
    table = kind.table(study, spec)
    caption = kind.caption(study, spec, table)
    if outdated := outdated_result(study, spec.result_name):
        warn(outdated)
        origin = other_origin(study, spec.result_name)
        caption = f"{caption} The result {origin}; n is the result's, not the present study's."
    stem = _stem(figure, spec)
    latex = latex_table(kind.latex(table), caption, f"tab:{stem}")
    numbers = csv_text(table)
    with _drawing(caption + numbers) as lacking:
        picture = _render(kind.paper(study, spec, table), format)
    if lacking and format != "svg":  # SVG keeps text as text
        warn(missing_sentence(lacking))
    provenance = {**_provenance(study, figure, spec), "outdated": bool(outdated), "caption": caption}
    return stem, {
        format: picture,
        "csv": numbers.encode(),
        "json": (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode(),
        "tex": latex.encode(),
        "txt": f"{caption}\n".encode(),
    }


def _stem(figure: str, spec: FigureSpec) -> str:
    """The unique name shared by a figure's files: what is shown, and the width unless it is the default."""
    width = () if spec.width == type(spec).model_fields["width"].default else (f"{spec.width}-column",)
    stem = "-".join((figure, *map(file_name, spec.labels), *width))
    return stem if len(stem) <= LONGEST_STEM else file_name(stem)


@contextmanager
def _drawing(text: str) -> Iterator[list[str]]:
    """Draw in the paper style with fonts for `text`; afterwards the list contains the letters that no font has."""
    lacking: list[str] = []
    style = {**PAPER_STYLE, "font.family": families(text)}
    with (
        _DRAWING,
        matplotlib.style.context(["default", style]),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        yield lacking
    lacking += missing_letters(str(one.message) for one in caught)
    for one in caught:
        if not missing_letters([str(one.message)]):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _render(picture: PaperFigure, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.savefig(buffer, format=format, metadata=METADATA[format])
    return buffer.getvalue()


def _provenance(study: Study, figure: str, spec: FigureSpec) -> dict[str, Any]:
    other = spec.compared_with(study)
    return {
        "figure": figure,
        "spec": spec.model_dump(mode="json"),
        "result": spec.origin(study),
        **({} if other is None else {"compared_with": other}),
        "study": {"spec": study.spec.model_dump(mode="json"), "model": study.model},
        "code_version": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _write(file: Path, content: bytes, root: Path | None) -> Path:
    with replacing(file, root) as partial:
        partial.write_bytes(content)
    return file
