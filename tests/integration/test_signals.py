"""A command that is told to stop: it ends in order, with one line and nothing left, and goes on when it is given again.

Loops in processes of their own, in a session of their own; a signal to the group is what a terminal sends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from test_resume import Loop, kill

pytestmark = pytest.mark.timeout(600)

SETTINGS = (
    "metrics.feature_network=pixels",
    "training.initial_epochs=60",
    "training.epochs=60",
    "training.checkpoint_every=5",
)
END_SECONDS = 30.0
GONE_SECONDS = 10.0  # after the command itself


def session(leader: int) -> list[psutil.Process]:
    """The processes of a session that run."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def statuses(store: Path, experiment: str) -> dict[str, str]:
    """Status of each MLflow run, by name."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return {run.info.run_name: run.info.status for run in client.search_runs([found.experiment_id])}


class Command(Loop):
    """`autophagy run` with MLflow in its store."""

    def __init__(self, folder: Path, values: dict, *settings: str) -> None:
        super().__init__(folder, values, *settings)
        self.command[self.command.index("none")] = f"sqlite:///{self.store}/mlflow.db"

    def leases(self) -> list[Path]:
        return list(self.store.glob("leases/*/*.json"))

    def is_training(self) -> bool:
        """Whether a model is being trained, and has kept a state to go on from."""
        return bool(list(self.store.glob("leases/train/*.json")) and list(self.store.glob("scratch/train/*/*")))

    def stop(self, number: signal.Signals, when: Callable[[], bool], *, group: bool = False, times: int = 1) -> str:
        """Start it, send a signal as soon as `when` holds, see that nothing of it is left; what it said."""
        self.log.write_bytes(b"")
        process = self.start()
        try:
            while not when() and process.poll() is None:
                time.sleep(0.01)
            assert process.poll() is None, self.log.read_text()
            for _ in range(times):
                (os.killpg if group else os.kill)(process.pid, number)
                time.sleep(0.2)
            # Once Ray is disconnected, another SIGTERM ends the process by itself; to a shell the code is the same.
            codes = {128 + number} if times == 1 else {128 + number, -number}
            assert process.wait(END_SECONDS) in codes, self.log.read_text()
            _, left = psutil.wait_procs(session(process.pid), timeout=GONE_SECONDS)
            assert not left
            assert not session(process.pid)
        finally:
            kill(process)
            for left in session(process.pid):
                left.kill()
        return self.log.read_text()


def check(said: str, last: str) -> None:
    """Nothing but its own lines, the last of them about the signal."""
    assert said.splitlines()[-1] == last
    for noise in ("Traceback", "***", "Error", "@ 0x", "raylet"):
        assert noise not in said, said


@pytest.mark.slow
def test_told_to_stop_by_a_scheduler_and_by_a_lost_connection_a_loop_goes_on(tmp_path, tiny_values):
    loop = Command(tmp_path / "loop", tiny_values, "generations=0", *SETTINGS)
    check(loop.stop(signal.SIGTERM, loop.is_training), "stopped by SIGTERM; the same command goes on from here")
    assert not loop.leases()
    assert statuses(loop.store, "autophagy") == {"tiny": "KILLED"}
    before = loop.created()
    said = loop.stop(signal.SIGHUP, loop.is_training, group=True)
    check(said, "stopped by SIGHUP; the same command goes on from here")
    assert not loop.leases()
    assert statuses(loop.store, "autophagy") == {"tiny": "KILLED"}
    loop.finish()
    assert {stage: loop.created()[stage] for stage in before} == before
    assert statuses(loop.store, "autophagy") == {"tiny": "FINISHED"}
    assert not list(loop.store.glob("scratch/*/*/*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "times"),
    [
        pytest.param(signal.SIGTERM, True, 1, id="SIGTERM to all"),
        pytest.param(signal.SIGTERM, False, 3, id="SIGTERM three times"),
        pytest.param(signal.SIGHUP, False, 1, id="SIGHUP"),
        pytest.param(signal.SIGINT, True, 1, id="Ctrl-C"),
        pytest.param(signal.SIGINT, True, 3, id="Ctrl-C three times"),
    ],
)
def test_every_signal_ends_a_loop_in_order(tmp_path, tiny_values, number, group, times):
    loop = Command(tmp_path / "loop", tiny_values, "generations=0", *SETTINGS)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    said = loop.stop(number, loop.is_training, group=group, times=times)
    check(said, f"stopped{by}; the same command goes on from here")
    assert not loop.leases()
    assert statuses(loop.store, "autophagy") == {"tiny": "KILLED"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGTERM, False), (signal.SIGHUP, True)], ids=["SIGTERM", "SIGHUP"]
)
def test_a_sweep_ends_in_order_with_its_loops(tmp_path, tiny_values, number, group):
    values = {"name": "grid", "base": tiny_values, "axes": {"selection.strategy": ["random", "lsf"]}}
    sweep = Command(tmp_path / "grid", values, *(f"base.{setting}" for setting in ("generations=1", *SETTINGS)))
    sweep.command[sweep.command.index("run")] = "sweep"

    def under_way() -> bool:
        return bool(list(sweep.store.glob("runs/grid-*/records.jsonl"))) and sweep.is_training()

    said = sweep.stop(number, under_way, group=group)
    check(said, f"stopped by {number.name}; the same command goes on from here")
    assert set(statuses(sweep.store, "grid").values()) == {"KILLED"}
    sweep.finish()
    assert set(statuses(sweep.store, "grid").values()) == {"FINISHED"}


@pytest.mark.slow
def test_what_comes_while_ray_starts_is_heeded_too(tmp_path, tiny_values):
    loop = Command(tmp_path / "loop", tiny_values, "generations=0", *SETTINGS)
    process = loop.start()
    while not any("raylet" in found.name() for found in session(process.pid)):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(END_SECONDS) == 143
    finally:
        kill(process)
        for left in session(process.pid):  # agents of Ray's that were just starting
            left.kill()
    assert not loop.leases()
