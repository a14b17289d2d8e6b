"""Run folders: names, files, and which modules of theirs are light."""

import os
import subprocess
import sys

import pytest

from autophagy.common.errors import UserError
from autophagy.runs.folder import RunFolder, run_names
from autophagy.store import StageStore

BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a b", "a\n", "ä", "x" * 201]


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_nothing_leaves_the_folder(store, name):
    with pytest.raises(UserError, match="name: "):
        RunFolder(store, name)
    for act in (RunFolder(store, "run").read, RunFolder(store, "run").remove):
        with pytest.raises(UserError, match="name: "):
            act(name)
    with pytest.raises(UserError, match="name: "):
        RunFolder(store, "run").write(name, b"")


def test_files_are_written_replaced_and_read(store):
    folder = RunFolder(store, "lsf_digits-2")
    assert folder.read("records.jsonl") is None
    for data in (b"one", b"two\n"):
        folder.write("records.jsonl", data)
        assert folder.read("records.jsonl") == data
    assert os.listdir(folder.path) == ["records.jsonl"]


def test_a_file_is_claimed_once(store):
    folder = RunFolder(store, "run")
    assert folder.claim("experiment.yaml", b"mine")
    assert folder.claim("experiment.yaml", b"mine")
    assert not folder.claim("experiment.yaml", b"another's")
    assert folder.read("experiment.yaml") == b"mine"


def test_the_folder_goes_with_its_last_file(store):
    folder = RunFolder(store, "run")
    for file in ("experiment.yaml", "stages.json", "notes.txt"):
        folder.write(file, b"")
    folder.remove("experiment.yaml", "stages.json")
    assert os.listdir(folder.path) == ["notes.txt"]
    folder.remove("notes.txt")
    assert run_names(store) == []


def test_run_names_are_those_of_the_folders(store):
    assert run_names(store) == []
    RunFolder(store, "b").write("records.jsonl", b"")
    RunFolder(store, "a").write("records.jsonl", b"")
    assert run_names(store) == ["a", "b"]


@pytest.mark.parametrize("module", ["claims", "draw", "folder", "frames", "outcomes"])
def test_a_loop_that_only_waits_loads_nothing_heavy(module):
    heavy = {"matplotlib", "mlflow", "pandas", "torch"}
    program = f"import sys, autophagy.runs.{module}; print(*sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
