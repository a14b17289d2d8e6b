"""How a command takes signals: it is interrupted once, its end is not, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from autophagy.cli import app as cli
from autophagy.cli import main
from autophagy.common import signals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def handlers():
    """All as it was, whatever a test does."""
    before = {number: signal.getsignal(number) for number in CODES}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)


@pytest.fixture
def command(monkeypatch):
    """Carry out something else than a command line; gives the exit code."""

    def carry_out(work) -> int:
        monkeypatch.setattr(cli, "app", lambda **options: work())
        with pytest.raises(SystemExit) as stopped:
            main([])
        return stopped.value.code

    return carry_out


def work_until(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)
    pytest.fail("nothing has interrupted it")


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_command_with_one_line(command, capsys, number):
    assert command(lambda: work_until(number)) == CODES[number]
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert capsys.readouterr().err == f"stopped{by}; the same command goes on from here\n"
    assert signal.getsignal(number) is signal.SIG_DFL, "one more ends the process without a word"


def test_what_comes_while_a_command_ends_does_not_interrupt_that(command, capsys):
    ended = []

    def work() -> None:
        try:
            work_until(signal.SIGTERM)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
            time.sleep(0.05)
            ended.append("in order")

    assert command(work) == 143
    assert ended == ["in order"]
    assert capsys.readouterr().err.count("\n") == 1


def test_an_end_that_takes_too_long_can_be_interrupted(command, monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE_SECONDS", 0.05)

    def work() -> None:
        try:
            work_until(signal.SIGHUP)
        finally:
            time.sleep(0.1)
            work_until(signal.SIGINT)

    assert command(work) == 129, "the first one says what ended it"


def test_an_error_on_the_way_out_is_not_what_is_told(command, capsys):
    """A terminal that has gone, MLflow that is away."""

    def work() -> None:
        try:
            work_until(signal.SIGHUP)
        finally:
            raise RuntimeError

    assert command(work) == 129
    assert capsys.readouterr().err == "stopped by SIGHUP; the same command goes on from here\n"


def test_a_command_that_ends_by_itself_leaves_the_handlers_as_they_were(command, handlers):
    during = []
    assert command(lambda: during.extend(signal.getsignal(number) for number in CODES)) == 0
    assert all(isinstance(handler, signals.Interrupter) for handler in during)
    assert {number: signal.getsignal(number) for number in CODES} == handlers


def test_what_is_ignored_from_outside_stays_so(command):
    """nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert command(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_ours_again_after_another_has_put_in_its_own(command):
    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts
        signals.renew()
        work_until(signal.SIGTERM)

    assert command(work) == 143
    before = signal.getsignal(signal.SIGTERM)
    signals.renew()
    assert signal.getsignal(signal.SIGTERM) is before, "outside of a command nothing is changed"


@pytest.mark.parametrize(
    ("error", "code"), [(SystemExit(signal.SIGTERM), 143), (KeyboardInterrupt(), 130), (SystemExit(1), 1)]
)
def test_what_ray_makes_of_a_signal_while_it_starts(command, error, code):
    def work() -> None:
        raise error

    assert command(work) == code


def test_in_another_thread_nothing_is_changed(command, handlers):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(command(lambda: signals.renew())))
    thread.start()
    thread.join()
    assert codes == [0]
    assert {number: signal.getsignal(number) for number in CODES} == handlers
