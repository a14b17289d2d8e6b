"""What one loop costs the servers that all loops share: MLflow's, and object storage. Measured with real ones."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from processes import cpu_by_role, delayed, mlflow_server, s3_server, s3_uri
from ray_costs import GENERATIONS, WINDOW, copies

from autophagy.common.records import GenerationRecord
from autophagy.config.expand import PlannedLoop
from autophagy.config.settings import flatten
from autophagy.engine.watcher import Watcher
from autophagy.loop import run_loop
from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore, leases
from autophagy.tracking.tracker import RunInfo

DELAY = 0.05  # seconds by which answers of object storage are delayed, to see how many are waited for in turn
_REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*(\w+) (\S+) HTTP')  # of the S3 server's log


def info_of(name: str, loop: PlannedLoop) -> RunInfo:
    """What MLflow is told about a loop."""
    params = flatten(loop.experiment.model_dump(mode="json"))
    dataset: Mapping[str, str | int] = {"source": "digits", "digest": name[:36], "num_real": 64, "num_held_out": 64}
    return RunInfo(name, f"{loop.experiment.digest}-{name}", params, {"autophagy.seed": "0"}, dataset)


def mlflow_costs(folder: Path, store: StageStore, records: Sequence[GenerationRecord]) -> dict[str, float]:
    """What an MLflow server with one worker process and SQLite needs for a loop, and what it can take in."""
    from autophagy.tracking.mlflow import MLflowTracker

    loop = copies(1, GENERATIONS)[1][0]
    pictures = [folder / name for name in ("collapse_curves.png", "samples.png")]
    for path in pictures:
        path.write_bytes(RunFolder(store, loop.run).read(path.name) or b"")
    with mlflow_server(folder) as (uri, server):

        def cost(action: Callable[[MLflowTracker, str], object], trackers: Mapping[str, MLflowTracker]) -> float:
            before = sum(cpu_by_role(server).values())
            for name, tracker in trackers.items():
                action(tracker, name)
            return (sum(cpu_by_role(server).values()) - before) / len(trackers)

        first = MLflowTracker(uri)
        first.start(info_of("first", loop))
        first.finish(records, pictures, complete=True)
        trackers = {f"loop{i}": MLflowTracker(uri) for i in range(20)}
        begun = cost(lambda tracker, name: tracker.start(info_of(name, loop)), trackers)

        def log(tracker: MLflowTracker, name: str) -> None:
            for k in range(1, len(records) + 1):
                tracker.log(records[:k])

        logged = cost(log, trackers) / len(records)
        ended = cost(lambda tracker, name: tracker.finish(records, pictures, complete=True), trackers)
        rate, share = sustained(uri, server, loop, records)
    return {
        "mlflow_start": begun,
        "mlflow_generation": logged,
        "mlflow_end": ended,
        "mlflow_rate": rate,
        "mlflow_share": share,
    }


def sustained(uri: str, server: int, loop: PlannedLoop, records: Sequence[GenerationRecord]) -> tuple[float, float]:
    """Generations a second that three clients without a pause get in, and CPU seconds a second of the server."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(log_for, [(uri, f"warm{i}", loop, records, 1.0) for i in range(3)]))
        before, start = sum(cpu_by_role(server).values()), time.perf_counter()
        counts = list(pool.map(log_for, [(uri, f"client{i}", loop, records, WINDOW) for i in range(3)]))
        seconds = time.perf_counter() - start
    return sum(counts) / seconds, (sum(cpu_by_role(server).values()) - before) / seconds


def log_for(order: tuple[str, str, PlannedLoop, Sequence[GenerationRecord], float]) -> int:
    """Log loops until the time is over; how many generations."""
    from autophagy.tracking.mlflow import MLflowTracker

    uri, name, loop, records, seconds = order
    count, limit = 0, time.monotonic() + seconds
    while time.monotonic() < limit:
        tracker = MLflowTracker(uri)
        tracker.start(info_of(f"{name}-{count}", loop))
        for k in range(1, len(records) + 1):
            tracker.log(records[:k])
            count += 1
    return count


