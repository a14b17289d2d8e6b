"""What the doctor concludes, and what it can see without a cluster: each problem names a remedy."""

from __future__ import annotations

import socket
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from autophagy.doctor import machine as doctor
from autophagy.doctor.findings import (
    Finding,
    NodeReport,
    clock_finding,
    cluster_finding,
    gpu_findings,
    node_findings,
    package_findings,
    storage_finding,
    tracking_finding,
    version_finding,
)
from autophagy.doctor.machine import check_storage, exercise, needs, reachable
from autophagy.doctor.nodes import check_ray
from autophagy.doctor.tracking import check_tracking
from autophagy.store.storage import Storage
from autophagy.tracking.uri import tracking_for

ROOT = Path(__file__).parents[3]


def node(host: str = "a", **changes: object) -> NodeReport:
    values = {
        "host": host,
        "versions": {"python": "3.11.7", "ray": "2.60.0"},
        "shared_memory": 8 << 30,
        "gpus": None,
        "storage": (100.0, 200.0),
        "sees_the_store": True,
        "reaches_tracking": True,
    }
    return NodeReport(**values | changes)


def levels(findings) -> list[tuple[str, str]]:
    found = list(findings)
    assert all(f.remedy for f in found if f.level == "problem"), found
    return [(f.level, f.check) for f in found]


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_line_has_level_check_text_and_remedy_and_no_secret():
    finding = Finding("problem", "storage", "s3://KEY:SECRET@bucket:\n  denied", "mend it")
    assert str(finding) == "problem storage: s3://***@bucket: denied; mend it"
    assert str(Finding("ok", "python", "3.11")) == "ok      python: 3.11"


def test_packages_are_compared_with_what_is_needed():
    installed = {"ray": "2.60.0", "torch": "2.13.0+cpu", "numpy": "1.26.4"}.get
    needed = ["ray[default]==2.60.0", "torch>=2.6", "numpy>=2.0", "typer>=0.15"]
    found = list(package_findings(">=3.11", needed, installed))
    assert levels(found) == [("ok", "python"), ("problem", "packages"), ("problem", "packages")]
    assert "numpy 1.26.4, needed is numpy>=2.0" in found[1].text
    assert "typer is missing" in found[2].text
    assert found[2].remedy == "pip install -c constraints.txt 'typer>=0.15'"
    assert levels(package_findings(">=3.11", needed[:2], installed)) == [("ok", "python"), ("ok", "packages")]
    assert levels(package_findings(">=4", [], installed))[0] == ("problem", "python")


def test_what_is_needed_is_what_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert needs() == (project["requires-python"], project["dependencies"])


def test_a_store_is_written_read_and_left_as_it_was(tmp_path):
    finding = check_storage(Storage(tmp_path / "store"))
    assert finding.level != "problem"
    assert "MB/s" in finding.text
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("uri", ["{tmp}/file/store", "/proc/nowhere/store", "gopher://host/x", "s3://"])
def test_a_store_that_cannot_be_written_is_a_problem(tmp_path, uri):
    (tmp_path / "file").write_bytes(b"")
    finding = check_storage(Storage(uri.format(tmp=tmp_path)))
    assert finding.level == "problem"
    assert "give a writable folder, or s3://" in str(finding)


def test_a_store_that_publishes_twice_is_told(tmp_path):
    class Forgetful(Storage):
        """Replaces what is there, as a plain rename does."""

        def create(self, path: str, data: bytes) -> bool:
            self.put(path, data)
            return True

    storage = Forgetful(tmp_path / "store")
    storage.check()
    with pytest.raises(RuntimeError, match="published again"):
        exercise(storage)
    assert "published again" in check_storage(storage).text


def test_a_full_disk_is_a_problem_and_the_store_not_the_first_place_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 60)
    finding = check_storage(Storage(tmp_path / "store"))
    assert finding.level == "problem"
    assert finding.remedy.startswith("free room outside the store, or enlarge the disk; `autophagy store gc`")


def test_slow_storage_is_a_note():
    assert storage_finding("s3://bucket", (2.0, 90.0)).level == "note"
    assert storage_finding("s3://bucket", (20.0, 90.0)).level == "ok"


