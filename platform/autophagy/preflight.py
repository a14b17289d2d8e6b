"""What is refused before any compute: a missing package or device, unfit real images."""

from __future__ import annotations

import os

from autophagy.common.errors import UserError
from autophagy.config import Experiment
from autophagy.data.config import CLUSTERED
from autophagy.data.splits import split_sizes
from autophagy.engine.cluster import in_worker
from autophagy.engine.stage import Stages
from autophagy.features.config import check_available
from autophagy.graph import plan_loop
from autophagy.store import Artifact


def checked_plan(experiment: Experiment) -> list[Stages]:
    """The stages of a loop by generation; a UserError if its data, a package or a device is missing. Needs no store."""
    check_available(experiment.metrics.feature_network)
    if "RAY_ADDRESS" not in os.environ and not in_worker():
        check_machine(experiment)
    return plan_loop(experiment)


def check_machine(experiment: Experiment) -> None:
    """Raise a UserError for what this machine alone does not have: Ray would wait for it for ever."""
    remedy = "or set RAY_ADDRESS to a cluster that has"
    for section in ("training", "generation"):
        if getattr(experiment, section).use_gpu and not has_cuda():
            raise UserError(f"{section}.use_gpu = true: there is no CUDA device here; set it to false, {remedy} one")
    cpus = os.cpu_count() or 1
    for field, count in (
        ("training.num_workers", experiment.training.num_workers),
        ("generation.num_actors", experiment.generation.num_actors),
    ):
        if count > cpus:
            raise UserError(f"{field} = {count}: there are {cpus} CPUs here; use at most that many, {remedy} more")


def has_cuda() -> bool:
    """Whether this machine has a CUDA device."""
    import torch

    return torch.cuda.is_available()


def check_real(experiment: Experiment, real: Artifact) -> None:
    """Raise a UserError if the real images lack labels or classes that are needed, or too few are fresh."""
    data, num_classes = experiment.data, real.info["num_classes"]
    if not num_classes and experiment.labelled:
        if data.labels not in CLUSTERED:
            raise UserError(
                f"data.labels = {data.labels}: data.source has no labels; set it to ssc_omp or kmeans, or "
                "model.conditional to false"
            )
        if data.num_clusters is None:
            raise UserError("data.num_clusters = null: data.source has no classes to take the number of; set it")
    check_schedule(experiment, max(num_classes, data.num_clusters or 0))
    needed, sizes = experiment.num_fresh, real.info["sizes"]
    if sizes["fresh"] < needed:
        split_sizes(sum(sizes.values()), sizes["train"], sizes["held_out"], needed)


def check_schedule(experiment: Experiment, num_classes: int) -> None:
    """Raise a UserError if a class of the schedule is none of the data's, or a generation has too few of them."""
    data = experiment.data
    if not (data.appear or data.vanish):
        return
    for name, schedule in (("appear", data.appear), ("vanish", data.vanish)):
        for label, generation in schedule.items():
            if label >= num_classes:
                raise UserError(
                    f"data.{name}.{label} = {generation}: the classes are 0 to {num_classes - 1}; name one of them"
                )
    for k in range(experiment.generations + 1):
        left, needed = num_classes - len(data.absent(k)), 1 if k else 2  # a probe tells classes apart
        if left < needed:
            raise UserError(
                f"data.appear, data.vanish: leave {left} of {num_classes} classes in generation {k}, which needs "
                f"{needed}; let one appear earlier or vanish later"
            )
