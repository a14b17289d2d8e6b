"""The command line where nothing is computed: help, recipes, the dry run, looking into a store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autophagy.cli import main
from autophagy.cli.console import tracking_of
from autophagy.cli.loops import describe
from autophagy.graph import plan_loop
from autophagy.recipes import RECIPES, SWEEPS, load_recipe
from autophagy.store import StageStore


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A working directory of its own, no Ray to be had, no tracking from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    return tmp_path


def command(capsys, *arguments: str) -> str:
    """What a command prints; it must end well."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    assert (stopped.value.code, captured.err) == (0, "")
    return captured.out


def test_recipes_lists_every_recipe_with_its_purpose(capsys):
    lines = command(capsys, "recipes").splitlines()
    listed = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in listed] == [recipe.__name__ for recipe in (*RECIPES, *SWEEPS)]
    assert all(len(line.split()) > 5 for line in listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["sweep", "--help"],
        ["plan", "--help"],
        ["recipes", "--help"],
        ["doctor", "--help"],
        ["store", "--help"],
    ]
    + [["store", name, "--help"] for name in ("ls", "verify", "gc")],
    ids=" ".join,
)
def test_help(capsys, arguments):
    assert "Usage:" in command(capsys, *arguments)


def test_run_explains_all_its_options(capsys):
    text = " ".join(command(capsys, "run", "--help").split())
    for option in ("--set", "--store", "--tracking-uri", "--name", "autophagy-store", "the recipe's"):
        assert option in text


class TestPlan:
    def test_lists_every_stage_and_writes_nothing(self, capsys, workplace):
        lines = command(capsys, "plan", "lsf_digits", "--store", "fresh", "--set", "generations=2").splitlines()
        plan = plan_loop(load_recipe("lsf_digits", ["generations=2"]))
        expected = [[str(k), name, stage.key[:12]] for k, stages in enumerate(plan) for name, stage in stages.items()]
        assert [line.split()[:3] for line in lines[2:-1]] == expected
        assert all("to do" in line for line in lines[2:-1])
        assert f"0 stages done, {len(expected)} to do" in lines[-1]
        assert list(workplace.iterdir()) == []

    def test_knows_what_is_done_and_what_a_stage_took(self, capsys, workplace):
        plan = plan_loop(load_recipe("lsf_digits"))
        real, train = plan[0]["real"], plan[0]["train"]
        store = StageStore(workplace / "store")
        for stage in (real, train):
            store.build(stage.name, stage.key, {}, lambda attempt: attempt.write_bytes("payload", b"x"))
        lines = command(capsys, "plan", "lsf_digits", "--store", "store").splitlines()
        done = [line.split()[:3] for line in lines if " done " in line and line.strip().startswith("0")]
        assert done == [["0", "real", real.key[:12]], ["0", "train", train.key[:12]]]
        assert "2 stages done" in lines[-1]

    def test_takes_the_arguments_of_run_and_says_what_would_run(self, capsys):
        text = command(
            capsys,
            "plan",
            "lsf_digits",
            "--name",
            "mine",
            "--tracking-uri",
            "none",
            "--set",
            "selection.strategy=random",
        )
        assert text.startswith(
            "mine: digits at 8x8, accumulate_subsample/random, 4 generations of 500 images out of 1000"
        )


class TestStore:
    @pytest.fixture
    def store(self, workplace) -> StageStore:
        store = StageStore(workplace / "store")
        store.build("train", "k1", {}, lambda attempt: attempt.write_bytes("weights", b"0123456789"))
        return store

    def test_ls(self, capsys, store):
        lines = command(capsys, "store", "ls", "--store", "store").splitlines()
        assert lines[0].split()[:2] == ["train", "k1"]
        assert lines[-1].startswith("1 stages")

    def test_verify_ends_with_1_and_names_what_is_damaged(self, capsys, store):
        assert "1 stages checked, 0 damaged" in command(capsys, "store", "verify", "--store", "store")
        weights = next(Path(store.root, "stages").rglob("weights"))
        weights.write_bytes(b"9876543210")
        with pytest.raises(SystemExit) as stopped:
            main(["store", "verify", "--store", "store"])
        assert stopped.value.code == 1
        assert "damaged: train k1: weights: wrong checksum" in capsys.readouterr().out

    def test_gc_lists_and_deletes_only_when_told(self, capsys, store):
        assert "train/k1" in command(capsys, "store", "gc", "--store", "store")
        assert store.is_done("train", "k1")
        command(capsys, "store", "gc", "--store", "store", "--delete", "--older-than", "0")
        assert not store.is_done("train", "k1")

    def test_a_store_in_the_home_folder(self, capsys, store, monkeypatch):
        monkeypatch.setenv("HOME", str(Path(store.root).parent))
        assert "k1" in command(capsys, "store", "ls", "--store", "~/store")


def test_where_a_run_is_tracked(tmp_path, monkeypatch):
    store = StageStore(tmp_path / "store")
    assert tracking_of(store, None) == f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_of(store, None) == "http://host:5000"
    assert tracking_of(store, "http://other:5000") == "http://other:5000"
    assert tracking_of(store, "none") is None


def test_describe_names_what_matters():
    line = describe(load_recipe("replace_digits", ["seed=3"]))
    assert line == "digits at 8x8, replace/none, 4 generations of 500 images out of 500 made, seed 3"


def test_the_command_starts_without_torch_or_ray(tmp_path):
    code = (
        "import sys\n"
        "from autophagy.cli import main\n"
        "try:\n    main(['recipes'])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "print(sorted({'ray', 'torch', 'diffusers', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "platform")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
