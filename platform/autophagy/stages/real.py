"""The real images, split."""

from __future__ import annotations

from typing import Any

from autophagy.common.samples import REAL, sample_ids
from autophagy.data.pixels import load_images
from autophagy.data.splits import split
from autophagy.data.tables import to_table
from autophagy.engine.job import Job
from autophagy.stages.payloads import ROWS_PER_FILE


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
