"""What saturates first as ever more loops run at once, and at how many: unit costs measured, 1,000 loops simulated.

    python benchmarks/scheduling.py --costs costs.json --picture docs/scaling.png

First every unit cost is measured on this machine with the real parts: Ray Tune's event loop, processes of loops that
wait, tasks in pooled processes, an MLflow server, an S3 server that counts requests; about ten minutes on two idle
cores with 8 GB of memory. If the file of `--costs` is there already, nothing is measured. Then up to 1,000 loops, each
on a device of its own, are simulated as they queue for what they share; how fast object storage answers and how many
requests it takes is what its documentation says, not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from processes import AWS, figure, machine, markdown
from queueing import Station, Steady, Visit, offered, simulate, undisturbed
from ray_costs import copies, generation_costs, task_costs, told, trial_costs, waiting_costs
from server_costs import mlflow_costs, storage_costs

from autophagy.engine.cluster import LOOP_BYTES
from autophagy.runs.folder import read_records
from autophagy.store import StageStore
from autophagy.store.storage import AT_ONCE

LIGHT, REAL = (4, 16, 48), (2, 12)  # trials and loops at once that are measured
MEMORY = 1 << 40  # bytes that Ray is told there are, so that it does not limit how many
# Amazon's documentation: requests a second to a prefix; tens of milliseconds to answer a small one.
READS_A_SECOND, WRITES_A_SECOND, LATENCY = 5500, 3500, 0.03
STAGES = 4  # of a generation: select, train, generate, evaluate
SECONDS = (10, 60, 600)  # of computing in a generation
LOOPS = (1, 10, 30, 100, 300, 1000)
RAYS_SHARE = 0.7  # of a machine's memory that Ray gives to processes
MOST = 1_000_000
NAMES = {
    "driver": "driver (Ray Tune)",
    "head": "CPU of the head",
    "gcs": "Ray's GCS",
    "raylet": "Ray's raylet",
    "mlflow": "MLflow server",
    "reads": "storage, reads",
    "writes": "storage, writes",
}


@dataclass(frozen=True)
class Costs:
    """CPU seconds where nothing else is said; `standing` ones are CPU seconds a second."""

    driver_trial: float  # of the driver, for a trial from start to end
    driver_report: float  # for a generation reported
    driver_report_per_loop: float  # what each further loop at once adds to that
    driver_standing: float
    driver_standing_per_loop: float
    loop_start: float  # of a loop's process until it waits for its first stage
    loop_generation: float  # for a generation, beside what pooled processes compute
    loop_standing: float
    loop_mb: float  # MB that a waiting loop's process adds to its machine
    gcs_generation: float
    gcs_standing: float
    gcs_standing_per_loop: float
    gcs_task: float  # for a task in a pooled process
    raylet_generation: float
    raylet_standing: float
    raylet_standing_per_loop: float
    raylet_task: float
    task_seconds: float  # wall seconds of a task that does nothing
    mlflow_start: float  # of the server: run, params, tags, data set
    mlflow_generation: float
    mlflow_end: float  # summary, records, pictures
    mlflow_rate: float  # generations a second that one worker process took in from three clients
    mlflow_share: float  # CPU seconds a second that it had meanwhile
    reads: float  # HEAD, GET and LIST requests to object storage for generations 3 and 4
    reads_growth: float  # what generation 4 adds to 3, which has fewer earlier samples to choose from
    writes: float  # PUT, POST and DELETE requests
    in_turn: float  # of all of these, how many it waits for one after the other
    beat_reads: float  # requests a second while a stage is built
    beat_writes: float
    wait_reads: float  # requests a second of a loop that waits for a stage another one builds
    driver_requests: float  # of the driver, for each loop of a sweep


def main() -> None:
    """Print tables: unit costs, where each thing is full, and simulated utilisation and slow-down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, help="JSON: read if it is there, else measured and written")
    parser.add_argument("--cores", type=int, default=8, help="of the head")
    parser.add_argument("--memory", type=int, default=32, help="GB of the head")
    parser.add_argument("--workers", type=int, default=1, help="processes of the MLflow server")
    parser.add_argument("--picture", type=Path, help="a .png file for the simulated curves")
    arguments = parser.parse_args()
    saved = arguments.costs
    if saved and saved.exists():
        costs = Costs(**json.loads(saved.read_text()))
    else:
        with contextlib.redirect_stdout(sys.stderr):  # what Ray says is no part of the tables
            costs = measure()
        if saved:
            saved.write_text(json.dumps(dataclasses.asdict(costs), indent=1))
    model = Model(costs, arguments.cores, arguments.memory, arguments.workers)
    print(f"## Measured on {machine()}\n\n{unit_table(costs)}\n")
    print(f"## Loops at once that fill each thing\n\n{full_table(model)}\n")
    print(f"## Simulated\n\n{simulated_table(model)}\n")
    print(f"## Begin and end of a sweep, s\n\n{ends_table(model)}")
    if arguments.picture:
        draw(model, arguments.picture)


