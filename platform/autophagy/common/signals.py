"""Signals that end a command: each interrupts it as Ctrl-C does, so that it ends in order and says how to go on."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 10.0  # for an end in order: a signal that comes earlier does not interrupt it


class Interrupter:
    """The handler of a command. KeyboardInterrupt, since Ray swallows every other exception while it waits."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._interrupted = -math.inf
        self._before = {
            number: before
            for number in ENDING
            # Ignored from outside, as by nohup: it stays so.
            if (before := signal.getsignal(number)) is not signal.SIG_IGN
        }

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt, unless that has just been done."""
        self.received.append(signal.Signals(number))
        now = time.monotonic()
        if now - self._interrupted > PATIENCE_SECONDS:
            self._interrupted = now
            raise KeyboardInterrupt

    def install(self) -> None:
        """Be the handler."""
        for number in self._before:
            signal.signal(number, self)

    def ignore(self) -> None:
        """Let nothing interrupt what comes now."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        """The handlers from before; after a signal the default: the next one ends the process at once, and silently."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if self.received or before is None else before)

    def cause(self, error: BaseException) -> signal.Signals | None:
        """The signal that a command was ended by, None if it was ended by something else."""
        if self.received:
            return self.received[0]
        if isinstance(error, KeyboardInterrupt):
            return signal.SIGINT
        # While Ray starts, its own handler is in charge: it exits with the number of the signal.
        by_ray = isinstance(error, SystemExit) and error.code == signal.SIGTERM
        return signal.SIGTERM if by_ray else None


_current: Interrupter | None = None


@contextmanager
def interrupting() -> Iterator[Interrupter]:
    """Within the block signals interrupt the command. Only in the main thread; elsewhere nothing is changed."""
    global _current
    interrupter = Interrupter()
    if threading.current_thread() is not threading.main_thread():
        yield interrupter
        return
    interrupter.install()
    _current = interrupter
    try:
        yield interrupter
    finally:
        _current = None
        interrupter.restore()


def renew() -> None:
    """Be the handler again after Ray has started, which puts in one that prints a C++ stack and aborts."""
    if _current is not None and threading.current_thread() is threading.main_thread():
        _current.install()


def has_ray() -> bool:
    """Whether this process is connected to Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def end_ray() -> None:
    """Disconnect from Ray, and wait for the end of the processes that it has started here."""
    sys.modules["ray"].shutdown(wait_for_processes=True)
