"""Every model keeps what every model promises."""

from collections.abc import Callable

import pytest

from tests.workbench.models import conformance, edit_conformance
from tests.workbench.models.architectures import ARCHITECTURES, Architecture, Subject


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    architecture: Architecture = request.param
    return Subject(architecture, architecture.save(tmp_path_factory.mktemp("model") / "model"))


@pytest.mark.parametrize(
    ("subject", "check"),
    [
        pytest.param(architecture, check, id=f"{architecture.name}-{check.__name__.removeprefix('check_')}")
        for architecture in ARCHITECTURES
        for check in [*conformance.CHECKS, *(edit_conformance.CHECKS if architecture.edits else ())]
    ],
    indirect=["subject"],
)
def test_conformance(subject: Subject, check: Callable[[Subject], None]) -> None:
    check(subject)
