"""What the builder of a stage is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from autophagy.common.section import Section
from autophagy.store import Artifact, Attempt, StageStore

T = TypeVar("T")
C = TypeVar("C", bound=Section)


@dataclass(frozen=True)
class Resources:
    """Where and how a stage is computed: no number hangs on it."""

    use_gpu: bool = False
    num_workers: int = 0  # processes that train together; 0: the builder's own
    num_actors: int = 0  # processes of their own for the first step of a stream; 0: pooled ones


@dataclass(frozen=True)
class Job(Generic[C]):
    """What a builder gets: the stage's own configuration, its finished inputs, and the folder to write to."""

    config: C
    inputs: Mapping[str, Artifact]
    attempt: Attempt
    store: StageStore
    key: str
    count: int | None = None  # images, where the stage has a count
    resources: Resources = Resources()


Info = dict[str, Any]  # small facts about an artifact, in its manifest
Builder = Callable[[Job[Any]], Info | None]
# Where a builder runs. pooled: in a worker process of Ray's. driver: where the loop runs, as it starts Ray work itself.
# either: where the loop runs, unless that is a Ray worker too: the loops of a sweep hold no CPU.
Place = Literal["pooled", "driver", "either"]


class Step(Protocol):
    """What maps one batch of a stream to another; made from the job in the process that runs it."""

    def __init__(self, job: Job[Any]) -> None: ...

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]: ...


_loaded: OrderedDict[str, Any] = OrderedDict()


def once(name: str, make: Callable[[], T]) -> T:
    """What `make` gives, made once in this process; the few last used are kept, since weights are heavy."""
    if name not in _loaded:
        _loaded[name] = make()
        while len(_loaded) > 4:
            _loaded.popitem(last=False)
    _loaded.move_to_end(name)
    return _loaded[name]
