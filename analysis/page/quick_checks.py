"""The quick checks of Latent Space Filtering (arXiv 2511.12742) on one loop: what its latents, scores and images show.

All but OLE at further timesteps is read from what the stages keep; nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from autophagy.common.samples import CONFIDENCE, FEATURES, IMAGE, REAL, SAMPLE_ID, origin_generation
from autophagy.data.tables import to_numpy
from autophagy.metrics.rows import TooFewRows
from autophagy.metrics.structure import balanced_ole
from autophagy.runs.stored import StoredLoop
from autophagy.stages.payloads import load_denoiser, read_images
from autophagy.store import Artifact

PER_GENERATION = 200  # points of a scatter plot, and images encoded at further timesteps


def latents_in_plane(loop: StoredLoop, count: int = PER_GENERATION) -> tuple[pd.DataFrame, float]:
    """Latents in the plane that real ones vary in most, and the share of their variance that the plane holds.

    The axes are the first two principal components of held-out real latents, the same for all generations: what
    drifts, drifts in the picture.

    Returns:
        Columns `generation` (REAL = -1), `x`, `y`, `label`: `count` rows a generation.
    """
    from sklearn.decomposition import PCA

    real, label = loop.latents(REAL, 10 * count)
    plane = PCA(n_components=2, svd_solver="randomized", random_state=0).fit(real)
    parts = [_placed(REAL, plane.transform(real[:count]), label[:count])]
    for k in loop.generations:
        latent, label = loop.latents(k, count)
        parts.append(_placed(k, plane.transform(latent), label))
    return pd.concat(parts, ignore_index=True), float(plane.explained_variance_ratio_.sum())


def _placed(generation: int, points: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"generation": generation, "x": points[:, 0], "y": points[:, 1], "label": label})


def confidence_distribution(loop: StoredLoop, num_samples: int, points: int = 51) -> pd.DataFrame:
    """Share of the measured images that are at most so sure of their own label.

    Returns:
        Columns `generation` (REAL: held-out real images), `confidence` in [0, 1] and `share`. Empty without a probe.
    """
    grid = np.linspace(0, 1, points)
    rows = []
    for k in (REAL, *loop.generations):
        values = to_numpy(loop.scores(k, [CONFIDENCE], num_samples), CONFIDENCE)
        values = values[~np.isnan(values)]
        if len(values):
            shares = np.searchsorted(np.sort(values), grid, side="right") / len(values)
            rows += [(k, float(c), float(s)) for c, s in zip(grid, shares, strict=True)]
    return pd.DataFrame(rows, columns=["generation", "confidence", "share"])


def ole_by_timestep(loop: StoredLoop, timesteps: Sequence[int] = (), count: int = 2 * PER_GENERATION) -> pd.DataFrame:
    """OLE by generation and timestep: columns `generation` (REAL: training images), `timestep`, `ole`.

    The cached latents are those of the probe's first timestep. For others `count` images of every generation are
    encoded, which takes seconds for small images. All are normalised alike: the same number of unit rows of each class.

    Args:
        timesteps: In 0 .. num_train_timesteps - 1; none: the probe's own, from cached latents.
    """

    probe = loop.needed("probe")
    rows = []
    if not timesteps:
        for k in (REAL, *loop.generations):
            rows.append((k, int(probe.info["timesteps"][0]), _ole(*loop.latents(k, count))))
    else:
        from autophagy.denoisers.latents import Encoder

        encoder = Encoder(load_denoiser(loop.needed("train")))
        noise = {"pool": probe.info["pool"], "seed": probe.info["seed"]}
        for k in (REAL, *loop.generations):
            images, label, ids = loop.images(k, count)
            rows += [(k, t, _ole(encoder.encode(images.copy(), ids, t, **noise), label)) for t in timesteps]
    return pd.DataFrame(rows, columns=["generation", "timestep", "ole"]).dropna()


def _ole(latents: np.ndarray, label: np.ndarray) -> float:
    """The metric `ole`, of the classes that there are; NaN without labels."""
    try:
        return balanced_ole(latents, label, len(np.unique(label)), seed=0)
    except TooFewRows:
        return float("nan")


@dataclass(frozen=True)
class Neighbours:
    """Generated images beside the training images that are nearest to them in feature space; n pairs."""

    generated: np.ndarray  # uint8 [n, H, W, C]
    nearest: np.ndarray  # uint8 [n, H, W, C]
    distance: np.ndarray  # float64 [n], rising
    origin: np.ndarray  # int32 [n], generation that the training image is from; REAL = -1
    copies: float  # share of all compared images with d1/d2 < 1/3: what `memorization_ratio` counts


def nearest_training_images(loop: StoredLoop, generation: int, pairs: int = 8, count: int = 500) -> Neighbours:
    """What the model of a generation made, beside what it was trained on: pairs from the nearest to the farthest.

    Args:
        pairs: How many, evenly spaced over the ranks of the distance.
        count: Generated images that are compared.
    """
    from sklearn.neighbors import NearestNeighbors

    table = loop.scores(generation, [FEATURES, IMAGE], count)
    ids, features, lookup = _training_set(loop, generation)
    distances, rows = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(to_numpy(table, FEATURES))
    order = np.argsort(distances[:, 0], kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(pairs, len(order))).astype(int)]
    wanted = ids[rows[shown, 0]]
    images = _images_of(loop, np.unique(wanted), lookup)
    return Neighbours(
        to_numpy(table, IMAGE)[shown],
        images[np.searchsorted(np.unique(wanted), wanted)],
        distances[shown, 0],
        origin_generation(wanted),
        float((distances[:, 0] < distances[:, 1] / 3).mean()),
    )


def _training_set(loop: StoredLoop, generation: int) -> tuple[np.ndarray, np.ndarray, Artifact | None]:
    """Ids and features of the training set, sorted by id; and the stage that holds its images if it was corrected."""
    corrected = loop.stage("correct", generation) if generation else None
    if corrected:
        tables = [corrected.read_table("images", columns=[SAMPLE_ID, FEATURES])]
    elif generation == 0:
        tables = [loop.needed("score").read_table("train", columns=[SAMPLE_ID, FEATURES])]
    else:
        kept = loop.needed("select", generation).read_table("kept.parquet", columns=[SAMPLE_ID])
        wanted = pc.field(SAMPLE_ID).isin(kept[SAMPLE_ID])
        score = loop.needed("score")
        parts = [(score, split) for split in ("train", "fresh") if score.parquet_files(split)]
        parts += [(loop.needed("generate", k), "images") for k in range(generation)]
        tables = [a.read_table(part, columns=[SAMPLE_ID, FEATURES], filter=wanted) for a, part in parts]
    table = pa.concat_tables(tables).sort_by(SAMPLE_ID)
    return to_numpy(table, SAMPLE_ID), to_numpy(table, FEATURES), corrected


def _images_of(loop: StoredLoop, ids: np.ndarray, corrected: Artifact | None) -> np.ndarray:
    """Images of some training images, sorted by id."""
    if corrected:
        table = corrected.read_table("images", [SAMPLE_ID, IMAGE], filter=pc.field(SAMPLE_ID).isin(pa.array(ids)))
        return to_numpy(table.sort_by(SAMPLE_ID), IMAGE)
    origins = sorted(set(origin_generation(ids).tolist()) - {REAL})
    samples = {f"samples/{k}": loop.needed("generate", k) for k in origins}
    return read_images({"real": loop.needed("real")} | samples, ids)[0]
