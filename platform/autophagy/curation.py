"""The real images, and which images a generation is trained on: the `real`, `rescore` and `select` stages."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autophagy.data import each_once, load_images, read_images, real_ids, split, tensor_column, to_numpy, to_table
from autophagy.features import device_of
from autophagy.records import (
    CONFIDENCE,
    DENOISING_ERROR,
    FEATURES,
    GENERATION,
    LABEL,
    LATENT,
    REAL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    origin_generation,
    rng_for,
    sample_ids,
)
from autophagy.scenarios import Pool, make_scenario
from autophagy.scoring import Encoder, read_probe
from autophagy.selection import Candidates, make_selector
from autophagy.stages import Job, once, stream
from autophagy.store import NUM_FILES, Artifact

ROWS_PER_FILE = 4096


def ingest(job: Job) -> dict[str, Any]:
    """Builder of the `real` stage: reads the source, splits it, writes the images once."""
    data = job.config["data"]
    images = load_images(job.runtime["source"], data["image_size"])
    parts = split(
        len(images.image), data["num_real"], data["num_held_out"], job.config["num_fresh"], job.config["seed"]
    )
    sizes, first_index, index = {}, {}, 0
    for name in ("train", "held_out", "fresh"):
        rows = getattr(parts, name)
        table = to_table(images, rows, sample_ids(REAL, index, len(rows)))
        for start in range(0, len(rows), ROWS_PER_FILE):
            part = table.slice(start, ROWS_PER_FILE)
            job.attempt.write_table(f"images/{name}/part-{start // ROWS_PER_FILE:05d}.parquet", part)
        sizes[name], first_index[name] = len(rows), index
        index += len(rows)
    return {
        "sizes": sizes,
        "first_index": first_index,
        "channels": images.image.shape[3],
        "num_classes": int(images.label.max()) + 1,
        "classes": list(images.classes),
    }


def select(job: Job) -> dict[str, Any]:
    """Builder of a `select` stage: the ids that generation k is trained on, in order of preference.

    Inputs: `real`, `score` (real images) and `samples/j` of every generation whose samples may be candidates; and
    `rescore/j`, if the probe was refitted, which together score every candidate once.
    """
    config, generation = job.config, job.config["generation"]
    scenario, selector = make_scenario(config["scenario"]), make_selector(config["selection"])
    wanted = candidate_ids(job)
    candidates = read_candidates(job, wanted, selector.needs)
    if selector.compares_with_real:
        reference = read_candidates(job, real_ids(job.inputs, "train", _unseen(job)), selector.needs)
        candidates = dataclasses.replace(candidates, reference=reference)
    num_keep = scenario.num_keep(len(wanted), config["budget"])
    candidates = dataclasses.replace(candidates, score=selector.scores(candidates))
    kept = selector.select(candidates, num_keep, rng_for(config["seed"], "select", generation))
    columns = {SAMPLE_ID: candidates.sample_id[kept], GENERATION: candidates.generation[kept]}
    if candidates.score is not None:
        columns["score"] = candidates.score[kept]
    job.attempt.write_table("kept.parquet", pa.table(columns))
    return {
        "num_candidates": len(wanted),
        "num_kept": len(kept),
        "real_share_of_candidates": float(candidates.is_real.mean()),
        "real_share": float(candidates.is_real[kept].mean()),
    }


def candidate_ids(job: Job) -> np.ndarray:
    """Ids of the candidates of a generation, int64, sorted: what its scenario says, of the classes there are by then.

    Samples need no look: they are asked for only of classes that have appeared.
    """
    config, generation = job.config, job.config["generation"]
    made = tuple(sample_ids(j, 0, config["num_candidates"]) for j in range(generation))
    pool = Pool(real_ids(job.inputs, "train", _unseen(job)), real_ids(job.inputs, "fresh"), made)
    rng = rng_for(config["seed"], "candidates", generation)
    return make_scenario(config["scenario"]).candidates(pool, rng)


@dataclasses.dataclass(frozen=True)
class Rescore:
    """Confidence of one shard of candidates, all of one origin, by the probe that was fitted last."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id [1, n] in, its number of images and of files out."""
        job, ids = self.job, batch[SAMPLE_ID][0]
        origin = int(origin_generation(ids[:1])[0])
        role = "real" if origin == REAL else f"samples/{origin}"
        inputs = {name: job.inputs[name] for name in (role, "labels") if name in job.inputs}
        images, label = read_images(inputs, ids)
        probe = once(f"probe {job.key}", lambda: read_probe(job.inputs["probe"]))
        encoder = once(
            f"encoder {job.key}", lambda: Encoder(job.inputs["encoder"], probe.pool, probe.seed, device_of(job))
        )
        hidden = [encoder.encode(images, ids, t) for t in probe.timesteps]
        columns = {SAMPLE_ID: pa.array(ids), CONFIDENCE: pa.array(probe.confidence(hidden, label))}
        job.attempt.write_table(f"scores/shard-{ids[0]}.parquet", pa.table(columns))
        if job.config["latents"]:
            columns = {SAMPLE_ID: pa.array(ids), LATENT: tensor_column(hidden[0].astype(np.float16))}
            job.attempt.write_table(f"latents/shard-{ids[0]}.parquet", pa.table(columns))
        return {"count": np.array([len(ids)]), "files": np.array([2 if job.config["latents"] else 1])}


