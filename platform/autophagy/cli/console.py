"""What every command has: the console, lines on it, the store and the tracker that options mean."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from autophagy.common.errors import UserError, visible, without_secrets

if TYPE_CHECKING:
    from autophagy.store import StageStore


def plain(*parts: str | tuple[str, str]) -> Text:
    """Parts that are text, or text and its style, side by side."""
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((visible(without_secrets(text)), style) for text, style in styled))


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print the parts, see `plain`, as they are: long lines are for the terminal to break."""
    console.print(plain(*parts), soft_wrap=True)


DEFAULT_STORE = "autophagy-store"
console = Console(markup=False, emoji=False)

Recipe = Annotated[str, typer.Argument(help="a recipe (see `autophagy recipes`) or a YAML file")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="a.b=c; may be given again")]
Store = Annotated[
    str, typer.Option(envvar="AUTOPHAGY_STORE", help="folder or s3:// URI where stages and runs are kept")
]
TrackingUri = Annotated[
    str | None, typer.Option(help="MLflow server or database; `none` for none (default: SQLite in the store)")
]
Name = Annotated[str | None, typer.Option(help="name of the run (default: the recipe's)")]


def hint(what: str, how: str) -> None:
    """One of the last lines: where to look, or what to type next."""
    say(console, f"{what:<9}{how}")


def note(text: str) -> None:
    """One line on what to know about a result."""
    say(console, (f"note: {text}", "dim"))


def tracking_of(store: StageStore, tracking_uri: str | None) -> str | None:
    """The tracking URI to use: as given, else MLFLOW_TRACKING_URI, else SQLite in a local store; None for none."""
    from autophagy.tracking.uri import tracking_for

    return tracking_for(tracking_uri, store.root if store.storage.local else None)


def given_tracking(tracking_uri: str | None) -> str | None:
    """The tracking URI that somebody gave, by the option or in the environment."""
    return None if tracking_uri == "none" else tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")


def named(settings: list[str] | None, name: str | None) -> list[str]:
    """The settings, and that of the name where it is given."""
    return [*(settings or []), *([] if name is None else [f"name={json.dumps(name)}"])]


def open_store(uri: str) -> StageStore:
    """The store of a command, made where there is none.

    Raises:
        UserError: it would be lost, or cannot be.
    """
    from autophagy.store import StageStore

    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in uri and not Path(uri).expanduser().is_absolute():
        raise UserError(
            f"--store {uri}: a submitted job works in a temporary folder, and this one would go with it; give "
            "s3://bucket/prefix or an absolute path that all nodes share, or set AUTOPHAGY_STORE on them"
        )
    return StageStore(uri)


def open_existing(uri: str) -> StageStore:
    """The store of a command that only looks.

    Raises:
        UserError: there is none.
    """
    if "://" not in uri and not Path(uri).expanduser().is_dir():
        raise UserError(f"--store {uri}: no such folder; give the one that a run has made")
    return open_store(uri)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line to standard error and exit."""
    say(Console(stderr=True), ("error:", "red"), f" {' '.join(message.split())}")
    sys.exit(code)
