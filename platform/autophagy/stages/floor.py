"""`floor`: real images measured as if a model had made them, once for all generations."""

from __future__ import annotations

from autophagy.common.samples import FEATURES
from autophagy.common.section import Section
from autophagy.config import Experiment
from autophagy.data.tables import to_numpy
from autophagy.engine.job import Job
from autophagy.engine.stage import Stage, Stages
from autophagy.features.config import Metrics
from autophagy.stages.payloads import RealInfo, first_rows, write_metrics

VERSION = 1


class Config(Section):
    """What a `floor` stage is keyed by."""

    metrics: Metrics
    seed: int


def stage(e: Experiment, inputs: Stages) -> Stage:
    """The floor of every curve; `inputs` as `build` has them."""
    return Stage("floor", build, Config(metrics=e.metrics, seed=e.seed), inputs, version=VERSION)


def build(job: Job[Config]) -> None:
    """Measure real images that were trained on against the reference. Inputs: `real` and `score`."""
    from autophagy.metrics.measured import real_vs_real

    metrics, sizes = job.config.metrics, RealInfo.of(job.inputs["real"]).sizes
    train, held_out = (
        to_numpy(first_rows(job.inputs["score"], split, [FEATURES], min(metrics.num_samples, sizes[split])), FEATURES)
        for split in ("train", "held_out")
    )
    write_metrics(job.attempt, real_vs_real(train, held_out, metrics.k, job.config.seed))