def measure() -> Costs:
    """Measure every unit cost."""
    import ray

    os.environ.update(AWS)  # before Ray's processes start, which inherit it
    ray.init(log_to_driver=False, logging_level="ERROR", _memory=MEMORY)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = StageStore(folder / "store")
        found = waiting_costs(store, REAL)
        told("a loop's generations")
        found |= generation_costs(store, found)
        records = read_records(store, copies(1, 0)[1][0].run)
        found |= trial_costs(store, LIGHT, records, found)
        told("tasks, an MLflow server, object storage")
        found |= task_costs(store) | mlflow_costs(folder, store, records) | storage_costs(folder, store)
    ray.shutdown()
    return Costs(**found)


@dataclass(frozen=True)
class Model:
    """What loops share, and how they use it."""

    costs: Costs
    cores: int  # of the head, for the processes of loops
    memory: int  # GB of the head
    workers: int  # of the MLflow server

    def cycle(self, num_loops: int, seconds: float) -> list[Visit]:
        """The visits of one generation that computes for so long."""
        c = self.costs
        stage = [
            Visit(c.in_turn * LATENCY / STAGES),
            Visit(c.reads / STAGES / READS_A_SECOND, "reads"),
            Visit(c.writes / STAGES / WRITES_A_SECOND, "writes"),
            Visit(c.loop_generation / STAGES, "head"),
            Visit(c.gcs_generation / STAGES, "gcs"),
            Visit(c.raylet_generation / STAGES, "raylet"),
            Visit(seconds / STAGES, varies=True),
        ]
        report = c.driver_report + num_loops * c.driver_report_per_loop
        return [*(STAGES * stage), Visit(c.mlflow_share / c.mlflow_rate, "mlflow"), Visit(report, "driver")]

    def stations(self, num_loops: int) -> dict[str, Station]:
        """What is shared, with the load that so many loops are just by being there."""
        c = self.costs
        return {
            "driver": Station(1, c.driver_standing + num_loops * c.driver_standing_per_loop),
            "head": Station(self.cores, num_loops * c.loop_standing / self.cores),
            "gcs": Station(1, c.gcs_standing + num_loops * c.gcs_standing_per_loop),
            "raylet": Station(1, c.raylet_standing + num_loops * c.raylet_standing_per_loop),
            "mlflow": Station(self.workers),
            "reads": Station(1, num_loops * c.beat_reads / READS_A_SECOND),
            "writes": Station(1, num_loops * c.beat_writes / WRITES_A_SECOND),
        }

    def simulate(self, num_loops: int, seconds: float) -> Steady:
        """How so many loops fare."""
        return simulate(num_loops, self.cycle(num_loops, seconds), self.stations(num_loops), seed=num_loops)

    def full_at(self, name: str, seconds: float) -> int:
        """The least number of loops that would take all of a station if nothing slowed them down."""

        def full(num_loops: int) -> bool:
            station = self.stations(num_loops)[name]
            return offered(num_loops, self.cycle(num_loops, seconds), name, station) >= 1

        return bisect_left(range(MOST), True, lo=1, key=full)

    @property
    def room(self) -> int:
        """Loops that the memory of the head is for."""
        return int(RAYS_SHARE * self.memory * 1e9 / LOOP_BYTES)


