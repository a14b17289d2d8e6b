"""Sources that are tables: Parquet, and datasets of the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from autophagy.common.errors import UserError, shown
from autophagy.common.schemas import unreadable, unreadable_files
from autophagy.data.limits import MAX_LABEL, is_below
from autophagy.data.sources.base import (
    IMAGE_NAMES,
    LABEL_NAMES,
    Encoded,
    Part,
    Source,
    find_files,
    one_line,
    pick,
    pick_image,
)

_BATCH_ROWS = 1024
_EMBED = "write the images' bytes into the column"


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


def read_parquet(place: str) -> Source:
    """A Parquet file, or all of a folder."""
    from pyarrow import dataset  # which loads pandas: not for who only plans

    files = find_files("parquet", place)
    paths = [info.path for info in files.infos.values()]
    table = dataset.dataset(paths, filesystem=files.system, format="parquet")
    columns = [name for name in table.schema.names if name in IMAGE_NAMES + LABEL_NAMES]
    if found := unreadable_files(table.get_fragments(), columns):
        raise UserError(": ".join(found))
    folder = paths[0].removesuffix(next(iter(files.infos)))
    folders = [folder] if isinstance(files.system, pa.fs.LocalFileSystem) else []
    return read_batches(table.to_batches(columns=columns, batch_size=_BATCH_ROWS), table.schema, folders)


def read_hf(place: str) -> Source:
    """A dataset of the Hugging Face hub or of a local folder, see `parse_hf`."""
    name, revision, split = parse_hf(place)
    folders = []
    if is_local(name):
        name = os.path.abspath(os.path.expanduser(name))
        find_files("hf", name)
        folders = [name]
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        if any(os.path.exists(os.path.join(name, mark)) for mark in ("state.json", "dataset_dict.json")):
            _check_hf_files(folders, list(map(str, Path(name).rglob("*.arrow"))))
            data = datasets.load_from_disk(name)
            data = data[split] if isinstance(data, dict) else data
            _check_hf_files(folders, [file["filename"] for file in data.cache_files])
        else:
            builder = datasets.load_dataset_builder(name, revision=revision)
            _check_hf_files(folders, [file for files in (builder.config.data_files or {}).values() for file in files])
            builder.download_and_prepare()
            data = builder.as_dataset(split=split)
    except UserError:
        raise
    except Exception as error:  # the loaders pass on the errors of a dozen libraries
        raise UserError(
            f"cannot load split {split!r} of {name!r} ({type(error).__name__}: {one_line(error)}); correct "
            "the name, or point at a local copy with hf:/local/folder, folder:DIR or parquet:FILE"
        ) from error
    # What comes from the hub is kept there.
    folders = folders or [os.path.join(datasets.config.HF_DATASETS_CACHE, "downloads"), HF_HUB_CACHE]
    batches = data.with_format("arrow").iter(batch_size=_BATCH_ROWS)
    return read_batches(batches, data.features.arrow_schema, folders)


def _check_hf_files(folders: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError if files that a local data set names lie elsewhere, or hold what is not read."""
    for name in names if folders else ():
        if not is_below(name, folders[0]):
            raise UserError(f"names a file elsewhere, {shown(name)}; give a folder that has all its files")
        schema = _schema(name)
        if schema is not None and (why := unreadable(schema)):
            raise UserError(f"{name}: {why}")


def _schema(path: str) -> pa.Schema | None:
    """The types in a Parquet or Arrow file; None of another file."""
    if path.endswith(".parquet"):
        return pyarrow.parquet.read_schema(path)
    if not path.endswith(".arrow"):
        return None
    with pa.OSFile(path) as file:
        try:
            return pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(file).schema


def parse_hf(place: str) -> tuple[str, str | None, str]:
    """NAME[@REVISION][:SPLIT] as name, revision and split; a local folder has no revision."""
    name, _, split = place.partition(":")
    if is_local(name):
        return name, None, split or "train"
    name, _, revision = name.partition("@")
    return name, revision or None, split or "train"


def is_local(name: str) -> bool:
    """Whether a dataset's name is a folder on this machine."""
    return name.startswith(("/", ".", "~")) or os.path.isdir(name)
