"""Arrays in Arrow tables, and out of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from autophagy.common.samples import GENERATION, IMAGE, IS_REAL, LABEL, REAL, SAMPLE_ID
from autophagy.data.pixels import RealImages


def to_table(images: RealImages, rows: np.ndarray, sample_id: np.ndarray) -> pa.Table:
    """Some real images as a table with columns sample_id, generation, is_real, label, image.

    Args:
        images: All real images.
        rows: int64 [n], row numbers.
        sample_id: int64 [n], their ids.
    """
    n = len(rows)
    return pa.table(
        {
            SAMPLE_ID: pa.array(sample_id, pa.int64()),
            GENERATION: pa.array(np.full(n, REAL, dtype=np.int32)),
            IS_REAL: pa.array(np.ones(n, dtype=bool)),
            LABEL: pa.array(images.label[rows]),
            IMAGE: tensor_column(images.image[rows]),
        }
    )


def tensor_column(array: np.ndarray) -> pa.Array:
    """An array [n, ...] as an Arrow column of n fixed-shape tensors; n may be 0."""
    shape = array.shape[1:]
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(values.type, shape), storage)


def to_numpy(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array, [n, ...] of a tensor column or [n] of a plain one; it may be read-only."""
    column = table.column(name)
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.combine_chunks().to_numpy_ndarray()
    return column.to_numpy()


def each_once(table: pa.Table, ids: np.ndarray) -> pa.Table:
    """The table sorted by sample id.

    Raises:
        RuntimeError: it does not have one row for each of `ids`.
    """
    if table.num_rows != len(ids):
        raise RuntimeError(f"{len(ids)} samples are wanted and {table.num_rows} are there")
    return table.sort_by(SAMPLE_ID)
