"""A sweep as ordinary loops."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from autophagy.common.errors import UserError
from autophagy.common.seeds import digest
from autophagy.config.experiment import Experiment, parse
from autophagy.config.settings import assign
from autophagy.config.sweep import CONTROL, Axis, Range, Sweep

_MOST_LOOPS = 100_000
_NAME_LENGTH = 100


class AxisValue(NamedTuple):
    """One value of an axis."""

    label: str
    settings: Mapping[str, Any]  # that it stands for, by dotted name


class Point(TypedDict):
    """A value of every axis, or a control, and the seeds to run it with: all there is to its loops beside the sweep."""

    labels: Mapping[str, str]  # axis -> label
    seeds: list[int]


@dataclass(frozen=True)
class PlannedLoop:
    """One loop of a sweep."""

    labels: Mapping[str, str]  # axis -> label
    seed: int
    experiment: Experiment  # `experiment.name` is the run folder

    @property
    def run(self) -> str:
        """Name of its run folder."""
        return self.experiment.name

    @property
    def arm(self) -> str:
        """What it has in common with its repetitions under other seeds."""
        return ", ".join(self.labels.values())

    @property
    def point(self) -> Point:
        """Where it is, alone."""
        return {"labels": self.labels, "seeds": [self.seed]}


def loops(sweep: Sweep) -> list[PlannedLoop]:
    """All loops of a grid, or the controls of a search; seed by seed, to have something to compare after the first.

    Raises:
        UserError: a combination that is no valid experiment; loops that differ in what must be equal; too many.
    """
    axes = [] if sweep.search else [axis_values(name, axis) for name, axis in sweep.axes.items()]
    count = len(sweep.seeds) * (len(sweep.controls) + math.prod(map(len, axes)))
    if count > _MOST_LOOPS:
        raise UserError(f"axes: {count} loops are more than {_MOST_LOOPS}; drop values, or set search")
    points: list[Mapping[str, AxisValue]] = [{CONTROL: AxisValue(*control)} for control in sweep.controls.items()]
    points += [dict(zip(sweep.axes, point, strict=True)) for point in itertools.product(*axes) if axes]
    made = [_make_loop(sweep, point, seed) for seed in sweep.seeds for point in points]
    check_equal(sweep, made)
    return made


def loops_at(sweep: Sweep, point: Point) -> list[PlannedLoop]:
    """The loops at a point: one for each of its seeds."""
    values = {name: _value_at(sweep, name, label) for name, label in point["labels"].items()}
    return [_make_loop(sweep, values, seed) for seed in point["seeds"]]


def _value_at(sweep: Sweep, name: str, label: str) -> AxisValue:
    """What a label on an axis stands for; a number on a range."""
    if name == CONTROL:
        return AxisValue(label, sweep.controls[label])
    axis = sweep.axes[name]
    if isinstance(axis, Range):
        return field_value(name, float(label))
    return next(value for value in axis_values(name, axis) if value.label == label)


def _make_loop(sweep: Sweep, point: Mapping[str, AxisValue], seed: int) -> PlannedLoop:
    labels = {name: label for name, (label, _) in point.items()}
    settings = {field: value for _, chosen in point.values() for field, value in chosen.items()}
    try:
        values = assign(sweep.base.model_dump(mode="json"), settings | {"seed": seed})
        experiment = parse(values | {"name": run_name(sweep.name, labels, seed)})
    except UserError as error:
        raise UserError(f"axes: the loop ({', '.join(labels.values())}): {error}") from None
    return PlannedLoop(labels, seed, experiment)


def check_equal(sweep: Sweep, made: Sequence[PlannedLoop]) -> None:
    """Raise a UserError if loops differ in what must be equal to compare them."""
    measures = {"budget": lambda e: e.budget, "steps": optimisation_steps}
    for name in sweep.equal:
        found = sorted({measures[name](loop.experiment) for loop in made}, key=str)
        if len(found) > 1:
            rest = [other for other in sweep.equal if other != name]
            raise UserError(
                f"axes: the loops differ in {name} ({', '.join(map(str, found))}): that is no fair comparison; "
                f"hold it equal, or say that it may differ with equal={rest}"
            )


def optimisation_steps(experiment: Experiment) -> int | str:
    """Steps of every generation >= 1; in words where they depend on the size of the pool."""
    training = experiment.training
    if not training.equal_steps and experiment.scenario.kind == "accumulate":
        return "those of a growing pool"
    return training.epochs * -(-experiment.budget // training.global_batch_size)


def field_value(name: str, value: Any) -> AxisValue:
    """The value of an axis that is one field."""
    return AxisValue(label_of(value), {name: value})


def label_of(value: Any) -> str:
    """A value in a few characters, as tables and names have it."""
    if isinstance(value, list | tuple):
        return "+".join(map(label_of, value))
    if isinstance(value, Mapping):
        return "+".join(f"{k}={label_of(v)}" for k, v in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def axis_values(name: str, axis: Axis) -> list[AxisValue]:
    """The values of an axis that is not a range."""
    if isinstance(axis, dict):
        return [AxisValue(*item) for item in axis.items()]
    return [field_value(name, value) for value in axis] if isinstance(axis, list) else []


def run_name(sweep: str, labels: Mapping[str, str], seed: int) -> str:
    """Readable; with a digest of the labels where letters had to be left out or replaced."""
    arm = "-".join(labels.values())
    plain, end = re.sub(r"[^A-Za-z0-9._-]+", "_", arm), f"-seed{seed}"
    name = f"{sweep}-{plain}{end}"
    if plain == arm and not any("-" in label for label in labels.values()) and len(name) <= _NAME_LENGTH:
        return name
    end = f"-{digest(dict(labels))[:8]}{end}"
    return f"{sweep}-{plain}"[: _NAME_LENGTH - len(end)] + end
