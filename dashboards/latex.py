"""Tables for LaTeX, with booktabs' rules."""

import re
from collections.abc import Iterable

import pandas as pd

from dashboards.names import printable

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
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",  # babel gives the sign itself other meanings
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
    "α": r"$\alpha$",
    "Δ": r"$\Delta$",
    "♯": r"$\sharp$",
    "♭": r"$\flat$",
    "♮": r"$\natural$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "“": "``",
    "”": "''",
    "’": "'",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
LAST_LATIN = "\u017f"  # what pdfLaTeX prints of UTF-8 without more
_SIGN = re.compile("|".join([*map(re.escape, SIGNS), "-(?=-)"]))
_OPTION = re.compile(r"^([\[*])")  # after the end of a row: its height, or no page break


def escape(text: str) -> str:
    """Text as LaTeX prints it, on one line."""
    apart = "-{}"  # two hyphens are not a dash
    return _SIGN.sub(lambda found: SIGNS.get(found[0], apart), printable(text))


def latex_table(table: pd.DataFrame, caption: str, label: str) -> str:
    """A table with its caption; `label` is what \\ref calls it.

    Its first line says what it needs: booktabs, longtable where it is long, an engine for letters that pdfLaTeX lacks.
    """
    aligned = "".join("r" if pd.api.types.is_numeric_dtype(table[name]) else "l" for name in table)
    head = _row(str(name) for name in table)
    body = [_row(map(_cell, row)) for row in table.itertuples(index=False)]
    told = f"\\caption{{{escape(caption)}}}\n\\label{{{re.sub(r'[^A-Za-z0-9:.-]', '-', label)}}}"
    if len(table) > LONG:
        lines = [
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
    return "\n".join([_needs(lines), *lines]) + "\n"


def _needs(lines: list[str]) -> str:
    packages = "booktabs,longtable" if lines[0].startswith("\\begin{longtable}") else "booktabs"
    letters = dict.fromkeys(letter for line in lines for letter in line if letter > LAST_LATIN)
    told = f"; XeLaTeX or LuaLaTeX, and a font with {''.join(letters)}" if letters else ""
    return f"% needs \\usepackage{{{packages}}}{told}"


def _row(cells: Iterable[str]) -> str:
    return _OPTION.sub(r"{\1}", " & ".join(map(escape, cells))) + r" \\"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.4g}".replace("-", "−")
    return str(value)
