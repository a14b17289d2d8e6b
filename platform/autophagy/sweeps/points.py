"""Points of a sweep: as trials of Tune are told them, and those that the axes of a search have."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from autophagy.config.expand import Point, axis_values, label_of
from autophagy.config.sweep import Range, Sweep
from autophagy.runs.folder import read_loops
from autophagy.store import StageStore

DIGITS = 4  # of a number from a range
Labels = dict[str, str]  # by axis


def text_of(point: Point) -> str:
    """A point as `point` of a trial's configuration: text, since in anything nested Tune looks for search spaces."""
    return json.dumps(point)


def point_of(config: Mapping[str, Any]) -> Point:
    """The point of a trial, from its configuration."""
    point: Point = json.loads(config["point"])
    return point


def labels_of(sweep: Sweep, params: Mapping[str, Any]) -> Labels:
    """A point that Optuna names: numbers with few digits, so that their labels are all there is to them."""
    return {
        name: _number_label(axis, params[name]) if isinstance(axis, Range) else str(params[name])
        for name, axis in sweep.axes.items()
    }


def _number_label(axis: Range, value: float) -> str:
    return label_of(min(max(float(f"{value:.{DIGITS}g}"), axis.low), axis.high))


def sampled(sweep: Sweep, labels: Mapping[str, str]) -> dict[str, Any]:
    """A point as Optuna would have named it."""
    return {name: float(labels[name]) if isinstance(axis, Range) else labels[name] for name, axis in sweep.axes.items()}


def at(sweep: Sweep, labels: Labels) -> Point:
    """A point of the axes, with all seeds."""
    return {"labels": labels, "seeds": list(sweep.seeds)}


def corners(sweep: Sweep) -> list[Labels]:
    """All labels, and both ends of the ranges, in all combinations."""
    ends = [
        [_number_label(axis, end) for end in (axis.low, axis.high)]
        if isinstance(axis, Range)
        else [value.label for value in axis_values(name, axis)]
        for name, axis in sweep.axes.items()
    ]
    return [dict(zip(sweep.axes, point, strict=True)) for point in itertools.product(*ends)]


def known_points(sweep: Sweep, store: StageStore) -> list[Labels]:
    """Points that an earlier run of this search has named, if the axes still have them."""
    table = read_loops(store, sweep.name)
    named = [row.labels for row in table.loops] if table else []
    distinct = {tuple(labels.items()): labels for labels in named if labels.keys() == sweep.axes.keys()}
    return [labels for labels in distinct.values() if _is_of(sweep, labels)]


def _is_of(sweep: Sweep, labels: Labels) -> bool:
    """Whether the axes still have such a point."""
    return all(
        axis.low <= _number(labels[name]) <= axis.high
        if isinstance(axis, Range)
        else labels[name] in [value.label for value in axis_values(name, axis)]
        for name, axis in sweep.axes.items()
    )


def _number(label: str) -> float:
    """NaN for the label of an axis that was no range then."""
    try:
        return float(label)
    except ValueError:
        return math.nan
