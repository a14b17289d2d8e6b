"""The same store on a disk and on S3 (a server in a process of its own): one behaviour, two places."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from autophagy.common.errors import UserError
from autophagy.runs.claims import StagesInUse
from autophagy.runs.folder import RunFolder
from autophagy.store import Artifact, Attempt, StageStore
from autophagy.store import store as store_module
from autophagy.store.upkeep import gc, ls, verify

SOURCE = Path(store_module.__file__).parents[2]


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path) -> StageStore:
    if request.param == "local":
        return StageStore(tmp_path / "store")
    query = request.getfixturevalue("s3")
    return StageStore(f"s3://bucket/{uuid.uuid4().hex}?{query}&allow_bucket_creation=true")


def wait_for(condition, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def write(attempt: Attempt) -> None:
    attempt.write_bytes("weights.bin", b"0123456789")
    attempt.write_json("sub/notes.json.gz", {"loss": 0.5})  # a name that asks for no compression here


def forbidden(attempt: Attempt) -> None:
    raise AssertionError("built again")


def files_below(store: StageStore, folder: str) -> list[str]:
    found = store.storage.entries(store.storage.at(folder), recursive=True)
    return [info.path for info in found if info.is_file]


def overwrite(artifact: Artifact, name: str, data: bytes) -> None:
    with artifact.fs.open_output_stream(artifact.file(name)) as stream:
        stream.write(data)


def test_stage_is_built_once_and_read_back(store):
    built = store.build("train", "k1", {"inputs": {}}, write)
    again = pickle.loads(pickle.dumps(store)).build("train", "k1", {"inputs": {}}, forbidden)
    assert again.manifest == built.manifest
    assert again.files() == ["sub/notes.json.gz", "weights.bin"]
    assert again.read_bytes("weights.bin") == b"0123456789"
    assert pickle.loads(pickle.dumps(again)).read_json("sub/notes.json.gz") == {"loss": 0.5}
    assert store.siblings("train", "k") == ["k1"]
    assert [m["seconds"] for m in store.history("train")] == [built.manifest["seconds"]]
    assert [(info.key, info.size, info.files) for info in ls(store)] == [("k1", 23, 2)]
    assert files_below(store, "leases") == files_below(store, "scratch") == files_below(store, "tmp") == []


def test_error_of_the_builder_publishes_nothing_and_keeps_scratch(store):
    def failing(attempt):
        write(attempt)
        store.storage.put(f"{attempt.scratch}/checkpoint", b"epoch 2")
        raise RuntimeError("boom")

    def resuming(attempt):
        attempt.write_bytes("from", store.storage.read(f"{attempt.scratch}/checkpoint"))

    with pytest.raises(RuntimeError, match="boom"):
        store.build("train", "k1", {}, failing)
    assert not store.is_done("train", "k1")
    assert store.open("train", "k1") is None
    assert files_below(store, "stages") == files_below(store, "leases") == []
    assert store.build("train", "k1", {}, resuming).read_bytes("from") == b"epoch 2"
    assert files_below(store, "scratch") == []


def test_threads_share_one_build(store):
    built, messages, artifacts = [], [], []

    def builder(attempt):
        built.append(attempt.path)
        time.sleep(0.5)
        write(attempt)

    def run():
        artifacts.append(store.build("train", "k1", {}, builder, wait=messages.append))

    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    wait_for(lambda: built)
    second.start()
    first.join(30)
    second.join(30)
    assert [artifact.path for artifact in artifacts] == built * 2
    assert messages == [f"waiting for train k1: process {os.getpid()} on {socket.gethostname()} builds it"]


def test_killed_builder_is_taken_over_at_once(store, tmp_path):
    ready = tmp_path / "ready"
    code = """
import sys, time
from pathlib import Path
from autophagy.store import StageStore
def builder(attempt):
    attempt.write_bytes("half", b"ha")
    Path(sys.argv[2]).touch()
    time.sleep(600)
