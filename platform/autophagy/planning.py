"""The dry run: which stages are done, which are to do, and what they are expected to cost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autophagy.engine.costs import device_seconds, num_bytes, scaled, seconds
from autophagy.engine.stage import Stage, Stages
from autophagy.store import StageStore


class Known:
    """What a store holds and what its stages have cost, looked up once for each kind of stage."""

    def __init__(self, store: StageStore | None) -> None:
        self.store = store
        self.finished: dict[str, frozenset[str]] = {}
        self.manifests: dict[str, list[Mapping[str, Any]]] = {}

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage is there."""
        if stage.name not in self.finished:
            self.finished[stage.name] = frozenset(self.store.siblings(stage.name, "") if self.store else ())
        return stage.key in self.finished[stage.name]

    def history(self, stage: Stage) -> list[Mapping[str, Any]]:
        """Manifests of the latest stages of its kind."""
        if stage.name not in self.manifests:
            self.manifests[stage.name] = self.store.history(stage.name) if self.store else []
        return self.manifests[stage.name]


def plan_table(generations: Sequence[Stages], store: StageStore | None) -> Iterator[str]:
    """Lines of text: a stage of a loop each, then totals. Expected seconds come from the store's own history.

    Args:
        generations: The stages of the loop, as `plan_loop` gives them.
        store: Where finished stages are looked up; None if there is no store yet.
    """
    known = Known(store)
    yield f"{'generation':>10}  {'stage':<17} {'key':<12} {'state':<6} {'seconds':>9}"
    done = todo = unknown = 0
    expected = 0.0
    for k, stages in enumerate(generations):
        for name, stage in stages.items():
            finished = known.is_done(stage)
            guess = None if finished else scaled(known.history(stage), stage.work, seconds)
            done, todo = done + finished, todo + (not finished)
            unknown += not finished and guess is None
            expected += guess or 0.0
            cost = "" if finished else "unknown" if guess is None else f"{guess:.1f}"
            state = "done" if finished else "to do"
            yield f"{k:>10}  {name:<17} {stage.key[:12]:<12} {state:<6} {cost:>9}"
    yield f"{done} stages done, {todo} to do, about {expected:.0f} s{_unknown(unknown)}"


@dataclass
class Kind:
    """The stages of one kind in a sweep."""

    unshared: int = 0  # if every loop computed its own
    distinct: dict[str, Stage] = field(default_factory=dict)  # key -> stage
    done: int = 0
    unknown: int = 0
    device_seconds: float = 0.0  # of what is to do
    bytes: float = 0.0


def plan_sweep(loops: Iterable[Sequence[Stages]], store: StageStore | None) -> Iterator[str]:
    """Lines of text: a kind of stage each, then what the sweep is expected to cost, from the store's own history."""
    known = Known(store)
    kinds: dict[str, Kind] = {}
    num_loops = 0
    for generations in loops:
        num_loops += 1
        for stage in (stage for stages in generations for stage in stages.values()):
            kind = kinds.setdefault(stage.name, Kind())
            kind.unshared += 1
            kind.distinct[stage.key] = stage
    numbers = "".join(f" {name:>8}" for name in ("unshared", "distinct", "done", "to do"))
    yield f"{'stage':<17}{numbers} {'device-s each':>13} {'device-s':>9}"
    for name, kind in kinds.items():
        _expect(kind, known)
        todo = len(kind.distinct) - kind.done
        guessed = todo - kind.unknown
        each = f"{kind.device_seconds / guessed:.2f}" if guessed else "unknown" if todo else ""
        yield (
            f"{name:<17} {kind.unshared:>8} {len(kind.distinct):>8} {kind.done:>8} {todo:>8} {each:>13} "
            f"{kind.device_seconds:>9.0f}"
        )
    yield from _totals(num_loops, list(kinds.values()))


def _expect(kind: Kind, known: Known) -> None:
    """Fill in what is done, and what the rest is expected to cost."""
    for stage in kind.distinct.values():
        if known.is_done(stage):
            kind.done += 1
            continue
        history = known.history(stage)
        guess = scaled(history, stage.work, device_seconds)
        kind.unknown += guess is None
        kind.device_seconds += guess or 0.0
        kind.bytes += scaled(history, stage.work, num_bytes) or 0.0


def _totals(num_loops: int, kinds: Sequence[Kind]) -> Iterator[str]:
    unshared, distinct = sum(k.unshared for k in kinds), sum(len(k.distinct) for k in kinds)
    done, unknown = sum(k.done for k in kinds), sum(k.unknown for k in kinds)
    cost, size = sum(k.device_seconds for k in kinds), sum(k.bytes for k in kinds)
    yield f"{num_loops} loops: {distinct} distinct stages instead of {unshared}, {done} done, {distinct - done} to do"
    here = "" if "RAY_ADDRESS" in os.environ else f", about {_time(cost / (os.cpu_count() or 1))} on this machine"
    yield f"about {cost / 3600:.2g} device-hours{here}, and {size / 1e9:.2g} GB{_unknown(unknown)}"


def _unknown(count: int) -> str:
    return f"; {count} stages are of a kind this store has no history of: run one loop to learn it" if count else ""


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
