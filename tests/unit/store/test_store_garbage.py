"""What a store holds, and what nobody needs of it."""

import json
import os
from pathlib import Path

import pytest

from autophagy.common.errors import UserError
from autophagy.runs.claims import StagesInUse
from autophagy.runs.folder import RunFolder
from autophagy.store import Attempt, StageStore
from autophagy.store.upkeep import GarbageItem, gc, ls, verify


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


def write(attempt: Attempt) -> None:
    attempt.write_bytes("weights.bin", b"0123456789")
    attempt.write_json("sub/notes.json", {"loss": 0.5})


def files_below(store: StageStore, folder: str) -> list[Path]:
    return [path for path in Path(store.root, folder).rglob("*") if path.is_file()]


def collect(store, **options) -> list[GarbageItem]:
    """Look for garbage as `autophagy store gc` does: what no run folder names is in use by nobody."""
    return gc(store, StagesInUse(store), **options)


class TestGarbage:
    @pytest.fixture
    def full(self, store) -> StageStore:
        """A store with stages in use and one of every kind of garbage."""
        store.build("real", "r", {}, write)
        store.build("train", "t", {"inputs": {"real": "r"}}, write)
        store.build("generate", "g", {"inputs": {"model": "t"}}, write)
        store.build("evaluate", "planned", {}, write)
        record = {"generation": 0, "metrics": {}, "stages": {"generate/0": "g"}, "seconds": {}}
        RunFolder(store, "run").write("records.jsonl", json.dumps(record).encode() + b"\n")
        RunFolder(store, "other").write("stages.json", json.dumps([["evaluate", "planned"]]).encode())
        store.build("train", "unused", {"inputs": {"real": "r"}}, write)
        store.storage.put(store.storage.at("stages", "train", "t", "dead", "half"), b"123")
        store.storage.put(store.storage.at("stages", "train", "new", "dead", "half"), b"1234")
        store.storage.put(store.storage.at("stages", "train", "torn", "manifest.json"), b"{")
        store.storage.put(store.storage.at("scratch", "train", "new", "checkpoint"), b"12345")
        store.storage.put(store.storage.at("leases", "train", "new.json"), b'{"heartbeat": 0}')
        old, young = (store.storage.at("tmp", name) for name in ("old", "young"))
        for path in (old, young):
            store.storage.put(path, b"123456")
        os.utime(old, (1, 1))
        return store

    def test_dry_run_finds_it_and_deletes_nothing(self, full):
        before = set(files_below(full, ""))
        items = {item.path.removeprefix(full.root + "/"): item.size for item in collect(full)}
        unused = sum(path.stat().st_size for path in files_below(full, "stages/train/unused"))
        assert items == {
            "stages/train/unused": unused,
            "stages/train/t/dead": 3,
            "stages/train/new/dead": 4,
            "stages/train/torn/manifest.json": 1,
            "scratch/train/new": 5,
            "leases/train/new.json": 16,
            "tmp/old": 6,
        }
        assert set(files_below(full, "")) - before == {Path(full.root, "garbage.json")}
        assert before <= set(files_below(full, ""))

    def test_delete_keeps_what_runs_reach(self, full):
        found = collect(full, delete=True, older_than=0)
        assert found
        assert all(item.deleted for item in found)
        assert [(info.stage, info.key) for info in ls(full)] == [
            ("evaluate", "planned"),
            ("generate", "g"),
            ("real", "r"),
            ("train", "t"),
        ]
        assert all(not problems for _, problems in verify(full))
        assert RunFolder(full, "run").read("records.jsonl")
        assert not any(os.path.exists(item.path) for item in found)
        assert collect(full) == []

    def test_leaves_a_build_under_way_and_its_inputs_alone(self, store):
        store.build("real", "r", {}, write)
        store.build("train", "unused", {}, write)

        def builder(attempt):
            write(attempt)
            Path(attempt.scratch, "checkpoint").touch()
            assert [Path(item.path).name for item in collect(store, delete=True, older_than=0)] == ["unused"]
            assert Path(attempt.scratch, "checkpoint").exists()

        store.build("train", "t", {"inputs": {"real": "r"}}, builder)
        assert store.open("train", "t").read_bytes("weights.bin") == b"0123456789"
        assert store.is_done("real", "r")

    @pytest.mark.parametrize(("file", "data"), [("records.jsonl", b'{"stages": {'), ("stages.json", b"{}{")])
    def test_refuses_to_guess_what_an_unreadable_run_uses(self, full, file, data):
        RunFolder(full, "run").write(file, data)
        with pytest.raises(UserError, match=r"cannot read which stages .*/runs/run uses"):
            collect(full, delete=True, older_than=0)
        assert full.is_done("train", "unused")

    def test_empty_store_has_none(self, store):
        assert collect(store, delete=True) == []


class TestLookingAround:
    def test_siblings_are_finished_and_share_the_prefix(self, store):
        for key in ("a-10", "a-20", "b-10"):
            store.build("generate", key, {}, write)
        store.storage.put(store.storage.at("stages", "generate", "a-30", "attempt", "x"), b"")
        assert store.siblings("generate", "a-") == ["a-10", "a-20"]
        assert store.siblings("train", "a-") == []

    def test_history_is_newest_first_and_at_most_twenty(self, store):
        for i in range(22):
            artifact = store.build("train", f"k{i}", {}, write)
            # Of their own times two may be equal.
            os.utime(Path(store.root, Path(artifact.path).parent, "manifest.json"), (i, i))
        assert [manifest["key"] for manifest in store.history("train")] == [f"k{i}" for i in range(21, 1, -1)]
        assert store.history("generate") == []

    def test_ls_tells_size_and_count(self, store):
        store.build("train", "k1", {}, write)
        (info,) = ls(store)
        assert (info.stage, info.key, info.size, info.files) == ("train", "k1", 10 + len('{"loss": 0.5}'), 2)
        assert info.created.endswith("+00:00")

    def test_stray_files_disturb_nothing(self, store):
        store.build("train", "k1", {}, write)
        for path in ("stages/.DS_Store", "stages/train/.DS_Store", "stages/.x/k/manifest.json", "runs/.x"):
            store.storage.put(store.storage.at(path), b"?")
        assert [info.key for info in ls(store)] == ["k1"]
        assert [item.path for item in collect(store)] == [f"{store.root}/stages/train/k1"]


