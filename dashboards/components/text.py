"""Headings, explanations, numbers and empty states."""

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component


def page_header(title: str, sentence: str) -> Component:
    """A page's title and a description of what it shows."""
    return dmc.Stack(
        [dmc.Title(title, order=1, size="h2"), dmc.Text(sentence, c="dimmed", size="sm", maw=980)],
        gap=4,
        mb="md",
    )


def panel(title: str, *children: object, help: str = "", actions: list[Component] | None = None) -> Component:
    """A card with a title, help on hover, and actions on the right."""
    heading = [dmc.Title(title, order=2, size="h4")]
    if help:
        marks = {"aria-label": help.replace("`", ""), **tip(help)}
        heading.append(html.Span("?", className="help", tabIndex=0, role="note", **marks))
    header = dmc.Group(
        [dmc.Group(heading, gap=8, wrap="nowrap"), dmc.Group(actions or [], gap=8)],
        justify="space-between",
        mb="xs",
        mih=30,
    )
    return dmc.Paper([header, *children], withBorder=True, radius="md", p="md")


def numbers(values: dict[str, str], helps: dict[str, str] | None = None) -> Component:
    """A row of numbers, each under its name; `helps` explains some of them on hover."""
    cells = []
    for name, value in values.items():
        parts = [html.Div(name, className="number-name"), html.Div(value, className="number")]
        explanation = (helps or {}).get(name, "")
        cells.append(html.Div(parts, tabIndex=0 if explanation else None, **tip(explanation)))
    return html.Div(cells, className="numbers")


def tip(text: str) -> dict[str, str]:
    """The attribute of an element that shows an explanation on hover and focus (`tips.js`); none if it is empty.

    Mantine's own tooltips read the whole layout at each change of the page, which makes every page slow.
    """
    return {"data-tip": text} if text else {}


def legend(keys: dict[str, str]) -> Component:
    """A line below a map's controls that explains its markings: the CSS class of each key, and its text."""
    return html.Div(
        [html.Span([html.I(className=key), text]) for key, text in keys.items()], className="legend"
    )


def with_code(sentence: str) -> list[str | Component]:
    """A sentence as `children`, with what stands between backticks set as code."""
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # one of them has no other
        return [sentence]
    return [html.Code(part) if place % 2 else part for place, part in enumerate(parts)]


def empty_state(what: Sequence[str], then: str, command: str = "") -> Component:
    """A placeholder for a missing result: sentences on what is missing, what the page would show, and the command that
    makes it, unless they name it.
    """
    return dmc.Paper(
        dmc.Stack(
            [
                *(dmc.Text(with_code(sentence), fw=600) for sentence in what),
                dmc.Text(then, size="sm", c="dimmed"),
                *([dmc.Code(command, block=True, className="command")] if command else []),
                dmc.Text("The result appears here when it is done.", size="sm", c="dimmed"),
            ],
            gap="xs",
        ),
        withBorder=True,
        radius="md",
        p="xl",
        className="empty",
    )


def refusal(sentence: str) -> Component:
    """A sentence on what was refused, such as "Not saved: …", which stands out and is read out at once."""
    return html.Span(
        [html.Span("⚠ ", **{"aria-hidden": "true"}), sentence], className="refusal", role="alert"
    )


def hint(text: str) -> Component:
    """A muted line that says what to do next."""
    return dmc.Center(dmc.Text(text, c="dimmed", size="sm", ta="center", maw=360), mih=240, className="hint")


def details(id: str, sentence: str, parts: list[Component]) -> Component:
    """The details of a selection (`id`) and a hint for when there is none (`id`-hint); both initially hidden."""
    return html.Div(
        [html.Div(hint(sentence), id=f"{id}-hint", hidden=True), html.Div(parts, id=id, hidden=True)]
    )


def text_table(head: list[str], body: list[list[str]]) -> Component:
    """A table of texts as one component: cells that are components of their own take long to draw."""
    return dmc.ScrollArea(dmc.Table(data={"head": head, "body": body}, fz="xs", verticalSpacing=3))


def wide_table(table: Component) -> Component:
    """A table that scrolls sideways where there is little room; by the keyboard, too."""
    return html.Div(table, className="facts-wrap", tabIndex=0)


def key_values(rows: dict[str, str]) -> Component:
    """A two-column table of names and values."""
    body = [dmc.TableTr([dmc.TableTh(name, w="34%"), dmc.TableTd(value)]) for name, value in rows.items()]
    return dmc.Table(dmc.TableTbody(body), className="key-values", verticalSpacing=4, fz="sm")
