"""Commands on loops and sweeps: run, sweep, plan, recipes."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import typer

from autophagy.cli.console import (
    DEFAULT_STORE,
    Name,
    Recipe,
    Settings,
    Store,
    TrackingUri,
    console,
    given_tracking,
    hint,
    named,
    open_store,
    say,
    tracking_of,
)
from autophagy.config import Experiment
from autophagy.config.expand import loops
from autophagy.config.sweep import Sweep
from autophagy.recipes import RECIPES, SWEEPS, load_experiment, load_recipe, load_sweep


def run(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """Run a self-consuming loop to its end. The same command goes on where a killed one stopped."""
    experiment = load_experiment(recipe, named(settings, name))
    from autophagy.cli.progress import ConsoleProgress
    from autophagy.loop import run_loop
    from autophagy.preflight import checked_plan
    from autophagy.tracking.uri import check_tracking_uri, how_to_look, make_tracker

    # Before anything is opened: a mistyped command leaves nothing behind.
    checked_plan(experiment)
    if given := given_tracking(tracking_uri):
        check_tracking_uri(given)
    opened = open_store(store)
    tracking, progress = tracking_of(opened, tracking_uri), ConsoleProgress(console)
    say(console, (experiment.name, "bold"), f": {describe(experiment)}")
    run_loop(experiment, opened, make_tracker(tracking), progress)
    if not progress.computed:
        say(console, ("nothing had to be computed again", "dim"))
    folder = f"{opened.uri.rstrip('/')}/runs/{experiment.name}"
    hint("look at", f"{folder}/collapse_curves.png and samples.png")
    if tracking:
        hint("compare", how_to_look(tracking))
    hint("go on", f"the same command with --set generations={2 * max(1, experiment.generations)}")


def sweep(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """Run all loops of a sweep, and compare them. The same command goes on where a killed one stopped."""
    chosen = load_sweep(recipe, named(settings, name))
    from autophagy.cli.progress import ConsoleSweep
    from autophagy.runs.folder import TABLE, RunFolder
    from autophagy.runs.outcomes import read_outcomes
    from autophagy.sweeps.sweep import checked_plans, run_sweep
    from autophagy.tracking.uri import check_tracking_uri, how_to_look

    checked_plans(loops(chosen))
    if given := given_tracking(tracking_uri):
        check_tracking_uri(given)
    start, opened = time.monotonic(), open_store(store)
    tracking = tracking_of(opened, tracking_uri)
    say(console, (chosen.name, "bold"), f": {describe_sweep(chosen)}")
    run_sweep(chosen, opened, tracking, ConsoleSweep(console))
    table = (RunFolder(opened, chosen.name).read(TABLE) or b"").decode()
    say(console, f"\n{table}")
    folder = f"{opened.uri.rstrip('/')}/runs/{chosen.name}"
    hint("took", f"{time.monotonic() - start:.0f} s; a second time takes seconds")
    hint("look at", f"{folder}/table.md, generations.csv and collapse_curves.png")
    if tracking:
        hint("compare", how_to_look(tracking, chosen.name))
    failures = [(run, o) for run, o in read_outcomes(opened, chosen.name).items() if not o.final]
    for run, outcome in failures:
        why = outcome.why or "not started: see the errors of the others"
        say(console, (outcome.state, "red"), f" {run}: {why}")
    if failures:
        hint("details", f"{opened.uri.rstrip('/')}/runs/<loop>/error.txt")
        hint("go on", f"{len(failures)} loops are not done; mend the cause, and the same command tries them again")
        raise typer.Exit(1)


def plan(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """List the stages of a run or a sweep, done and to do, with what they are expected to take; compute nothing."""
    chosen = load_recipe(recipe, named(settings, name))
    del tracking_uri  # accepted, so that `run` and `sweep` can be replaced by `plan` in any command
    opened = open_store(store) if "://" in store or Path(store).expanduser().exists() else None
    from autophagy.graph import plan_loop
    from autophagy.planning import plan_sweep, plan_table

    if isinstance(chosen, Sweep):
        about, lines = describe_sweep(chosen), plan_sweep((plan_loop(x.experiment) for x in loops(chosen)), opened)
    else:
        about, lines = describe(chosen), plan_table(plan_loop(chosen), opened)
    say(console, (chosen.name, "bold"), f": {about}")
    for line in lines:
        say(console, line)


def recipes() -> None:
    """List the recipes."""
    width = max(len(r.__name__) for r in (*RECIPES, *SWEEPS))
    for kind, listed in (("run", RECIPES), ("sweep", SWEEPS)):
        say(console, (f"autophagy {kind} ...", "bold"))
        for recipe in listed:
            say(console, f"  {recipe.__name__:<{width}}  {inspect.getdoc(recipe)}")


def describe(experiment: Experiment) -> str:
    """One line about a loop."""
    e = experiment
    return (
        f"{e.data.source} at {e.data.image_size}x{e.data.image_size}, {e.scenario.kind}/{e.selection.strategy}, "
        f"{e.generations} generations of {e.budget} images out of {e.num_candidates} made, seed {e.seed}"
    )


def describe_sweep(sweep: Sweep) -> str:
    """One line about a sweep."""
    axes = " x ".join(
        f"{len(axis)} {name}" if isinstance(axis, list | dict) else name for name, axis in sweep.axes.items()
    )
    seeds = "1 seed" if len(sweep.seeds) == 1 else f"{len(sweep.seeds)} seeds"
    controls = f", and {', '.join(sweep.controls)}" if sweep.controls else ""
    return f"{axes} x {seeds}{controls}; {describe(sweep.base).rpartition(', seed')[0]}"
