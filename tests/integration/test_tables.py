"""A sweep as a frame, from its run folders and from MLflow, and all that is made of it."""

from __future__ import annotations

import json
import math
import sys

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

import tables
from autophagy.common.errors import UserError
from autophagy.config import parse
from autophagy.config.settings import flatten
from autophagy.runs.folder import RunFolder, read_records
from autophagy.runs.frames import sweep_frame
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.reading import mlflow_frame, served_records
from autophagy.tracking.tracker import RunInfo


@pytest.fixture
def sweep_store(store, tiny):
    """The finished loop as the first of a sweep of two; the other was stopped after one generation."""
    other = tiny("selection.strategy=none", "seed=3")
    loops = [
        {"run": "tiny", "arm": "random", "labels": {"selection.strategy": "random", "filter": "no"}, "seed": 0},
        {"run": "two", "arm": "none", "labels": {"selection.strategy": "none", "filter": "none"}, "seed": 3},
    ]
    outcomes = {
        "tiny": {"state": "done", "generation": 2, "why": ""},
        "two": {"state": "stopped", "generation": 1, "why": "fid doubled"},
    }
    values = other.model_dump(mode="json") | {"name": "two"}
    RunFolder(store, "two").write("experiment.yaml", yaml.safe_dump(values).encode())
    lines = RunFolder(store, "tiny").read("records.jsonl").splitlines(keepends=True)
    RunFolder(store, "two").write("records.jsonl", b"".join(lines[:2]))
    about = {"sweep": "s", "question": "?", "axes": ["selection.strategy", "filter"], "loops": loops}
    RunFolder(store, "s").write("loops.json", json.dumps(about).encode())
    RunFolder(store, "s").write("outcomes.json", json.dumps(outcomes).encode())
    return store


def track(uri, store, complete):
    """Log the sweep to MLflow as it is done while it runs."""
    about = json.loads(RunFolder(store, "s").read("loops.json"))
    outcomes = json.loads(RunFolder(store, "s").read("outcomes.json"))
    for loop in about["loops"]:
        experiment = parse(yaml.safe_load(RunFolder(store, loop["run"]).read("experiment.yaml")))
        records = read_records(store, loop["run"])
        outcome = outcomes[loop["run"]]
        tags = {"autophagy.sweep": "s", "autophagy.arm": loop["arm"], "autophagy.state": outcome["state"]}
        tags |= {f"autophagy.label.{axis}": label for axis, label in loop["labels"].items()}
        tags |= {"autophagy.why": outcome["why"]} if outcome["why"] else {}
        dataset = {"source": "digits", "digest": "0" * 32, "num_real": 200, "num_held_out": 100}
        tracker = MLflowTracker(uri, experiment="s")
        tracker.start(
            RunInfo(loop["run"], experiment.digest, flatten(experiment.model_dump(mode="json")), tags, dataset)
        )
        for count in range(1, len(records) + 1):
            tracker.log(records[:count])
        if complete:
            tracker.finish(records, (), complete=True)


@pytest.mark.parametrize("complete", [True, False], ids=["finished", "under way"])
def test_mlflow_gives_the_frame_of_the_run_folders(sweep_store, tmp_path, complete):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track(uri, sweep_store, complete)
    frame = sweep_frame(sweep_store, "s")
    tracked = mlflow_frame(uri, "s")
    pd.testing.assert_frame_equal(tracked, frame)
    assert tracked.attrs == frame.attrs
    assert set(frame["filter"]) == {"no", "none"}
    assert frame.groupby("run")["generation"].max().to_dict() == {"tiny": 2, "two": 1}
    assert frame.loc[frame["run"] == "two", "why"].unique().tolist() == ["fid doubled"]


@pytest.mark.parametrize("complete", [True, False], ids=["finished", "under way"])
def test_a_server_gives_the_records_from_the_artifact_or_from_the_histories(sweep_store, tmp_path, complete):
    """What a client can ask a server for, asked of a database: the requests are the same."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track(uri, sweep_store, complete)
    client = MlflowClient(uri)
    for run in client.search_runs([client.get_experiment_by_name("s").experiment_id]):
        saved = read_records(sweep_store, run.info.run_name)
        for served, record in zip(served_records(client, run), saved, strict=True):
            assert (served.generation, served.seconds) == (record.generation, record.seconds)
            assert dict(served.stages) == (dict(record.stages) if complete else {})
            known = {key: value for key, value in record.metrics.items() if not math.isnan(value)}
            assert {key: value for key, value in served.metrics.items() if not math.isnan(value)} == known


def test_an_artifact_from_before_the_run_went_on_is_not_used(sweep_store, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    lines = RunFolder(sweep_store, "tiny").read("records.jsonl").splitlines(keepends=True)
    for count, complete in ((2, True), (3, False)):
        RunFolder(sweep_store, "tiny").write("records.jsonl", b"".join(lines[:count]))
        track(uri, sweep_store, complete)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("s").experiment_id], "tags.`autophagy.run` = 'tiny'")
    assert [record.generation for record in served_records(client, run)] == [0, 1, 2]
    pd.testing.assert_frame_equal(mlflow_frame(uri, "s"), sweep_frame(sweep_store, "s"))


def test_an_unknown_mlflow_experiment_is_one_line(sweep_store, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track(uri, sweep_store, complete=False)
    with pytest.raises(UserError, match=r"experiment = t: MLflow has no experiment of this name; there are: .*\bs\b"):
        mlflow_frame(uri, "t")


def test_tables_and_pictures_of_a_sweep(sweep_store, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["tables.py", "s", "--store", sweep_store.uri, "--out", str(out), "--metrics", "fid", "recall"]
    monkeypatch.setattr(sys, "argv", arguments)
    tables.main()
    written = {path.name for path in out.iterdir()}
    assert {line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()} == written
    assert {"arms.csv", "arms.tex", "comparison.csv", "lifetimes.csv", "survival.csv", "pareto.csv"} <= written
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {"collapse_curves.png", "survival.png", "pareto.png", "comparison_fid.png", "heat_map_fid.png"} <= written
    curves = pd.read_csv(out / "curves.csv")
    records = read_records(sweep_store, "tiny")
    own = curves[(curves["arm"] == "random") & (curves["metric"] == "fid")]
    assert own["mean"].tolist() == pytest.approx([record.metrics["fid"] for record in records])
    assert "stopped early" in (out / "arms.tex").read_text()
    ended = pd.read_csv(out / "ended_early.csv")
    assert ended["why"].tolist() == ["fid doubled"]


@pytest.mark.parametrize(
    ("arguments", "told"), [(["none"], "error: sweep = none"), (["s", "--metrics", "fdi"], "error: metric = fdi")]
)
def test_what_does_not_exist_is_one_line(sweep_store, tmp_path, monkeypatch, capsys, arguments, told):
    options = ["--store", sweep_store.uri, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tables.py", *arguments, *options])
    with pytest.raises(SystemExit) as stopped:
        tables.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
