"""A run folder belongs to one experiment from its first moment on, and what a run or a sweep needs is spared."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest

from autophagy.common.errors import UserError
from autophagy.config.sweep import parse_sweep
from autophagy.engine.watcher import Watcher
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.runs.claims import StagesInUse, check_run, claim_run, withdraw_run
from autophagy.runs.folder import RunFolder, read_records, run_names
from autophagy.store import StageStore
from autophagy.store.upkeep import gc, ls
from autophagy.sweeps import sweep as sweeping
from autophagy.sweeps.sweep import run_sweep


def test_of_two_experiments_that_begin_at_once_under_one_name_one_is_refused(tiny, tmp_path):
    """Both have looked before either has written anything."""
    store, claimed, refused = StageStore(tmp_path / "store"), [], []
    barrier = threading.Barrier(8)

    def claim(budget: int) -> None:
        experiment = tiny(f"budget={budget}")
        generations = plan_loop(experiment)
        check_run(experiment, store)
        barrier.wait()
        try:
            claim_run(experiment, store, generations)
            claimed.append(experiment)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim, args=(budget,)) for budget in range(64, 72)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = claimed
    assert len(refused) == 7
    assert all("its run folder holds another experiment; give this one its own name" in line for line in refused)
    saved = {key for _, key in json.loads(RunFolder(store, "tiny").read("stages.json"))}
    assert saved == {stage.key for stages in plan_loop(winner) for stage in stages.values()}


def test_the_same_experiment_may_begin_twice_and_be_extended(tiny, tmp_path):
    store = StageStore(tmp_path / "store")
    for generations in (2, 2, 3):
        experiment = tiny(f"generations={generations}")
        claim_run(experiment, store, plan_loop(experiment))
    saved = {key for _, key in json.loads(RunFolder(store, "tiny").read("stages.json"))}
    assert saved == {stage.key for stages in plan_loop(tiny("generations=3")) for stage in stages.values()}


def test_a_name_is_given_back_by_what_cannot_run(tiny, tmp_path, local_ray):
    """Mended, it is another experiment of the same name."""
    store = StageStore(tmp_path / "store")
    with pytest.raises(UserError, match=r"data\.appear"):
        run_loop(tiny("data.appear={12: 1}", "generations=0"), store)
    assert run_names(store) == []
    run_loop(tiny("generations=0", "metrics.feature_network=pixels"), store)
    withdraw_run(tiny("generations=0"), store)  # something was recorded by now
    assert len(read_records(store, "tiny")) == 1
    assert RunFolder(store, "tiny").read("experiment.yaml")


class Collecting(Watcher):
    """Collects all that nobody needs before a stage is built, before it is published, and when all are there."""

    def __init__(self, store: StageStore) -> None:
        self.store = store

    @contextmanager
    def building(self, what, expected):
        self.generation(None)
        yield
        self.generation(None)

    def generation(self, record):
        gc(self.store, StagesInUse(self.store), delete=True, older_than=0)


def test_a_collector_beside_a_loop_takes_nothing_of_it(tiny, store, tmp_path):
    """From the first stage on, before the real images are there."""
    fresh = StageStore(tmp_path / "fresh")
    records = run_loop(tiny("generations=1"), fresh, None, Collecting(fresh))
    assert [r.to_json()["metrics"] for r in records] == [
        r.to_json()["metrics"] for r in read_records(store, "tiny")[:2]
    ]
    assert gc(fresh, StagesInUse(fresh)) == []


@pytest.mark.slow
def test_what_the_loops_of_a_sweep_share_is_spared_before_they_begin(tiny_values, tmp_path, local_ray, monkeypatch):
    sweep = parse_sweep(
        {
            "name": "two",
            "base": tiny_values | {"generations": 0, "metrics": {"num_samples": 64, "feature_network": "pixels"}},
            "axes": {"selection.strategy": ["random"]},
            "seeds": [0, 1],
        }
    )
    store, found, compute_shared = StageStore(tmp_path / "store"), [], sweeping.compute_shared

    def compute_and_collect(*arguments: object) -> None:
        compute_shared(*arguments)
        found.append((len(ls(store)), [item for item in gc(store, StagesInUse(store)) if "/stages/" in item.path]))

    monkeypatch.setattr(sweeping, "compute_shared", compute_and_collect)
    frame = run_sweep(sweep, store)
    assert len(frame) == 2
    ((built, garbage),) = found
    assert built >= 8
    assert garbage == []
