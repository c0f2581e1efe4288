"""Every model keeps what every model promises."""

from collections.abc import Callable

import pytest

from tests.workbench.models import conformance, edit_conformance
from tests.workbench.models.architectures import ARCHITECTURES, Subject


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """Each architecture's by name: its models are loaded once for all checks."""
    folder = tmp_path_factory.mktemp("models")
    return {each.name: Subject(each, each.save(folder / each.name)) for each in ARCHITECTURES}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(
            architecture.name, check, id=f"{architecture.name}-{check.__name__.removeprefix('check_')}"
        )
        for architecture in ARCHITECTURES
        for check in [*conformance.CHECKS, *(edit_conformance.CHECKS if architecture.edits else ())]
    ],
)
def test_conformance(subjects: dict[str, Subject], name: str, check: Callable[[Subject], None]) -> None:
    check(subjects[name])
