"""A sweep: one base experiment, the axes along which it is varied, and the seeds; expanded into ordinary loops."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autophagy.config import RUN_NAME, Experiment, Section, assign, parse, parse_setting, validate
from autophagy.records import UserError, digest

CONTROL = "control"  # the axis of what stands beside the grid
_MOST_LOOPS = 100_000
_NAME_LENGTH = 100


class Range(Section):
    """Numbers between two ends, for a search."""

    low: float
    high: float
    log: bool = False  # uniform in the logarithm

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low = {self.low} must be below high = {self.high}, and above 0 with log = true")
        return self


class Asha(Section):
    """Asynchronous successive halving (arXiv 1810.05934) on the generation index."""

    grace_period: Annotated[int, Field(ge=1)] = 2  # no loop is stopped before this generation
    reduction_factor: Annotated[float, Field(gt=1)] = 3  # at each rung the best 1 / reduction_factor go on


class Stopping(Section):
    """When a loop is not worth going on with. A stopped loop keeps its records and is marked as stopped."""

    collapse_factor: Annotated[float, Field(gt=1)] | None = None  # stop once FID is over this many times generation 0's
    # Stop once entropy and confidence of the samples both fall too steadily for chance; see autophagy.stopping.
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    asha: Asha | None = None  # by FID, over all loops


class Search(Section):
    """Look for the best point of the axes instead of running all of them."""

    metric: str = "fid"  # of the last generation, mean over the seeds; which end is best is the metric's own
    num_loops: Annotated[int, Field(ge=2)] = 30  # what may be run in all: points and controls, times the seeds

    def num_points(self, sweep: Sweep) -> int:
        """Points of the axes that may be tried, each with all seeds."""
        return self.num_loops // len(sweep.seeds) - len(sweep.controls)


Choice = tuple[str, Mapping[str, Any]]  # a label, and the settings that it stands for
Labelled = dict[str, dict[str, Any]]  # label -> settings by dotted name
Axis = Annotated[list[Any], Field(min_length=1)] | Range | Annotated[Labelled, Field(min_length=1)]


class Sweep(Section):
    """Many loops that answer one question."""

    name: Annotated[str, Field(pattern=RUN_NAME, max_length=60), "runtime"] = "sweep"
    question: str = ""  # what the loops are run for, in one sentence
    base: Experiment
    # Dotted name of a field -> its values; or a name of one's own -> labels with the settings each stands for.
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    # Loops beside the grid: label -> settings. Random selection, where no axis has it.
    controls: Labelled = Field(default_factory=dict)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)
    equal: tuple[Literal["budget", "steps"], ...] = ("budget", "steps")  # what may not differ between the loops
    stopping: Stopping = Stopping()
    search: Search | None = None
    max_retries: Annotated[int, Field(ge=0, le=100), "runtime"] = 2  # of a loop that fails
    # Loops at once; null: as many as the CPUs carry, or as the head has room for where it computes nothing.
    max_concurrent: Annotated[int, Field(ge=1), "runtime"] | None = None

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("must differ from each other")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        for name, axis in self.axes.items():
            if isinstance(axis, Range) and self.search is None:
                raise ValueError(f"axes.{name} is a range, which takes a search; list values, or set search")
            if name in ("seed", "name", CONTROL):
                raise ValueError(f"axes.{name}: is no axis" + ("; use seeds" if name == "seed" else ""))
        if self.search and self.search.num_points(self) < 2:
            raise ValueError(
                f"search.num_loops = {self.search.num_loops} leaves no two points to try with {len(self.seeds)} seeds "
                f"and {len(self.controls)} controls; use more"
            )
        if self.stopping.asha and self.stopping.asha.grace_period >= self.base.generations:
            raise ValueError(
                f"stopping.asha.grace_period = {self.stopping.asha.grace_period} leaves nothing to stop in "
                f"{self.base.generations} generations; use less"
            )
        return self


@dataclass(frozen=True)
class Loop:
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


def loops(sweep: Sweep) -> list[Loop]:
    """All loops of a grid, or the controls of a search; seed by seed, to have something to compare after the first.

    Raises:
        UserError: a combination that is no valid experiment; loops that differ in what must be equal; too many.
    """
    axes = [] if sweep.search else [choices(name, axis) for name, axis in sweep.axes.items()]
    count = len(sweep.seeds) * (len(sweep.controls) + math.prod(map(len, axes)))
    if count > _MOST_LOOPS:
        raise UserError(f"axes: {count} loops are more than {_MOST_LOOPS}; drop values, or set search")
    points: list[Mapping[str, Choice]] = [{CONTROL: control} for control in sweep.controls.items()]
    points += [dict(zip(sweep.axes, point, strict=True)) for point in itertools.product(*axes) if axes]
    made = [make_loop(sweep, point, seed) for seed in sweep.seeds for point in points]
    check_equal(sweep, made)
    return made


def make_loop(sweep: Sweep, point: Mapping[str, Choice], seed: int) -> Loop:
    """The loop at one point of the axes."""
    labels = {name: label for name, (label, _) in point.items()}
    settings = {field: value for _, chosen in point.values() for field, value in chosen.items()}
    try:
        values = assign(sweep.base.model_dump(mode="json"), settings | {"seed": seed})
        experiment = parse(values | {"name": _run_name(sweep.name, labels, seed)})
    except UserError as error:
        raise UserError(f"axes: the loop ({', '.join(labels.values())}): {error}") from None
    return Loop(labels, seed, experiment)


def check_equal(sweep: Sweep, made: Sequence[Loop]) -> None:
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


def setting(name: str, value: Any) -> Choice:
    """The choice of one value of a field."""
    return label_of(value), {name: value}


def label_of(value: Any) -> str:
    """A value in a few characters, as tables and names have it."""
    if isinstance(value, list | tuple):
        return "+".join(map(label_of, value))
    if isinstance(value, Mapping):
        return "+".join(f"{k}={label_of(v)}" for k, v in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def choices(name: str, axis: Axis) -> list[Choice]:
    """The values of an axis that is not a range."""
    if isinstance(axis, dict):
        return list(axis.items())
    return [setting(name, value) for value in axis] if isinstance(axis, list) else []


def _run_name(sweep: str, labels: Mapping[str, str], seed: int) -> str:
    """Readable; with a digest of the labels where letters had to be left out or replaced."""
    arm = "-".join(labels.values())
    plain, end = re.sub(r"[^A-Za-z0-9._-]+", "_", arm), f"-seed{seed}"
    name = f"{sweep}-{plain}{end}"
    if plain == arm and not any("-" in label for label in labels.values()) and len(name) <= _NAME_LENGTH:
        return name
    end = f"-{digest(dict(labels))[:8]}{end}"
    return f"{sweep}-{plain}"[: _NAME_LENGTH - len(end)] + end


def override_sweep(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values` with settings applied; one of no field of a sweep, such as `budget=200`, is one of the base."""
    result, base = dict(values), {}
    for name, value in map(parse_setting, settings):
        section, _, rest = name.partition(".")
        if section in ("axes", "controls") and rest:  # whose names have dots
            changed = (result.get(section) or {}) | {rest: value}
            result[section] = {n: v for n, v in changed.items() if v is not None}  # null takes the axis away
        elif section == "base" and rest:
            base[rest] = value
        elif section == "seed":
            raise UserError(f"--set {name}={value}: a sweep has seeds; set seeds=[{value}]")
        elif section in Sweep.model_fields:
            result = assign(result, {name: value})
        else:
            base[name] = value
    return result | {"base": assign(result["base"], base)} if base else result


def parse_sweep(values: Mapping[str, Any]) -> Sweep:
    """A sweep from plain values.

    Raises:
        UserError: one line with the field, the value, and what is allowed.
    """
    if not isinstance(values.get("base"), Mapping):
        raise UserError("base: is missing; give a recipe name or the fields of an experiment")
    return validate(Sweep, dict(values) | {"base": parse(values["base"])})
