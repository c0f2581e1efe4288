"""Tables of which the browser has only the rows in view; the server filters, sorts and sends them."""

from typing import Any

import dash_ag_grid as dag

from dashboards.components.grid import OPTIONS

PAGE_ROWS = 100
TYPING_MS = 60
"""Time without a key after which a filter is applied."""


def paged_grid(id: str, columns: list[dict[str, Any]], height: int) -> dag.AgGrid:
    """Return a table whose rows a callback sends (`getRowsRequest`, `getRowsResponse`), identified by their text `id`.

    Arrow keys move the selection. `height` in pixels.
    """
    return dag.AgGrid(
        id=id,
        rowModelType="infinite",
        columnDefs=[{"headerName": column["field"], **column} for column in columns],
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "suppressHeaderMenuButton": True,
            "suppressHeaderFilterButton": True,
        },
        dashGridOptions={
            **OPTIONS,
            "cacheBlockSize": PAGE_ROWS,
            "maxBlocksInCache": 20,
            "rowBuffer": 4,  # rows drawn beyond those in view
            "maxConcurrentDatasourceRequests": 1,  # an answer is taken for that of the last request
        },
        eventListeners={"cellFocused": ["selectFocused(params)"]},
        getRowId="params.data.id",
        style={"height": height},
    )


def server_filter() -> dict[str, Any]:
    """Settings of a column whose filter, below its name, is read by `dashboards.tables.paging.filtered`."""
    return {
        "filter": "agTextColumnFilter",
        "filterParams": {"filterOptions": ["contains"], "maxNumConditions": 1, "debounceMs": TYPING_MS},
        "floatingFilter": True,
        "suppressFloatingFilterButton": True,
    }
