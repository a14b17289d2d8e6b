"""Files of run folders as they are read back: a damaged one is named and kept aside, and takes nothing else down.

Most of what a run folder holds is made again by the command of the run: where it cannot be read, it counts as not
there. The damaged file stays until that command replaces it: as long as it lies there, garbage collection knows that it
does not know what the run uses. `experiment.yaml` alone is for people to decide on: it says whose the folder is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.common.yaml_text import read_yaml
from autophagy.config import Experiment, parse
from autophagy.engine.stage import Stages
from autophagy.store import StageStore

EXPERIMENT, RECORDS, STAGES = "experiment.yaml", "records.jsonl", "stages.json"
CURVES, SAMPLES, DRAWN = "collapse_curves.png", "samples.png", "pictures.txt"
LOOPS = "loops.json"  # of a sweep
# What decoders raise: no text, no JSON, no YAML, other types (pydantic's is a ValueError), or nested too deeply.
UNREADABLE = (ValueError, RecursionError, UserError)
DAMAGED = ".damaged"

T = TypeVar("T")
logger = logging.getLogger(__name__)
_told: set[tuple[str, str, str]] = set()


class _Row(BaseModel):
    generation: int
    metrics: dict[str, float | None]
    stages: dict[str, str]
    seconds: dict[str, float]


def decode_records(data: bytes) -> list[GenerationRecord]:
    """The lines of a `records.jsonl`."""
    rows = [_Row.model_validate(json.loads(line)) for line in data.splitlines()]
    return [GenerationRecord.from_json(row.model_dump()) for row in rows]


def read_back(store: StageStore, run: str, file: str, decode: Callable[[bytes], T]) -> T | None:
    """What a file of a run folder holds; None if there is none, or if it is damaged, which is logged.

    Args:
        store: Where the run folder is.
        run: Its name.
        file: A file that the command of the run makes again.
        decode: Raises one of UNREADABLE for damage.
    """
    data = store.read_run_file(run, file)
    if data is None:
        return None
    try:
        return decode(data)
    except UNREADABLE as error:
        _keep_aside(store, run, file, data, error)
        return None


def _keep_aside(store: StageStore, run: str, file: str, data: bytes, error: BaseException) -> None:
    """Copy a damaged file before it is replaced, and say so once in this process."""
    if (store.uri, run, file) in _told:
        return
    _told.add((store.uri, run, file))
    with suppress(OSError):  # who only looks may have no right to write
        store.write_run_file(run, f"{file}{DAMAGED}", data)
    what = f"{store.run_path(run)}/{file} is damaged ({_in_short(error)}): a copy is {file}{DAMAGED}"
    logger.warning("%s; the command of this run makes it again", what)


def read_experiment(store: StageStore, run: str) -> Experiment | None:
    """The experiment that a run folder belongs to; None if there is no such folder.

    Raises:
        UserError: its file is damaged: whose the folder is is not known.
    """
    data = store.read_run_file(run, EXPERIMENT)
    if data is None:
        return None
    try:
        values = read_yaml(data, EXPERIMENT)
        if not isinstance(values, dict):
            raise ValueError("it holds no fields")
        # Parsed, so that a field which a run did not know yet has the default that it ran with.
        return parse(values)
    except UNREADABLE as error:
        raise UserError(
            f"run = {run}: cannot read {store.run_path(run)}/{EXPERIMENT} ({_in_short(error)}); mend that file, or "
            "remove it: then the next command of this name takes the folder, and computes no finished stage again"
        ) from None


def _in_short(error: BaseException) -> str:
    """What is wrong, in one short line."""
    words = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return words[:200] or type(error).__name__


def claim_stages(name: str, loops: Iterable[Sequence[Stages]], store: StageStore) -> None:
    """Write `stages.json` of a run or a sweep: garbage collection spares these stages, finished or not."""
    in_use = {(stage.name, stage.key) for loop in loops for stages in loop for stage in stages.values()}
    store.write_run_file(name, STAGES, json.dumps(sorted(in_use)).encode())


def withdraw_run(experiment: Experiment, store: StageStore) -> None:
    """Give the run folder of an experiment back that cannot run, if nothing was recorded in it."""
    if not store.read_run_file(experiment.name, RECORDS):
        store.remove_run_files(experiment.name, (EXPERIMENT, STAGES))


def is_finished(experiment: Experiment, generations: Sequence[Stages], store: StageStore) -> bool:
    """Whether a loop has run to its end by just these stages, pictures included."""
    records = read_records(experiment.name, store)[: len(generations)]
    planned = [{name: stage.key for name, stage in stages.items()} for stages in generations]
    drawn = store.read_run_file(experiment.name, DRAWN)
    return [dict(r.stages) for r in records] == planned and drawn == drawing_mark(records)


def drawing_mark(records: Sequence[GenerationRecord]) -> bytes:
    """What pictures are drawn from."""
    return "\n".join(r.stages["evaluate"] for r in records).encode()


def keep_records(name: str, store: StageStore, records: Sequence[GenerationRecord]) -> None:
    """Write `records.jsonl`, unless it holds these records already and perhaps more."""
    lines = [json.dumps(r.to_json()).encode() + b"\n" for r in records]
    saved = read_back(store, name, RECORDS, _whole_lines) or []
    if saved[: len(lines)] != lines:
        store.write_run_file(name, RECORDS, b"".join(lines))


def read_records(name: str, store: StageStore) -> list[GenerationRecord]:
    """The records of a run so far, oldest first."""
    return read_back(store, name, RECORDS, decode_records) or []


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a `records.jsonl` as they are, if all of them can be read."""
    decode_records(data)
    return data.splitlines(keepends=True)
