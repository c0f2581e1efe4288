"""The chosen second and step of a clip: marked on its spectrogram, and on a picture of its activation at every step.

A click chooses the second or, on the lower picture, second and step; so do the arrow keys there (`assets/clip.js`).
"""

import json
from typing import Any

import dash_mantine_components as dmc
from dash import Output, html
from dash.development.base_component import Component

from cache.errors import UserError
from dashboards.components.player import players
from dashboards.media import total_url
from dashboards.numbers import fixed
from dashboards.traces import activation_total
from workbench.studies.study import Study

KEYS = "Click a place to choose its second and step, or use the arrow keys; Escape chooses all again."
STEPS = "Sum of the activations of all features, a row for each denoising step."


def layout() -> Component:
    """The clip's player, and below it the picture of all steps."""
    strip = html.Div(
        html.Img(id="firing-total", alt=STEPS, title=f"{STEPS} {KEYS}"),
        id="firing-steps",
        className="all-steps",
        tabIndex=0,
        role="group",
        hidden=True,
        **{"aria-label": f"Second and step. {KEYS}", "data-steps": "[]"},
    )
    chosen = dmc.Text(html.Span(id="firing-chosen", role="status"), size="xs", c="dimmed", mt=4)
    parts = [players("firing-player"), strip, chosen]
    return html.Div(parts, id="firing-picture", className="moment", **{"data-seconds": "0"})


def outputs() -> list[Output]:
    """What a callback sets with `shown`."""
    parts = [("picture", "style"), ("picture", "data-seconds"), ("total", "src"), ("steps", "hidden")]
    parts += [("steps", "data-steps"), ("chosen", "children")]
    return [Output(f"firing-{part}", name) for part, name in parts]


def shown(
    study: Study, name: str, clip: int, seconds: float, second: float | None, step: int | None
) -> tuple[Any, ...]:
    """Values of `outputs` for a clip of `seconds`, and a moment of it; None for all seconds, and for all steps."""
    try:
        total = activation_total(study, name, clip)
    except UserError:  # the list of features says why
        return {}, f"{seconds:g}", "", True, "[]", ""
    steps = total["step"].values.tolist()
    data = {"steps": steps, "token": total.attrs["token_seconds"], "tokens": total.sizes["token"]}
    when = "all seconds" if second is None else f"{fixed(second)} s"
    at = "all steps" if step is None else f"step {step}"
    said = f"{STEPS} Marked: {when}, {at}."
    return mark(data, second, step), f"{seconds:g}", total_url(name, clip), False, json.dumps(data), said


def mark(data: dict[str, Any], second: float | None, step: int | None) -> dict[str, str]:
    """Where the mark is, in parts of the pictures, for the style sheet; nothing for all seconds and steps."""
    count, steps = data["tokens"], data["steps"]
    end = count * data["token"]
    token = None if second is None or second > end else min(int(second / data["token"]), count - 1)
    row = steps.index(step) if step in steps else None
    if token is None and row is None:
        return {}
    across = (0, 1) if token is None else (token / count, 1 / count)
    down = (0, 1) if row is None else (row / len(steps), 1 / len(steps))
    parts = zip(("left", "width", "top", "height"), (*across, *down), strict=True)
    place = {f"--{each}": f"{100 * part:.4g}%" for each, part in parts}
    return {**place, "--moment": "block", "--second": "none" if token is None else "block"}
