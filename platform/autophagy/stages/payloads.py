"""What stages write, read back: files and columns of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load
from torch import Tensor

from autophagy.common.samples import (
    CONFIDENCE,
    DENOISING_ERROR,
    FEATURES,
    GENERATION,
    IMAGE,
    LABEL,
    LATENT,
    REAL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    sample_ids,
)
from autophagy.data.tables import each_once, to_numpy
from autophagy.denoisers.config import Model
from autophagy.denoisers.latents import Encoder
from autophagy.denoisers.unet import build_denoiser
from autophagy.engine.job import Job
from autophagy.features.probe import Probe
from autophagy.selection import Candidates
from autophagy.store import Artifact

if TYPE_CHECKING:
    from diffusers import UNet2DModel

LABELS_FILE = "labels.parquet"  # payload of a `labels` artifact: sample_id, label


def real_ids(inputs: Mapping[str, Artifact], split: str, unseen: Sequence[int] = ()) -> np.ndarray:
    """Sample ids of a split of the real images, int64, sorted; those of `unseen` classes are left out."""
    real = inputs["real"]
    ids = sample_ids(REAL, real.info["first_index"][split], real.info["sizes"][split])
    if not unseen:
        return ids
    table = real.read_table(f"images/{split}", columns=[SAMPLE_ID, LABEL]).sort_by(SAMPLE_ID)
    return ids[~np.isin(told_labels(inputs, ids, to_numpy(table, LABEL)), unseen)]


def read_images(inputs: Mapping[str, Artifact], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C] and labels int64 [n] of n >= 1 real and generated samples, sorted by sample id."""
    # Only a range lets Parquet skip row groups unread.
    within = (pc.field(SAMPLE_ID) >= int(ids.min())) & (pc.field(SAMPLE_ID) <= int(ids.max()))
    wanted = within & pc.field(SAMPLE_ID).isin(pa.array(ids))
    sources = [artifact for role, artifact in inputs.items() if role == "real" or role.startswith("samples/")]
    tables = [a.read_table("images", columns=[SAMPLE_ID, LABEL, IMAGE], filter=wanted) for a in sources]
    table = each_once(pa.concat_tables(tables), ids)
    label = told_labels(inputs, to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL))
    return to_numpy(table, IMAGE).copy(), label.copy()  # Arrow's memory is read-only


def told_labels(inputs: Mapping[str, Artifact], ids: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Labels int64 [n] of the images `ids`: those that the `labels` input tells, where there is one and it knows them.

    Args:
        inputs: Artifacts by role, as a stage has them.
        ids: int64 [n].
        label: int64 [n], what the images came with.
    """
    if "labels" not in inputs:
        return label
    table = inputs["labels"].read_table(LABELS_FILE).sort_by(SAMPLE_ID)
    known, told = to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL)
    rows = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[rows] == ids, told[rows], label)


WEIGHTS_FILE = "model.safetensors"  # payload of a `train` artifact


def load_denoiser(artifact: Artifact, device: torch.device) -> UNet2DModel:
    """The trained denoiser of a `train` artifact, ready to generate."""
    info = artifact.info
    denoiser = build_denoiser(Model(**info["model"]), *info["shape"])
    denoiser.load_state_dict(load(artifact.read_bytes(WEIGHTS_FILE)))
    return denoiser.to(device).eval()


def load_encoder(artifact: Artifact, pool: str, seed: int, device: torch.device) -> Encoder:
    """The denoiser of a `train` artifact as what a probe is fitted on."""
    return Encoder(load_denoiser(artifact, device), Model(**artifact.info["model"]), pool, seed)


def real_images(
    inputs: Mapping[str, Artifact], split: str, start: int = 0, count: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C], labels int64 [n] and sample ids of a split of `real`, or of a part of it.

    The labels are those of the `labels` input if there is one: what a loop is told stands in for what the data know.
    """
    real = inputs["real"]
    first = real.info["first_index"][split]
    span = None
    if count is not None:
        low = int(sample_ids(REAL, first + start, 1)[0])
        span = (pc.field(SAMPLE_ID) >= low) & (pc.field(SAMPLE_ID) < low + count)
    table = real.read_table(f"images/{split}", columns=[SAMPLE_ID, LABEL, IMAGE], filter=span)
    table = table.sort_by(SAMPLE_ID)
    ids = to_numpy(table, SAMPLE_ID)
    # Copied: Arrow's memory is read-only.
    return to_numpy(table, IMAGE).copy(), told_labels(inputs, ids, to_numpy(table, LABEL)).copy(), ids


def read_training_set(inputs: Mapping[str, Artifact], unseen: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, H, W, C] and labels int64 [n] of a `train` stage, sorted by sample id.

    They are the whole of the `training_set` input if there is one, else what `select` kept, else the real set R
    without `unseen` classes.
    """
    if "training_set" in inputs:
        table = inputs["training_set"].read_table("images", columns=[SAMPLE_ID, LABEL, IMAGE]).sort_by(SAMPLE_ID)
        return torch.tensor(to_numpy(table, IMAGE)), torch.tensor(to_numpy(table, LABEL))
    if "select" in inputs:
        ids = to_numpy(inputs["select"].read_table("kept.parquet", columns=[SAMPLE_ID]), SAMPLE_ID)
    else:
        ids = real_ids(inputs, "train", unseen)
    images, labels = read_images(inputs, ids)
    return torch.from_numpy(images), torch.from_numpy(labels)


def image_file(shard: int) -> str:
    """Payload file of a shard's images and scores."""
    return f"images/shard-{shard:06d}.parquet"


def latent_file(shard: int) -> str:
    """Payload file of a shard's latents: heavy, so for measured samples only, unless a selector reads them."""
    return f"latents/shard-{shard:06d}.parquet"


PROBE_FILE = "probe.safetensors"


def read_probe(artifact: Artifact) -> Probe:
    """The fitted probe of a `probe` artifact."""
    return Probe.from_bytes(artifact.read_bytes(PROBE_FILE), dict(artifact.info))


ROWS_PER_FILE = 4096


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


METRICS_FILE = "metrics.json"


def read_metrics(artifact: Artifact) -> dict[str, float]:
    """Metrics of an `evaluate` artifact by key, NaN where undefined."""
    values: dict[str, Any] = artifact.read_json(METRICS_FILE)
    return {name: float("nan") if value is None else value for name, value in values.items()}