class TestTracking:
    def test_a_server_that_is_not_there(self, closed_port):
        finding = check_tracking(f"http://user:password@127.0.0.1:{closed_port}")
        assert finding.level == "problem"
        assert "nothing answers; start `mlflow server`" in str(finding)
        assert "password@" not in str(finding)

    def test_something_that_is_no_mlflow(self):
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            finding = check_tracking(f"http://127.0.0.1:{server.server_port}")
            server.shutdown()
        assert finding.level == "problem"
        assert "see that MLflow runs there" in finding.remedy

    def test_an_address_of_another_kind(self):
        assert check_tracking("ftp://host").level == "problem"
        assert "give http://HOST:PORT" in str(check_tracking("ftp://host"))

    def test_a_database_that_the_first_run_makes(self, tmp_path):
        assert check_tracking(f"sqlite:///{tmp_path}/mlflow.db").level == "ok"
        assert list(tmp_path.iterdir()) == []

    def test_none_is_a_note(self):
        assert check_tracking(None).level == "note"

    def test_where_a_run_is_tracked(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert tracking_for(None, "/store") == "sqlite:////store/mlflow.db"
        assert tracking_for(None, None) is None
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
        assert tracking_for(None, "/store") == "http://host:5000"
        assert tracking_for("none", "/store") is None


def test_an_address_of_ray_where_nothing_answers(monkeypatch, closed_port):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    finding = check_ray()
    assert finding.level == "problem"
    assert "ray start --head" in finding.remedy


def test_reachable(closed_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert reachable(f"http://127.0.0.1:{server.getsockname()[1]}/mlflow")
    assert not reachable(f"postgresql+psycopg2://u:p@127.0.0.1:{closed_port}/db")
    assert reachable("sqlite:////file.db")
    assert reachable(None)


def test_resources_of_all_nodes_together():
    nodes = [{"CPU": 4.0, "memory": 8e9, "object_store_memory": 2e9}, {"CPU": 8.0, "GPU": 2.0, "memory": 32e9}]
    assert cluster_finding(nodes).text == "2 nodes, 12 CPUs, 2 GPUs, 40 GB of memory, 2.0 GB of object store"
    assert cluster_finding([{"memory": 8e9}]).level == "note"  # a head that starts workers when there is work


@pytest.mark.parametrize(
    ("counted", "usable", "level"),
    [
        (0, None, []),
        (0, [], []),
        (1, ["H100"], ["ok"]),
        (2, ["H100"], ["problem"]),
        (1, [], ["problem"]),
        (1, "no driver", ["problem"]),
        (0, "no driver", ["note"]),
        (0, ["H100"], ["note"]),
    ],
)
def test_gpus_that_ray_counts_are_those_that_torch_can_use(counted, usable, level):
    assert levels(gpu_findings("a", counted, usable)) == [(found, "gpu") for found in level]


def test_a_node_that_does_not_share_the_store():
    resources = {"object_store_memory": 4e9}
    assert levels(node_findings(resources, node(), shared=True)) == [("ok", "storage")]
    (finding,) = node_findings(resources, node(sees_the_store=False), shared=True)
    assert finding.level == "problem"
    assert "that all nodes share" in finding.remedy
    assert levels(node_findings(resources, node(storage="denied"), shared=True)) == [("problem", "storage")]
    assert levels(node_findings(resources, node(sees_the_store=False), shared=False)) == []
    assert levels(node_findings(resources, node(storage=None), shared=True)) == []


def test_shared_memory_smaller_than_the_object_store():
    (finding,) = node_findings({"object_store_memory": 4e9}, node(shared_memory=64 << 20), shared=False)
    assert (finding.level, finding.check) == ("note", "memory")
    assert "--shm-size" in finding.remedy
    assert levels(node_findings({"object_store_memory": 4e9}, node(shared_memory=None), shared=False)) == []


def test_tracking_from_all_nodes():
    assert tracking_finding("http://host:5000", [node(), node("b")]).level == "ok"
    away = tracking_finding("http://host:5000", [node(), node("b", reaches_tracking=False)])
    assert (away.level, away.text) == ("problem", "http://host:5000: not reached from b")
    assert tracking_finding("sqlite:////store/mlflow.db", [node(), node("b")]).level == "problem"
    assert tracking_finding(None, [node(), node("b")]).level == "note"


def test_versions_across_nodes():
    assert version_finding([node(), node("b")]).level == "ok"
    other = node("b", versions={"python": "3.12.1", "ray": "2.60.0"})
    finding = version_finding([node(), other, node("c")])
    assert (finding.level, finding.text) == ("problem", "python 3.11.7 on a and c, 3.12.1 on b")
    assert "ray 2.60.0 on a, missing on b" in version_finding([node(), node("b", versions={"python": "3.11.7"})]).text


@pytest.mark.parametrize(("seconds", "level"), [(0.4, "ok"), (12.0, "note"), (4000.0, "note")])
def test_clocks(seconds, level):
    finding = clock_finding([("a", 0.0), ("b", seconds)])
    assert finding.level == level
    assert finding.text.startswith("agrees" if level == "ok" else "b is")
