"""End a command in order when the system asks it to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP")
"""What ends a process that is stopped, or whose terminal is closed (which Windows does not have)."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Raise SystemExit for the first such signal, as Ctrl-C raises KeyboardInterrupt, and ignore further ones.

    Signals that the process was started to ignore, as by `nohup`, are ignored.
    """
    known = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    before = {one: signal.getsignal(one) for one in known if signal.getsignal(one) is not signal.SIG_IGN}

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for one in before:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
