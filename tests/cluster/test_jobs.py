"""`make submit` from a clean clone to a cluster whose nodes have the dependencies and not the package."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Case, run_alone, under_way
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient
from services import ENVIRONMENT, Nodes, wait_for

from autophagy.recipes import load_sweep
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SMALL = ["generations=1", "training.initial_epochs=2", "training.epochs=1", "generation.num_inference_steps=3"]
SECRETS = [value for name, value in ENVIRONMENT.items() if name.endswith(("KEY", "TOKEN", "PASSWORD"))]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An interpreter with the dependencies, and without the package."""
    folder = tmp_path_factory.mktemp("dependencies")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # links to source trees in there do not count
    script = folder / "bin" / "ray"
    script.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\n\nmain()\n")
    script.chmod(0o755)
    (folder / ".ready").touch()
    command = [folder / "bin" / "python", "-c", "import ray, autophagy"]
    imported = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert b"No module named 'autophagy'" in imported.stderr
    return folder / "bin" / "python"


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clean clone of what is committed."""
    subprocess.run(["git", "clone", "--quiet", "--local", ROOT, tmp_path / "clone"], check=True)
    return tmp_path / "clone"


class Submission:
    """`make submit`, with its output."""

    def __init__(self, clone: Path, python: Path, nodes: Nodes, recipe: str, *arguments: str, **env: str) -> None:
        (python.parents[1] / ".ready").touch()
        command = ["make", "submit", f"VENV={python.parents[1]}", f"ADDRESS={nodes.dashboard}"]
        command += [f"RECIPE={recipe}", f"ARGS={' '.join(arguments)}"]
        self.log = clone.with_name(f"submit-{time.monotonic_ns()}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=clone, stdout=log, stderr=log, env={**os.environ, **env})

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(600)

    def said(self) -> str:
        """The output."""
        return self.log.read_text()


def serve(python: Path, store: str, tracking: str) -> Nodes:
    """Three nodes that know where the store and the tracking server are."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return Nodes(2, python=str(python), PATH=path, AUTOPHAGY_STORE=store, MLFLOW_TRACKING_URI=tracking)


@pytest.fixture
def cluster(python, bucket, mlflow_server) -> Iterator[Nodes]:
    """A cluster with all that a real one has."""
    nodes = serve(python, bucket, f"http://127.0.0.1:{mlflow_server.port}")
    yield nodes
    nodes.shutdown()


def jobs(nodes: Nodes) -> JobSubmissionClient:
    """Ray's list of jobs."""
    return JobSubmissionClient(nodes.dashboard, headers={"Authorization": f"Bearer {ENVIRONMENT['RAY_AUTH_TOKEN']}"})


def logs(nodes: Nodes) -> str:
    """All that Ray has written on all nodes."""
    return "".join(path.read_text(errors="replace") for path in nodes.folder.rglob("logs/*") if path.is_file())


@pytest.fixture(scope="module")
def small_demo(environment, tmp_path_factory) -> Case:
    """The demo, made small."""
    return run_alone(load_sweep("demo", SMALL), tmp_path_factory.mktemp("demo"))


def test_the_demo_submitted_gives_what_a_laptop_gives(clone, python, cluster, bucket, mlflow_server, small_demo):
    submission = Submission(clone, python, cluster, "demo", *(f"--set {setting}" for setting in SMALL))
    assert submission.wait() == 0, submission.said()
    small_demo.check(StageStore(bucket))

    (job,) = [job for job in jobs(cluster).list_jobs() if job.submission_id]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
    assert job.metadata["recipe"] == "demo"
    assert job.metadata["git.commit"] == head.stdout.strip()
    client = MlflowClient(f"http://127.0.0.1:{mlflow_server.port}")
    experiment = client.get_experiment_by_name("demo").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`ray.submission_id` = '{job.submission_id}'")
    assert run.info.run_name == "demo"
    assert run.info.status == "FINISHED"
    assert run.data.tags["git.commit"] == job.metadata["git.commit"]
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert {child.info.status for child in children} == {"FINISHED"}

    told = (
        submission.said() + logs(cluster) + str(job) + "".join(str(found.to_dictionary()) for found in [run, *children])
    )
    assert not [secret for secret in SECRETS if secret in told]


def test_who_has_no_token_is_refused(clone, python, cluster, tmp_path):
    request = urllib.request.Request(f"{cluster.dashboard}/api/jobs/", data=b'{"entrypoint": "true"}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 401
    request.add_header("Authorization", "Bearer " + "0" * 64)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 403
    submission = Submission(clone, python, cluster, "demo", RAY_AUTH_TOKEN="", HOME=str(tmp_path))
    assert submission.wait() != 0
    assert "token" in submission.said()
    assert not jobs(cluster).list_jobs()


def test_a_stopped_job_stops_its_loops_and_goes_on_when_submitted_again(
    clone, python, cluster, bucket, mlflow_server, pooled: Case
):
    store, recipe = StageStore(bucket), pooled.recipe(clone)  # an experiment file of one's own travels
    first = Submission(clone, python, cluster, recipe.name)
    wait_for(under_way(store, "select"))
    (job,) = [job for job in jobs(cluster).list_jobs() if job.submission_id]
    jobs(cluster).stop_job(job.submission_id)
    first.wait()
    assert jobs(cluster).get_job_status(job.submission_id) == "STOPPED"
    wait_for(lambda: not any(cluster.runs(node, "ImplicitFunc") for node in cluster.processes), 30)
    client = MlflowClient(f"http://127.0.0.1:{mlflow_server.port}")
    (parent,) = client.search_runs(
        [client.get_experiment_by_name("pooled").experiment_id], "attributes.run_name = 'pooled'"
    )
    assert parent.info.status == "KILLED"
    before = {info.key: info.created for info in ls(store)}

    second = Submission(clone, python, cluster, recipe.name)
    assert second.wait() == 0, second.said()
    pooled.check(store)
    after = {info.key: info.created for info in ls(store)}
    assert {key: after[key] for key in before} == before
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"


def test_a_job_whose_head_is_gone_goes_on_at_the_next_head(clone, python, bucket, mlflow_server, pooled: Case):
    store, recipe = StageStore(bucket), pooled.recipe(clone)
    tracking = f"http://127.0.0.1:{mlflow_server.port}"
    cluster = serve(python, bucket, tracking)
    first = Submission(clone, python, cluster, recipe.name)
    wait_for(under_way(store, "select"))
    cluster.shutdown()
    assert first.wait() != 0
    again = serve(python, bucket, tracking)
    try:
        second = Submission(clone, python, again, recipe.name)
        assert second.wait() == 0, second.said()
    finally:
        again.shutdown()
    pooled.check(store)
