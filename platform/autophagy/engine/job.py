"""What the builder of a stage is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch

from autophagy.store import Artifact, Attempt, StageStore

T = TypeVar("T")


class Step(Protocol):
    """What maps one batch of a stream to another; made from the job in the process that runs it."""

    def __init__(self, job: Job) -> None: ...

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """What a builder gets: the stage's own configuration, its finished inputs, and the folder to write to."""

    config: Mapping[str, Any]  # part of the key: whatever changes the numbers
    runtime: Mapping[str, Any]  # not part of the key: where and how to compute
    inputs: Mapping[str, Artifact]
    attempt: Attempt
    store: StageStore
    key: str
    count: int | None = None  # images, where the stage has a count


Builder = Callable[[Job], "dict[str, Any] | None"]  # returns the manifest's info: small facts about the artifact
# Where a builder runs. worker: in a pooled Ray worker process. here: where the loop runs, as it starts Ray work itself.
# free: where the loop runs, unless that is a Ray worker too: the loops of a sweep hold no CPU.
Place = Literal["worker", "here", "free"]

_loaded: OrderedDict[str, Any] = OrderedDict()


def once(name: str, make: Callable[[], T]) -> T:
    """What `make` gives, made once in this process; the few last used are kept, since weights are heavy."""
    if name not in _loaded:
        _loaded[name] = make()
        while len(_loaded) > 4:
            _loaded.popitem(last=False)
    _loaded.move_to_end(name)
    return _loaded[name]


def device_of(job: Job) -> torch.device:
    """Where a job's networks run."""
    return torch.device("cuda" if job.runtime.get("use_gpu") else "cpu")
