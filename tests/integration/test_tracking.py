"""MLflow, for real: a SQLite store, and a tracking server that is killed and comes back."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient, get_tracking_uri

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.common.seeds import digest
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.tracker import NullTracker, RunInfo
from autophagy.tracking.uri import make_tracker

PARAMS = {"training.epochs": 3, "data.labels": None, "note": "x" * 7000} | {f"p.{i}": i for i in range(150)}
INFO = RunInfo(
    name="lsf_digits",
    digest=digest("lsf_digits"),
    params=PARAMS,
    tags={"seed": "0"},
    dataset={"source": "digits", "digest": digest("digits"), "num_real": 1400, "num_held_out": 397},
)
RECORDS = [
    GenerationRecord(
        generation=k,
        metrics={"fid": 10.0 + (k - 2) ** 2, "recall": 0.9 - 0.1 * k, "kid": math.nan, "share_-1": 0.5},
        stages={"train": digest(k)},
        seconds={"train": 1.5, "generate": 0.25},
    )
    for k in range(5)
]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A SQLite store with its tables: they take seconds to make, so tests copy them."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database, tmp_path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def uri(database) -> str:
    return f"sqlite:///{database}"


def _track(uri: str, num_records: int, *, complete: bool, pictures: tuple[Path, ...] = ()) -> MLflowTracker:
    """What a process of the loop does: start, a call after every generation, finish."""
    tracker = MLflowTracker(uri)
    tracker.start(INFO)
    for k in range(num_records):
        tracker.log(RECORDS[: k + 1])
    tracker.finish(RECORDS[:num_records], pictures, complete)
    return tracker


def _rows(database: Path) -> Counter:
    """How many rows the store has for each (run, metric, step), whoever wrote them."""
    with sqlite3.connect(database) as connection:
        return Counter(connection.execute("select run_uuid, key, step from metrics").fetchall())


def _assert_each_generation_once(database: Path, run_id: str, generations: range) -> None:
    keys = ("generation", "fid", "recall", "share_-1", "seconds/train", "seconds/generate")
    rows = {row: count for row, count in _rows(database).items() if not row[1].startswith("summary/")}
    assert rows == {(run_id, key, k): 1 for key in keys for k in generations}


def test_a_finished_run_holds_everything(uri, tmp_path, database, caplog):
    picture = tmp_path / "collapse_curves.png"
    picture.write_bytes(b"png")
    tracker = _track(uri, 5, complete=True, pictures=(picture,))
    assert not [record for record in caplog.records if record.name.startswith("autophagy.tracking")]

    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert run.info.run_name == "lsf_digits"
    assert run.info.status == "FINISHED"
    assert run.data.params == {key: str(value)[:6000] for key, value in PARAMS.items()}
    assert run.data.tags.items() >= {"seed": "0", "autophagy.digest": INFO.digest}.items()
    _assert_each_generation_once(database, run.info.run_id, range(5))
    for k, metric in enumerate(sorted(client.get_metric_history(run.info.run_id, "fid"), key=lambda m: m.step)):
        assert (metric.step, metric.value) == (k, 10.0 + (k - 2) ** 2)
        assert metric.timestamp == run.info.start_time + 1750 * (k + 1)  # as long as the loop has computed
    summary = {key: value for key, value in run.data.metrics.items() if key.startswith("summary/")}
    assert summary == pytest.approx(
        {"summary/best_fid": 10, "summary/area_fid": 46, "summary/last_fid": 14}
        | {"summary/best_recall": 0.8, "summary/area_recall": 2.8, "summary/last_recall": 0.5}
    )
    (dataset_input,) = run.inputs.dataset_inputs
    assert (dataset_input.dataset.name, dataset_input.dataset.digest) == ("digits", digest("digits"))
    assert json.loads(dataset_input.dataset.profile) == {"num_real": 1400, "num_held_out": 397}
    assert dataset_input.tags[0].value == "training"

    folder = tmp_path / "mlflow_artifacts" / run.info.run_id / "artifacts"
    assert (folder / "pictures" / "collapse_curves.png").read_bytes() == b"png"
    lines = (folder / "records.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record.to_json() for record in RECORDS]


def test_the_same_command_goes_on_in_the_same_run(uri, database):
    first = _track(uri, 2, complete=False)
    client = MlflowClient(uri)
    assert client.get_run(first.run_id).info.status == "KILLED"
    assert not any(key.startswith("summary/") for _, key, _ in _rows(database))

    second = MLflowTracker(uri)
    second.start(INFO)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log(RECORDS)
    second.finish(RECORDS, (), True)
    _assert_each_generation_once(database, first.run_id, range(5))

    rows, end = _rows(database), client.get_run(first.run_id).info.end_time
    third = _track(uri, 5, complete=True)
    assert third.run_id == first.run_id
    assert (_rows(database), client.get_run(first.run_id).info.end_time) == (rows, end)


def test_a_request_of_which_only_a_part_landed_is_completed(uri, database):
    tracker = _track(uri, 3, complete=False)
    with sqlite3.connect(database) as connection:
        connection.execute("delete from metrics where step = 2 and key in ('generation', 'fid')")
    _track(uri, 3, complete=True)
    _assert_each_generation_once(database, tracker.run_id, range(3))


def test_other_loops_have_other_runs(uri):
    ids = set()
    for name, key in (("a", "a"), ("a", "b"), ("b", "a"), ("a", "a")):
        tracker = MLflowTracker(uri)
        tracker.start(RunInfo(name, digest(key), {}, {}, INFO.dataset))
        ids.add(tracker.run_id)
    assert len(ids) == 3


def test_a_run_that_was_deleted_is_made_again(uri, database, caplog):
    tracker = MLflowTracker(uri)
    tracker.start(INFO)
    tracker.log(RECORDS[:2])
    deleted = tracker.run_id
    MlflowClient(uri).delete_run(deleted)
    tracker.log(RECORDS[:3])
    tracker.log(RECORDS[:4])
    assert tracker.run_id not in (deleted, None)
    steps = sorted(step for run_id, key, step in _rows(database) if run_id == tracker.run_id and key == "fid")
    assert steps == [0, 1, 2, 3]
    assert "the loop goes on" in caplog.text


def test_no_global_state_is_read_or_changed(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = dict(os.environ), get_tracking_uri()
    tracker = _track(uri, 1, complete=True)
    assert tracker.run_id not in ("0" * 32, None)
    assert (dict(os.environ), get_tracking_uri()) == before


def test_two_processes_make_the_database_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    program = (
        "import sys; from autophagy.tracking.mlflow import MLflowTracker\n"
        "from autophagy.tracking.tracker import RunInfo\n"
        "tracker = MLflowTracker(sys.argv[1])\n"
        "tracker.start(RunInfo(sys.argv[2], 'ab' * 16, {}, {}, {'source': 'digits', 'digest': 'cd'}))\n"
        "print(tracker.run_id)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, uri, name], stdout=subprocess.PIPE, env=_environment())
        for name in ("a", "b")
    ]
    ids = {process.communicate(timeout=120)[0].decode().strip() for process in processes}
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("autophagy").experiment_id])
    assert {run.info.run_id for run in runs} == ids
    assert len(ids) == 2


def test_a_server_that_never_was_costs_two_warnings_and_no_time(caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}"
        begin = time.monotonic()
        tracker = _track(uri, 5, complete=True)
    assert time.monotonic() - begin < 5
    assert tracker.run_id is None
    first, last = [record.getMessage() for record in caplog.records if record.name.startswith("autophagy.tracking")]
    assert "the loop goes on" in first
    assert "the same command again" in last
    assert "secret" not in first


def test_a_server_that_hangs_is_left_after_the_timeout_of_the_user(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = MLflowTracker(f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        tracker.start(INFO)
        assert 1 <= time.monotonic() - begin < 4
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


def test_a_server_killed_in_the_middle_misses_nothing(database, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # a server on a busy machine; a dead one refuses at once
    server = _Server(database, tmp_path)
    try:
        server.start()
        tracker = MLflowTracker(server.uri)
        tracker.start(INFO)
        run_id = tracker.run_id
        tracker.log(RECORDS[:1])
        server.kill()
        for num_records in (2, 3):
            begin = time.monotonic()
            tracker.log(RECORDS[:num_records])
            assert time.monotonic() - begin < 3
        assert caplog.text.count("the loop goes on") == 1

        server.start()
        tracker.log(RECORDS[:4])
        assert tracker.run_id == run_id
        _assert_each_generation_once(database, run_id, range(4))

        picture = tmp_path / "samples.png"
        picture.write_bytes(b"png")
        again = _track(server.uri, 5, complete=True, pictures=(picture,))
        assert again.run_id == run_id
        _assert_each_generation_once(database, run_id, range(5))
        client = MlflowClient(server.uri)
        assert client.get_run(run_id).info.status == "FINISHED"
        artifacts = {file.path for file in client.list_artifacts(run_id, "pictures")}
        assert artifacts == {"pictures/samples.png"}
    finally:
        server.kill()


def test_make_tracker(tmp_path, monkeypatch):
    assert isinstance(make_tracker(None), NullTracker)
    monkeypatch.chdir(tmp_path)
    tracker = make_tracker("sqlite:///store/mlflow.db")
    assert isinstance(tracker, MLflowTracker)
    assert tracker.tracking_uri == f"sqlite:///{tmp_path}/store/mlflow.db"
    for uri in ("mlruns", "file:///tmp/mlruns", "localhost:5000"):
        with pytest.raises(UserError, match=r"tracking_uri: .*http://HOST:PORT"):
            make_tracker(uri)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="give a path that you can write"):
        make_tracker(f"sqlite:///{tmp_path}/file/mlflow.db")


class _Server:
    """`mlflow server` on a free port of this machine; killing it takes its workers along."""

    def __init__(self, database: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self._command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{database}"]
        self._command += ["--artifacts-destination", str(folder / "served")]
        self._log = folder / "server.log"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"no server: {self._log.read_text()}")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _environment() -> dict[str, str]:
    platform = Path(__file__).parents[2] / "platform"
    return {
        **os.environ,
        "PYTHONPATH": str(platform),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog):
    caplog.set_level(logging.WARNING, logger="autophagy.tracking")
