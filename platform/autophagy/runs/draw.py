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
from autophagy.store import Artifact, StageStore

GRID_COLUMNS = 16


def ensure_pictures(
    name: str, store: StageStore, real: Artifact, samples: Sequence[Artifact], records: Sequence[GenerationRecord]
) -> dict[str, bytes]:
    """Write the pictures of a run into its folder, and return them; those that are up to date stay as they are.

    They are drawn in a pooled process: the loop's own neither reads images nor loads what draws.

    Args:
        name: The run.
        store: Where its folder is.
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

    rows = [("real", first_images(real, "images/train", real.info["first_index"]["train"]))]
    for k, artifact in enumerate(samples):
        rows.append((f"generation {k}", first_images(artifact, "images", int(sample_ids(k, 0, 1)[0]))))
    return {CURVES: collapse_curves({name: [list(records)]}), SAMPLES: sample_grid(rows, columns=GRID_COLUMNS)}


def first_images(artifact: Artifact, part: str, first_id: int) -> np.ndarray:
    """The first images of a part, uint8 [16, H, W, C]: all that a sample grid shows."""
    wanted = pc.field(SAMPLE_ID) < first_id + GRID_COLUMNS
    table = artifact.read_table(part, columns=[SAMPLE_ID, IMAGE], filter=wanted)
    return to_numpy(table.sort_by(SAMPLE_ID), IMAGE)
