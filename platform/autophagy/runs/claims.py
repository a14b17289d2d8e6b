"""Whose a run folder is, and which stages it uses: what a run writes before anything else, and a collector reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import yaml
from pyarrow.fs import FileInfo

from autophagy.common.errors import UserError
from autophagy.common.yaml_text import read_yaml
from autophagy.config import Experiment, parse
from autophagy.engine.stage import Stages
from autophagy.runs.folder import EXPERIMENT, RECORDS, RUNS, STAGES, UNREADABLE, RunFolder, in_short
from autophagy.store import StageStore


def read_experiment(store: StageStore, run: str) -> Experiment | None:
    """The experiment that a run folder belongs to; None if there is no such folder.

    Raises:
        UserError: its file is damaged: whose the folder is is not known.
    """
    folder = RunFolder(store, run)
    data = folder.read(EXPERIMENT)
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
            f"run = {run}: cannot read {folder.path}/{EXPERIMENT} ({in_short(error)}); mend that file, or "
            "remove it: then the next command of this name takes the folder, and computes no finished stage again"
        ) from None


def check_run(experiment: Experiment, store: StageStore) -> None:
    """Raise a UserError if the run folder belongs to another experiment; one with more generations is no other."""
    saved = read_experiment(store, experiment.name)
    if saved is not None and saved.digest != experiment.digest:
        raise UserError(
            f"name = {experiment.name}: its run folder holds another experiment; "
            f"give this one its own name (--name), or remove {RunFolder(store, experiment.name).path}"
        )


def claim_run(experiment: Experiment, store: StageStore, generations: Sequence[Stages]) -> None:
    """Take the run folder before anything is computed, and the stages, for garbage collection to spare them.

    Raises:
        UserError: the folder is another experiment's, perhaps since this very moment.
    """
    folder = RunFolder(store, experiment.name)
    values = yaml.safe_dump(experiment.settled().model_dump(mode="json"), sort_keys=False)
    content = f"# digest {experiment.digest}\n{values}".encode()
    if not folder.claim(EXPERIMENT, content):
        check_run(experiment, store)
        folder.write(EXPERIMENT, content)  # it may have more generations now
    check_run(experiment, store)
    claim_stages(experiment.name, [generations], store)


def claim_stages(name: str, loops: Iterable[Sequence[Stages]], store: StageStore) -> None:
    """Write `stages.json` of a run or a sweep: garbage collection spares these stages, finished or not."""
    in_use = {(stage.name, stage.key) for loop in loops for stages in loop for stage in stages.values()}
    RunFolder(store, name).write(STAGES, json.dumps(sorted(in_use)).encode())


def withdraw_run(experiment: Experiment, store: StageStore) -> None:
    """Give the run folder of an experiment back that cannot run, if nothing was recorded in it."""
    folder = RunFolder(store, experiment.name)
    if not folder.read(RECORDS):
        folder.remove(EXPERIMENT, STAGES)


class StagesInUse:
    """Keys of the stages that the run folders of a store name, in `records.jsonl` or `stages.json`: what a garbage
    collector asks for.

    Called, it looks anew; but files that have not changed since the last call are not read again.
    """

    def __init__(self, store: StageStore) -> None:
        self.storage = store.storage
        self._known: dict[str, tuple[str, frozenset[str]]] = {}  # path -> its state when it was read, keys

    def __call__(self) -> set[str]:
        """All of them, now.

        Raises:
            UserError: A file cannot be read: what its run uses is not known.
        """
        known = {}
        for info in self.storage.entries(self.storage.at(RUNS), recursive=True):
            if info.is_file and info.base_name in (RECORDS, STAGES):
                state, keys = self._known.get(info.path, ("", frozenset()))
                known[info.path] = (state, keys) if state == _state(info) else (_state(info), self._read(info.path))
        self._known = known
        return set().union(*(keys for _, keys in known.values()))

    def _read(self, path: str) -> frozenset[str]:
        data = self.storage.read(path) or b""
        try:
            if path.endswith(STAGES):
                return frozenset(str(key) for _, key in json.loads(data or b"[]"))
            lines = [json.loads(line)["stages"] for line in data.splitlines()]
            return frozenset(str(key) for stages in lines for key in stages.values())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            folder = path.rpartition("/")[0]
            raise UserError(
                f"store: cannot read which stages {folder} uses ({error}); "
                "mend its records.jsonl and stages.json, or remove the folder"
            ) from error


def _state(info: FileInfo) -> str:
    return f"{info.size} {info.mtime_ns}"
