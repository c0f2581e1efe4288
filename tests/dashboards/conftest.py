"""One synthetic study for all tests that only read it."""

from pathlib import Path

import dash
import pytest

from dashboards.app import create_app
from tests.dashboards.synthetic_study import make_study
from workbench.study import Study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A complete study."""
    return make_study(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="session")
def bare_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study without results."""
    return make_study(tmp_path_factory.mktemp("bare"), results=False)


@pytest.fixture(scope="session")
def app(study: Study) -> dash.Dash:
    """The dashboard of the complete study."""
    return create_app(study.path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """An audio file that is no study's."""
    file = tmp_path / "secret.flac"
    file.write_bytes(b"fLaC secret")
    return file
