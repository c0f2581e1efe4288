"""Tables for LaTeX, with booktabs' rules."""

import re
from collections.abc import Iterable

import pandas as pd

LONG = 45  # rows; with more a table goes over pages
# What LaTeX would read as a command, and signs that its plain encodings lack.
SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "σ": r"$\sigma$",
    "†": r"$^\dagger$",
    "“": "``",
    "”": "''",
    "’": "'",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
_SIGN = re.compile("|".join(map(re.escape, SIGNS)))


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return _SIGN.sub(lambda found: SIGNS[found[0]], " ".join(text.split()))


def latex_table(table: pd.DataFrame, caption: str, label: str) -> str:
    """A table with its caption; `label` is what \\ref calls it. Needs booktabs, and longtable where it is long."""
    aligned = "".join("r" if pd.api.types.is_numeric_dtype(table[name]) else "l" for name in table)
    head = _row(str(name) for name in table)
    body = [_row(map(_cell, row)) for row in table.itertuples(index=False)]
    told = f"\\caption{{{escape(caption)}}}\n\\label{{{re.sub(r'[^A-Za-z0-9:.-]', '-', label)}}}"
    if len(table) > LONG:
        lines = [
            "% needs \\usepackage{booktabs,longtable}",
            f"\\begin{{longtable}}{{{aligned}}}",
            f"{told} \\\\",
            "\\toprule",
            head,
            "\\midrule",
            "\\endhead",
            *body,
            "\\bottomrule",
            "\\end{longtable}",
        ]
    else:
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            told,
            f"\\begin{{tabular}}{{{aligned}}}",
            "\\toprule",
            head,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.4g}".replace("-", "−")
    return str(value)
