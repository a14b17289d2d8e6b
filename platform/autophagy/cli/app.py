"""The `autophagy` command. Exit 0: done; 2: an error of the user, in one line; 1: a failure; 128 + n: signal n."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import typer
from rich.console import Console

from autophagy.cli.console import DEFAULT_STORE, Store, TrackingUri, console, fail, say
from autophagy.cli.loops import plan, recipes, run, sweep
from autophagy.cli.own_features import score, select
from autophagy.cli.store import store_app
from autophagy.common import signals
from autophagy.common.errors import UserError

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # what typer raises for unknown commands and options
INTERRUPTED = 128 + signal.SIGINT  # what typer returns for KeyboardInterrupt; older ones raise Abort

app = typer.Typer(
    help="Study what happens when diffusion models are trained on their own output, and what prevents it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def doctor(store: Store = DEFAULT_STORE, tracking_uri: TrackingUri = None) -> None:
    """Check packages, store, tracking server, Ray and its nodes; say what to mend. Exit 1 if there is a problem."""
    from autophagy.doctor.examine import examine

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    problems = 0
    for finding in examine(store, tracking_uri):
        problems += finding.level == "problem"
        say(console, (finding.level, colours[finding.level]), str(finding).removeprefix(finding.level))
    if problems:
        raise typer.Exit(1)


for command in (run, sweep, plan, recipes, select, score, doctor):
    app.command()(command)
app.add_typer(store_app, name="store")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors of the user become one line, and so does a signal that ends it."""
    # Spinning threads make training ten times slower as soon as anything else wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    had_ray = signals.has_ray()
    with signals.interrupting() as interrupter:
        try:
            code = carry_out(arguments)
        except BaseException as error:
            number = interrupter.cause(error)
            if number is None:
                raise
            interrupter.ignore()
            tell_stopped(number)
            if signals.has_ray() and not had_ray:
                signals.end_ray()
            code = 128 + number  # as shells have it
    sys.exit(code)


def carry_out(arguments: list[str] | None) -> int:
    """Run the command line to its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except USAGE_ERROR as error:
        named = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        fail(named or "no command; take one of these")  # typer has listed them
    except OSError as error:  # a disk, a network or a storage that failed on the way
        what = str(error).strip() or type(error).__name__
        fail(f"{what.splitlines()[-1]}; once that is mended, the same command goes on from here", code=1)
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def tell_stopped(number: signal.Signals) -> None:
    """Say in one line what has ended a command."""
    by = "" if number == signal.SIGINT else f" by {number.name}"
    with suppress(OSError):  # the terminal may be what has gone
        Console(stderr=True).print(f"stopped{by}; the same command goes on from here", highlight=False)