def rescore(job: Job) -> dict[str, Any]:
    """Builder of a `rescore` stage: candidates of a generation as a refitted probe sees them, each image once.

    Inputs: as for `select`; `encoder` and `probe`, those of the generation of the last refit; and `rescore/j`, what
    the generations since then have scored already, which is not scored again.
    """
    done = [to_numpy(a.read_table("scores", columns=[SAMPLE_ID]), SAMPLE_ID) for a in _rescored(job)]
    todo = np.setdiff1d(candidate_ids(job), np.concatenate([*done, np.empty(0, np.int64)]))
    origin, size = origin_generation(todo), job.config["shard_size"]
    of_one_origin = [todo[origin == generation] for generation in np.unique(origin)]
    shards = [{SAMPLE_ID: ids[start : start + size]} for ids in of_one_origin for start in range(0, len(ids), size)]
    rows = list(stream(job, shards, Rescore))
    count = sum(int(row["count"]) for row in rows)
    if count != len(todo):
        raise RuntimeError(f"rescore: {count} of {len(todo)} images came back")
    return {"num_images": count, NUM_FILES: sum(int(row["files"]) for row in rows)}


def read_candidates(job: Job, ids: np.ndarray, needs: frozenset[str]) -> Candidates:
    """The columns a selector needs of the samples `ids`, sorted by sample id."""
    light = [c for c in (FEATURES, CONFIDENCE, DENOISING_ERROR, TRAJECTORY_VARIANCE) if c in needs]
    table = read_scores(job, ids, [SAMPLE_ID, GENERATION, LABEL, *light])
    columns: dict[str, Any] = {name: to_numpy(table, name) for name in light}
    rescored = _rescored(job)
    if CONFIDENCE in needs and rescored:
        columns[CONFIDENCE] = _read_column([(artifact, "scores") for artifact in rescored], ids, CONFIDENCE)
    if LATENT in needs:
        parts = [(artifact, "latents") for artifact in rescored or _samples(job)]
        parts += [] if rescored else [(job.inputs["score"], f"latents/{split}") for split in _splits(job)]
        columns[LATENT] = _read_column(parts, ids, LATENT).astype(np.float32)
    if "pixels" in needs:
        columns["pixels"] = read_images(job.inputs, ids)[0].reshape(len(ids), -1)
    n = table.num_rows
    return Candidates(
        sample_id=to_numpy(table, SAMPLE_ID),
        generation=to_numpy(table, GENERATION),
        label=to_numpy(table, LABEL),
        features=columns.pop(FEATURES, np.zeros((n, 0), np.float32)),
        confidence=columns.pop(CONFIDENCE, np.full(n, np.nan, np.float32)),
        **columns,
    )


def _read_column(parts: list[tuple[Artifact, str]], ids: np.ndarray, name: str) -> np.ndarray:
    """A column of the images `ids`, in the order of their ids; each is in one of the parts."""
    wanted = pc.field(SAMPLE_ID).isin(pa.array(ids))
    tables = [artifact.read_table(part, columns=[SAMPLE_ID, name], filter=wanted) for artifact, part in parts]
    return to_numpy(each_once(pa.concat_tables(tables), ids), name)


def read_scores(job: Job, ids: np.ndarray, columns: list[str]) -> pa.Table:
    """Columns of real and generated samples, one row per id, sorted by sample id.

    Raises:
        RuntimeError: an id is in none of the job's inputs.
    """
    wanted = pc.field(SAMPLE_ID).isin(pa.array(ids))
    tables = [job.inputs["score"].read_table(columns=columns, name=s, filter=wanted) for s in _splits(job)]
    tables += [a.read_table("images", columns=columns, filter=wanted) for a in _samples(job)]
    return each_once(pa.concat_tables(tables), ids)


def _samples(job: Job) -> list[Artifact]:
    return [artifact for role, artifact in job.inputs.items() if role.startswith("samples/")]


def _rescored(job: Job) -> list[Artifact]:
    """Scores by the probe that was refitted last; none where it never was."""
    return [artifact for role, artifact in job.inputs.items() if role.startswith("rescore/")]


def _unseen(job: Job) -> list[int]:
    """Classes that have not appeared yet."""
    return job.config.get("unseen", [])


def _splits(job: Job) -> list[str]:
    """Splits of the real images that may be trained on and have any."""
    return [s for s in ("train", "fresh") if job.inputs["score"].parquet_files(s)]
