"""Something happens at the n-th call to the storage, for every n: on a disk and on S3."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat

import pytest
from faulty import FAULTS, PAYLOAD, Stopped, build, check, collect, faulty_store, leftovers, read

from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore, leases, storage

# A thread of a process that is gone ends too.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def fresh(request, tmp_path, monkeypatch) -> Callable[[], StageStore]:
    """Empty stores, one after the other."""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "_POLL_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.0)
    if request.param == "local":
        return lambda: StageStore(tmp_path / uuid.uuid4().hex)
    query = request.getfixturevalue("s3")
    return lambda: StageStore(f"s3://bucket/{uuid.uuid4().hex}?{query}&allow_bucket_creation=true")


@pytest.fixture
def suspected(monkeypatch) -> None:
    """Every lease looks dead to everybody: its owner sleeps, its host is cut off, its heartbeats fail."""
    monkeypatch.setattr(leases, "owner", lambda data: "dead")


def every_call(num_calls: int) -> Iterator[int]:
    assert num_calls > 5, "nothing was counted"
    yield from range(1, num_calls + 1)


def claimed(store: StageStore) -> StageStore:
    """A store in which a run needs the stage."""
    RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
    return store


def count_calls(store: StageStore, act: Callable[[StageStore], object]) -> int:
    faulty = faulty_store(store)
    act(faulty)
    return faulty.storage.count


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "meanwhile"])
def test_a_build_that_is_refused_or_stopped(fresh, fault):
    for nth in every_call(count_calls(fresh(), build)):
        store = fresh()
        faulty = faulty_store(store, fault, nth)
        with contextlib.suppress(OSError, Stopped):
            assert read(build(faulty)) == PAYLOAD
        for thread in threading.enumerate():
            if thread.name == "lease":
                thread.join(10)
        with contextlib.suppress(OSError):
            faulty.storage.late()
        check(store)
        if faulty.storage.gone or fault == "late":  # its process number lives on here, and its lease with it
            store.storage.remove(leases.lease_path(store.storage, "train", "k1"))
        assert read(build(store)) == PAYLOAD
        check(store)
        RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
        collect(store, delete=True, older_than=0)
        assert read(build(store)) == PAYLOAD
        if store.storage.local:
            assert {name for name in leftovers(store) if not name.startswith("tmp/")} == set()


def test_a_collector_beside_a_builder_that_looks_dead(fresh, suspected):
    """What the builder publishes is whole from the first moment on, or is not opened."""
    for nth in every_call(count_calls(fresh(), build)):
        store = claimed(fresh())
        acts = chain([partial(collect, store, delete=True, older_than=0)], repeat(partial(check, store, settled=False)))
        faulty = faulty_store(store, "meanwhile", nth, lambda acts=acts: next(acts)(), times=1000)
        with contextlib.suppress(OSError):  # its folder went while it wrote
            assert read(build(faulty)) == PAYLOAD
        check(store)
        assert read(build(store)) == PAYLOAD


def test_a_collector_that_comes_again_and_again(fresh, suspected):
    for nth in every_call(count_calls(fresh(), build)):
        store = claimed(fresh())
        again = partial(collect, store, delete=True, older_than=0)
        with contextlib.suppress(OSError, RuntimeError):  # a folder went while it wrote; or three builds were in vain
            assert read(build(faulty_store(store, "meanwhile", nth, again, times=7))) == PAYLOAD
        check(store)
        assert read(build(store)) == PAYLOAD


@pytest.mark.parametrize(
    ("fresh", "stride"),
    [
        ("local", 7),
        pytest.param("local", 1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param("s3", 35, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
    indirect=["fresh"],
)
def test_a_builder_goes_on_in_the_middle_of_a_collection(fresh, suspected, stride):
    """It sleeps before its n-th call until the collector has come to its m-th."""
    calls, m = count_calls(fresh(), build), 1
    for nth in every_call(calls):
        m = m % stride + 1
        while True:
            store = claimed(fresh())
            asleep, awake = threading.Event(), threading.Event()
            sleeper = faulty_store(store, "meanwhile", nth, lambda a=asleep, b=awake: (a.set(), b.wait(60)))
            built: list = []
            thread = threading.Thread(target=lambda s=sleeper, b=built: b.append(build(s)))
            thread.start()
            while not asleep.is_set() and thread.is_alive():
                time.sleep(0.0005)
            collector = faulty_store(store, "meanwhile", m, lambda t=thread, b=awake: (b.set(), t.join(60)))
            # The S3 server of these tests garbles what is read while it is written.
            with contextlib.nullcontext() if store.storage.local else contextlib.suppress(OSError):
                collect(collector, delete=True, older_than=0)
            awake.set()
            thread.join(60)
            check(store)
            assert read(build(store)) == PAYLOAD
            if m > collector.storage.count:
                break
            m += stride


def test_another_builder_takes_over_from_one_that_looks_dead(fresh, suspected):
    for nth in every_call(count_calls(fresh(), build)):
        store = fresh()
        built = []
        faulty = faulty_store(store, "meanwhile", nth, lambda store=store, built=built: built.append(build(store)))
        mine = build(faulty)
        check(store)
        paths = {artifact.path for artifact in (mine, *built)}
        assert len(paths) == 1 or not store.storage.local  # S3 has no lock: both may publish, one after the other
        assert store.open("train", "k1").path in paths
        assert all(read(artifact) == PAYLOAD for artifact in (mine, *built))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_claims_while_a_collector_works(fresh, fault):
    """What it finds finished stays; what it does not find it builds."""

    def prepare() -> StageStore:
        store = fresh()
        build(store, "real")
        build(store, "k1", {"real": "real"})
        RunFolder(store, "other").write("stages.json", b'[["train", "other"]]')
        store.storage.put(store.storage.at("stages", "train", "k2", "dead", "part-0"), b"0")
        store.storage.put(store.storage.at("scratch", "train", "k1", "checkpoint"), b"0")
        return store

    delete_garbage = partial(collect, delete=True, older_than=0)
    for nth in every_call(count_calls(prepare(), delete_garbage)):
        store, opened = prepare(), []

        def claim(store: StageStore = store, opened: list = opened) -> None:
            RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
            opened.extend([build(store, "real"), build(store, "k1", {"real": "real"})])

        faulty = faulty_store(store, fault, nth, claim)
        with contextlib.suppress(OSError, Stopped):
            delete_garbage(faulty)
        check(store)
        for artifact in opened:
            assert read(artifact) == PAYLOAD
        assert read(build(store, "k1", {"real": "real"})) == PAYLOAD
        delete_garbage(store)
        check(store)