def unit_table(costs: Costs) -> str:
    """The unit costs, in a few lines."""
    c = costs
    ms = "ms CPU"

    def standing(always: float, each: float) -> str:
        return f"{1000 * always:.1f} + {1000 * each:.2f} a loop"

    rows = [
        ("driver: a trial", f"{1000 * c.driver_trial:.0f} {ms}"),
        (
            "driver: a generation reported",
            f"{1000 * c.driver_report:.2f} {ms} + {1000 * c.driver_report_per_loop:.4f} for each loop at once",
        ),
        ("driver: all the time", f"{standing(c.driver_standing, c.driver_standing_per_loop)}, {ms} a second"),
        ("process of a loop: start", f"{c.loop_start:.1f} s CPU"),
        ("process of a loop: a generation", f"{1000 * c.loop_generation:.0f} {ms}"),
        ("process of a loop: all the time", f"{1000 * c.loop_standing:.1f} {ms} a second, {c.loop_mb:.0f} MB"),
        ("GCS: a generation", f"{1000 * c.gcs_generation:.1f} {ms}; of that a task {1000 * c.gcs_task:.1f}"),
        ("GCS: all the time", f"{standing(c.gcs_standing, c.gcs_standing_per_loop)}, {ms} a second"),
        ("raylet: a generation", f"{1000 * c.raylet_generation:.1f} {ms}; of that a task {1000 * c.raylet_task:.1f}"),
        ("raylet: all the time", f"{standing(c.raylet_standing, c.raylet_standing_per_loop)}, {ms} a second"),
        ("a task that does nothing", f"{1000 * c.task_seconds:.0f} ms wall"),
        ("MLflow server: a loop's start and end", f"{1000 * c.mlflow_start:.0f} and {1000 * c.mlflow_end:.0f} {ms}"),
        ("MLflow server: a generation", f"{1000 * c.mlflow_generation:.1f} {ms}"),
        (
            "MLflow server: taken in from three clients",
            f"{c.mlflow_rate:.0f} generations a second with {c.mlflow_share:.2f} CPU s a second",
        ),
        (
            "storage: generations 3 and 4",
            f"{c.reads:.0f} reads, {c.writes:.0f} writes, as long as {c.in_turn:.0f} in turn; each further generation "
            f"{c.reads_growth:.0f} reads more",
        ),
        ("storage: while a stage is built", f"{c.beat_reads:.2f} reads, {c.beat_writes:.2f} writes a second"),
        ("storage: a loop that waits for another's stage", f"{c.wait_reads:.1f} reads a second"),
        ("storage: the driver, before and after, a loop", f"{c.driver_requests:.1f} requests"),
    ]
    return markdown(("what", "cost"), rows)


def full_table(model: Model) -> str:
    """Where each thing is full: a column for each length of a generation."""
    rows: list[list[str]] = [[f"memory of the head ({model.memory} GB)", *(str(model.room) for _ in SECONDS)]]
    found = {name: [model.full_at(name, seconds) for seconds in SECONDS] for name in NAMES}
    for name, counts in sorted(found.items(), key=lambda item: item[1][0]):
        rows.append([NAMES[name], *(figure(count) for count in counts)])
    return markdown(("generation of", *(f"{seconds} s" for seconds in SECONDS)), rows)


def simulated_table(model: Model) -> str:
    """Utilisation of each thing, and how much longer a generation takes than that of a loop that is alone."""
    rows = []
    for seconds in SECONDS:
        for num_loops in LOOPS:
            steady = model.simulate(num_loops, seconds)
            alone = undisturbed(model.cycle(1, seconds))
            shares = [f"{min(1.0, steady.utilisation[name]):.0%}" for name in NAMES]
            memory = f"{num_loops * LOOP_BYTES / 1e9:.1f}"
            rows.append([f"{seconds} s", num_loops, *shares, memory, f"{alone:.1f}", f"{steady.cycle / alone:.2f}"])
    return markdown(("generation of", "loops", *NAMES.values(), "memory, GB", "alone, s", "times as long"), rows)


def ends_table(model: Model) -> str:
    """What happens once in a sweep whose loops all run at once: seconds if nothing else goes on."""
    c = model.costs
    parts = {
        "processes of the loops start": c.loop_start / model.cores,
        "driver starts and ends trials": c.driver_trial,
        "driver looks at the store": c.driver_requests * LATENCY / AT_ONCE,
        "MLflow server begins and ends runs": (c.mlflow_start + c.mlflow_end) / model.workers,
    }
    rows = [[name, *(figure(each * count) for count in LOOPS[2:])] for name, each in parts.items()]
    return markdown(("", *(f"{count} loops" for count in LOOPS[2:])), rows)


def draw(model: Model, path: Path) -> None:
    """How long a generation takes, and what is how full, by the number of loops."""
    import matplotlib.pyplot as plt
    import numpy as np

    counts = [int(n) for n in np.unique(np.geomspace(1, LOOPS[-1], 25).round())]
    middle = SECONDS[1]
    fates = {seconds: [model.simulate(n, seconds) for n in counts] for seconds in SECONDS}
    drawing, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, label in NAMES.items():
        left.plot(counts, [steady.utilisation[name] for steady in fates[middle]], label=label)
    left.axvline(model.room, color="0.6", linestyle=":")
    left.text(model.room, 0.5, f" {model.memory} GB head is full", rotation=90, va="center", color="0.4")
    left.set(xscale="log", xlabel="loops at once", ylabel="utilisation", title=f"generations of {middle} s")
    left.legend(fontsize=8)
    for seconds, steady in fates.items():
        alone = undisturbed(model.cycle(1, seconds))
        right.plot(counts, [s.cycle / alone for s in steady], label=f"{seconds} s")
    right.set(xscale="log", ylim=(0, None), xlabel="loops at once", ylabel="times as long as alone")
    right.legend(title="a generation of")
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


if __name__ == "__main__":
    main()
