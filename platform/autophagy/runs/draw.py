"""The pictures of one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from autophagy.common.records import GenerationRecord
from autophagy.common.samples import IMAGE, SAMPLE_ID, sample_ids
from autophagy.data.tables import to_numpy
from autophagy.engine.cluster import start_ray
from autophagy.engine.workers import run_in_worker
from autophagy.runs.folder import CURVES, DRAWN, SAMPLES, RunFolder, drawing_mark
from autophagy.stages.payloads import IMAGES, real_images
from autophagy.store import Artifact, StageStore

GRID_COLUMNS = 16


def ensure_pictures(
    store: StageStore, name: str, real: Artifact, samples: Sequence[Artifact], records: Sequence[GenerationRecord]
) -> dict[str, bytes]:
    """Write the pictures of a run into its folder, and return them; those that are up to date stay as they are.

    They are drawn in a pooled process: the loop's own neither reads images nor loads what draws.

    Args:
        store: Where the run folder is.
        name: The run.
        real: The real images.
        samples: Those of every generation.
        records: One for each.
    """
    folder, mark = RunFolder(store, name), drawing_mark(records)
    saved = {p: folder.read(p) for p in (CURVES, SAMPLES)}
    if folder.read(DRAWN) == mark and all(saved.values()):
        return {p: data for p, data in saved.items() if data}
    start_ray()
    pictures = run_in_worker(draw, name, real, samples, list(records))
    for picture, png in pictures.items():
        folder.write(picture, png)
    folder.write(DRAWN, mark)
    return pictures


def draw(
    name: str, real: Artifact, samples: Sequence[Artifact], records: Sequence[GenerationRecord]
) -> dict[str, bytes]:
    """Collapse curves and a grid of samples, as PNG by file name."""
    from autophagy.runs.pictures import collapse_curves, sample_grid

    rows = [("real", real_images({"real": real}, "train", count=GRID_COLUMNS)[0])]
    rows += [(f"generation {k}", first_samples(k, artifact)) for k, artifact in enumerate(samples)]
    return {CURVES: collapse_curves({name: [list(records)]}), SAMPLES: sample_grid(rows, columns=GRID_COLUMNS)}


def first_samples(generation: int, artifact: Artifact) -> np.ndarray:
    """The first samples of a generation, uint8 [16, H, W, C]: all that a grid shows."""
    wanted = pc.field(SAMPLE_ID) < int(sample_ids(generation, GRID_COLUMNS, 1)[0])
    table = artifact.read_table(IMAGES, columns=[SAMPLE_ID, IMAGE], filter=wanted)
    return to_numpy(table.sort_by(SAMPLE_ID), IMAGE)
