"""Builders that sleep, clocks that differ, heartbeats that fail, file servers that answer twice."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faulty import PAYLOAD, build, check, collect, faulty_store, read

from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore, leases, upkeep
from autophagy.store import store as store_module
from autophagy.store.upkeep import verify

SOURCE = Path(store_module.__file__).parents[2]
BUILDER = """
import sys, time
from pathlib import Path
from autophagy.store import StageStore
box = Path(sys.argv[2])
def builder(attempt):
    for i in range(8):
        attempt.write_bytes(f"shard-{i}", b"%d" % i)
        if i == 3 and not (box / "go").exists():
            (box / "half").touch()
            while not (box / "go").exists():
                time.sleep(0.01)
StageStore(sys.argv[1]).build("generate", "k1", {}, builder)
"""


@pytest.fixture
def store(tmp_path) -> StageStore:
    made = StageStore(tmp_path / "store")
    RunFolder(made, "run").write("stages.json", b'[["train", "k1"], ["generate", "k1"]]')
    return made


@pytest.fixture
def asleep(store, tmp_path) -> Iterator[Callable[[], None]]:
    """A builder that is stopped when four of its eight files are there; called, it goes on to its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, store.uri, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    wait_for((tmp_path / "half").exists)
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)

    def wake() -> None:
        (tmp_path / "go").touch()
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0

    yield wake
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def in_store(store: StageStore) -> set[str]:
    return {str(path.relative_to(store.root)) for path in Path(store.root).rglob("*") if path.is_file()}


def edit_lease(store: StageStore, stage: str, **changes: object) -> None:
    path = leases.lease_path(store.storage, stage, "k1")
    store.storage.put(path, json.dumps(json.loads(store.storage.read(path) or b"") | changes).encode())


class TestASleepingBuilder:
    def test_is_left_alone_by_a_collector_that_has_not_seen_it_for_long(self, store, asleep):
        before = in_store(store)
        collect(store, delete=True, older_than=0)
        assert before <= in_store(store)
        asleep()
        assert len(store.open("generate", "k1").files()) == 8

    def test_begins_anew_when_its_files_were_collected(self, store, asleep, monkeypatch):
        monkeypatch.setattr(leases, "DEAD_SECONDS", 0.1)
        collect(store, delete=True, older_than=0)
        time.sleep(0.2)
        items = collect(store, delete=True, older_than=0)
        deleted = {item.path.removeprefix(f"{store.root}/stages/generate/") for item in items}
        assert any(path.startswith("k1/") for path in deleted)
        assert not list(Path(store.root).rglob("shard-*"))
        asleep()
        artifact = store.open("generate", "k1")
        assert read(artifact) == {f"shard-{i}": b"%d" % i for i in range(8)}
        assert not any(problems for _, problems in verify(store))

    def test_does_not_keep_others_waiting(self, store, asleep, monkeypatch):
        monkeypatch.setattr(leases, "DEAD_SECONDS", 0.3)
        messages: list[str] = []
        artifact = store.build("generate", "k1", {}, lambda a: a.write_bytes("all", b"1"), wait=messages.append)
        assert len(messages) == 1
        assert artifact.files() == ["all"]
        asleep()
        assert store.open("generate", "k1") == artifact

    def test_keeps_its_lease_when_it_wakes_up_in_time(self, store, monkeypatch):
        monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)

        def builder(attempt):
            path = Path(leases.lease_path(store.storage, "train", "k1"))
            path.unlink()  # set aside by another process for a moment, while the heartbeat looked
            wait_for(path.exists)
            attempt.write_bytes("all", b"1")

        store.build("train", "k1", {}, builder)
        assert not list(Path(store.root, "leases").rglob("*.json"))

    def test_nor_does_a_lease_that_nobody_keeps(self, store, monkeypatch):
        """Written once more after it was released, as a repeated request may be; its process lives."""
        monkeypatch.setattr(leases, "STUCK_SECONDS", 0.3)
        path, left = leases.lease_path(store.storage, "train", "k1"), []
        with leases.hold(store.storage, "train", "k1", [], lambda: False):
            left.append(store.storage.read(path))
        store.storage.put(path, left[0])
        assert leases.owner(left[0]) == "alive"
        assert read(build(store)) == PAYLOAD


