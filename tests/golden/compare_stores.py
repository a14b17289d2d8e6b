"""Compare two stores in which the same loops have run, such as those of `run_loops.py` by the code before and after.

    python tests/golden/compare_stores.py OLD NEW

Stage by stage: the same keys, what was hashed, files, checksums, and facts about the artifact. Run by run: the same
files with the same content. Prints a line for each difference, and ends with 1 if there is one; of files whose bytes
differ it says whether they hold the same. It imports nothing of the package: what it compares lies on the disk.

Left out is what differs between two runs of the same code, because it is the time that something took: `device_seconds`
of a stage, `seconds` in records.jsonl, generations.csv and table.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

TIMES = ("device_seconds",)  # in a stage's info
SECONDS = "seconds"  # in the files of runs
Stages = dict[tuple[str, str], Path]  # folder by kind and key


def compare(old: Path, new: Path) -> Iterator[str]:
    """A line for each difference."""
    yield from _stages(_finished(old), _finished(new))
    yield from _runs(_files(old / "runs"), _files(new / "runs"))


# Stages


def _finished(store: Path) -> Stages:
    """The finished stages of a store."""
    return {path.parts[-3:-1]: path.parent for path in (store / "stages").glob("*/*/manifest.json")}


def _stages(old: Stages, new: Stages) -> Iterator[str]:
    yield from (f"stage {'/'.join(stage)}: only in OLD" for stage in sorted(old.keys() - new.keys()))
    yield from (f"stage {'/'.join(stage)}: only in NEW" for stage in sorted(new.keys() - old.keys()))
    for stage in sorted(old.keys() & new.keys()):
        yield from (f"stage {'/'.join(stage)}: {line}" for line in _stage(old[stage], new[stage]))


def _stage(old: Path, new: Path) -> Iterator[str]:
    """What differs between two artifacts of one key."""
    before, after = (json.loads((folder / "manifest.json").read_bytes()) for folder in (old, new))
    for part in ("spec", "info"):
        if where := difference(_untimed(before[part]), _untimed(after[part])):
            yield f"{part}{where}"
    files, others = before["files"], after["files"]
    yield from (f"{name}: only in OLD" for name in sorted(files.keys() - others.keys()))
    yield from (f"{name}: only in NEW" for name in sorted(others.keys() - files.keys()))
    for name in sorted(files.keys() & others.keys()):
        if files[name] != others[name]:
            yield f"{name}: {contents(old / before['attempt'] / name, new / after['attempt'] / name)}"


def _untimed(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in TIMES}


# Runs


def _files(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their name relative to it."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _runs(old: Mapping[str, Path], new: Mapping[str, Path]) -> Iterator[str]:
    yield from (f"run {name}: only in OLD" for name in sorted(old.keys() - new.keys()))
    yield from (f"run {name}: only in NEW" for name in sorted(new.keys() - old.keys()))
    for name in sorted(old.keys() & new.keys()):
        if line := _run_file(old[name], new[name]):
            yield f"run {name}: {line}"


def _run_file(old: Path, new: Path) -> str:
    """What differs between two files of a run; nothing where it is the time alone."""
    if old.read_bytes() == new.read_bytes():
        return ""
    timed = {"records.jsonl", "generations.csv", "table.md"}
    if old.name not in timed:
        return contents(old, new)
    where = difference(READERS[old.suffix](old), READERS[new.suffix](new))
    return f"contents differ{where}" if where else ""


# Contents


def contents(old: Path, new: Path) -> str:
    """Of two files whose bytes differ: whether they hold the same, and where not."""
    read = READERS.get(old.suffix)
    if read is None:
        return "bytes differ"
    where = difference(read(old), read(new))
    return f"bytes and contents differ{where}" if where else "bytes differ, contents are equal"


def difference(old: Any, new: Any, where: str = "") -> str:
    """The first place in which two values differ, with both; empty where they are equal. NaN equals NaN."""
    if isinstance(old, dict) and isinstance(new, dict):
        if missing := sorted(old.keys() ^ new.keys()):
            return f"{where}.{missing[0]}: only in {'OLD' if missing[0] in old else 'NEW'}"
        return next(filter(None, (difference(old[name], new[name], f"{where}.{name}") for name in old)), "")
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where}: {len(old)} in OLD, {len(new)} in NEW"
        pairs = enumerate(zip(old, new, strict=True))
        return next(filter(None, (difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)), "")
    return "" if (type(old), repr(old)) == (type(new), repr(new)) else f"{where}: {old!r} in OLD, {new!r} in NEW"


def _parquet(path: Path) -> dict[str, str]:
    """The schema, and a digest of every column: equal to the bit."""
    table = pq.read_table(path).combine_chunks()
    return {"schema": str(table.schema)} | {name: _column(table.select([name])) for name in table.column_names}


def _column(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return f"{table.num_rows} rows {_digest(sink.getvalue())}"


def _tensors(path: Path) -> dict[str, Any]:
    """Metadata, and type, shape and a digest of every tensor: equal to the bit."""
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        found = {name: f"{a.dtype} {a.shape} {_digest(a.tobytes())}" for name, a in arrays.items()}
        return found | {"metadata": file.metadata()}


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines without the time."""
    rows = map(json.loads, path.read_text().splitlines())
    return [{name: value for name, value in row.items() if name != SECONDS} for row in rows]


def _csv(path: Path) -> list[dict[str, str]]:
    """A table without the time."""
    with path.open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name != SECONDS} for row in csv.DictReader(file)]


def _markdown(path: Path) -> list[list[str]]:
    """A table without the time, its cells without their padding."""
    head, _, *body = path.read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *body)]
    kept = [position for position, name in enumerate(rows[0]) if name != SECONDS]
    return [[row[position] for position in kept] for row in rows]


READERS: dict[str, Callable[[Path], Any]] = {
    ".parquet": _parquet,
    ".safetensors": _tensors,
    ".json": lambda path: json.loads(path.read_bytes()),
    ".jsonl": _lines,
    ".yaml": lambda path: yaml.safe_load(path.read_bytes()),
    ".csv": _csv,
    ".md": _markdown,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args()
    lines = list(compare(asked.old, asked.new))
    print("\n".join(lines) or "no difference", flush=True)
    counts = (
        f"{len(_finished(store))} stages, {len(_files(store / 'runs'))} files of runs" for store in vars(asked).values()
    )
    print(f"compared: {' | '.join(counts)}; {len(lines)} differences", file=sys.stderr)
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
