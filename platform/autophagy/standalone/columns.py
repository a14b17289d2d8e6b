"""Columns of files that somebody else wrote: NumPy, NPZ, Parquet. What is wrong with one is said in one line."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from autophagy.common.errors import UserError
from autophagy.common.samples import COLUMNS, FEATURES
from autophagy.common.schemas import unreadable_files
from autophagy.data.limits import check_numpy

INPUTS = (".npy", ".npz", ".parquet")
VECTORS = {name for name, column in COLUMNS.items() if column.is_vector}
# What a column may hold, in numpy's letters for kinds of numbers, and in words.
_KINDS = {"b": ("b", "true or false"), "i": ("iu", "whole numbers"), "u": ("iuf", "numbers"), "f": ("iuf", "numbers")}


def read_columns(path: str, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those columns of a file that are asked for and are there, all of the same n >= 1 rows; never none at all.

    Where it has none of them, any other that it has of these names tells the number of rows.

    Args:
        path: `.npy`: features, float [n, D]. `.npz` or `.parquet`: columns by name; a vector in Parquet is a
            list, a fixed-size list or a fixed-shape tensor. A folder stands for the Parquet files in it.
        names: Of `samples.COLUMNS`; vectors are [n, D].

    Raises:
        UserError: no such file, a file of another kind, a column of another shape or type, or no row.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{path}: no such file; correct the path")
    if not place.is_dir() and not place.is_file():
        raise UserError(f"{path}: is a device or the like; give a file")
    suffix = ".parquet" if place.is_dir() else place.suffix.lower()
    if suffix not in INPUTS:
        raise UserError(f"{path}: cannot tell what this is; give a file that ends in {', '.join(INPUTS)}")
    try:
        columns = _read_parquet(path, place, names) if suffix == ".parquet" else _read_numpy(path, place, names)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); write it again") from error
    columns = {name: _checked(path, name, column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}: columns of different lengths {lengths}; give one row for each sample")
    if not max(lengths.values()):
        raise UserError(f"{path}: has no rows; give one for each sample")
    return columns


def _read_numpy(path: str, place: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    with place.open("rb") as stream:
        check_numpy(stream)
        loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {FEATURES: loaded}
        return {name: loaded[name] for name in _pick(path, loaded.files, names)}


def _read_parquet(path: str, place: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    source = pyarrow.dataset.dataset(place, format="parquet")
    columns = _pick(path, source.schema.names, names)
    if found := unreadable_files(source.get_fragments(), columns):
        raise UserError(": ".join(found))
    table = source.to_table(columns=columns)
    return {name: _from_arrow(path, name, table.column(name).combine_chunks()) for name in table.column_names}


def _pick(path: str, found: Sequence[str], names: Collection[str]) -> list[str]:
    """The columns to read."""
    known = [name for name in found if name in COLUMNS]
    if not known:
        raise UserError(f"{path}: has only {', '.join(found) or 'nothing'}; name a column {', '.join(COLUMNS)}")
    return [name for name in known if name in names] or known[:1]


def _from_arrow(path: str, name: str, column: pa.Array) -> np.ndarray:
    """An Arrow array as a numpy array, [n], or [n, ...] of lists and tensors."""
    if column.null_count and not pa.types.is_floating(column.type):
        raise UserError(f"{path}: column {name} has {column.null_count} empty rows; fill them (no label is -1)")
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        widths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(widths) > 1:
            raise UserError(f"{path}: rows of column {name} have {len(widths)} different lengths; make them one")
        values = _from_arrow(path, name, column.flatten())
        return values.reshape(len(column), *widths, *values.shape[1:])
    return column.to_numpy(zero_copy_only=False)


def _checked(path: str, name: str, column: np.ndarray) -> np.ndarray:
    """A column of the shape and type that its name asks for."""
    width, (kinds, wanted) = 1 + COLUMNS[name].is_vector, _KINDS[np.dtype(COLUMNS[name].dtype).kind]
    if column.dtype.kind not in kinds:
        raise UserError(f"{path}: {name} has type {column.dtype}; give {wanted}")
    if column.ndim != width or (width == 2 and not column.shape[1]):
        shape, remedy = list(column.shape), "give one value a row"
        if width == 2:
            images = column.ndim in (3, 4)
            remedy = "flatten images with x.reshape(len(x), -1), or give features of a network" if images else "[n, D]"
        raise UserError(f"{path}: {name} has shape {shape}, not {'[n, D]' if width == 2 else '[n]'}; {remedy}")
    return column
