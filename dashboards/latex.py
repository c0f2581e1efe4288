"""LaTeX tables with booktabs rules, written by pandas, with escaped text and font sizes that fit the page."""

import re

import pandas as pd

from dashboards.latex_layout import SCRIPT, Layout, fitting, groups
from dashboards.names import printable
from dashboards.numbers import in_table

LONG = 45  # rows; longer tables span pages
# LaTeX's special characters, and characters that are missing in its standard encodings.
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
    '"': r"\char34{}",  # babel redefines the character itself
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
LAST_LATIN = "\u017f"  # last character that pdfLaTeX prints without further packages
_SIGN = re.compile("|".join([*map(re.escape, SIGNS), "-(?=-)"]))
_INTERVAL = re.compile(r"\[([−\d.]+), ([−\d.]+)\]")  # not broken across lines
_OPTION = re.compile(
    r"^([\[*])"
)  # at the start of a row, LaTeX reads these as options of the previous row end
# Override what a notebook may have set: show all rows and columns, without pandas' environment.
_WHOLE = (
    *("styler.render.max_elements", 2**62, "styler.render.max_rows", None, "styler.render.max_columns", None),
    *("styler.latex.environment", None),
)


def escape(text: str) -> str:
    """Escape text for LaTeX, on one line."""
    hyphen = "-{}"  # otherwise two hyphens become a dash
    return _SIGN.sub(lambda match: SIGNS.get(match[0], hyphen), printable(text))


def latex_table(table: pd.DataFrame, caption: str, label: str) -> str:
    """Return a table with its caption, no wider than the text of the class article; `label` is its name for \\ref.

    If necessary, the font is smaller and text is wrapped. If the first column identifies the rows (it has no name),
    columns that do not fit are put below the others. The first line lists what the table needs: booktabs, array if
    text is wrapped, longtable if it is long, and another engine for letters that pdfLaTeX does not support.
    """
    table = table.rename(columns=str)
    parts = [table]
    if fitting(_columns(table)) is None and table.columns[0] == "":
        first, others = table.iloc[:, :1], table.iloc[:, 1:]
        parts = [
            pd.concat([first, others.iloc[:, group]], axis=1)
            for group in groups(_columns(first), _columns(others))
        ]
    is_long = len(table) * len(parts) > LONG
    caption, label = escape(caption), re.sub(r"[^A-Za-z0-9:.-]", "-", label)
    if is_long:
        heads = [{"caption": caption, "label": label}, *({} for _ in parts[1:])]
        lines = [
            _typeset(part, environment="longtable", **head) for part, head in zip(parts, heads, strict=True)
        ]
    else:
        lines = ["\\begin{table}", "\\centering", f"\\caption{{{caption}}}", f"\\label{{{label}}}"]
        for number, part in enumerate(parts):
            lines += [*(["\\par\\medskip"] if number else []), _typeset(part)]
        lines += ["\\end{table}"]
    return "\n".join([_needs(lines), *lines]) + "\n"


def _typeset(table: pd.DataFrame, **options: str) -> str:
    """Return one tabular, or the environment set by the `options` of `Styler.to_latex`, in a size that fits.

    pandas' own escaping is not enough: it omits captions, characters missing from encodings, and the start of a row.
    """
    layout = _layout(table)
    styled = table.style.hide(axis="index").format(_latex_cell).format_index(_latex_cell, axis=1)
    with pd.option_context(*_WHOLE):
        text = styled.to_latex(column_format="".join(layout.columns), hrules=True, **options).rstrip("\n")
    if not layout.size.command:
        return text
    size = f"{layout.size.command}\\setlength{{\\tabcolsep}}{{{layout.size.separation:g}pt}}"
    return f"\\begingroup\n{size}\n{text}\n\\endgroup"


def _layout(table: pd.DataFrame) -> Layout:
    columns = _columns(table)
    return fitting(columns) or Layout(SCRIPT, tuple("r" if is_number else "l" for _, is_number in columns))


def _columns(table: pd.DataFrame) -> list[tuple[list[str], bool]]:
    return [
        ([printable(str(name)), *(printable(_cell(value)) for value in column)], _is_number(column))
        for name, column in table.items()
    ]


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))


def _needs(lines: list[str]) -> str:
    text = "\n".join(lines)
    needed = {"booktabs": True, "array": "arraybackslash" in text, "longtable": "{longtable}" in text}
    packages = ",".join(name for name, is_needed in needed.items() if is_needed)
    letters = dict.fromkeys(letter for letter in text if letter > LAST_LATIN)
    engine = f"; XeLaTeX or LuaLaTeX, and a font with {''.join(letters)}" if letters else ""
    return f"% needs \\usepackage{{{packages}}}{engine}"


def _latex_cell(value: object) -> str:
    return _OPTION.sub(r"{\1}", escape(_cell(value)))


def _cell(value: object) -> str:
    return _INTERVAL.sub("[\\1,\u00a0\\2]", in_table(value))
