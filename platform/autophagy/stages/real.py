"""`real`: the real images, split."""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa

from autophagy.common.samples import IMAGE, LABEL, REAL, sample_ids
from autophagy.common.section import RUNTIME, Section
from autophagy.config import Experiment
from autophagy.data.splits import split
from autophagy.data.tables import tensor_column
from autophagy.engine.job import Info, Job
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import ROWS_PER_FILE, SPLITS, RealInfo, real_file, sample_columns

VERSION = 1


class Images(Section):
    """What images there are to be."""

    source: str  # its kind; the fingerprint says what the data are, so that they may lie elsewhere tomorrow
    image_size: int
    num_real: int | None
    num_held_out: int | None


class Config(Section):
    """What a `real` stage is keyed by."""

    data: Images
    fingerprint: str
    num_fresh: int  # set aside; with num_real given these are simply all others, and all scenarios share the split
    seed: int
    source: Annotated[str, RUNTIME]  # where the images are


def stage(e: Experiment) -> Stage:
    """The real images of a loop, by their content and the split."""
    from autophagy.data.sources.open import absolute, fingerprint

    data = e.data
    config = Config(
        data=Images(
            source=data.source.partition(":")[0],
            image_size=data.image_size,
            num_real=data.num_real,
            num_held_out=data.num_held_out,
        ),
        fingerprint=fingerprint(data.source),
        num_fresh=e.num_set_aside,
        seed=e.seed,
        source=absolute(data.source),
    )
    return Stage("real", build, config, version=VERSION)


def build(job: Job[Config]) -> Info:
    """Read the source, split it, write the images once."""
    from autophagy.data.pixels import load_images

    config = job.config
    images = load_images(config.source, config.data.image_size)
    parts = split(len(images.image), config.data.num_real, config.data.num_held_out, config.num_fresh, config.seed)
    sizes, first_index, index = {}, {}, 0
    for name in SPLITS:
        rows = getattr(parts, name)
        columns = {LABEL: pa.array(images.label[rows]), IMAGE: tensor_column(images.image[rows])}
        table = pa.table(sample_columns(sample_ids(REAL, index, len(rows))) | columns)
        for start in range(0, len(rows), ROWS_PER_FILE):
            job.attempt.write_table(real_file(name, start // ROWS_PER_FILE), table.slice(start, ROWS_PER_FILE))
        sizes[name], first_index[name] = len(rows), index
        index += len(rows)
    info = RealInfo(sizes, first_index, images.image.shape[3], int(images.label.max()) + 1, list(images.classes))
    return dict(vars(info))
