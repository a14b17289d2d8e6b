"""Extension types are refused however deep they lie, in whichever file of a folder, registered or not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from autophagy.common.schemas import unreadable, unreadable_files

BINARY = pa.large_binary()


def named(name: str) -> pa.Field:
    """A field as a file has it whose extension type is not registered here."""
    return pa.field(name, BINARY, metadata={"ARROW:extension:name": "some.pickles", "ARROW:extension:metadata": ""})


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([named("a")]),
        pa.struct([pa.field("a", pa.struct([named("b")]))]),
        pa.list_(named("item")),
        pa.large_list(named("item")),
        pa.list_(named("item"), 2),
        pa.list_view(named("item")),
        pa.large_list_view(named("item")),
        pa.map_(pa.string(), named("value")),
        pa.dense_union([named("a")]),
        pa.sparse_union([named("a")]),
        pa.dictionary(pa.int8(), pa.uuid()),
        pa.run_end_encoded(pa.int16(), pa.uuid()),
        pa.opaque(pa.struct([named("a")]), "a", "b"),
        pa.list_(pa.uuid()),
        pa.json_(),
    ],
    ids=str,
)
def test_extension_types_are_found_however_deep(kind: pa.DataType):
    schema = pa.schema([("plain", pa.int8()), ("column", kind)])
    assert "column 'column' has the extension type" in unreadable(schema)
    assert unreadable(schema, ["plain"]) is None


def test_plain_types_and_tensors_are_read():
    dictionary = pa.dictionary(pa.int8(), pa.string())
    kinds = [pa.int8(), pa.list_(pa.binary()), dictionary, pa.fixed_shape_tensor(pa.uint8(), [2, 2]), pa.null()]
    nested = pa.struct([(str(i), kind) for i, kind in enumerate(kinds)])
    assert unreadable(pa.schema([("a", nested), ("b", pa.map_(pa.string(), nested))])) is None


def test_every_file_of_a_folder_is_looked_at(tmp_path: Path):
    for i in range(40):
        field = named("x") if i == 31 else pa.field("x", BINARY)
        pq.write_table(pa.table([[b""]], schema=pa.schema([field])), tmp_path / f"{i:02}.parquet")
    path, why = unreadable_files(ds.dataset(tmp_path, format="parquet").get_fragments())
    assert path.endswith("31.parquet")
    assert "some.pickles" in why
