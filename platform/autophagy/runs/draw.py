"""The pictures of one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from autophagy.common.records import GenerationRecord
from autophagy.common.samples import IMAGE, SAMPLE_ID, sample_ids
from autophagy.config import Experiment
from autophagy.data.tables import to_numpy
from autophagy.engine.stage import Stages
from autophagy.runs.folder import CURVES, DRAWN, SAMPLES, drawing_mark
from autophagy.store import Artifact, StageStore

GRID_COLUMNS = 16


def draw(
    experiment: Experiment,
    store: StageStore,
    generations: Sequence[Stages],
    records: Sequence[GenerationRecord],
) -> dict[str, bytes]:
    """Write the pictures of a run into its folder, and return them; those that are up to date stay as they are."""
    name, mark = experiment.name, drawing_mark(records)
    saved = {p: store.read_run_file(name, p) for p in (CURVES, SAMPLES)}
    if store.read_run_file(name, DRAWN) == mark and all(saved.values()):
        return {p: data for p, data in saved.items() if data}
    from autophagy.runs.pictures import collapse_curves, sample_grid

    real = generations[0]["real"].ensure(store)
    rows = [("real", first_images(real, "images/train", real.info["first_index"]["train"]))]
    for k, stages in enumerate(generations):
        first_id = int(sample_ids(k, 0, 1)[0])
        rows.append((f"generation {k}", first_images(stages["generate"].ensure(store), "images", first_id)))
    pictures = {
        CURVES: collapse_curves({name: [list(records)]}),
        SAMPLES: sample_grid(rows, columns=GRID_COLUMNS),
    }
    for picture, png in pictures.items():
        store.write_run_file(name, picture, png)
    store.write_run_file(name, DRAWN, mark)
    return pictures


def first_images(artifact: Artifact, part: str, first_id: int) -> np.ndarray:
    """The first images of a part, uint8 [16, H, W, C]: all that a sample grid shows."""
    wanted = pc.field(SAMPLE_ID) < first_id + GRID_COLUMNS
    table = artifact.read_table(part, columns=[SAMPLE_ID, IMAGE], filter=wanted)
    return to_numpy(table.sort_by(SAMPLE_ID), IMAGE)
