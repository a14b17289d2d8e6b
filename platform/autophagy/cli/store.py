"""Commands on the store: ls, verify, gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autophagy.cli.console import DEFAULT_STORE, Store, console, open_existing, say

if TYPE_CHECKING:
    from autophagy.store.upkeep import GarbageItem

store_app = typer.Typer(help="Look after the store of finished stages.", no_args_is_help=True)


@store_app.command("ls")
def store_ls(store: Store = DEFAULT_STORE) -> None:
    """List the finished stages."""
    from autophagy.store.upkeep import ls

    infos = ls(open_existing(store))
    for info in infos:
        size = f"{info.size / 1e6:>9.2f} MB"
        say(console, f"{info.stage:<16} {info.key:<44} {size} {info.seconds:>9.1f} s  {info.created[:19]}")
    say(console, f"{len(infos)} stages, {sum(i.size for i in infos) / 1e6:.1f} MB")


@store_app.command("verify")
def store_verify(store: Store = DEFAULT_STORE) -> None:
    """Read everything again and compare checksums; what is damaged will be built anew by the next run."""
    from autophagy.store.upkeep import verify

    checked = damaged = 0
    for info, problems in verify(open_existing(store)):
        checked += 1
        if problems:
            damaged += 1
            say(console, f"damaged: {info.stage} {info.key}: {'; '.join(problems)}")
    say(console, f"{checked} stages checked, {damaged} damaged")
    if damaged:
        say(console, "run the experiment again: it builds them anew")
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    store: Store = DEFAULT_STORE,
    delete: Annotated[bool, typer.Option("--delete", help="delete what is old enough; without it only list")] = False,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="how long nobody must have needed something, as `gc` has seen")
    ] = 24.0,
) -> None:
    """Find what no run needs: stages no run folder reaches, and what killed processes left. Runs may go on meanwhile.

    The first look notes what it finds; what a later one still finds unchanged, HOURS on, can be deleted.
    """
    from autophagy.runs.claims import StagesInUse
    from autophagy.store.upkeep import gc

    opened = open_existing(store)
    items = gc(opened, StagesInUse(opened), delete=delete, older_than=3600 * older_than)
    for item in items:
        state = "deleted" if item.deleted else f"seen for {item.age / 3600:.1f} h"
        say(console, f"{item.path}: {item.size / 1e6:.2f} MB, {item.why}; {state}")
    ready = [item for item in items if not item.deleted and item.age >= 3600 * older_than]
    gone = [item for item in items if item.deleted]
    console.print(f"{_amount(items)} that nobody needs, {len(gone)} of them deleted", highlight=False)
    if ready:
        console.print(f"{_amount(ready)} can be deleted with --delete", highlight=False)
    if len(items) > len(gone) + len(ready):
        console.print(f"the others are kept until they were seen for {older_than:g} h (--older-than)", highlight=False)


def _amount(items: list[GarbageItem]) -> str:
    return f"{len(items)} items, {sum(item.size for item in items) / 1e6:.1f} MB"
