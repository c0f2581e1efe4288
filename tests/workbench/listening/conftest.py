"""One table of clips for all tests of listening studies."""

from pathlib import Path

import pytest

from tests.workbench.listening.small import write_table


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("clips"))
