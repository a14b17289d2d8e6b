"""What stages write, and how it is read back.

    real             images/SPLIT/part-*.parquet    ID, label, image
    feature_network  network.safetensors            weights of the classifier; no file of a network that is ready made
    labels           labels.parquet                 sample_id, label
    train            model.safetensors              weights; losses.parquet: step, loss
    extrapolate      model.safetensors              weights
    probe            probe.safetensors              weights
    score            SPLIT/shard-*.parquet          ID, KNOWN; latents/SPLIT/shard-*.parquet: sample_id, latent
    generate         images/shard-*.parquet         ID, KNOWN, image; latents/shard-*.parquet: sample_id, latent
    rescore          scores/shard-*.parquet         sample_id, confidence; latents/shard-*.parquet: sample_id, latent
    select           kept.parquet                   sample_id, generation; score where the selector scores
    centres          centres.parquet                label, centre
    correct          images/part-*.parquet          ID, KNOWN without trajectory_variance, image
    floor, evaluate  metrics.json                   metrics by name, null where undefined

SPLIT is train, held_out or fresh; ID is sample_id, generation, is_real; KNOWN is label, features, confidence,
trajectory_variance, and denoising_error where the selector reads it. Types of columns: `common.samples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autophagy.common.samples import (
    CONFIDENCE,
    GENERATION,
    IMAGE,
    IS_REAL,
    LABEL,
    LATENT,
    PIXELS,
    REAL,
    SAMPLE_ID,
    origin_generation,
    sample_ids,
)
from autophagy.data.tables import each_once, tensor_column, to_numpy
from autophagy.denoisers import make_model
from autophagy.denoisers.base import Shape
from autophagy.features.probe import Probe
from autophagy.selection import Candidates
from autophagy.store import Artifact, Attempt

if TYPE_CHECKING:
    from autophagy.denoisers.base import Denoiser

SPLITS = ("train", "held_out", "fresh")  # of the real images
TRAINED_ON = ("train", "fresh")  # those of them that may be trained on
ROWS_PER_FILE = 4096

# Folders and files of an artifact.
IMAGES, SCORES, LATENTS = "images", "scores", "latents"
KEPT = "kept.parquet"  # of `select`, the most preferred first; with a score only where the selector scores
LABELS = "labels.parquet"  # of `labels`: sample_id, label
CENTRES = "centres.parquet"  # of `centres`: label, centre
LOSSES = "losses.parquet"  # of `train`: step, loss
WEIGHTS = "model.safetensors"  # of `train` and `extrapolate`
NETWORK = "network.safetensors"  # of `feature_network`
PROBE = "probe.safetensors"
METRICS = "metrics.json"

Inputs = Mapping[str, Artifact]  # by role
# Roles with a generation in them, which are several inputs of one kind.
SAMPLES, RESCORED = "samples/", "rescore/"


def several(inputs: Inputs, kind: str) -> list[Artifact]:
    """The inputs of a kind of which there may be several: SAMPLES or RESCORED."""
    return [artifact for role, artifact in inputs.items() if role.startswith(kind)]


# Real images


@dataclass(frozen=True)
class RealInfo:
    """What a `real` artifact says of itself."""

    sizes: Mapping[str, int]  # images by split
    first_index: Mapping[str, int]  # index of the first image of each split
    channels: int
    num_classes: int  # 0 without labels
    classes: Sequence[str]  # names by label

    @classmethod
    def of(cls, real: Artifact) -> RealInfo:
        """From the manifest."""
        return cls(**{field.name: real.info[field.name] for field in fields(cls)})


def real_file(split: str, number: int) -> str:
    """File of some real images of a split."""
    return f"{IMAGES}/{split}/part-{number:05d}.parquet"


def real_ids(inputs: Inputs, split: str, unseen: Sequence[int] = ()) -> np.ndarray:
    """Sample ids of a split of the real images, int64, sorted; those of `unseen` classes are left out."""
    info = RealInfo.of(inputs["real"])
    ids = sample_ids(REAL, info.first_index[split], info.sizes[split])
    if not unseen:
        return ids
    table = inputs["real"].read_table(f"{IMAGES}/{split}", columns=[SAMPLE_ID, LABEL]).sort_by(SAMPLE_ID)
    return ids[~np.isin(told_labels(inputs, ids, to_numpy(table, LABEL)), unseen)]


def real_images(
    inputs: Inputs, split: str, start: int = 0, count: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C], labels int64 [n] and sample ids of a split of `real`, or of a part of it.

    The labels are those of the `labels` input if there is one: what a loop is told stands in for what the data know.
    """
    real = inputs["real"]
    span = None
    if count is not None:
        low = int(sample_ids(REAL, RealInfo.of(real).first_index[split] + start, 1)[0])
        span = (pc.field(SAMPLE_ID) >= low) & (pc.field(SAMPLE_ID) < low + count)
    table = real.read_table(f"{IMAGES}/{split}", columns=[SAMPLE_ID, LABEL, IMAGE], filter=span)
    table = table.sort_by(SAMPLE_ID)
    ids = to_numpy(table, SAMPLE_ID)
    # Copied: Arrow's memory is read-only.
    return to_numpy(table, IMAGE).copy(), told_labels(inputs, ids, to_numpy(table, LABEL)).copy(), ids


