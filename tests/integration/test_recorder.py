"""The one process of a sweep that knows MLflow: what it is told is logged, whatever is away for a while."""

from __future__ import annotations

import time

import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import Run

from autophagy.common.records import GenerationRecord
from autophagy.common.seeds import digest
from autophagy.config.expand import loops
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.runs.outcomes import Outcome
from autophagy.store import StageStore
from autophagy.sweeps.recorder import ForwardingTracker, Note, Recorder, recording
from autophagy.sweeps.sweep import run_sweep
from autophagy.tracking.sweep import SweepTracker, loop_tags
from autophagy.tracking.tracker import RunInfo

pytestmark = pytest.mark.timeout(600)

RECORDS = [GenerationRecord(k, {"fid": 9.0 - k, "generation": float(k)}, {}, {"train": 1.0}) for k in range(4)]


@pytest.fixture
def sweep(tiny_values) -> Sweep:
    base = tiny_values | {"metrics": {"feature_network": "pixels", "num_samples": 64}}
    return parse_sweep({"name": "grid", "base": base, "axes": {"selection.strategy": ["random", "lsf"]}})


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/db/mlflow.db"


def info(name: str) -> RunInfo:
    return RunInfo(name, digest(name), {"budget": 64}, {}, {"source": "digits", "digest": "cd"})


def runs(uri: str) -> dict[str, Run]:
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("grid").experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def steps(uri: str, run: Run) -> list[int]:
    return [metric.step for metric in MlflowClient(uri).get_metric_history(run.info.run_id, "fid")]


def test_notes_wait_while_mlflow_is_away_and_of_each_loop_the_latest(sweep, uri, tmp_path):
    obstacle = tmp_path / "db"  # where the folder of the database should be
    obstacle.touch()
    recorder = Recorder(uri, sweep, "plan")
    for k in range(1, 4):
        recorder.tell(Note(info("a"), RECORDS[:k]))
    recorder.tell(Note(info("b"), RECORDS, {"samples.png": b"png"}, complete=True))
    start = time.monotonic()
    recorder.flush()
    assert time.monotonic() - start < 5
    assert recorder.failures
    assert {run: len(note.records) for run, note in recorder.notes.items()} == {"a": 3, "b": 4}
    obstacle.unlink()
    while recorder.notes:
        recorder.flush()
    found = runs(uri)
    assert found.keys() == {"grid", "a", "b"}
    assert [steps(uri, found[run]) for run in "ab"] == [[0, 1, 2], [0, 1, 2, 3]]
    assert [found[run].info.status for run in "ab"] == ["RUNNING", "FINISHED"]
    assert {found[run].data.tags["mlflow.parentRunId"] for run in "ab"} == {found["grid"].info.run_id}
    pictures = MlflowClient(uri).list_artifacts(found["b"].info.run_id, "pictures")
    assert [file.path for file in pictures] == ["pictures/samples.png"]
    assert {file.path for file in MlflowClient(uri).list_artifacts(found["grid"].info.run_id)} == {
        "sweep.json",
        "plan.txt",
    }
    # What it had not come to by the end of the sweep is found.
    outcomes = {
        "a": Outcome("stopped", 3),
        "b": Outcome("done", 3),
        "c": Outcome("stopped", -1),
        "d": Outcome("failed", 1),
    }
    tracker = SweepTracker(uri, sweep, "plan")
    assert tracker.missing(outcomes) == {"a"}
    assert tracker.missing(outcomes | {"a": Outcome("stopped", 2), "d": Outcome("done", 1)}) == {"d"}
    tracker.end(outcomes, {})
    assert runs(uri)["a"].info.status == "KILLED", "nobody is left to go on with it"


def test_a_loop_waits_for_nobody(local_ray, sweep, tmp_path):
    """Neither for a server that is away, nor for a recorder that is gone for good."""
    loop = loops(sweep)[0]
    picture = tmp_path / "samples.png"
    picture.write_bytes(b"png")
    with recording(SweepTracker("http://127.0.0.1:9", sweep, "plan")) as recorder:
        tracker = ForwardingTracker(recorder, loop_tags(sweep, loop))
        ray.get(recorder.tell.remote(Note(info("other"))))  # it has started
        for _ in range(2):
            start = time.monotonic()
            tracker.start(info(loop.run))
            for k in range(1, 5):
                tracker.log(RECORDS[:k])
            tracker.finish(RECORDS, [picture], complete=True)
            assert time.monotonic() - start < 5
            ray.kill(recorder)


@pytest.mark.slow
def test_a_recorder_that_is_killed_is_replaced_and_nothing_is_missing(local_ray, killing, sweep, uri, tmp_path):
    store = StageStore(tmp_path / "store")
    with killing("ray::Recorder", store):
        run_sweep(sweep, store, uri)
    found = runs(uri)
    parent = found.pop("grid").info.run_id
    assert found.keys() == {loop.run for loop in loops(sweep)}
    for run in found.values():
        assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent)
        assert steps(uri, run) == [0, 1, 2]
        pictures = MlflowClient(uri).list_artifacts(run.info.run_id, "pictures")
        assert len(pictures) == 2
