"""The `autophagy` command. Exit 0: done; 2: an error of the user, in one line; 1: a failure; 128 + n: signal n."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from autophagy import signals
from autophagy.config import Experiment
from autophagy.printing import say
from autophagy.recipes import RECIPES, SWEEPS, load_experiment, load_recipe, load_sweep
from autophagy.records import REAL, UserError
from autophagy.selection import SELECTORS
from autophagy.sweep_config import Sweep, loops

if TYPE_CHECKING:
    from autophagy.store import GarbageItem, StageStore

DEFAULT_STORE = "autophagy-store"
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # what typer raises for unknown commands and options
INTERRUPTED = 128 + signal.SIGINT  # what typer returns for KeyboardInterrupt; older ones raise Abort
STRATEGIES = [str(selector.model_fields["strategy"].default) for selector in SELECTORS]

app = typer.Typer(
    help="Study what happens when diffusion models are trained on their own output, and what prevents it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
store_app = typer.Typer(help="Look after the store of finished stages.", no_args_is_help=True)
app.add_typer(store_app, name="store")
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
Features = Annotated[
    str, typer.Argument(help=".npy of n x D numbers; or .npz or .parquet with columns: features, label ...")
]


@app.command()
def run(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """Run a self-consuming loop to its end. The same command goes on where a killed one stopped."""
    experiment = load_experiment(recipe, _named(settings, name))
    from autophagy.loop import checked_plan, run_loop
    from autophagy.progress import ConsoleProgress
    from autophagy.tracking import check_tracking_uri, how_to_look, make_tracker

    # Before anything is opened: a mistyped command leaves nothing behind.
    checked_plan(experiment)
    if given := _given_tracking(tracking_uri):
        check_tracking_uri(given)
    opened = _open(store)
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


@app.command()
def sweep(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """Run all loops of a sweep, and compare them. The same command goes on where a killed one stopped."""
    chosen = load_sweep(recipe, _named(settings, name))
    from autophagy.grid import TABLE, checked
    from autophagy.outcomes import read_outcomes
    from autophagy.sweep import run_sweep
    from autophagy.sweep_progress import ConsoleSweep
    from autophagy.tracking import check_tracking_uri, how_to_look

    checked(loops(chosen), None)
    if given := _given_tracking(tracking_uri):
        check_tracking_uri(given)
    start, opened = time.monotonic(), _open(store)
    tracking = tracking_of(opened, tracking_uri)
    say(console, (chosen.name, "bold"), f": {describe_sweep(chosen)}")
    run_sweep(chosen, opened, tracking, ConsoleSweep(console))
    table = (opened.read_run_file(chosen.name, TABLE) or b"").decode()
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


@app.command()
def plan(
    recipe: Recipe,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    tracking_uri: TrackingUri = None,
    name: Name = None,
) -> None:
    """List the stages of a run or a sweep, done and to do, with what they are expected to take; compute nothing."""
    chosen = load_recipe(recipe, _named(settings, name))
    del tracking_uri  # accepted, so that `run` and `sweep` can be replaced by `plan` in any command
    opened = _open(store) if "://" in store or Path(store).expanduser().exists() else None
    from autophagy.graph import plan_loop
    from autophagy.planning import plan_sweep, plan_table

    if isinstance(chosen, Sweep):
        about, lines = describe_sweep(chosen), plan_sweep((plan_loop(x.experiment) for x in loops(chosen)), opened)
    else:
        about, lines = describe(chosen), plan_table(plan_loop(chosen), opened)
    say(console, (chosen.name, "bold"), f": {about}")
    for line in lines:
        say(console, line)


@app.command()
def recipes() -> None:
    """List the recipes."""
    width = max(len(r.__name__) for r in (*RECIPES, *SWEEPS))
    for kind, listed in (("run", RECIPES), ("sweep", SWEEPS)):
        say(console, (f"autophagy {kind} ...", "bold"))
        for recipe in listed:
            say(console, f"  {recipe.__name__:<{width}}  {inspect.getdoc(recipe)}")


@app.command()
def select(
    features: Features,
    out: Annotated[str, typer.Option(help="the rows kept, best first: .parquet, .csv, or .npy for indices alone")],
    keep: Annotated[str, typer.Option(help="a share such as 0.2, or a whole number such as 1000")],
    strategy: Annotated[str, typer.Option(help=f"one of {', '.join(STRATEGIES)}")] = "greedy",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of the strategy; again for more")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="real images' columns, for strategies that compare")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Choose rows of your own features: without a run, a model or images."""
    from autophagy import standalone

    selector, amount = standalone.parse_selector(strategy, settings or []), standalone.parse_keep(keep)
    standalone.check_output(out, standalone.OUTPUTS, [features, reference])
    candidates = standalone.read_candidates(features, selector.needs)
    if reference is not None:
        real = standalone.read_candidates(reference, selector.needs, origin=REAL)
        candidates = standalone.with_reference(candidates, real, selector.needs)
    start = time.perf_counter()
    kept = standalone.kept_table(candidates, selector, amount, seed)
    seconds = time.perf_counter() - start
    standalone.write_kept(kept, out)
    what = standalone.describe_kept(candidates, kept["index"].to_numpy())
    say(console, f"kept {what}, by {strategy} in {seconds:.2f} s: {out}")
    if unplaced := standalone.num_unplaced(candidates, selector.needs):
        note(f"{unplaced} of {len(candidates)} rows have values that are not finite: they come last")


