"""Fixtures of the analyses' tests."""

from pathlib import Path

import pytest

from tests.analyses.planted_study import make_planted_study
from workbench.studies.study import Study


@pytest.fixture(scope="session")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study with one planted concept."""
    return make_planted_study(tmp_path_factory.mktemp("planted") / "study").path


@pytest.fixture
def planted_study(planted_folder: Path) -> Study:
    """The same study, newly opened."""
    return Study.open(planted_folder)
