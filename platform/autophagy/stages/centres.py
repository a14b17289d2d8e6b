"""`centres`: k-means centres of the real images of every class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from autophagy.common.samples import LABEL
from autophagy.common.section import Section
from autophagy.common.seeds import rng_for
from autophagy.config import Experiment
from autophagy.corrections import SelfCorrection, class_centres
from autophagy.data.tables import tensor_column
from autophagy.engine.job import Job
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import CENTRES, real_images

VERSION = 1


class Config(Section):
    """What a `centres` stage is keyed by."""

    num_centres: int  # of each class
    seed: int


def stage(e: Experiment, inputs: Mapping[str, Stage], correction: SelfCorrection) -> Stage:
    """What `correct` moves training images to."""
    return Stage("centres", build, Config(num_centres=correction.num_centres, seed=e.seed), inputs, version=VERSION)


def build(job: Job[Config]) -> None:
    """Find the centres. Inputs: `real`, perhaps `labels`."""
    images, labels, _ = real_images(job.inputs, "train")
    rng = rng_for(job.config.seed, "centres")
    centres = class_centres(images.reshape(len(images), -1), labels, job.config.num_centres, rng)
    label = np.concatenate([np.full(len(own), c) for c, own in centres.items()])
    points = np.concatenate(list(centres.values()))
    job.attempt.write_table(CENTRES, pa.table({LABEL: pa.array(label), "centre": tensor_column(points)}))
