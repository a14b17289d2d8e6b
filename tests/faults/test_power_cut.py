"""Power cuts: what is on the disk of a store at some moment, and nothing of what the system still held."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import PAYLOAD, build, check, read

from autophagy.store import Attempt, StageStore

MEGABYTES = 32
# The journal is written every second, and says nothing of what is in files: the hardest disk there is.
OPTIONS = "commit=1,data=writeback"


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Disk:
    """A disk in a file, which can be copied as it is at any moment."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted = folder / "disk.img", folder / "disk"
        self.mounted.mkdir()
        with self.image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        run("mount", "-o", f"loop,{OPTIONS}", self.image, self.mounted)

    def after_a_cut(self, name: str) -> Path:
        """The disk as it is found when the power is back."""
        image, mounted = self.image.with_name(f"{name}.img"), self.image.with_name(name)
        mounted.mkdir()
        shutil.copyfile(self.image, image)
        run("mount", "-o", "loop", image, mounted)
        return mounted


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root and loop devices: {error}")
    yield made
    for path in [p for p in tmp_path.iterdir() if os.path.ismount(p)]:
        run("umount", "--lazy", path)


def build_with_checkpoint(store: StageStore) -> None:
    def builder(attempt: Attempt) -> None:
        store.storage.put(f"{attempt.scratch}/checkpoint", b"epoch 2" * 1000)
        for name, data in PAYLOAD.items():
            Path(attempt.path, name).write_bytes(data)  # as Parquet files are: nobody asks the system to write them out

    store.build("train", "k1", {}, builder)


def test_what_is_published_is_whole_and_there(disk):
    store = StageStore(disk.mounted / "store")
    build_with_checkpoint(store)
    for moment in ("at-once", "a-second", "two-seconds"):
        after = StageStore(disk.after_a_cut(moment) / "store")
        assert after.is_done("train", "k1"), "a stage that was published is gone"
        check(after)
        assert read(after.open("train", "k1")) == PAYLOAD
        time.sleep(1.1)


def test_at_any_moment_of_a_build_nothing_half_counts_as_whole(disk):
    store = StageStore(disk.mounted / "store")
    moments = [0]

    def look(*_: object) -> None:
        moments[0] += 1
        after = StageStore(disk.after_a_cut(f"moment-{moments[0]}") / "store")
        after.storage.remove(after.storage.at("leases"))  # of another boot: there our process does not live
        check(after)
        assert read(build(after)) == PAYLOAD

    class Watched(type(store.storage)):
        def sync_name(self, path: str) -> None:
            look()  # between the manifest and its being there for good
            super().sync_name(path)
            look()

        def discard(self, path: str) -> None:
            look()
            super().discard(path)
            look()

    store.storage = Watched(store.uri)
    build_with_checkpoint(store)
    assert moments[0] >= 4
