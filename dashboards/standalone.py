"""One HTML file to send to somebody: figures with their captions, numbers and recordings inside it.

The file loads nothing: pictures and sounds are data in it, and its policy lets no script but its own run.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cache.errors import UserError
from cache.opening import checked_path
from cache.wording import counted
from dashboards.components.patching_clips import cell_sides
from dashboards.components.player import Recording, recordings_data
from dashboards.export import check_folder, figure_contents
from dashboards.figures import FIGURES, find_figure, make_spec
from dashboards.figures.feature import FeatureSpec
from dashboards.figures.patching_pairs import PatchingPairsSpec
from dashboards.levels import recording_level
from dashboards.numbers import fixed, in_table
from dashboards.pictures import activation_svg, spectrogram_png
from dashboards.results import load_result
from dashboards.tables.features import examples_frame
from dashboards.tables.patching import cells_frame, pairs_frame
from dashboards.traces import activation_trace
from workbench.files import replacing
from workbench.studies.study import Study

LARGEST = 24 * 2**20
"""Characters of the recordings in a file; those beyond are left out, and counted in a sentence."""
MOST_ROWS = 200  # of a table
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("ab.js", "ab_level.js", "ab_strength.js", "ab_test.js", "keys.js", "player.js")
STYLES = ("player.css", "keyboard.css")
STYLE = """
:root { --rule: #e3e7ec; --muted: #5b6672; color-scheme: light; }
body { font: 14px/1.5 Inter, system-ui, sans-serif; color: #1f2933; }
body { max-width: 1100px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin: 32px 0 8px; } img.figure { max-width: 100%; }
p { overflow-wrap: anywhere; } .caption, footer { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 12px; }
th, td { border-bottom: 1px solid var(--rule); padding: 3px 8px; text-align: left; }
.ab, .players { border-top: 1px solid var(--rule); padding-top: 8px; margin: 16px 0; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px; }
"""


@dataclass(frozen=True)
class Part:
    """A section: its heading, a picture (SVG) with its caption, a table, and what its players play.

    `sides` are properties `data-sides` of A/B players, `recordings` properties `data-recordings` of others, both with
    `embedded` media.
    """

    heading: str
    picture: bytes = b""
    caption: str = ""
    table: pd.DataFrame | None = None
    sides: Sequence[str] = ()
    recordings: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def embedded(study: Study, path: str) -> dict[str, object]:
    """The sound, picture and level of a recording as data, for `ab_sides` and `recordings_data`.

    A silent recording, or one that is too short, has no level.
    """
    file = checked_path(study.path, path)
    level: float | None = None
    try:
        picture = _data("image/png", spectrogram_png(study, path))
        level = recording_level(study, path)
    except UserError:  # damaged, silent or too short: the player says so
        picture = ""
    return {"audio": _data("audio/flac", file.read_bytes()), "mel": picture, "level": level}


def html_page(title: str, parts: Sequence[Part], about: str) -> str:
    """The whole file, with all texts escaped; `about` is its last line."""
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src data:"
    )
    style = STYLE + "".join((ASSETS / name).read_text(encoding="utf-8") for name in STYLES)
    body = "\n".join(
        [f"<h1>{escape(title)}</h1>", *map(_section, parts), f"<footer>{escape(about)}</footer>"]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def export_page(
    study: Study,
    figure: str = "",
    out_dir: Path | None = None,
    *,
    warn: Callable[[str], None],
    **options: Any,
) -> Path:
    """Write a figure, or without one all figures of the study, as one HTML file with the recordings behind it.

    The recordings are those of a cell's pairs (`patching-pairs`) and of a feature's top clips (`feature`).

    Raises:
        UserError: unknown names or options, missing results, or a folder that cannot be written.
    """
    folder = check_folder(study, out_dir)
    name = study.path.resolve().name
    if figure:
        stem, part = _figure_part(study, figure, warn, options)
        title, parts = f"{name}: {part.heading}", [part]
    else:
        stem, title, parts = "study", name, _study_parts(study, warn)
    text = html_page(title, parts, f"From the study {name}, by workbench export.{_what_is_inside(parts)}")
    file = folder / f"{stem}.html"
    try:
        with replacing(file, None if out_dir else study.path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"The page could not be written to {folder}: {error.strerror}.") from error
    warn(f"{file.name} has {len(text.encode()) / 2**20:.1f} MiB.")
    return file


def _what_is_inside(parts: Sequence[Part]) -> str:
    """A sentence that nothing need be sent with the file, to follow another; "" if it has only texts."""
    has_sounds = any(part.sides or part.recordings for part in parts)
    found = [
        *(["sounds"] if has_sounds else []),
        *(["pictures"] if any(part.picture for part in parts) else []),
    ]
    return f" All {' and '.join(found)} are inside this file." if found else ""


def _figure_part(
    study: Study, figure: str, warn: Callable[[str], None], options: dict[str, Any]
) -> tuple[str, Part]:
    kind, spec = find_figure(figure), make_spec(study, figure, options)
    stem, contents = figure_contents(study, figure, "svg", warn, **options)
    heading = ", ".join((figure, *spec.labels))
    sides, recordings, notes = _sounds(study, spec)
    table = kind.latex(kind.table(study, spec))
    caption = contents["txt"].decode().strip()
    return stem, Part(heading, contents["svg"], caption, table, sides, recordings, notes)


def _study_parts(study: Study, warn: Callable[[str], None]) -> list[Part]:
    """What the study is, and every figure that can be made without options."""
    spec = study.spec
    facts = {
        "model": str(study.model.get("model", spec.model)),
        "clips": str(len(study.clips)),
        "seconds per clip": f"{spec.settings.duration:g}",
        "sites": ", ".join(spec.sites),
        "concepts": ", ".join(spec.prompts.concepts),
    }
    parts = [Part("Study", table=pd.DataFrame({"": list(facts), "value": list(facts.values())}))]
    for figure in FIGURES:
        try:
            parts.append(_figure_part(study, figure, warn, {})[1])
        except UserError:  # it has no such result, or the figure needs to be told what to show
            continue
    return parts


def _sounds(study: Study, spec: object) -> tuple[list[str], list[str], list[str]]:
    """What the players of a figure play (A/B players, others), and a sentence on what is left out."""
    if isinstance(spec, PatchingPairsSpec):
        result = load_result(study, spec.result_name)
        cells = cells_frame(result, spec.scorer)
        cell = cells[(cells["concept"] == spec.concept) & (cells["arm"] == spec.arm)].iloc[0]
        rows = pairs_frame(result, spec.concept, spec.arm, spec.scorer)
        kept = _within(cell_sides(study, row, cell, embedded) for _, row in rows.iterrows())
        return kept, [], _left_out(len(rows) - len(kept), "pair")
    if isinstance(spec, FeatureSpec):
        clips = _top_clips(study, spec)
        kept = _within(recordings_data(study, [one], embedded) for one in clips)
        return [], kept, _left_out(len(clips) - len(kept), "clip")
    return [], [], []


def _top_clips(study: Study, spec: FeatureSpec) -> list[Recording]:
    result = load_result(study, spec.result_name)
    clips = study.clips.set_index("clip")
    found = []
    for moment in examples_frame(result, spec.feature).itertuples():
        trace = activation_trace(study, spec.name, spec.feature, int(moment.clip))
        line = None
        if trace is not None:
            maximum = float(result["max_activation"].sel(feature=spec.feature))
            line = _data("image/svg+xml", activation_svg(trace, maximum).encode())
        row = clips.loc[int(moment.clip)]
        found.append(
            Recording(
                path=study.audio_path(int(moment.clip)).relative_to(study.path).as_posix(),
                seconds=float(row["duration"]),
                title=f"Clip {moment.clip}",
                detail=fixed(moment.activation),
                note=(str(row["prompt"]),),
                overlay=line,
            )
        )
    return found


def _within(made: Iterable[str]) -> list[str]:
    """The first ones that fit into `LARGEST` characters."""
    kept, total = [], 0
    for one in made:
        total += len(one)
        if total > LARGEST:
            break
        kept.append(one)
    return kept


def _left_out(count: int, what: str) -> list[str]:
    return [f"{counted(count, what)} left out: the file would be too large to send."] if count else []


def _section(part: Part) -> str:
    pieces = [f"<section><h2>{escape(part.heading)}</h2>"]
    if part.picture:
        source = _data("image/svg+xml", part.picture)
        pieces.append(f'<img class="figure" src="{source}" alt="{escape(part.heading)}">')
    if part.caption:
        pieces.append(f'<p class="caption">{escape(part.caption)}</p>')
    pieces += [
        f'<div class="ab" role="group" tabindex="-1" data-sides="{escape(one)}"></div>' for one in part.sides
    ]
    if part.recordings:
        clips = [f'<div class="players" data-recordings="{escape(one)}"></div>' for one in part.recordings]
        pieces.append(f'<div class="clips">{"".join(clips)}</div>')
    pieces += [f"<p>{escape(note)}</p>" for note in part.notes]
    if part.table is not None:
        rows = part.table.head(MOST_ROWS)
        with pd.option_context("display.max_colwidth", None):  # pandas cuts longer texts
            written = rows.map(in_table).to_html(index=False, border=0, escape=True)
        pieces.append(f'<div class="scroll">{written}</div>')
        more = len(part.table) - len(rows)
        pieces.append(f"<p>{counted(more, 'more row')}.</p>" if more else "")
    return "\n".join([*filter(None, pieces), "</section>"])


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