class TestGrace:
    """What a first look finds a later one deletes."""

    @pytest.fixture
    def unused(self, store) -> StageStore:
        store.build("train", "unused", {}, write)
        store.storage.put(store.storage.at("scratch", "train", "new", "checkpoint"), b"12345")
        return store

    def later(self, store: StageStore, seconds: float) -> None:
        """As if what was seen had been seen earlier."""
        marks = json.loads(store.storage.read(store.storage.at("garbage.json")))
        marks = {path: [since - seconds, state] for path, (since, state) in marks.items()}
        store.storage.put(store.storage.at("garbage.json"), json.dumps(marks).encode())

    def test_nothing_is_deleted_that_was_not_seen_a_day_ago(self, unused):
        for _ in range(2):
            assert [item.deleted for item in collect(unused, delete=True)] == [False, False]
        self.later(unused, 23.9 * 3600)
        assert [item.deleted for item in collect(unused, delete=True)] == [False, False]
        self.later(unused, 0.2 * 3600)
        items = collect(unused, delete=True)
        assert [item.deleted for item in items] == [True, True]
        assert all(86400 <= item.age < 90000 for item in items)
        assert collect(unused) == []
        assert json.loads(unused.storage.read(unused.storage.at("garbage.json"))) == {}

    def test_a_look_without_delete_counts(self, unused):
        collect(unused)
        self.later(unused, 90000)
        assert all(not item.deleted and item.age >= 90000 for item in collect(unused))
        assert all(item.deleted for item in collect(unused, delete=True))

    def test_what_changed_begins_anew(self, unused):
        collect(unused)
        self.later(unused, 90000)
        unused.storage.put(unused.storage.at("scratch", "train", "new", "checkpoint"), b"123456")
        ages = {Path(item.path).name: item.age >= 90000 for item in collect(unused, delete=True)}
        assert ages == {"unused": True, "new": False}

    def test_what_was_needed_meanwhile_begins_anew(self, unused):
        collect(unused)
        self.later(unused, 90000)
        RunFolder(unused, "run").write("stages.json", b'[["train", "unused"]]')
        assert [Path(item.path).name for item in collect(unused)] == ["new"]
        os.unlink(f"{unused.root}/runs/run/stages.json")
        assert {Path(i.path).name: i.deleted for i in collect(unused, delete=True)} == {"unused": False, "new": True}

    @pytest.mark.parametrize("marks", [b"", b"{", b"[1]", b'{"x": 1}', b'{"x": ["y", "z"]}', b"[" * 100_000])
    def test_unreadable_notes_are_no_notes(self, unused, marks):
        unused.storage.put(unused.storage.at("garbage.json"), marks)
        assert [item.age for item in collect(unused, delete=True)] == [0.0, 0.0]

    def test_notes_that_cannot_be_written_are_said(self, unused, monkeypatch, caplog):
        def full(path: str, data: bytes) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(unused.storage, "put", full, raising=False)
        assert len(collect(unused)) == 2
        assert "No space left on device" in caplog.text


class TestWhatIsInUse:
    def test_is_asked_for_again_before_each_deletion(self, store):
        for key in ("a", "b"):
            store.build("train", key, {}, write)
        answers = iter([(), (), ("b",)])  # at first, before "a" goes, before "b" goes
        items = gc(store, lambda: next(answers), delete=True, older_than=0)
        assert {Path(item.path).name: item.deleted for item in items} == {"a": True, "b": False}
        assert store.is_done("train", "b")

    def test_that_cannot_be_told_leaves_all_as_it_is(self, store):
        store.build("train", "a", {}, write)
        answers = iter([()])  # and then none
        with pytest.raises(StopIteration):
            gc(store, lambda: next(answers), delete=True, older_than=0)
        assert store.is_done("train", "a")


class TestClaims:
    def test_scratch_of_a_stage_that_a_run_asks_for_is_kept_until_the_stage_is_there(self, store):
        """A loop that was killed and waits for its node: what it would resume from may be hours of training."""
        path = store.storage.at("scratch", "train", "k1", "checkpoint")
        store.storage.put(path, b"epoch 2")
        RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
        assert collect(store, delete=True, older_than=0) == []
        assert store.storage.read(path) == b"epoch 2"
        RunFolder(store, "run").write("stages.json", b"[]")
        assert [item.deleted for item in collect(store, delete=True, older_than=0)] == [True]

    def test_each_deletion_looks_at_the_runs_as_they_are_by_then(self, store):
        for key in ("a", "b", "c"):
            store.build("train", key, {}, write)
        remove, claimed = store.storage.remove, []

        def claiming(path: str) -> None:
            if not claimed:
                claimed.append(path)
                RunFolder(store, "run").write("stages.json", json.dumps([["train", k] for k in "abc"]).encode())
            remove(path)

        store.storage.remove = claiming
        kept = {Path(item.path).name for item in collect(store, delete=True, older_than=0) if not item.deleted}
        assert kept == {"b", "c"}
        assert [info.key for info in ls(store)] == ["b", "c"]
        assert all(not problems for _, problems in verify(store))
