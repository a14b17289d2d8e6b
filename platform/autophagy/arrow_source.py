"""Images and labels from Arrow batches, as Parquet files and `datasets` give them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from autophagy.limits import MAX_LABEL, is_below
from autophagy.records import UserError, shown
from autophagy.tables import unreadable

IMAGE_NAMES = ("image", "images", "img", "x", "x_train")
LABEL_NAMES = ("label", "labels", "fine_label", "y", "y_train")
_EMBED = "write the images' bytes into the column"


class Encoded(NamedTuple):
    """One image as its file's bytes (PNG, JPEG ...)."""

    name: str  # for messages
    data: bytes


class Part(NamedTuple):
    """Some consecutive images of a source, as they come."""

    images: np.ndarray | list[Encoded]
    labels: Sequence[Any] | np.ndarray | None  # one an image


class Source(NamedTuple):
    """A source opened for reading."""

    parts: Iterable[Part]
    class_names: Sequence[str] | None  # by label, where the source knows them


def pick(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` that is among `names`."""
    names = set(names)
    return next((name for name in wanted if name in names), None)


def pick_image(names: Sequence[str]) -> str:
    """The name that images are under."""
    picked = pick(names, IMAGE_NAMES)
    if picked is None:
        raise UserError(f"no images under {', '.join(IMAGE_NAMES)}, only {', '.join(names)}; rename one")
    return picked


def read_batches(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, folders: Sequence[str]) -> Source:
    """Arrow batches with an image column and maybe a label column.

    Args:
        batches: Of that schema.
        schema: With the metadata that `datasets` writes, if any.
        folders: Local folders that the files of images must lie below which rows name by a path; relative paths are
            of the first.
    """
    image, label = pick_image(schema.names), pick(schema.names, LABEL_NAMES)
    parts = _read_columns(batches, image, label, folders)
    if label is None:
        return Source(parts, None)
    kind = schema.field(label).type
    if pa.types.is_nested(kind):
        raise UserError(f"column {label!r} has type {kind}; give class numbers (integers) or names (strings)")
    return Source(parts, _class_names(schema, label))


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names that `datasets` leaves for its ClassLabel features in the metadata of the schema."""
    try:
        value = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return None
    for name in ("info", "features", label, "names"):
        value = value.get(name) if isinstance(value, dict) else None
    is_names = isinstance(value, list) and all(isinstance(name, str) and len(name) <= MAX_LABEL for name in value)
    return value if is_names else None


def _read_columns(
    batches: Iterable[pa.RecordBatch | pa.Table], image: str, label: str | None, folders: Sequence[str]
) -> Iterator[Part]:
    row = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        if why := unreadable(batch.schema):
            raise UserError(why)
        for name in (image, label):
            if name is not None and batch.column(name).null_count:
                raise UserError(f"column {name!r} has empty rows; fill or remove them")
        yield Part(
            _column_images(batch.column(image), image, row, folders),
            None if label is None else _column_labels(batch.column(label), label, row),
        )
        row += batch.num_rows


def _column_labels(column: pa.Array | pa.ChunkedArray, name: str, row: int) -> list[Any]:
    labels = column.to_pylist()
    for i, label in enumerate(labels, row):
        if isinstance(label, str | bytes) and len(label) > MAX_LABEL:
            raise UserError(
                f"row {i} of column {name!r} has {len(label)} characters, {shown(label)}; give class names of at most "
                f"{MAX_LABEL}"
            )
    return labels


def _column_images(
    column: pa.Array | pa.ChunkedArray, name: str, row: int, folders: Sequence[str]
) -> np.ndarray | list[Encoded]:
    """The images of one batch; `row` is the number of its first row."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return chunk.to_numpy_ndarray()
    in_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not _is_binary(kind.field("bytes").type if in_struct else kind):
        raise UserError(f"column {name!r} has type {kind}; give fixed-shape tensors, or encoded images as binary")
    cells = column.to_pylist()
    names = [f"in row {row + i} of column {name!r}" for i in range(len(cells))]
    if in_struct:
        cells = [_struct_bytes(cell, where, folders) for cell, where in zip(cells, names, strict=True)]
    return list(map(Encoded, names, cells))


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _struct_bytes(cell: dict[str, Any], where: str, folders: Sequence[str]) -> bytes:
    """`datasets` keeps an image of a local folder as the path of its file."""
    path = cell.get("path")
    if cell["bytes"] is not None or not isinstance(path, str) or not path:
        return cell["bytes"] or b""
    place = os.path.join(folders[0], path) if folders else path
    if not any(is_below(place, folder) for folder in folders):
        raise UserError(f"the image {where} is a path, {shown(path)}, that leads out of the data's folder; {_EMBED}")
    if not os.path.isfile(place):
        raise UserError(f"the image {where} is a path, {shown(path)}, of no file; correct it, or {_EMBED}")
    with open(place, "rb") as stream:
        return stream.read()
