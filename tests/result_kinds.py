"""The kinds of results that the code writes, read off its source, as importing all that makes them takes seconds."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITES = ("save_result(", "save_result_file(")


def written_kinds() -> dict[str, int]:
    """The schema version of each kind of result, by the kind; every module that saves one says both."""
    found = {}
    for file in sorted((ROOT / "analyses").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if any(way in text for way in WRITES):
            constants = _constants(text)
            found[str(constants["KIND"])] = int(str(constants["SCHEMA_VERSION"]))
    return found


def _constants(text: str) -> dict[str, object]:
    """The constants of a module that are written as they are."""
    return {
        target.id: line.value.value
        for line in ast.parse(text).body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
        for target in line.targets
        if isinstance(target, ast.Name)
    }