class Requests(Watcher):
    """Counts what comes to an S3 server; also, as what watches a loop, generation by generation."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.generations: list[tuple[Counter[str], float]] = []  # requests by kind, and when it was finished
        self.seen = len(log.read_text().splitlines())

    def since(self) -> Counter[str]:
        """Requests since the last call: `reads` and `writes`."""
        time.sleep(0.3)  # the server writes its log after it has answered
        new = self.log.read_text().splitlines()[self.seen :]
        self.seen += len(new)
        methods = [match[1] for line in new if (match := _REQUEST.search(line))]
        return Counter("reads" if method in ("HEAD", "GET") else "writes" for method in methods)

    def generation(self, record: GenerationRecord) -> None:
        """Count those of a generation."""
        self.generations.append((self.since(), time.perf_counter()))


def storage_costs(folder: Path, store: StageStore) -> dict[str, float]:
    """Requests to object storage, by a real client to a server that writes them all down."""
    with s3_server(folder) as (port, log):
        remote, requests = StageStore(s3_uri(port)), Requests(log)
        beat, leases.HEARTBEAT_SECONDS = leases.HEARTBEAT_SECONDS, 1e6  # heartbeats are counted by themselves
        at_once = by_generation(remote, Requests(log), seed=0)
        with delayed(port, DELAY) as slow:
            later = by_generation(StageStore(s3_uri(slow)), Requests(log), seed=1)
        leases.HEARTBEAT_SECONDS = beat
        in_turn = (later["seconds"] - at_once["seconds"]) / DELAY
        return {
            "reads": at_once["reads"],
            "reads_growth": at_once["growth"],
            "writes": at_once["writes"],
            "in_turn": max(0.0, in_turn),
            **waiting_requests(remote, requests),
            "driver_requests": driver_requests(store, remote, requests),
        }


def by_generation(store: StageStore, requests: Requests, seed: int) -> dict[str, float]:
    """Requests and wall seconds of a generation, the mean of the last two of four; reads that a further one adds."""
    run_loop(copies(1, 4, seed)[1][0].experiment, store, None, requests)
    counted = [count for count, _ in requests.generations[3:]]
    ended = [at for _, at in requests.generations]
    each = {kind: sum(count[kind] for count in counted) / len(counted) for kind in ("reads", "writes")}
    growth = float(counted[1]["reads"] - counted[0]["reads"])
    return each | {"growth": growth, "seconds": (ended[-1] - ended[2]) / len(counted)}


def waiting_requests(store: StageStore, requests: Requests) -> dict[str, float]:
    """Requests a second of a loop that builds a stage, and of one that waits for it."""
    with leases.hold(store.storage, "real", "held", [], lambda: False):
        requests.since()
        time.sleep(WINDOW)
        beats = requests.since()
        until = time.monotonic() + 2 * WINDOW
        waiter = threading.Thread(target=lambda: wait_for(store, until))
        waiter.start()
        time.sleep(WINDOW / 2)  # it asks ever more rarely
        requests.since()
        time.sleep(WINDOW)
        waits = requests.since()
        waiter.join()
    return {
        "beat_reads": beats["reads"] / WINDOW,
        "beat_writes": beats["writes"] / WINDOW,
        "wait_reads": (waits["reads"] - beats["reads"]) / WINDOW,
    }


def driver_requests(store: StageStore, remote: StageStore, requests: Requests) -> float:
    """Requests of the driver for each loop, when it looks over a sweep that has ended and writes its tables again."""
    from pyarrow.fs import copy_files

    from autophagy.sweeps.sweep import run_sweep

    copy_files(store.root, remote.root, source_filesystem=store.fs, destination_filesystem=remote.fs)
    totals = []
    for size in (2, 6):
        sweep, made = copies(size, GENERATIONS)
        for loop in made:
            run_loop(loop.experiment, remote)
        requests.since()
        run_sweep(sweep, remote)
        totals.append(sum(requests.since().values()))
    return (totals[1] - totals[0]) / 4


def wait_for(store: StageStore, until: float) -> None:
    """Wait for a stage that another thread builds, for a while."""
    with leases.hold(
        store.storage, "real", "held", [], lambda: store.is_done("real", "held") or time.monotonic() > until
    ):
        pass
