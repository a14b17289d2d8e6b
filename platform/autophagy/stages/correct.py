"""`correct`: training images that are moved to real centres (self-correction, arXiv 2402.07087)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from autophagy.common.samples import IMAGE, LABEL, REAL, origin_generation
from autophagy.config import Experiment
from autophagy.corrections import SelfCorrection, move_to_centres
from autophagy.data.tables import tensor_column, to_numpy
from autophagy.engine.job import Job, Resources
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import CENTRES, IMAGES, ROWS_PER_FILE, kept_ids, read_images, sample_columns
from autophagy.stages.scorer import Scorer, Scoring, scoring

VERSION = 1


class Config(Scoring):
    """What a `correct` stage is keyed by."""

    strength: float


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage], correction: SelfCorrection) -> Stage:
    """The training set of generation k >= 1, corrected; `inputs` as `build` has them."""
    config = Config(**scoring(e), strength=correction.strength)
    resources = Resources(use_gpu=e.training.use_gpu)
    return Stage("correct", build, config, inputs, resources, VERSION, generation=k)


def build(job: Job[Config]) -> None:
    """Write the training set of a generation, its synthetic images moved to real centres; real ones stay as they are.

    Inputs: `select` and the `samples/j` it chose from, `centres`, and those of `scored_by`: metrics of a training set
    are those of the images that are trained on.
    """
    table = job.inputs["centres"].read_table(CENTRES)
    label, points = to_numpy(table, LABEL), to_numpy(table, "centre")
    centres = {int(c): points[label == c] for c in np.unique(label)}
    kept = np.sort(kept_ids(job.inputs))
    scorer = Scorer(job.config, job.inputs, job.resources.use_gpu)
    for start in range(0, len(kept), ROWS_PER_FILE):
        ids = kept[start : start + ROWS_PER_FILE]
        images, labels = read_images(job.inputs, ids)
        synthetic = origin_generation(ids) != REAL
        flat = images[synthetic].reshape(synthetic.sum(), -1)
        moved = move_to_centres(flat, labels[synthetic], centres, job.config.strength)
        images[synthetic] = np.rint(moved).clip(0, 255).astype(np.uint8).reshape(images[synthetic].shape)
        columns = {
            **sample_columns(ids),
            IMAGE: tensor_column(images),
            **scorer.score(images, ids, labels).columns(),
        }
        job.attempt.write_table(f"{IMAGES}/part-{start // ROWS_PER_FILE:05d}.parquet", pa.table(columns))
