"""Commands on others' features: select, score."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from autophagy.cli.console import console, note, say
from autophagy.common.samples import REAL
from autophagy.selection import SELECTORS

STRATEGIES = [str(selector.model_fields["strategy"].default) for selector in SELECTORS]
Features = Annotated[
    str, typer.Argument(help=".npy of n x D numbers; or .npz or .parquet with columns: features, label ...")
]


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
    from autophagy.standalone import select as standalone

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


def score(
    real: Annotated[str, typer.Argument(help="features of real images held out from training")],
    synthetic: Annotated[str, typer.Argument(help="features of generated images")],
    training: Annotated[str | None, typer.Option(help="features of the images the generator was trained on")] = None,
    k: Annotated[int, typer.Option(min=1, help="neighbours of precision, recall, density, coverage")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[str | None, typer.Option(help="a .json file for the numbers")] = None,
) -> None:
    """Measure your own generator's features: distance to real, quality, diversity, memorization."""
    from autophagy.standalone import score as standalone
    from autophagy.standalone.select import check_output

    if out is not None:
        check_output(out, (".json",), [real, synthetic, training])
    trained_on = None if training is None else standalone.read_set(training)
    scores = standalone.score_sets(
        standalone.read_set(real), standalone.read_set(synthetic), trained_on, k=k, seed=seed
    )
    console.print(standalone.score_table(scores), highlight=False)
    for line in scores.notes():
        note(line)
    if out is not None:
        standalone.write_scores(scores, out)
