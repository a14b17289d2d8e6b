"""One process builds and the others wait; what a killed process held is taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autophagy.runs.claims import StagesInUse
from autophagy.runs.folder import RunFolder
from autophagy.store import Attempt, StageStore, leases
from autophagy.store import store as store_module
from autophagy.store.upkeep import gc, ls, verify

SOURCE = Path(store_module.__file__).parents[2]
PRELUDE = """
import os, sys, time, uuid
from pathlib import Path
from autophagy.store import StageStore
store, box = StageStore(sys.argv[1]), Path(sys.argv[2])
"""


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


def start(code: str, store: StageStore, box: Path) -> subprocess.Popen:
    """Another process with `store` and an existing folder `box` to talk through."""
    box.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PRELUDE + code, store.uri, str(box)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def write(attempt: Attempt) -> None:
    attempt.write_bytes("weights.bin", b"0123456789")
    attempt.write_json("sub/notes.json", {"loss": 0.5})


def attempts(store: StageStore, stage: str, key: str) -> list[str]:
    return sorted(name for name in os.listdir(f"{store.root}/stages/{stage}/{key}") if name != "manifest.json")


def files_below(store: StageStore, folder: str) -> list[Path]:
    return [path for path in Path(store.root, folder).rglob("*") if path.is_file()]


class TestSingleFlight:
    def test_processes_share_one_build(self, store, tmp_path):
        code = """
def builder(attempt):
    (box / ("built-" + uuid.uuid4().hex)).touch()
    time.sleep(0.7)
    attempt.write_bytes("pid", str(os.getpid()).encode())
(box / f"ready-{os.getpid()}").touch()
while not (box / "go").exists():
    time.sleep(0.005)
artifact = store.build("train", "k1", {}, builder, wait=lambda message: print(message))
print(artifact.read_bytes("pid").decode())
"""
        box = tmp_path / "box"
        processes = [start(code, store, box) for _ in range(3)]
        wait_for(lambda: len(list(box.glob("ready-*"))) == 3)
        (box / "go").touch()
        lines = [process.communicate(timeout=30)[0].splitlines() for process in processes]
        assert len(list(box.glob("built-*"))) == 1
        assert len({output[-1] for output in lines}) == 1
        messages = [line for output in lines for line in output[:-1]]
        builder, host = lines[0][-1], socket.gethostname()
        assert messages == [f"waiting for train k1: process {builder} on {host} builds it"] * 2

    def test_killed_builder_is_taken_over_at_once(self, store, tmp_path):
        code = """
def builder(attempt):
    attempt.write_bytes("half", b"ha")
    Path(attempt.scratch, "checkpoint").write_text("epoch 2")
    (box / "ready").touch()
    time.sleep(600)
store.build("train", "k1", {}, builder)
"""
        box = tmp_path / "box"
        process = start(code, store, box)
        wait_for((box / "ready").exists)
        process.send_signal(signal.SIGKILL)  # and nobody reaps it: a zombie does not live
        begun = time.monotonic()

        def builder(attempt):
            attempt.write_bytes("from", Path(attempt.scratch, "checkpoint").read_bytes())

        artifact = store.build("train", "k1", {}, builder)
        assert time.monotonic() - begun < 3
        assert artifact.files() == ["from"]
        assert len(attempts(store, "train", "k1")) == 2  # the dead one's is garbage
        RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
        assert [item.why for item in gc(store, StagesInUse(store))] == ["left by a build that did not finish"]
        process.communicate()

    def test_kill_at_any_point_leaves_a_store_that_works(self, store, tmp_path):
        code = """
(box / "ready").touch()
for i in range(10_000):
    store.build("s", f"k{i}", {}, lambda a: [a.write_bytes(n, n.encode() * 9) for n in "abc"])
"""
        box = tmp_path / "box"
        for pause in (0.02, 0.05, 0.11):
            process = start(code, store, box)
            wait_for((box / "ready").exists)
            time.sleep(pause)
            process.kill()
            process.communicate()
            (box / "ready").unlink()
            assert all(not problems for _, problems in verify(store))
        done = len(ls(store))
        assert done > 0
        for i in range(done + 1):
            artifact = store.build("s", f"k{i}", {}, lambda a: a.write_bytes("a", b"a" * 9))
            assert artifact.read_bytes("a") == b"a" * 9

    def test_second_publisher_loses_and_reads_the_first(self, store):
        def slow(attempt):
            attempt.write_bytes("who", b"slow")
            os.unlink(f"{store.root}/leases/train/k1.json")  # taken for dead by another process
            store.build("train", "k1", {}, lambda other: other.write_bytes("who", b"fast"))

        artifact = store.build("train", "k1", {}, slow)
        assert artifact.read_bytes("who") == b"fast"
        assert len(attempts(store, "train", "k1")) == 1


class TestLease:
    def lease(self, store: StageStore, **changes) -> Path:
        """A lease file as our own process writes it, then changed."""
        path = Path(store.root, "leases/train/k1.json")
        content = {}

        def builder(attempt):
            content.update(json.loads(path.read_bytes()))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            store.build("train", "k1", {}, builder)
        path.write_text(json.dumps({**content, **changes}))
        return path

    def test_live_lease_of_another_host_is_waited_for(self, store):
        path = self.lease(store, host="elsewhere", heartbeat=time.time())
        messages = []
        thread = threading.Thread(target=store.build, args=("train", "k1", {}, write, messages.append))
        thread.start()
        time.sleep(0.6)
        assert not store.is_done("train", "k1")
        path.unlink()
        thread.join(10)
        assert store.is_done("train", "k1")
        assert messages == [f"waiting for train k1: process {os.getpid()} on elsewhere builds it"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"started": 1},  # our process id, but of a process that is long gone
            {"pid": 2**22 + 1},  # above the largest process id
            {"pid": "?"},
            {"host": None},
            {"inputs": None},
        ],
    )
    def test_dead_lease_is_taken_over_at_once(self, store, changes):
        self.lease(store, **changes)
        store.build("train", "k1", {}, write, wait=lambda message: pytest.fail(message))
        assert files_below(store, "leases") == []

    def test_unreadable_lease_is_dead(self, store):
        self.lease(store).write_bytes(b"\x00{")
        store.build("train", "k1", {}, write, wait=lambda message: pytest.fail(message))

    def test_heartbeat_goes_on_while_the_builder_works(self, store, monkeypatch):
        monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
        path = Path(store.root, "leases/train/k1.json")

        def builder(attempt):
            def beat():
                return json.loads(path.read_bytes())["heartbeat"]

            first = beat()
            wait_for(lambda: beat() > first)

        store.build("train", "k1", {}, builder)

    def test_lost_lease_is_left_to_its_new_owner(self, store, monkeypatch):
        monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
        path = Path(store.root, "leases/train/k1.json")
        other = json.dumps({"owner": "another", "host": "elsewhere", "heartbeat": time.time(), "inputs": []})

        def builder(attempt):
            path.write_text(other)
            time.sleep(0.2)

        store.build("train", "k1", {}, builder)
        assert path.read_text() == other
