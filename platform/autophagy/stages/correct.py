"""Training images that are moved to real centres."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from autophagy.common.samples import GENERATION, IMAGE, IS_REAL, LABEL, REAL, SAMPLE_ID, origin_generation
from autophagy.common.seeds import rng_for
from autophagy.corrections import class_centres, move_to_centres
from autophagy.data.tables import tensor_column, to_numpy
from autophagy.engine.job import Job
from autophagy.stages.payloads import read_images, real_images
from autophagy.stages.scorer import Scorer

CENTRES_FILE = "centres.parquet"
ROWS_PER_FILE = 4096


def fit_centres(job: Job) -> None:
    """Builder of the `centres` stage: k-means centres of the real images of every class. Input: `real`, `labels`."""
    images, labels, _ = real_images(job.inputs, "train")
    rng = rng_for(job.config["seed"], "centres")
    centres = class_centres(images.reshape(len(images), -1), labels, job.config["num_centres"], rng)
    label = np.concatenate([np.full(len(own), c) for c, own in centres.items()])
    points = np.concatenate(list(centres.values()))
    job.attempt.write_table(CENTRES_FILE, pa.table({LABEL: pa.array(label), "centre": tensor_column(points)}))


def correct(job: Job) -> None:
    """Builder of a `correct` stage: the training set of a generation, its synthetic images moved to real centres.

    Inputs: `select`, `centres`, the samples chosen from, and what scores images: metrics of a training set are those
    of the images that are trained on. Real images stay as they are.
    """
    table = job.inputs["centres"].read_table(CENTRES_FILE)
    label, points = to_numpy(table, LABEL), to_numpy(table, "centre")
    centres = {int(c): points[label == c] for c in np.unique(label)}
    kept = np.sort(to_numpy(job.inputs["select"].read_table("kept.parquet", columns=[SAMPLE_ID]), SAMPLE_ID))
    scorer = Scorer(job)
    for start in range(0, len(kept), ROWS_PER_FILE):
        ids = kept[start : start + ROWS_PER_FILE]
        images, labels = read_images(job.inputs, ids)
        origin = origin_generation(ids)
        synthetic = origin != REAL
        flat = images[synthetic].reshape(synthetic.sum(), -1)
        moved = move_to_centres(flat, labels[synthetic], centres, job.config["strength"])
        images[synthetic] = np.rint(moved).clip(0, 255).astype(np.uint8).reshape(images[synthetic].shape)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(origin),
            IS_REAL: pa.array(~synthetic),
            IMAGE: tensor_column(images),
            **scorer.score(images, ids, labels).columns(),
        }
        job.attempt.write_table(f"images/part-{start // ROWS_PER_FILE:05d}.parquet", pa.table(columns))
