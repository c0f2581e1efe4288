"""The models that steering through the prompt is tested on."""

from typing import Any

import pytest

from tests.workbench.models.architectures import ARCHITECTURES, Subject


@pytest.fixture(
    scope="session",
    params=[each for each in ARCHITECTURES if each.edits],
    ids=lambda architecture: architecture.name,
)
def subject(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The tiny model of each architecture."""
    folder = tmp_path_factory.mktemp("steered")
    return Subject(request.param, request.param.save(folder / "model"))
