"""One process of a sweep logs all of its loops in MLflow; those of the loops only tell it what there is to log."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autophagy.common.records import GenerationRecord
from autophagy.config.sweep import Sweep
from autophagy.engine.cluster import waiting_room
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.sweep import SweepTracker
from autophagy.tracking.tracker import RunInfo

if TYPE_CHECKING:
    import ray

RECORDER_BYTES = 300 << 20  # what its process takes: MLflow's client, most of all
PATIENCE_SECONDS = 10.0  # of a loop that ends, for the recorder to know
INTERRUPT_SECONDS = 2.0  # for the recorder to say that a sweep was interrupted
PAUSE_SECONDS = 10.0  # of the recorder, after MLflow has failed


@dataclass(frozen=True)
class Note:
    """All that there is to log of a loop by now: a later note replaces an earlier one."""

    info: RunInfo
    records: Sequence[GenerationRecord] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)  # PNG files by name
    complete: bool | None = None  # None: the loop goes on


class Recorder:
    """Logs a sweep and the notes of its loops, one after the other.

    Of a loop that reports faster than MLflow takes it in, only the latest note waits. While MLflow is away, notes
    wait too. Those that wait when this process ends are lost here: `SweepTracker.missing` finds what they held.
    """

    def __init__(self, tracking_uri: str, sweep: Sweep, plan: str) -> None:
        self.tracker = SweepTracker(tracking_uri, sweep, plan)
        self.loops: dict[str, MLflowTracker] = {}  # those that are under way
        self.notes: dict[str, Note] = {}  # by run, those to be logged
        self.failures = 0
        self.busy = True
        self.over = False
        self.changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def tell(self, note: Note) -> None:
        """Take a note; it is logged later."""
        with self.changed:
            self.notes[note.info.name] = note
            self.changed.notify_all()

    def flush(self) -> None:
        """Wait until all notes are logged, or until MLflow fails."""
        with self.changed:
            before = self.failures
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.failures > before or not (self.busy or self.notes))

    def interrupt(self) -> None:
        """Say that the sweep was stopped, and its loops with it; nothing is logged after that."""
        with self.changed:
            self.over = True
        self.tracker.interrupt()

    def _work(self) -> None:
        self.tracker.begin()
        while True:
            with self.changed:
                self.busy = False
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.notes and not self.over)
                self.busy = True
                run = next(iter(self.notes))
                note = self.notes.pop(run)
            if not self._log(note):
                with self.changed:
                    self.notes = {run: note} | self.notes  # unless there is a later one
                    self.failures += 1
                    self.changed.notify_all()
                    self.changed.wait(PAUSE_SECONDS)

    def _log(self, note: Note) -> bool:
        """Whether MLflow took it."""
        if self.tracker.run_id is None and not self.tracker.begin():  # what loops are found by
            return False
        run = note.info.name
        if run not in self.loops:
            self.loops[run] = self.tracker.of_loop()
            self.loops[run].start(note.info)
        if note.complete is None:
            self.loops[run].log(note.records)
            return self.loops[run].answers
        tracker = self.loops.pop(run)
        with suppress(OSError), tempfile.TemporaryDirectory() as folder:
            for name, png in note.pictures.items():
                Path(folder, name).write_bytes(png)
            tracker.finish(note.records, [Path(folder, name) for name in note.pictures], note.complete)
            return tracker.answers
        return False  # there is no room for the pictures


class ForwardingTracker:
    """The tracker of a loop that tells all to the recorder: waits for no server, and never raises."""

    def __init__(self, recorder: ray.actor.ActorHandle[Recorder], tags: Mapping[str, str]) -> None:
        self.recorder, self.tags = recorder, tags

    def start(self, run: RunInfo) -> None:
        """Tell that a loop starts or goes on."""
        self.info = dataclasses.replace(run, tags={**run.tags, **self.tags})
        self._tell(Note(self.info))

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """Tell the records so far."""
        self._tell(Note(self.info, records))

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Tell the end of a loop, and wait a little until it is told: this process may end at once."""
        import ray

        last = self._tell(Note(self.info, records, {path.name: path.read_bytes() for path in pictures}, complete))
        ray.wait([last], timeout=PATIENCE_SECONDS)

    def _tell(self, note: Note) -> Any:
        return self.recorder.tell.remote(note)


@contextmanager
def recording(tracker: SweepTracker | None) -> Iterator[ray.actor.ActorHandle[Recorder] | None]:
    """A recorder for the time of a sweep, where loops wait.

    All it was told is logged at the end if MLflow is there; and that the sweep was interrupted, if it was.
    """
    import ray

    if tracker is None:
        yield None
        return
    room = waiting_room() | {"memory": RECORDER_BYTES}
    remote = ray.remote(num_cpus=0, memory=room.pop("memory"), resources=room, max_restarts=-1, max_task_retries=-1)
    recorder = remote(Recorder).remote(tracker.tracking_uri, tracker.sweep, tracker.plan)
    try:
        yield recorder
        with suppress(ray.exceptions.RayError):
            ray.get(recorder.flush.remote())
    except BaseException:
        # By the process that has MLflow's client: loading it here takes seconds, and who stops a job has three. A
        # signal to the whole group has ended that process too.
        try:
            ray.get(recorder.interrupt.remote(), timeout=INTERRUPT_SECONDS)
        except ray.exceptions.RayError:
            tracker.interrupt()
        raise
    finally:
        with suppress(ray.exceptions.RayError):
            ray.kill(recorder)
