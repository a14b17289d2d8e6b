"""The dry run: which stages of a loop are done, which are to do, and what they are expected to cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from autophagy.config import Experiment
from autophagy.graph import plan_loop
from autophagy.store import StageStore


def plan_table(experiment: Experiment, store: StageStore | None) -> Iterator[str]:
    """Lines of text: a stage each, then totals. Expected seconds are the median of the store's own history.

    Args:
        experiment: The loop.
        store: Where finished stages are looked up; None if there is no store yet.
    """
    yield f"{'generation':>10}  {'stage':<16} {'key':<12} {'state':<6} {'seconds':>9}"
    done = todo = unknown = 0
    expected = 0.0
    history: dict[str, list[float]] = {}
    for k, stages in enumerate(plan_loop(experiment)):
        for name, stage in stages.items():
            finished = store is not None and store.is_done(name, stage.key)
            if finished:
                done, seconds = done + 1, ""
            else:
                if name not in history:
                    history[name] = store.seconds_history(name) if store else []
                todo += 1
                unknown += not history[name]
                guess = statistics.median(history[name]) if history[name] else None
                expected += guess or 0.0
                seconds = "unknown" if guess is None else f"{guess:.1f}"
            yield f"{k:>10}  {name:<16} {stage.key[:12]:<12} {'done' if finished else 'to do':<6} {seconds:>9}"
    note = f", and {unknown} of a kind this store has no history of" if unknown else ""
    yield f"{done} stages done, {todo} to do, about {expected:.0f} s{note}"