@app.command()
def score(
    real: Annotated[str, typer.Argument(help="features of real images held out from training")],
    synthetic: Annotated[str, typer.Argument(help="features of generated images")],
    training: Annotated[str | None, typer.Option(help="features of the images the generator was trained on")] = None,
    k: Annotated[int, typer.Option(min=1, help="neighbours of precision, recall, density, coverage")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[str | None, typer.Option(help="a .json file for the numbers")] = None,
) -> None:
    """Measure your own generator's features: distance to real, quality, diversity, memorization."""
    from autophagy import standalone

    if out is not None:
        standalone.check_output(out, (".json",), [real, synthetic, training])
    trained_on = None if training is None else standalone.read_set(training)
    scores = standalone.score_sets(
        standalone.read_set(real), standalone.read_set(synthetic), trained_on, k=k, seed=seed
    )
    console.print(standalone.score_table(scores), highlight=False)
    for line in scores.notes():
        note(line)
    if out is not None:
        standalone.write_scores(scores, out)


@app.command()
def doctor(store: Store = DEFAULT_STORE, tracking_uri: TrackingUri = None) -> None:
    """Check packages, store, tracking server, Ray and its nodes; say what to mend. Exit 1 if there is a problem."""
    from autophagy.doctor import examine

    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    problems = 0
    for finding in examine(store, tracking_uri):
        problems += finding.level == "problem"
        say(console, (finding.level, colours[finding.level]), str(finding).removeprefix(finding.level))
    if problems:
        raise typer.Exit(1)


@store_app.command("ls")
def store_ls(store: Store = DEFAULT_STORE) -> None:
    """List the finished stages."""
    infos = _open_existing(store).ls()
    for info in infos:
        size = f"{info.size / 1e6:>9.2f} MB"
        say(console, f"{info.stage:<16} {info.key:<44} {size} {info.seconds:>9.1f} s  {info.created[:19]}")
    say(console, f"{len(infos)} stages, {sum(i.size for i in infos) / 1e6:.1f} MB")


@store_app.command("verify")
def store_verify(store: Store = DEFAULT_STORE) -> None:
    """Read everything again and compare checksums; what is damaged will be built anew by the next run."""
    checked = damaged = 0
    for info, problems in _open_existing(store).verify():
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
    items = _open_existing(store).gc(delete=delete, older_than=3600 * older_than)
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


def hint(what: str, how: str) -> None:
    """One of the last lines: where to look, or what to type next."""
    say(console, f"{what:<9}{how}")


def note(text: str) -> None:
    """One line on what to know about a result."""
    say(console, (f"note: {text}", "dim"))


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
    controls = f", and {', '.join(sweep.controls)}" if sweep.controls else ""
    return f"{axes} x {len(sweep.seeds)} seeds{controls}; {describe(sweep.base).rpartition(', seed')[0]}"


def tracking_of(store: StageStore, tracking_uri: str | None) -> str | None:
    """The tracking URI to use: as given, else MLFLOW_TRACKING_URI, else SQLite in a local store; None for none."""
    from autophagy.tracking import tracking_for

    return tracking_for(tracking_uri, store.root if store.storage.local else None)


def _given_tracking(tracking_uri: str | None) -> str | None:
    return None if tracking_uri == "none" else tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")


def _named(settings: list[str] | None, name: str | None) -> list[str]:
    return [*(settings or []), *([] if name is None else [f"name={json.dumps(name)}"])]


def _open(uri: str) -> StageStore:
    from autophagy.store import StageStore

    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "://" not in uri and not Path(uri).expanduser().is_absolute():
        raise UserError(
            f"--store {uri}: a submitted job works in a temporary folder, and this one would go with it; give "
            "s3://bucket/prefix or an absolute path that all nodes share, or set AUTOPHAGY_STORE on them"
        )
    return StageStore(uri)


def _open_existing(uri: str) -> StageStore:
    if "://" not in uri and not Path(uri).expanduser().is_dir():
        raise UserError(f"--store {uri}: no such folder; give the one that a run has made")
    return _open(uri)


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


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line to standard error and exit."""
    say(Console(stderr=True), ("error:", "red"), f" {' '.join(message.split())}")
    sys.exit(code)
