"""Tables with selectable rows."""

from typing import Any

import dash_ag_grid as dag
from dash import no_update

# Colours come from the page, so that the table follows its light or dark scheme.
THEME = {
    "function": """themeQuartz.withParams({
        fontFamily: 'inherit', fontSize: 12, spacing: 4.5, cellHorizontalPaddingScale: 0.6,
        headerFontWeight: 600, wrapperBorderRadius: 6,
        backgroundColor: 'var(--mantine-color-body)', foregroundColor: 'var(--mantine-color-text)',
        headerBackgroundColor: 'var(--ground)', borderColor: 'var(--rule)',
    })"""
}

OPTIONS = {
    "theme": THEME,
    "rowHeight": 31,  # measured otherwise, which is wrong in a table that is hidden at first
    "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
    "tooltipShowDelay": 300,
    "suppressFieldDotNotation": True,  # concept names may contain dots
    "suppressNoRowsOverlay": True,
    # A table is one stop of the tab key; arrow keys move within it.
    "tabToNextCell": {"function": "false"},
    "tabToNextHeader": {"function": "false"},
}
"""Options of all tables."""

# Settings of a column whose text continues on further lines; rows grow with it.
WRAPPED = {
    "wrapText": True,
    "autoHeight": True,
    "cellStyle": {
        "lineHeight": "1.35",
        "paddingTop": "5px",
        "paddingBottom": "5px",
        "overflowWrap": "anywhere",
    },
}


def row_grid(
    id: str, columns: list[dict[str, Any]], height: int, rows: list[dict[str, Any]] | None = None
) -> dag.AgGrid:
    """Return a table whose rows are identified by their text field `id`; one can be selected. `height` in pixels."""
    return dag.AgGrid(
        id=id,
        columnDefs=headed(columns),
        rowData=rows or [],
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "suppressHeaderMenuButton": True,
            "suppressHeaderFilterButton": True,
        },
        dashGridOptions=OPTIONS,
        getRowId="params.data.id",
        style={"height": height},
    )


def number_column(format: str, missing: str = "–") -> dict[str, Any]:
    """Column settings for numbers, written in a d3 `format`."""
    shown = {"function": f"params.value == null ? '{missing}' : d3.format('{format}')(params.value)"}
    return {"valueFormatter": shown, "type": "rightAligned"}


def selected_row(rows: list[dict[str, Any]] | dict[str, Any] | None) -> dict[str, Any] | None:
    """The row that the user selected, from a table's `selectedRows`; None if a callback set it."""
    return rows[0] if isinstance(rows, list) and rows else None


def kept_selection(rows: list[dict[str, Any]] | dict[str, Any] | None, id: str) -> Any:
    """What a callback sets `selectedRows` to, now `rows`, so that the row `id` is selected: nothing if it is.

    Setting the same row again would undo a selection of another one made meanwhile.
    """
    now = rows.get("ids", []) if isinstance(rows, dict) else [row["id"] for row in rows or []]
    return no_update if now == [id] else {"ids": [id]}


def headed(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return columns, or groups of columns (`children`), with headings: by default the names of their fields."""
    return [
        {**column, "children": headed(column["children"])}
        if "children" in column
        else {"headerName": column["field"], **column}
        for column in columns
    ]
