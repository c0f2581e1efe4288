"""Tables of benchmarks in the docs, between two markers."""

from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[1] / "docs"


def write_table(page: str, name: str, table: pd.DataFrame) -> None:
    """Put a table between the markers `<!-- name: begin -->` and `<!-- name: end -->` of a page of the docs."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    file = DOCS / page
    before, rest = file.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    head = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    body = ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    lines = "\n".join([*head, *body])
    file.write_text(f"{before}{begin}\n{lines}\n{end}{after}", encoding="utf-8")
