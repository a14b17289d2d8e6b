"""What the tests share: one local Ray for a whole session, and loops small enough to run in seconds."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

# Before torch is loaded: tiny tensors gain nothing from threads, and spinning ones starve the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What stands for an installed package must be found by Ray's workers too.
OUTSIDE = Path(__file__).parent / "outside"
os.environ["PYTHONPATH"] = os.pathsep.join([str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])

TINY: dict[str, Any] = {
    "name": "tiny",
    "generations": 2,
    "budget": 64,
    "data": {"source": "digits", "image_size": 8, "num_real": 200, "num_held_out": 100},
    "model": {"block_out_channels": [8, 16]},
    # 33 divides neither the budget nor the real set, and is not halved evenly between two workers.
    "training": {
        "initial_epochs": 2,
        "epochs": 1,
        "global_batch_size": 33,
        "precision": "float32",
        "num_workers": 0,
    },
    "generation": {"num_inference_steps": 3, "shard_size": 32, "precision": "float32", "num_actors": 0},
    "scenario": {"kind": "accumulate_subsample"},
    "selection": {"strategy": "random"},
    "metrics": {"num_samples": 64},
}


@pytest.fixture(scope="session")
def tiny_values() -> dict[str, Any]:
    """The plain values of `tiny`, as a YAML file would hold them."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def tiny(tiny_values) -> Callable[..., Any]:
    """A loop of seconds, with settings such as `generations=1` applied."""
    from autophagy.config import override, parse

    return lambda *settings: parse(override(tiny_values, settings))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray on this machine for the whole session. Four logical CPUs, so that two training workers fit anywhere."""
    import ray

    ray.init(num_cpus=4, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished_store(local_ray, tiny, tmp_path_factory) -> Path:
    """A store in which `tiny()` has run to its end. Not to be changed: take `store`."""
    from autophagy.loop import run_loop
    from autophagy.store import StageStore

    path = tmp_path_factory.mktemp("finished") / "store"
    run_loop(tiny(), StageStore(path))
    return path


@pytest.fixture(scope="module")
def shared_store(finished_store, tmp_path_factory) -> Any:
    """A copy of the finished store for all tests of a module to add to: what they share is computed once."""
    from autophagy.store import StageStore

    return StageStore(shutil.copytree(finished_store, tmp_path_factory.mktemp("shared") / "store"))


@pytest.fixture
def store(finished_store, tmp_path) -> Any:
    """A copy of the finished store, to be changed."""
    from autophagy.store import StageStore

    return StageStore(shutil.copytree(finished_store, tmp_path / "store"))


@pytest.fixture
def empty_store(local_ray, tmp_path) -> Any:
    """A fresh store."""
    from autophagy.store import StageStore

    return StageStore(tmp_path / "empty")


@pytest.fixture
def killing() -> Any:
    """Context in which a process of these tests is killed, once a loop of a store has a record: it is at work then."""

    def kill(command: str, runs: Path, killed: list[int]) -> None:
        while not list(runs.glob("*/records.jsonl")):
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if command in "".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

    @contextmanager
    def context(command: str, store: Any) -> Iterator[None]:
        killed: list[int] = []
        killer = threading.Thread(target=kill, args=(command, Path(store.root, "runs"), killed), daemon=True)
        killer.start()
        yield
        killer.join(30)
        assert killed, f"no process named {command} was there to be killed"

    return context


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URI query of an empty S3 server, with credentials for it in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        server = Path(sys.executable).with_name("moto_server")
        process = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_listening(port)
            yield f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        finally:
            process.kill()
            process.wait()


def wait_until_listening(port: int) -> None:
    limit = time.monotonic() + 60
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)
