"""What a figure can be exported as. Imports nothing slow: `workbench export` has its choices from here."""

from typing import Literal

FileFormat = Literal["pdf", "svg", "png"]
DEFAULT_FORMAT: FileFormat = "pdf"
