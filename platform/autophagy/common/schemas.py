"""Which Arrow types are read: plain ones and fixed-shape tensors. Values of another type may be a library's own code.

Importing a library, such as `ray.data`, can register types whose values are pickles; then reading such a value runs
what its writer wished. So the types are looked at before any value is, and refused by name, registered or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.dataset

_EXTENSION = b"ARROW:extension:name"  # in the metadata of a field whose type is not registered in this process
_THREADS = 16  # footers of an object store are fetched side by side


def unreadable(schema: pa.Schema, columns: Collection[str] | None = None) -> str | None:
    """What to tell about the first column that has, or holds, an extension type but a fixed-shape tensor.

    Args:
        schema: As a file has it.
        columns: Names of the columns that will be read; all by default.

    Returns:
        Column, type and remedy in a line; None where all may be read.
    """
    for column in schema:
        if columns is not None and column.name not in columns:
            continue
        below = [column]
        while below:
            field = below.pop()
            if found := _extension(field):
                return (
                    f"column {column.name!r} has the extension type {found!r}, which may run code when it is read; "
                    "write it as plain numbers, strings, binary or fixed-shape tensors"
                )
            below += _children(field.type)
    return None


def unreadable_files(
    files: Iterable[pyarrow.dataset.Fragment], columns: Collection[str] | None = None
) -> tuple[str, str] | None:
    """Path of the first of some Parquet files that `unreadable` tells about, and what; None where all may be read."""
    files = list(files)
    # Reading asks for the footers too, and finds them here.
    with ThreadPoolExecutor(_THREADS) as pool:
        schemas = pool.map(lambda file: file.physical_schema, files)
        for file, schema in zip(files, schemas, strict=True):
            if why := unreadable(schema, columns):
                return file.path, why
    return None


def _extension(field: pa.Field) -> str | None:
    if name := (field.metadata or {}).get(_EXTENSION):
        return name.decode(errors="replace")
    if isinstance(field.type, pa.BaseExtensionType) and not isinstance(field.type, pa.FixedShapeTensorType):
        return field.type.extension_name
    return None


def _children(kind: pa.DataType) -> list[pa.Field]:
    """What values of a type are made of."""
    if isinstance(kind, pa.BaseExtensionType):
        return [pa.field("storage", kind.storage_type)]
    if pa.types.is_dictionary(kind):
        return [pa.field("values", kind.value_type)]
    return [kind.field(i) for i in range(kind.num_fields)]
