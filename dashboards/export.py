"""Figures as files for papers: PDF, SVG or PNG, with numbers (CSV), provenance (JSON), table (LaTeX) and caption."""

import hashlib
import io
import json
import re
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure as PaperFigure

from analyses.published_map import PREFIX
from cache.errors import UserError
from dashboards.figures import find_figure, make_spec
from dashboards.latex import latex_table
from dashboards.paper.style import PAPER_STYLE
from dashboards.specs import FigureSpec, PatchingCompareSpec
from workbench.files import replacing
from workbench.provenance import code_version
from workbench.study import Study

# No dates and no version strings: the same figure gives the same bytes.
METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
LIBRARIES = ("matplotlib", "numpy", "pandas", "xarray")
# matplotlib's settings are global, and the dashboard exports from several threads.
_DRAWING = threading.Lock()


def export_figure(
    study: Study, figure: str, format: str = "pdf", out_dir: Path | None = None, **options: Any
) -> list[Path]:
    """Write a figure with its numbers, provenance, table and caption, by default into the study's `figures` folder.

    `figure` is a name in `FIGURES`, `format` one of pdf, svg, png, `options` the fields of the figure's spec. Gives
    the paths of the figure, the CSV, the JSON, the LaTeX table and the caption. Raises UserError for unknown names or
    options, missing results, and a folder that cannot be written.
    """
    kind = find_figure(figure)
    if format not in METADATA:
        raise UserError(f"Unknown format '{format}': choose one of {', '.join(METADATA)}.")
    spec = make_spec(study, figure, options)
    frame = kind.frame(study, spec)
    caption = kind.caption(study, spec, frame)
    stem = re.sub(r"[^\w.+=-]", "_", "-".join((figure, *spec.labels)))
    table = latex_table(kind.table(frame), caption, f"tab:{stem}")
    with _DRAWING, matplotlib.rc_context(PAPER_STYLE):
        picture = _render(kind.paper(study, spec, frame), format)
    provenance = {**_provenance(study, figure, spec), "caption": caption}
    contents = {
        format: picture,
        "csv": frame.to_csv(index=False, lineterminator="\n").encode(),
        "json": (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode(),
        "tex": table.encode(),
        "txt": f"{caption}\n".encode(),
    }
    folder = out_dir or study.path / "figures"
    root = None if out_dir else study.path
    try:
        return [_write(folder / f"{stem}.{suffix}", content, root) for suffix, content in contents.items()]
    except OSError as error:
        raise UserError(f"The figure could not be written to {folder}: {error.strerror}.") from error


def _render(picture: PaperFigure, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.savefig(buffer, format=format, metadata=METADATA[format])
    return buffer.getvalue()


def _provenance(study: Study, figure: str, spec: FigureSpec) -> dict[str, Any]:
    beside = {}
    if isinstance(spec, PatchingCompareSpec) and spec.compare:
        beside["compared_with"] = _origin(Study.open(Path(spec.compare)), spec.result_name)
    elif isinstance(spec, PatchingCompareSpec) and spec.imported:
        beside["compared_with"] = _origin(study, f"{PREFIX}{spec.imported}")
    elif isinstance(spec, PatchingCompareSpec):
        digest = hashlib.sha256(Path(spec.published).read_bytes()).hexdigest()
        beside["compared_with"] = {"file": spec.published, "sha256": digest}
    return {
        "figure": figure,
        "spec": spec.model_dump(mode="json"),
        "result": _origin(study, spec.result_name),
        **beside,
        "study": {"spec": study.spec.model_dump(mode="json"), "model": study.model},
        "code_version": code_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _origin(study: Study, name: str) -> dict[str, Any]:
    """Where a result comes from."""
    result = study.result(name)
    return {
        "name": name,
        "kind": result.attrs["kind"],
        "schema_version": int(result.attrs["schema_version"]),
        "result_id": result.attrs["result_id"],
        "spec": json.loads(result.attrs["spec"]),
        "provenance": json.loads(result.attrs["provenance"]),
    }


def _write(file: Path, content: bytes, root: Path | None) -> Path:
    with replacing(file, root) as partial:
        partial.write_bytes(content)
    return file
