"""Files of run folders as they are read back: a damaged one is named and kept aside, and takes nothing else down.

Most of what a run folder holds is made again by the command of the run: where it cannot be read, it counts as not
there. The damaged file stays until that command replaces it: as long as it lies there, garbage collection knows that it
does not know what the run uses. `experiment.yaml` alone is for people to decide on: it says whose the folder is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel

from autophagy.config import Experiment, parse
from autophagy.records import GenerationRecord, UserError
from autophagy.store import StageStore
from autophagy.yaml_text import read_yaml

EXPERIMENT = "experiment.yaml"
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
