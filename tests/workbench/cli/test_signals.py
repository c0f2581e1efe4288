"""Commands that the system ends: they leave as at Ctrl-C, once, and what was ignored stays so."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from workbench.cli.signals import ENDING, ended_in_order

KNOWN = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """The tests may run with signals ignored, as below nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in KNOWN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", KNOWN)
def test_a_signal_removes_what_is_temporary(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in KNOWN]
    with pytest.raises(SystemExit) as ended, ended_in_order(), TemporaryDirectory() as folder:
        (Path(folder) / "clip.flac").touch()
        try:
            signal.raise_signal(number)
        finally:
            os.kill(os.getpid(), number)  # impatient: the first one is being answered
    assert ended.value.code == 128 + number
    assert not Path(folder).exists()
    assert [signal.getsignal(one) for one in KNOWN] == before


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_in_order():
            signal.raise_signal(signal.SIGTERM)
    finally:
        assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN
