"""The stage store on a local disk: publishing, damage, reading, names."""

import errno
import logging
import os
import pickle
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from autophagy.common.errors import UserError
from autophagy.store import Artifact, Attempt, StageStore
from autophagy.store.upkeep import verify


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


def write(attempt: Attempt) -> None:
    attempt.write_bytes("weights.bin", b"0123456789")
    attempt.write_json("sub/notes.json", {"loss": 0.5})


def forbidden(attempt: Attempt) -> None:
    raise AssertionError("built again")


def attempts(store: StageStore, stage: str, key: str) -> list[str]:
    return sorted(name for name in os.listdir(f"{store.root}/stages/{stage}/{key}") if name != "manifest.json")


def files_below(store: StageStore, folder: str) -> list[Path]:
    return [path for path in Path(store.root, folder).rglob("*") if path.is_file()]


class TestBuild:
    def test_publishes_what_the_builder_wrote_and_builds_once(self, store):
        def builder(attempt):
            write(attempt)
            Path(attempt.path, "direct.txt").write_text("written without our help")
            attempt.info["epochs"] = 3

        spec = {"config": {"lr": 0.1}, "inputs": {"real": "k0"}}
        built = store.build("train", "k1", spec, builder)
        again = store.build("train", "k1", spec, forbidden)
        assert built == again == store.open("train", "k1")
        assert built.files() == ["direct.txt", "sub/notes.json", "weights.bin"]
        assert built.read_bytes("weights.bin") == b"0123456789"
        assert built.read_json("sub/notes.json") == {"loss": 0.5}
        assert Path(built.file("direct.txt")).read_text() == "written without our help"
        assert (built.info, built.manifest["spec"]) == ({"epochs": 3}, spec)
        assert built.manifest["versions"]["python"].startswith("3.")
        assert built.manifest["files"]["weights.bin"]["size"] == 10
        assert store.is_done("train", "k1")
        assert not store.is_done("train", "k2")
        assert store.open("train", "k2") is None

    def test_leaves_nothing_but_the_stage(self, store):
        store.build("train", "k1", {}, write)
        assert len(attempts(store, "train", "k1")) == 1
        assert not Path(store.root, "scratch/train/k1").exists()
        assert files_below(store, "leases") == files_below(store, "tmp") == []

    def test_is_not_visible_before_the_builder_returns(self, store):
        def builder(attempt):
            write(attempt)
            assert not store.is_done("train", "k1")
            assert store.open("train", "k1") is None

        store.build("train", "k1", {}, builder)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_error_of_the_builder_publishes_nothing_and_keeps_scratch(self, store, error):
        def failing(attempt):
            write(attempt)
            Path(attempt.scratch, "checkpoint").write_text("epoch 2")
            raise error("boom")

        def resuming(attempt):
            attempt.write_bytes("from", Path(attempt.scratch, "checkpoint").read_bytes())

        with pytest.raises(error, match="boom"):
            store.build("train", "k1", {}, failing)
        assert not store.is_done("train", "k1")
        assert attempts(store, "train", "k1") == files_below(store, "leases") == []
        assert store.build("train", "k1", {}, resuming).read_bytes("from") == b"epoch 2"
        assert not Path(store.root, "scratch/train/k1").exists()

    def test_full_disk_in_the_builder_is_raised_as_it_is(self, store):
        def builder(attempt):
            write(attempt)
            with open("/dev/full", "w") as full:
                full.write("x")

        with pytest.raises(OSError) as caught:
            store.build("train", "k1", {}, builder)
        assert caught.value.errno == errno.ENOSPC
        assert attempts(store, "train", "k1") == []

    def test_manifest_that_cannot_be_written_publishes_nothing(self, store):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def builder(attempt):
            write(attempt)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # the manifest is longer

        try:
            with pytest.raises(OSError) as caught:
                store.build("train", "k1", {}, builder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        assert not store.is_done("train", "k1")
        assert attempts(store, "train", "k1") == files_below(store, "tmp") == []
        assert store.build("train", "k1", {}, write).files()

    def test_spec_that_is_no_json_fails_before_the_work(self, store):
        with pytest.raises(TypeError):
            store.build("train", "k1", {"config": object()}, forbidden)


def truncate(artifact: Artifact) -> None:
    os.truncate(artifact.file("weights.bin"), 9)


def delete(artifact: Artifact) -> None:
    os.unlink(artifact.file("weights.bin"))


def delete_payload(artifact: Artifact) -> None:
    for name in artifact.files():
        os.unlink(artifact.file(name))


def manifest(artifact: Artifact) -> Path:
    return Path(artifact.path).parent / "manifest.json"


def edit_manifest(artifact: Artifact) -> None:
    path = manifest(artifact)
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 0.2'))


def other_stage(artifact: Artifact) -> None:
    artifact_2 = StageStore(artifact.storage.uri).build("train", "k2", {}, write)
    manifest(artifact).write_bytes(manifest(artifact_2).read_bytes())


def garbage(data: bytes):
    def damage(artifact: Artifact) -> None:
        manifest(artifact).write_bytes(data)

    return damage


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (truncate, "weights.bin: 9 bytes instead of 10"),
            (delete, "weights.bin: missing"),
            (delete_payload, "missing"),
            (edit_manifest, "unreadable manifest"),
            (other_stage, "unreadable manifest"),
            *[(garbage(data), "unreadable manifest") for data in (b"", b'{"stage"', b"\xff\x00", b"[]", b"{}")],
        ],
    )
    def test_is_noticed_reported_and_rebuilt(self, store, caplog, damage, said):
        spec = {"lr": 0.1}
        damage(store.build("train", "k1", spec, write))
        with caplog.at_level(logging.WARNING):
            assert store.open("train", "k1") is None
        assert said in caplog.text
        assert not store.is_done("train", "k1")
        assert store.build("train", "k1", spec, write).read_bytes("weights.bin") == b"0123456789"

    def test_flipped_bit_is_found_by_verify_and_rebuilt(self, store):
        good = store.build("train", "good", {}, write)
        bad = store.build("train", "bad", {}, write)
        Path(bad.file("weights.bin")).write_bytes(b"0123456788")
        found = {info.key: problems for info, problems in verify(store)}
        assert found == {"bad": ["weights.bin: wrong checksum"], "good": []}
        assert not store.is_done("train", "bad")
        assert store.build("train", "bad", {}, write).read_bytes("weights.bin") == b"0123456789"
        assert store.open("train", "good") == good
        assert all(not problems for _, problems in verify(store))

    def test_verify_takes_one_kind_of_stage(self, store):
        for stage in ("train", "generate"):
            store.build(stage, "k1", {}, write)
        assert [info.stage for info, _ in verify(store, "generate")] == ["generate"]

    def test_a_repaired_manifest_is_not_removed(self, store):
        path = store.storage.at("stages", "train", "k1", "manifest.json")
        store.storage.put(path, b"repaired by another process")
        store.storage.remove_if(path, b"damaged")
        assert store.storage.read(path) == b"repaired by another process"
        store.storage.remove_if(path, b"repaired by another process")
        assert store.storage.read(path) is None
        assert files_below(store, "tmp") == []


class TestReadTable:
    @pytest.fixture
    def artifact(self, store) -> Artifact:
        def builder(attempt):
            for part in (1, 0):  # in the order of names, not of writing
                rows = range(4 * part, 4 * part + 4)
                table = pa.table({"sample_id": list(rows), "label": [i % 2 for i in rows], "image": [b"x"] * 4})
                attempt.write_table(f"images/{part}.parquet", table)
            attempt.write_table("ids.parquet", pa.table({"sample_id": [9]}))
            attempt.write_json("images/notes.json", {})

        return store.build("generate", "k1", {}, builder)

    def test_projects_and_filters_in_order(self, artifact):
        table = artifact.read_table("images", columns=["sample_id"], filter=ds.field("label") == 1)
        assert table.to_pydict() == {"sample_id": [1, 3, 5, 7]}
        assert artifact.read_table("images").column_names == ["sample_id", "label", "image"]

    def test_reads_one_file_or_all(self, artifact):
        assert artifact.read_table("ids.parquet").to_pydict() == {"sample_id": [9]}
        assert sorted(artifact.read_table(columns=["sample_id"])["sample_id"].to_pylist()) == [*range(8), 9]
        assert [Path(path).name for path in artifact.parquet_files("images/")] == ["0.parquet", "1.parquet"]

    @pytest.mark.parametrize("name", ["image", "images/2.parquet", "images/notes.json"])
    def test_what_is_not_there_is_an_error(self, artifact, name):
        with pytest.raises(FileNotFoundError, match="generate k1"):
            artifact.read_table(name)
        with pytest.raises(FileNotFoundError, match="generate k1"):
            artifact.file("missing")


BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a b", "a\n", "ä", "x" * 201]


class TestNames:
    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_nothing_leaves_the_root(self, store, name):
        for call in (store.open, store.is_done):
            with pytest.raises(ValueError):
                call("train", name)
            with pytest.raises(ValueError):
                call(name, "k1")
        with pytest.raises(ValueError):
            store.build("train", name, {}, forbidden)
        with pytest.raises(ValueError):
            store.build("train", "k1", {"inputs": {"real": name}}, forbidden)

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/../b", "", ".x"])
    def test_builders_stay_in_their_attempt(self, store, name):
        with pytest.raises(ValueError, match="not a file name"):
            store.build("train", "k1", {}, lambda attempt: attempt.write_bytes(name, b""))


class TestUri:
    @pytest.mark.parametrize("form", ["{}", "{}/"])
    def test_forms_of_a_local_root(self, tmp_path, form):
        StageStore(form.format(tmp_path / "a store")).build("train", "k1", {}, write)
        assert StageStore(tmp_path / "a store").is_done("train", "k1")
        assert StageStore((tmp_path / "a store").as_uri()).is_done("train", "k1")

    def test_relative_folder_is_kept_when_the_process_moves(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = StageStore("store")
        monkeypatch.chdir("/")
        assert store.root == str(tmp_path / "store")

    def test_pickles_as_its_uri(self, store):
        artifact = store.build("train", "k1", {}, write)
        copy, artifact_2 = pickle.loads(pickle.dumps((store, artifact)))
        assert copy.open("train", "k1").read_bytes("weights.bin") == b"0123456789"
        assert artifact_2.read_json("sub/notes.json") == {"loss": 0.5}
        assert len(pickle.dumps(store)) < 300

    @pytest.mark.parametrize("uri", ["", "s3://", "nowhere://x/y", "/proc/store", "s3://b/p?unknown=1", "{}/file"])
    def test_unusable_is_one_line_for_the_user(self, tmp_path, uri):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"store: cannot use .*; give a writable folder") as caught:
            StageStore(uri.format(tmp_path))
        assert "\n" not in str(caught.value)

    def test_secrets_are_not_shown(self):
        with pytest.raises(UserError) as caught:
            StageStore("s3://user:secret@bucket/p?unknown=1")
        assert "secret" not in str(caught.value)


class TestRights:
    def test_a_store_that_is_made_is_its_owners_alone(self, tmp_path):
        for uri in (tmp_path / "new" / "store", f"file://{tmp_path}/other"):
            assert os.stat(StageStore(uri).root).st_mode & 0o777 == 0o700

    def test_a_folder_that_was_there_keeps_its_rights(self, tmp_path):
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o770)
        assert os.stat(StageStore(tmp_path / "shared").root).st_mode & 0o777 == 0o770
