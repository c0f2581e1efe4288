"""Export formats of figures. Imports nothing slow: `workbench export` takes its choices from here."""

from typing import Literal

FileFormat = Literal["pdf", "svg", "png"]
DEFAULT_FORMAT: FileFormat = "pdf"
