"""Arrays in Arrow tables, and out of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from autophagy.common.samples import SAMPLE_ID


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