StageStore(sys.argv[1]).build("train", "k1", {}, builder)
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen([sys.executable, "-c", code, store.uri, str(ready)], env=environment)
    wait_for(ready.exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = time.monotonic()
    artifact = store.build("train", "k1", {}, write, wait=lambda message: pytest.fail(message))
    assert time.monotonic() - begun < 5
    assert "half" not in artifact.files()


@pytest.mark.parametrize("damage", ["deleted", "manifest"])
def test_damage_is_noticed_and_rebuilt(store, damage, caplog):
    artifact = store.build("train", "k1", {}, write)
    if damage == "deleted":
        store.fs.delete_file(artifact.file("weights.bin"))
    else:
        store.storage.put(store.storage.at("stages", "train", "k1", "manifest.json"), b"{")
    assert store.open("train", "k1") is None
    assert "damaged" in caplog.text
    assert not store.is_done("train", "k1")
    assert store.build("train", "k1", {}, write).read_bytes("weights.bin") == b"0123456789"


def test_flipped_bit_is_found_by_verify_and_rebuilt(store):
    artifact = store.build("train", "k1", {}, write)
    assert [problems for _, problems in verify(store)] == [[]]
    overwrite(artifact, "weights.bin", b"0123456788")
    assert [problems for _, problems in verify(store)] == [["weights.bin: wrong checksum"]]
    assert store.build("train", "k1", {}, write).read_bytes("weights.bin") == b"0123456789"


def test_garbage_is_what_runs_do_not_reach(store):
    store.build("real", "r", {}, write)
    store.build("train", "t", {"inputs": {"real": "r"}}, write)
    store.build("train", "unused", {"inputs": {"real": "r"}}, write)
    store.storage.put(store.storage.at("stages", "train", "t", "dead", "half"), b"123")
    store.storage.put(store.storage.at("scratch", "train", "t", "checkpoint"), b"12345")
    store.storage.put(store.storage.at("leases", "train", "t.json"), b'{"heartbeat": 0}')
    RunFolder(store, "run").write("records.jsonl", json.dumps({"stages": {"train/0": "t"}}).encode())
    before = files_below(store, "")
    found = {item.path.removeprefix(store.root + "/") for item in gc(store, StagesInUse(store))}
    assert found == {"stages/train/unused", "stages/train/t/dead", "scratch/train/t", "leases/train/t.json"}
    assert set(before) < set(files_below(store, ""))  # and garbage.json
    gc(store, StagesInUse(store), delete=True, older_than=0)
    assert [info.key for info in ls(store)] == ["r", "t"]
    assert all(not problems for _, problems in verify(store))
    assert len(before) + 1 - len(files_below(store, "")) == 7
    assert gc(store, StagesInUse(store)) == []


def test_tables_are_projected_and_filtered(store):
    def builder(attempt):
        for part in (1, 0):
            ids = list(range(4 * part, 4 * part + 4))
            table = pa.table({"sample_id": ids, "label": [i % 2 for i in ids]})
            attempt.write_table(f"images/{part}.parquet", table)

    artifact = store.build("generate", "k1", {}, builder)
    table = artifact.read_table("images", columns=["sample_id"], filter=ds.field("label") == 1)
    assert table.to_pydict() == {"sample_id": [1, 3, 5, 7]}


def test_run_files_are_written_replaced_and_read(store):
    assert RunFolder(store, "run").read("records.jsonl") is None
    for data in (b"one", b"two\n"):
        RunFolder(store, "run").write("records.jsonl", data)
        assert RunFolder(store, "run").read("records.jsonl") == data


def test_missing_bucket_is_one_line_for_the_user(s3):
    with pytest.raises(UserError, match=r"store: cannot use .*allow_bucket_creation") as caught:
        StageStore(f"s3://{uuid.uuid4().hex}/store?{s3}")
    assert "\n" not in str(caught.value)
