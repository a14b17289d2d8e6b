"""Disks that are full, of bytes or of files: one error that says so, nothing half published, and room lets it go on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import PAYLOAD, build, check, collect, leftovers, read

from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A small disk of its own with these mount options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs root: {error}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill_bytes(folder: Path, left: int) -> Path:
    file = folder / "filling"
    with contextlib.suppress(OSError), file.open("wb") as stream:
        while stream.write(bytes(4096)):
            stream.flush()
    os.truncate(file, max(0, file.stat().st_size - left * 4096))
    return file


def fill_files(folder: Path, left: int) -> Path:
    file, made = folder / "filling", []
    file.mkdir()
    with contextlib.suppress(OSError):
        while True:
            made.append(file / str(len(made)))
            made[-1].touch()
    for path in made[-left - 1 :]:
        path.unlink(missing_ok=True)
    return file


def attempt(store: StageStore) -> int:
    """The error that a build ends in, 0 for none."""
    try:
        assert read(build(store)) == PAYLOAD
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize(
    ("options", "fill"), [("size=1m", fill_bytes), ("size=16m,nr_inodes=200", fill_files)], ids=["bytes", "files"]
)
def test_wherever_it_becomes_full_room_lets_it_go_on(mounted, options, fill):
    folder = mounted(options)
    refused = 0
    for left in range(30):
        store = StageStore(folder / f"store-{left}")
        filling = fill(folder, left)
        error = attempt(store)
        assert error in (0, errno.ENOSPC), os.strerror(error)
        refused += error != 0
        check(store)
        subprocess.run(["rm", "-rf", filling], check=True)
        assert read(build(store)) == PAYLOAD
        RunFolder(store, "run").write("stages.json", b'[["train", "k1"]]')
        collect(store, delete=True, older_than=0)
        check(store)
        assert {name for name in leftovers(store) if not name.startswith("tmp/")} == set()
        subprocess.run(["rm", "-rf", store.root], check=True)
    assert 3 < refused < 30
