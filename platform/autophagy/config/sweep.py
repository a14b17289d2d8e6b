"""A sweep: one base experiment, the axes along which it is varied, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autophagy.common.errors import UserError
from autophagy.common.section import RUNTIME, Section, validate
from autophagy.config.experiment import RUN_NAME, Experiment, parse
from autophagy.config.settings import assign, parse_setting

CONTROL = "control"  # the axis of what stands beside the grid


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
    # Stop once entropy and confidence of the samples both fall too steadily for chance; see autophagy.sweeps.stopping.
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    asha: Asha | None = None  # by FID, over all loops


class Search(Section):
    """Look for the best point of the axes instead of running all of them.

    A point of which a loop is stopped early is over, and is worse than all that were run to their ends.
    """

    metric: str = "fid"  # of the last generation, mean over the seeds; which end is best is the metric's own
    num_loops: Annotated[int, Field(ge=2)] = 30  # what may be run in all: points and controls, times the seeds

    def num_points(self, sweep: Sweep) -> int:
        """Points of the axes that may be tried, each with all seeds."""
        return self.num_loops // len(sweep.seeds) - len(sweep.controls)


Labelled = dict[str, dict[str, Any]]  # label -> settings by dotted name
Axis = Annotated[list[Any], Field(min_length=1)] | Range | Annotated[Labelled, Field(min_length=1)]


class Sweep(Section):
    """Many loops that answer one question."""

    name: Annotated[str, Field(pattern=RUN_NAME, max_length=60), RUNTIME] = "sweep"
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
    max_retries: Annotated[int, Field(ge=0, le=100), RUNTIME] = 2  # of a loop that fails
    # Loops at once; null: as many as the CPUs carry, or as the head has room for where it computes nothing.
    max_concurrent: Annotated[Annotated[int, Field(ge=1)] | None, RUNTIME] = None

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
        if self.search and self.stopping.asha:
            raise ValueError(
                "stopping.asha, search: halving compares loops by FID as they go, a search compares points by "
                "search.metric at their end; end a search's loops with stopping.collapse_factor, or list values and "
                "leave search out"
            )
        if self.stopping.asha and self.stopping.asha.grace_period >= self.base.generations:
            raise ValueError(
                f"stopping.asha.grace_period = {self.stopping.asha.grace_period} leaves nothing to stop in "
                f"{self.base.generations} generations; use less"
            )
        return self


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
