"""A cluster that starts with no worker: a sweep makes workers come, and they go when it is done."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Case, run_alone
from services import Autoscaled, Driver, wait_for

from autophagy.config.sweep import parse_sweep
from autophagy.store import StageStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

MAX_WORKERS, IDLE_SECONDS = 3, 12.0


class Watch:
    """The number of living workers over time, as the cluster's own dashboard says it."""

    def __init__(self, cluster: Autoscaled) -> None:
        self.cluster, self.start = cluster, time.monotonic()
        self.counts: list[tuple[float, int]] = []  # seconds, workers
        self.marks: list[tuple[float, str]] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            if (count := self.cluster.num_alive()) is not None:
                self.counts.append((time.monotonic() - self.start, count - 1))
            time.sleep(1)

    def mark(self, what: str) -> None:
        """Remember what happens now."""
        self.marks.append((time.monotonic() - self.start, what))

    def picture(self, path: Path) -> None:
        """Draw it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.step(*zip(*self.counts, strict=True), where="post", color="#0072b2", linewidth=2)
        for seconds, what in self.marks:
            axes.axvline(seconds, color="#999999", linestyle="--", linewidth=1)
            axes.annotate(what, (seconds, MAX_WORKERS + 0.4), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set(xlabel="seconds", ylabel="workers", ylim=(-0.2, MAX_WORKERS + 0.8), yticks=range(MAX_WORKERS + 1))
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


@pytest.fixture
def cluster(environment) -> Iterator[Autoscaled]:
    """No worker, up to three."""
    made = Autoscaled(MAX_WORKERS, IDLE_SECONDS)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def many(environment, tiny_values, tmp_path_factory) -> Case:
    """Six loops: more than there will be workers."""
    values = {"name": "many", "base": tiny_values, "seeds": [0, 1]}
    values["axes"] = {"selection.strategy": ["random", "lsf", "oldest_first"]}
    values["base"] |= {"metrics": {"feature_network": "pixels", "num_samples": 64}}
    return run_alone(parse_sweep(values), tmp_path_factory.mktemp("many"))


def test_workers_come_for_a_sweep_and_go_after_it(cluster, bucket, many: Case, tmp_path):
    watch = Watch(cluster)
    wait_for(lambda: len(watch.counts) > 5)
    assert {count for _, count in watch.counts} == {0}
    watch.mark("sweep starts")
    driver = Driver(many.recipe(tmp_path), bucket, "none", cluster.address).start()
    assert driver.wait() == 0, driver.said()
    watch.mark("ends")
    busiest = max(count for _, count in watch.counts)
    wait_for(lambda: watch.counts[-1][1] == 0, 120)
    time.sleep(5)
    watch.picture(Path(os.environ.get("AUTOPHAGY_PICTURES", tmp_path)) / "autoscaling.png")
    assert busiest == MAX_WORKERS
    assert watch.counts[-1][1] == 0
    many.check(StageStore(bucket))
