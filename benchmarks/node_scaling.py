"""The same sweep on one and on two Ray nodes of one CPU each: wall seconds, and their ratio.

    python benchmarks/node_scaling.py            # three times each, in turn: a quarter of an hour on 2 idle cores
    python benchmarks/node_scaling.py --quick

The nodes are Ray nodes of their own on this machine, beside a head without CPUs on which the processes of the loops
wait, as on a cluster. Each run is a fresh cluster and a fresh copy of a store that holds generation 0. What is timed is
the sweep alone: from the driver's first look at the store to its last table, the start of the loops' processes and of
the pooled ones included; the start of Ray and generation 0 are not. Real cores bound what two nodes can gain: the
processes of the loops, the driver and Ray itself need theirs too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import Watch, cpu_by_role, figure, markdown

from autophagy.engine.cluster import IDLE_MS

STRATEGIES = ("random", "class_balanced_random", "oldest_first", "lsf")
CONCURRENT = 4  # loops at once, whatever the number of nodes
BASE: dict[str, Any] = {
    "budget": 500,
    "data": {"source": "digits", "image_size": 8, "num_real": 500, "num_held_out": 500},
    "training": {"initial_epochs": 2, "num_workers": 0},
    "generation": {"num_inference_steps": 25, "num_actors": 0},
    "metrics": {"feature_network": "pixels", "num_samples": 500},
}
FULL, QUICK = {"num_seeds": 2, "generations": 2, "epochs": 12}, {"num_seeds": 1, "generations": 1, "epochs": 4}


def main() -> None:
    """Print wall seconds of every run, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run each: tells only that it works")
    parser.add_argument("--role", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(run(**arguments.role)))
        return
    size, repeats = (QUICK, 1) if arguments.quick else (FULL, 3)
    rows: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder, "ready")
        in_fresh_process(store=str(ready), num_nodes=2, **size | {"generations": 0})
        for repeat in range(repeats):
            for num_nodes in (1, 2) if repeat % 2 == 0 else (2, 1):
                store = shutil.copytree(ready, Path(folder, f"{repeat}-{num_nodes}"))
                rows[num_nodes].append(in_fresh_process(store=str(store), num_nodes=num_nodes, **size))
                print(f"{num_nodes} nodes: {rows[num_nodes][-1]['wall']:.1f} s", file=sys.stderr, flush=True)
    head = ("nodes", "wall s of each run", "median", "CPU s", "of that in stages", "busy cores")
    print(f"{os.cpu_count()} real cores, {len(STRATEGIES) * size['num_seeds']} loops\n")
    print(markdown(head, [row_of(num_nodes, runs) for num_nodes, runs in rows.items()]))
    one, two = (statistics.median(run["wall"] for run in rows[num_nodes]) for num_nodes in (1, 2))
    print(f"\n1 node / 2 nodes: {one / two:.2f}")


def row_of(num_nodes: int, runs: list[dict[str, float]]) -> list[object]:
    """A row of the table."""
    wall, cpu, stages = ([run[name] for run in runs] for name in ("wall", "cpu", "stages"))
    busy = statistics.median(c / w for c, w in zip(cpu, wall, strict=True))
    walls = ", ".join(f"{seconds:.1f}" for seconds in wall)
    medians = (statistics.median(values) for values in (wall, cpu, stages))
    return [num_nodes, walls, *map(figure, medians), f"{busy:.2f}"]


def in_fresh_process(**role: Any) -> dict[str, float]:
    """What `run` gives in a process of its own."""
    command = [sys.executable, __file__, "--role", json.dumps(role)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["RAY_idle_worker_killing_time_threshold_ms"] = str(IDLE_MS)  # as in deploy/Dockerfile
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run(store: str, num_nodes: int, num_seeds: int, generations: int, epochs: int) -> dict[str, float]:
    """Run the sweep on a cluster of its own.

    Returns:
        wall: seconds; cpu: seconds of all processes of the cluster and this one meanwhile; stages: those of pooled
        processes, which the nodes are there for.
    """
    import ray
    from ray.cluster_utils import Cluster

    from autophagy.config.sweep import parse_sweep
    from autophagy.store import StageStore
    from autophagy.sweeps.sweep import run_sweep

    base = BASE | {"generations": generations, "training": BASE["training"] | {"epochs": epochs}}
    axes = {"selection.strategy": list(STRATEGIES)}
    values = {"name": f"nodes{generations}", "base": base, "axes": axes, "max_concurrent": CONCURRENT}
    sweep = parse_sweep(values | {"seeds": list(range(num_seeds))})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(num_nodes):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    before, start = cpu_by_role(os.getpid()), time.perf_counter()
    with Watch(os.getpid(), "driver") as watch:
        frame = run_sweep(sweep, StageStore(store))
        wall = time.perf_counter() - start
    assert set(frame["state"]) == {"done"}
    ray.shutdown()
    cluster.shutdown()
    return {"wall": wall, "cpu": watch.cpu() - sum(before.values()), "stages": watch.cpu("worker")}


if __name__ == "__main__":
    main()