def told_labels(inputs: Inputs, ids: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Labels int64 [n] of the images `ids`: those that the `labels` input tells, where there is one and it knows them.

    Args:
        inputs: Artifacts by role, as a stage has them.
        ids: int64 [n].
        label: int64 [n], what the images came with.
    """
    if "labels" not in inputs:
        return label
    table = inputs["labels"].read_table(LABELS).sort_by(SAMPLE_ID)
    known, told = to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL)
    rows = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[rows] == ids, told[rows], label)


# Samples


def sample_columns(ids: np.ndarray) -> dict[str, pa.Array]:
    """The first columns of every table of images, from their ids."""
    origin = origin_generation(ids)
    return {SAMPLE_ID: pa.array(ids), GENERATION: pa.array(origin), IS_REAL: pa.array(origin == REAL)}


def image_file(shard: int) -> str:
    """File of a shard's images and scores."""
    return f"{IMAGES}/shard-{shard:06d}.parquet"


def latent_file(shard: int) -> str:
    """File of a shard's latents: heavy, so for measured samples only, unless a selector reads them."""
    return f"{LATENTS}/shard-{shard:06d}.parquet"


def write_latents(attempt: Attempt, name: str, ids: np.ndarray, latent: np.ndarray | None, count: int) -> int:
    """Write the latents [n, L] of the first `count` images to a file of their own; returns how many files that takes.

    That is one or, without latents or images, none.
    """
    if latent is None or count <= 0:
        return 0
    table = pa.table({SAMPLE_ID: pa.array(ids), LATENT: tensor_column(latent.astype(np.float16))})
    attempt.write_table(name, table.slice(0, count))
    return 1


def read_images(inputs: Inputs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C] and labels int64 [n] of n >= 1 real and generated samples, sorted by sample id."""
    # Only a range lets Parquet skip row groups unread.
    within = (pc.field(SAMPLE_ID) >= int(ids.min())) & (pc.field(SAMPLE_ID) <= int(ids.max()))
    wanted = within & pc.field(SAMPLE_ID).isin(pa.array(ids))
    sources = [*([inputs["real"]] if "real" in inputs else []), *several(inputs, SAMPLES)]
    tables = [a.read_table(IMAGES, columns=[SAMPLE_ID, LABEL, IMAGE], filter=wanted) for a in sources]
    table = each_once(pa.concat_tables(tables), ids)
    label = told_labels(inputs, to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL))
    return to_numpy(table, IMAGE).copy(), label.copy()  # Arrow's memory is read-only


def first_rows(artifact: Artifact, part: str, columns: list[str], count: int) -> pa.Table:
    """Columns of the first `count` images of a part.

    Raises:
        RuntimeError: it has fewer: a metric of fewer images is another number.
    """
    table = artifact.read_table(part, columns=[SAMPLE_ID, *columns]).sort_by(SAMPLE_ID).slice(0, count)
    if table.num_rows < count:
        what = f"{artifact.stage} {artifact.key}: {part}"
        raise RuntimeError(f"{what} has {table.num_rows} images of {count}; `autophagy store verify` looks for damage")
    return table


def kept_ids(inputs: Inputs) -> np.ndarray:
    """What `select` kept, int64, the most preferred first."""
    return to_numpy(inputs["select"].read_table(KEPT, columns=[SAMPLE_ID]), SAMPLE_ID)


def training_set(inputs: Inputs, unseen: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C], labels int64 [n] and sample ids int64 [n], sorted, of a `train` stage.

    They are the whole of the `training_set` input if there is one, else what `select` kept, else the real set R
    without `unseen` classes.
    """
    if "training_set" in inputs:
        table = inputs["training_set"].read_table(IMAGES, columns=[SAMPLE_ID, LABEL, IMAGE]).sort_by(SAMPLE_ID)
        return to_numpy(table, IMAGE).copy(), to_numpy(table, LABEL).copy(), to_numpy(table, SAMPLE_ID).copy()
    ids = np.sort(kept_ids(inputs) if "select" in inputs else real_ids(inputs, "train", unseen))
    return *read_images(inputs, ids), ids


# What is known of samples


def scored_splits(inputs: Inputs) -> list[str]:
    """Splits of the real images that may be trained on, and that were scored."""
    return [split for split in TRAINED_ON if inputs["score"].parquet_files(split)]


def read_scores(inputs: Inputs, ids: np.ndarray, columns: list[str]) -> pa.Table:
    """Columns of real and generated samples, one row per id, sorted by sample id.

    Raises:
        RuntimeError: an id is in none of the inputs.
    """
    wanted = pc.field(SAMPLE_ID).isin(pa.array(ids))
    tables = [inputs["score"].read_table(split, columns=columns, filter=wanted) for split in scored_splits(inputs)]
    tables += [a.read_table(IMAGES, columns=columns, filter=wanted) for a in several(inputs, SAMPLES)]
    return each_once(pa.concat_tables(tables), ids)


def read_candidates(inputs: Inputs, ids: np.ndarray, needs: frozenset[str]) -> Candidates:
    """The columns a selector needs of the samples `ids`, sorted by sample id."""
    light = sorted(needs - {LABEL, LATENT, PIXELS})
    table = read_scores(inputs, ids, [SAMPLE_ID, GENERATION, LABEL, *light])
    columns: dict[str, Any] = {name: to_numpy(table, name) for name in light}
    rescored = several(inputs, RESCORED)  # by the probe that was refitted last; none where it never was
    if CONFIDENCE in needs and rescored:
        columns[CONFIDENCE] = _read_column([(artifact, SCORES) for artifact in rescored], ids, CONFIDENCE)
    if LATENT in needs:
        parts = [(artifact, LATENTS) for artifact in rescored or several(inputs, SAMPLES)]
        parts += [] if rescored else [(inputs["score"], f"{LATENTS}/{split}") for split in scored_splits(inputs)]
        columns[LATENT] = _read_column(parts, ids, LATENT).astype(np.float32)
    if PIXELS in needs:
        columns[PIXELS] = read_images(inputs, ids)[0].reshape(len(ids), -1)
    return Candidates(
        sample_id=to_numpy(table, SAMPLE_ID),
        generation=to_numpy(table, GENERATION),
        label=to_numpy(table, LABEL),
        **columns,
    )


def _read_column(parts: Iterable[tuple[Artifact, str]], ids: np.ndarray, name: str) -> np.ndarray:
    """A column of the images `ids`, in the order of their ids; each is in one of the parts."""
    wanted = pc.field(SAMPLE_ID).isin(pa.array(ids))
    tables = [artifact.read_table(part, columns=[SAMPLE_ID, name], filter=wanted) for artifact, part in parts]
    return to_numpy(each_once(pa.concat_tables(tables), ids), name)


# Models


def load_denoiser(artifact: Artifact, use_gpu: bool = False) -> Denoiser:
    """The trained denoiser of a `train` or `extrapolate` artifact, ready to generate."""
    from autophagy.denoisers.weights import trained_denoiser

    model, shape = make_model(artifact.info["model"]), Shape(*artifact.info["shape"])
    return trained_denoiser(model, shape, artifact.read_bytes(WEIGHTS), use_gpu)


def read_probe(artifact: Artifact) -> Probe:
    """The fitted probe of a `probe` artifact."""
    return Probe.from_bytes(artifact.read_bytes(PROBE), dict(artifact.info))


def read_network(artifact: Artifact) -> bytes | None:
    """The weights of a feature network; None of one that is ready made."""
    return artifact.read_bytes(NETWORK) if artifact.files() else None


def write_metrics(attempt: Attempt, values: Mapping[str, float]) -> None:
    """Write metrics by key; those that are NaN as null."""
    attempt.write_json(METRICS, {name: None if np.isnan(value) else float(value) for name, value in values.items()})


def read_metrics(artifact: Artifact) -> dict[str, float]:
    """Metrics of an `evaluate` or `floor` artifact by key, NaN where undefined."""
    values: dict[str, Any] = artifact.read_json(METRICS)
    return {name: float("nan") if value is None else value for name, value in values.items()}
