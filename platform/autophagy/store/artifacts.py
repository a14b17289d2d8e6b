"""A stage under way (Attempt) and a finished one (Artifact)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from pyarrow.fs import FileSystem

from autophagy.common.schemas import unreadable_files
from autophagy.store.names import is_name
from autophagy.store.storage import Storage

MARKER = ".building"  # in an attempt: who collects it takes this away before anything else
NUM_FILES = "num_files"  # in the info of a builder that has others write for it: how many files there must be


@dataclass(frozen=True)
class Artifact:
    """A finished stage, opened: every file of its manifest was there with its size. Picklable."""

    stage: str
    key: str
    path: str  # payload folder within `fs`
    manifest: Mapping[str, Any]
    storage: Storage

    @property
    def fs(self) -> FileSystem:
        """The pyarrow filesystem the payload is on."""
        return self.storage.fs

    @property
    def info(self) -> Mapping[str, Any]:
        """What the builder noted in `Attempt.info`."""
        return self.manifest["info"]

    def files(self) -> list[str]:
        """Names of the payload's files, relative to `path`, sorted."""
        return sorted(self.manifest["files"])

    def file(self, name: str) -> str:
        """Path of a file within `fs`.

        Raises:
            FileNotFoundError: The stage has no such file.
        """
        if name not in self.manifest["files"]:
            raise FileNotFoundError(f"stage {self.stage} {self.key} has no file {name!r}, but {self.files()}")
        return f"{self.path}/{name}"

    def is_whole(self, name: str) -> bool:
        """Whether the stage has this file, with the content that it was published with."""
        known = self.manifest["files"].get(name)
        return known is not None and self.storage.checksum(self.file(name)) == known["blake2b"]

    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        with self.fs.open_input_stream(self.file(name), compression=None) as stream:
            return stream.read()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self.read_bytes(name))

    def parquet_files(self, sub: str = "") -> list[str]:
        """Paths within `fs` of the Parquet files in a subfolder (all by default), or of the one named."""
        folder = sub.rstrip("/") + "/" if sub else ""
        names = [n for n in self.files() if n.endswith(".parquet") and (n == sub or n.startswith(folder))]
        return [self.file(name) for name in names]

    def read_table(
        self,
        name: str | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Read Parquet files as one table, rows in the order of the file names.

        Args:
            name: A Parquet file or a subfolder of them; all Parquet files by default.
            columns: Columns to read; all by default. Only these are fetched.
            filter: Rows to read, e.g. `pyarrow.compute.field("label") == 3`.

        Raises:
            FileNotFoundError: There is no Parquet file of that name.
            RuntimeError: A file has a type that may run code when it is read.
        """
        from pyarrow import dataset  # which loads pandas: not for a process that reads no table

        paths = self.parquet_files(name or "")
        if not paths:
            where = f"stage {self.stage} {self.key}"
            raise FileNotFoundError(f"{where} has no Parquet file in {name or '.'!r}, but {self.files()}")
        # The manifest knows the sizes: an object store need not be asked for them, twice for each file.
        parquet, files = dataset.ParquetFileFormat(), self.manifest["files"]
        parts = [
            parquet.make_fragment(path, self.fs, file_size=files[path.removeprefix(f"{self.path}/")]["size"])
            for path in paths
        ]
        if found := unreadable_files(parts):
            raise RuntimeError(f"stage {self.stage} {self.key}: {': '.join(found)}")
        whole = dataset.FileSystemDataset(parts, parts[0].physical_schema, parquet, self.fs)
        return whole.to_table(columns=None if columns is None else list(columns), filter=filter)


@dataclass
class Attempt:
    """Where one builder writes: nobody reads it before it is published."""

    path: str  # payload folder within `fs`: all that is in it when the builder returns is published
    scratch: str  # folder within `fs` that outlives a failed or killed attempt: state to resume from
    storage: Storage
    info: dict[str, Any] = field(default_factory=dict)  # JSON, published in the manifest

    @property
    def fs(self) -> FileSystem:
        """The pyarrow filesystem to write to."""
        return self.storage.fs

    def begin(self) -> None:
        """Make its folders, with the marker that a collector takes away before anything else."""
        self.storage.make_folder_with(self.path, MARKER)
        self.storage.make_folder(self.scratch)

    def stands(self) -> bool:
        """Whether nobody has begun to collect it."""
        return self.storage.read(f"{self.path}/{MARKER}") is not None

    def seal(self) -> dict[str, dict[str, Any]]:
        """Size and checksum of every payload file by name, once all of them outlive a power cut.

        Raises:
            RuntimeError: there are more or fewer files than the builder says (NUM_FILES) it had written.
        """
        self.storage.sync(self.path)
        sizes = file_sizes(self.storage, self.path)
        if len(sizes) != self.info.get(NUM_FILES, len(sizes)):
            raise RuntimeError(f"{self.info[NUM_FILES]} files were written to {self.path}, and {len(sizes)} are there")
        return {
            name: {"size": size, "blake2b": self.storage.checksum(f"{self.path}/{name}")}
            for name, size in sizes.items()
        }

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file, named relative to `path`."""
        self.storage.put(self._file(name), data)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.write_bytes(name, json.dumps(value).encode())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""
        path = self._file(name)
        self.storage.make_folder(os.path.dirname(path))
        pyarrow.parquet.write_table(table, path, filesystem=self.fs)

    def _file(self, name: str) -> str:
        if not all(map(is_name, name.split("/"))):
            raise ValueError(f"not a file name within a stage: {name!r}")
        return f"{self.path}/{name}"


def file_sizes(storage: Storage, folder: str) -> dict[str, int]:
    """Size in bytes of every payload file below a folder, by name relative to it."""
    found = storage.entries(folder, recursive=True)
    sizes = {info.path[len(folder) + 1 :]: info.size for info in found if info.is_file}
    return {name: size for name, size in sizes.items() if name != MARKER}