class TestClocks:
    @pytest.mark.parametrize("hours", [-1, 0.017, 1, 10_000])
    def test_a_collector_whose_clock_is_off_leaves_builders_elsewhere_alone(self, store, monkeypatch, hours):
        build(store, "input")

        def builder(attempt):
            attempt.write_bytes("half", b"1")
            store.storage.put(f"{attempt.scratch}/checkpoint", b"1")
            edit_lease(store, "train", host="elsewhere")
            before, now = in_store(store), time.time()
            with monkeypatch.context() as patch:
                patch.setattr(upkeep.time, "time", lambda: now + 3600 * hours)
                collect(store, delete=True, older_than=0)
            assert before <= in_store(store)

        store.build("train", "k1", {"inputs": {"real": "input"}}, builder)
        assert store.is_done("train", "input")

    def test_a_lease_from_the_future_is_waited_for_no_longer_than_others(self, store, monkeypatch):
        """Its owner's clock was an hour ahead, and it died."""
        monkeypatch.setattr(leases, "DEAD_SECONDS", 0.3)
        content = {"host": "elsewhere", "pid": 1, "started": 1, "owner": "x", "inputs": []}
        path = leases.lease_path(store.storage, "train", "k1")
        store.storage.put(path, json.dumps({**content, "heartbeat": time.time() + 3600}).encode())
        begun = time.monotonic()
        assert read(build(store)) == PAYLOAD
        assert time.monotonic() - begun < 10

    def test_a_lease_that_changes_is_waited_for_whatever_it_says(self, store, monkeypatch):
        monkeypatch.setattr(leases, "DEAD_SECONDS", 0.3)
        path = leases.lease_path(store.storage, "train", "k1")
        content = {"host": "elsewhere", "pid": 1, "started": 1, "owner": "x", "inputs": []}
        thread = threading.Thread(target=build, args=(store,))
        for beat in range(12):
            store.storage.put(path, json.dumps({**content, "heartbeat": -beat}).encode())
            if not beat:
                thread.start()
            time.sleep(0.1)
            assert not store.is_done("train", "k1")
        thread.join(30)
        assert store.is_done("train", "k1")

    def test_what_was_marked_by_a_clock_ahead_gets_no_older(self, store):
        store.storage.put(store.storage.at("scratch", "train", "unused", "x"), b"1")
        (item,) = collect(store)
        assert (item.age, item.deleted) == (0.0, False)
        marks = json.loads(store.storage.read(store.storage.at("garbage.json")))
        marks = {path: [since + 3600, state] for path, (since, state) in marks.items()}
        store.storage.put(store.storage.at("garbage.json"), json.dumps(marks).encode())
        assert collect(store, delete=True, older_than=1)[0].age == 0.0


def test_heartbeats_that_fail_for_long_make_no_living_process_dead(store, monkeypatch):
    """A full disk: nothing can be written, and whoever makes room collects beside the builder."""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(leases, "DEAD_SECONDS", 0.05)
    full = faulty_store(store, "refuse", nth=10**9, times=10**9)
    tried = []

    def builder(attempt):
        for name, data in PAYLOAD.items():
            attempt.write_bytes(name, data)
        full.storage.nth = full.storage.count  # from now on
        wait_for(lambda: full.storage.count > full.storage.nth + 10)
        time.sleep(0.2)
        before = in_store(store)
        collect(store, delete=True, older_than=0)
        collect(store, delete=True, older_than=0)
        tried.append(before - in_store(store))
        full.storage.nth = 10**9

    assert read(full.build("train", "k1", {}, builder)) == PAYLOAD
    assert tried == [set()]


class TestAFileServer:
    """NFS: a request is carried out, its answer is lost, and the client asks again."""

    @pytest.mark.parametrize("error", [FileExistsError(errno.EEXIST, "again"), OSError(errno.EIO, "lost")])
    def test_link_that_was_carried_out_and_refused(self, store, monkeypatch, error):
        link = os.link

        def twice(source: str, target: str) -> None:
            link(source, target)
            if target.endswith("manifest.json"):
                raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", twice)
            if isinstance(error, FileExistsError):
                assert read(build(store)) == PAYLOAD
            else:
                with pytest.raises(OSError, match="lost"):
                    build(store)
        check(store)
        assert store.is_done("train", "k1")
        assert read(store.open("train", "k1")) == PAYLOAD

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
    def test_interrupted_right_after_publishing_it_keeps_what_it_published(self, store, monkeypatch, error):
        def interrupted(path: str) -> None:
            if path.endswith("manifest.json"):
                raise error

        monkeypatch.setattr(store.storage, "sync_name", interrupted, raising=False)
        with pytest.raises(error):
            build(store)
        check(store)
        assert read(store.open("train", "k1")) == PAYLOAD
