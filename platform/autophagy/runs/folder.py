"""Run folders: the files that a run or a sweep leaves in a store, as they are written and read back.

Most of what a run folder holds is made again by the command of the run: where it cannot be read, it counts as not
there. The damaged file stays until that command replaces it: as long as it lies there, garbage collection knows that it
does not know what the run uses. `experiment.yaml` alone is for people to decide on (see `claims`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.config import Experiment
from autophagy.engine.stage import Stages
from autophagy.store import StageStore
from autophagy.store.names import is_name

RUNS = "runs"  # the folder of all of them, below the root of a store
EXPERIMENT, RECORDS, STAGES = "experiment.yaml", "records.jsonl", "stages.json"
CURVES, SAMPLES, DRAWN = "collapse_curves.png", "samples.png", "pictures.txt"
ERROR = "error.txt"  # of a loop that failed
# Of a sweep.
SWEEP, LOOPS, OUTCOMES = "sweep.yaml", "loops.json", "outcomes.json"
TABLE, FRAME = "table.md", "generations.csv"

DAMAGED = ".damaged"
# What decoders raise: no text, no JSON, no YAML, other types (pydantic's is a ValueError), or nested too deeply.
UNREADABLE = (ValueError, RecursionError, UserError)

T = TypeVar("T")
logger = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()  # stores and paths of damaged files that this process has named


class RunFolder:
    """The folder of one run or sweep: plain files for people, each written whole."""

    def __init__(self, store: StageStore, name: str) -> None:
        """Name a folder, which need not be there.

        Raises:
            UserError: The name is not one plain file name.
        """
        self.store, self.name = store, name
        self.path = store.storage.at(RUNS, _check_name(name))  # within `store.fs`

    def read(self, file: str) -> bytes | None:
        """The content of a file, None if there is none."""
        return self.store.storage.read(self._file(file))

    def write(self, file: str, data: bytes) -> None:
        """Write or replace a file, atomically."""
        self.store.storage.put(self._file(file), data)

    def claim(self, file: str, data: bytes) -> bool:
        """Write a file if there is none, and say whether it holds `data` now."""
        return self.store.storage.claim(self._file(file), data)

    def remove(self, *files: str) -> None:
        """Remove files, and the folder if nothing else is in it."""
        for file in files:
            self.store.storage.remove(self._file(file))
        self.store.storage.remove_empty(self.path)

    def read_back(self, file: str, decode: Callable[[bytes], T]) -> T | None:
        """What a file holds; None if there is none, or if it is damaged, which is logged.

        Args:
            file: A file that the command of the run makes again.
            decode: Raises one of UNREADABLE for damage.
        """
        data = self.read(file)
        if data is None:
            return None
        try:
            return decode(data)
        except UNREADABLE as error:
            self._keep_aside(file, data, error)
            return None

    def _keep_aside(self, file: str, data: bytes, error: BaseException) -> None:
        """Copy a damaged file before it is replaced, and say so once in this process."""
        path = self._file(file)
        if (self.store.uri, path) in _told:
            return
        _told.add((self.store.uri, path))
        with suppress(OSError):  # who only looks may have no right to write
            self.write(f"{file}{DAMAGED}", data)
        what = f"{path} is damaged ({in_short(error)}): a copy is {file}{DAMAGED}"
        logger.warning("%s; the command of this run makes it again", what)

    def _file(self, file: str) -> str:
        return f"{self.path}/{_check_name(file)}"


def _check_name(name: str) -> str:
    if not is_name(name):
        raise UserError(f"name: {name!r} cannot be a file name; use letters, digits, '.', '_', '-', no dot in front")
    return name


def run_names(store: StageStore) -> list[str]:
    """Names of the run folders of a store, sorted."""
    return sorted(info.base_name for info in store.storage.entries(store.storage.at(RUNS)) if not info.is_file)


def in_short(error: BaseException) -> str:
    """What is wrong with a file, in one short line."""
    words = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return words[:200] or type(error).__name__


# records.jsonl: a line for each generation


class _Row(BaseModel):
    generation: int
    metrics: dict[str, float | None]
    stages: dict[str, str]
    seconds: dict[str, float]


def read_records(store: StageStore, name: str) -> list[GenerationRecord]:
    """The records of a run so far, oldest first."""
    return RunFolder(store, name).read_back(RECORDS, _decode_records) or []


def keep_records(store: StageStore, name: str, records: Sequence[GenerationRecord]) -> None:
    """Write `records.jsonl`, unless it holds these records already and perhaps more."""
    folder = RunFolder(store, name)
    lines = [json.dumps(r.to_json()).encode() + b"\n" for r in records]
    saved = folder.read_back(RECORDS, _whole_lines) or []
    if saved[: len(lines)] != lines:
        folder.write(RECORDS, b"".join(lines))


def is_finished(experiment: Experiment, generations: Sequence[Stages], store: StageStore) -> bool:
    """Whether a loop has run to its end by just these stages, pictures included."""
    records = read_records(store, experiment.name)[: len(generations)]
    planned = [{name: stage.key for name, stage in stages.items()} for stages in generations]
    drawn = RunFolder(store, experiment.name).read(DRAWN)
    return [dict(r.stages) for r in records] == planned and drawn == drawing_mark(records)


def drawing_mark(records: Sequence[GenerationRecord]) -> bytes:
    """What pictures are drawn from."""
    return "\n".join(r.stages["evaluate"] for r in records).encode()


def _decode_records(data: bytes) -> list[GenerationRecord]:
    rows = [_Row.model_validate(json.loads(line)) for line in data.splitlines()]
    return [GenerationRecord.from_json(row.model_dump()) for row in rows]


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a `records.jsonl` as they are, if all of them can be read."""
    _decode_records(data)
    return data.splitlines(keepends=True)


# loops.json: of a sweep


class LoopRow(BaseModel):
    """One loop of a sweep."""

    run: str
    arm: str
    labels: dict[str, str]


class LoopTable(BaseModel):
    """What a sweep is about, and its loops."""

    question: str = ""
    axes: list[str] = []
    loops: list[LoopRow]


def read_loops(store: StageStore, sweep: str) -> LoopTable | None:
    """The loops that a sweep has planned; None if there is no such sweep, or its loops.json is damaged."""
    return RunFolder(store, sweep).read_back(LOOPS, lambda data: LoopTable.model_validate(json.loads(data)))
