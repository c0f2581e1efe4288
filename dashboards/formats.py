"""Export formats of figures. Imports nothing slow: `workbench export` takes its choices from here."""

from typing import Literal

FileFormat = Literal["pdf", "svg", "png"]
DEFAULT_FORMAT: FileFormat = "pdf"
ExportFormat = Literal["pdf", "svg", "png", "html"]
"""Those of figures, and a page with recordings (`dashboards.standalone`)."""
