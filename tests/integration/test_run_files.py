"""Run folders that somebody has damaged, or that other versions have written: the same command makes them whole."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import yaml

import report
from autophagy.cli import main
from autophagy.common import versions
from autophagy.common.errors import UserError
from autophagy.config.sweep import parse_sweep
from autophagy.loop import run_loop
from autophagy.runs.claims import read_experiment
from autophagy.runs.folder import RunFolder, read_records
from autophagy.runs.frames import runs_frame, sweep_frame
from autophagy.runs.outcomes import Outcome, read_outcomes
from autophagy.store import StageStore
from autophagy.store.manifests import encode_manifest, manifest_path

DAMAGE = {
    "torn": lambda data: data[: len(data) // 2],
    "binary": lambda data: bytes(range(256)),
    "deep": lambda data: b"[" * 100_000,
    "list": lambda data: b"[[1], 2]",
    "null": lambda data: b"null",
    "lists in it": lambda data: b'{"tiny": [], "loops": {}, "stages": 1, "generation": []}',
    "a number of many digits": lambda data: b"9" * 10_000,
    "other at its end": lambda data: data + b"\n}{",
}
damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


@pytest.fixture
def recipe(tiny_values, tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values))
    return path


@pytest.fixture(scope="module")
def sweep_values(tiny_values) -> dict:
    """One loop, whose stages are those of `tiny`."""
    return {"name": "s", "question": "Which?", "base": tiny_values, "axes": {"selection.strategy": ["random"]}}


@pytest.fixture(scope="module")
def swept(shared_store, sweep_values, tmp_path_factory) -> StageStore:
    """The finished sweep. Its files are put back after each test."""
    path = tmp_path_factory.mktemp("sweep") / "s.yaml"
    path.write_text(yaml.safe_dump(sweep_values, sort_keys=False))
    assert command("sweep", str(path), "--store", shared_store.root) == 0
    return shared_store


@pytest.fixture
def sweep_store(swept) -> StageStore:
    folders = [Path(RunFolder(swept, name).path) for name in ("s", "s-random-seed0")]
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    yield swept
    for path in [path for folder in folders for path in folder.iterdir() if path not in before]:
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


@pytest.fixture
def said(caplog, monkeypatch) -> list[str]:
    """Warnings as they are logged; each file is new to this process."""
    monkeypatch.setattr("autophagy.runs.folder._told", set())
    caplog.set_level(logging.WARNING, logger="autophagy")
    return caplog.messages


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--tracking-uri", "none"])
    return stopped.value.code


def hurt(store: StageStore, run: str, file: str, damage) -> tuple[bytes, bytes]:
    """Damage a file; what it held, and what it holds now."""
    good = RunFolder(store, run).read(file)
    bad = damage(good)
    RunFolder(store, run).write(file, bad)
    return good, bad


@damage
def test_records_are_made_again_by_the_same_command(store, recipe, caplog, said, damage, capsys):
    good, bad = hurt(store, "tiny", "records.jsonl", damage)
    assert read_records(store, "tiny") == []
    assert command("run", str(recipe), "--store", store.root) == 0
    assert RunFolder(store, "tiny").read("records.jsonl") == good
    assert RunFolder(store, "tiny").read("records.jsonl.damaged") == bad
    assert "nothing had to be computed again" in capsys.readouterr().out
    (line,) = caplog.messages
    assert line.startswith(f"{store.root}/runs/tiny/records.jsonl is damaged (")


@pytest.mark.parametrize("file", ["pictures.txt", "stages.json", "samples.png", "collapse_curves.png"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", DAMAGE["binary"], DAMAGE["deep"]], ids=["empty", "binary", "deep"]
)
def test_what_is_never_read_back_is_written_again(store, recipe, file, damage):
    good, _ = hurt(store, "tiny", file, damage)
    if file.endswith(".png"):
        # As if something had changed: pictures are taken as they are.
        RunFolder(store, "tiny").write("pictures.txt", b"")
    assert command("run", str(recipe), "--store", store.root) == 0
    assert RunFolder(store, "tiny").read(file) == good


@damage
@pytest.mark.parametrize("file", ["outcomes.json", "loops.json", "sweep.yaml"])
def test_files_of_a_sweep_are_made_again_by_the_same_command(
    sweep_store, sweep_values, tmp_path, caplog, said, file, damage
):
    recipe = tmp_path / "s.yaml"
    recipe.write_text(yaml.safe_dump(sweep_values, sort_keys=False))
    good, bad = hurt(sweep_store, "s", file, damage)
    assert command("sweep", str(recipe), "--store", sweep_store.root) == 0
    assert RunFolder(sweep_store, "s").read(file) == good
    for line in caplog.messages:
        assert line.startswith(f"{sweep_store.root}/runs/s/{file} is damaged (")
        assert RunFolder(sweep_store, "s").read(f"{file}.damaged") == bad
    assert len(caplog.messages) <= 1


@pytest.mark.parametrize("damage", [DAMAGE["torn"], DAMAGE["deep"]], ids=["torn", "deep"])
@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("outcomes.json", ""),
        ("sweep.yaml", ""),
        ("stages.json", ""),
        ("loops.json", "error: sweep = s: no loops.json to be read"),
        ("records.jsonl", "error: names = s: no loop has finished a generation"),
    ],
)
def test_a_report_ends_in_a_page_or_in_one_line(sweep_store, tmp_path, monkeypatch, capsys, said, file, error, damage):
    hurt(sweep_store, "s-random-seed0" if file == "records.jsonl" else "s", file, damage)
    out = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report.py", "s", "--store", sweep_store.root, "--out", str(out)])
    monkeypatch.setattr(report, "render", lambda context: context["title"])
    if not error:
        report.main()
        assert out.read_text() == "Which?"
        return
    with pytest.raises(SystemExit) as stopped:
        report.main()
    told = capsys.readouterr().err
    assert (stopped.value.code, told.count("\n")) == (2, 1)
    assert told.startswith(error)


def test_outcomes_of_a_newer_version_are_read_as_far_as_they_are_known(sweep_store):
    saved = {
        "a": {"state": "paused", "generation": 1, "why": "later", "fid": None, "priority": 3},
        "b": {"state": "stopped", "generation": 2, "why": "collapsed", "fid": 4.5, "cost": {"euros": 1}},
        "c": {},
    }
    RunFolder(sweep_store, "s").write("outcomes.json", json.dumps(saved).encode())
    assert read_outcomes(sweep_store, "s") == {
        "a": Outcome("running", 1, "later"),
        "b": Outcome("stopped", 2, "collapsed", 4.5),
        "c": Outcome(),
    }


def test_a_search_begins_anew_where_its_loops_cannot_be_read(sweep_store, sweep_values, said):
    from autophagy.sweeps.points import known_points

    axes = {"selection.strategy": ["random"], "keep_ratio": {"low": 0.5, "high": 1.0}}
    search = parse_sweep(sweep_values | {"axes": axes, "search": {"metric": "fid", "num_loops": 2}})
    for content in (b"{", b'{"loops": [{"run": "r", "arm": "a", "labels": {"selection.strategy": "random"}}]}'):
        RunFolder(sweep_store, "s").write("loops.json", content)
        assert known_points(search, sweep_store) == []
    labels = {"selection.strategy": "random", "keep_ratio": "no number"}
    table = {"loops": [{"run": "r", "arm": "a", "labels": labels}]}
    RunFolder(sweep_store, "s").write("loops.json", json.dumps(table).encode())
    assert known_points(search, sweep_store) == []


# Whose a folder is


@pytest.mark.parametrize(
    "damage", [*DAMAGE.values(), lambda data: b"", lambda data: b"a: &a [*a]"], ids=[*DAMAGE, "empty", "itself"]
)
def test_a_run_that_cannot_be_told_is_left_out_of_all_and_named_alone(store, caplog, damage):
    RunFolder(store, "other").write("experiment.yaml", RunFolder(store, "tiny").read("experiment.yaml"))
    RunFolder(store, "other").write("records.jsonl", RunFolder(store, "tiny").read("records.jsonl"))
    hurt(store, "other", "experiment.yaml", damage)
    with caplog.at_level(logging.WARNING):
        frame = runs_frame(store)
    assert set(frame["run"]) == {"tiny"}
    (line,) = caplog.messages
    assert line.startswith("left out: run = other: cannot read ")
    for look in (lambda: runs_frame(store, ["tiny", "other"]), lambda: read_experiment(store, "other")):
        with pytest.raises(UserError) as told:
            look()
        assert f"{store.root}/runs/other/experiment.yaml" in str(told.value)
        assert "mend that file, or remove it" in str(told.value)
        assert len(str(told.value)) < 700


@pytest.mark.parametrize("damage", [DAMAGE["torn"], DAMAGE["deep"], lambda data: b""], ids=["torn", "deep", "empty"])
def test_a_run_in_a_folder_that_cannot_be_told_ends_in_one_line(store, recipe, capsys, damage):
    good, bad = hurt(store, "tiny", "experiment.yaml", damage)
    assert command("run", str(recipe), "--store", store.root) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert RunFolder(store, "tiny").read("experiment.yaml") == bad
    Path(RunFolder(store, "tiny").path, "experiment.yaml").unlink()  # the remedy
    assert command("run", str(recipe), "--store", store.root) == 0
    assert RunFolder(store, "tiny").read("experiment.yaml") == good


def test_a_loop_of_a_sweep_that_cannot_be_told_leaves_the_sweep_readable(sweep_store, caplog):
    hurt(sweep_store, "s-random-seed0", "experiment.yaml", DAMAGE["torn"])
    with caplog.at_level(logging.WARNING):
        assert sweep_frame(sweep_store, "s").empty
    assert "left out: run = s-random-seed0: cannot read " in caplog.text


# Whose numbers these are


def test_a_loop_on_stages_of_another_version_says_so_once(tiny, store, caplog):
    calm = run_loop(tiny(), store)
    assert not caplog.records
    for record in calm:
        path = manifest_path(store.storage, "evaluate", record.stages["evaluate"])
        manifest = json.loads(store.storage.read(path))
        del manifest["checksum"]
        manifest["versions"] |= {"torch": "99.1.0", "autophagy": "0.99.3"}
        store.storage.put(path, encode_manifest(manifest))
    with caplog.at_level(logging.WARNING):
        again = run_loop(tiny(), store)
    (line,) = [r.getMessage() for r in caplog.records]
    here = versions.installed()
    assert line == (
        f"stages of tiny were computed by torch 99 and autophagy 0.99, here is torch {here['torch']} and autophagy "
        f"{here['autophagy']}: numbers may differ in the last digits; another --store keeps them apart"
    )
    assert [r.to_json() for r in again] == [r.to_json() for r in calm], "and they are used all the same"
