"""What `make submit` sends: the command, and the working directory as Ray packs it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from autophagy.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> dict[str, int]:
    """Files of the working directory, by name, with their sizes in the package."""
    path = tmp_path_factory.mktemp("package") / "working_dir.zip"
    create_package(str(ROOT), path, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(path) as package:
        return {info.filename: info.compress_size for info in package.infolist() if not info.is_dir()}


def submitted(*settings: str) -> list[str]:
    """The words of the command that make runs."""
    command = ["make", "--silent", "--dry-run", "submit", "READY=", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout.replace("\\\n", " "))


def entrypoint(words: list[str]) -> list[str]:
    """What runs on the cluster: Ray quotes it for the shell there."""
    return words[words.index("--") + 1 :]


def test_the_package_and_the_jobs_travel(packed):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "platform" / "autophagy").rglob("*.py")}
    assert modules | {"jobs/run_sweep.py", "jobs/run_loop.py", "pyproject.toml"} <= set(packed)


def test_nothing_else_does(packed):
    folders = {name.split("/")[0] for name in packed if "/" in name}
    assert folders == {"platform", "jobs"}
    assert not [name for name in packed if name.endswith((".png", ".zip", ".db", ".parquet"))]
    assert sum(packed.values()) < 1_000_000


def test_the_working_directory_needs_nothing_from_outside_it():
    for job in (ROOT / "jobs").glob("*.py"):
        names = [n for n in ast.walk(ast.parse(job.read_text())) if isinstance(n, ast.ImportFrom)]
        assert {name.module.split(".")[0] for name in names} == {"autophagy"}


def test_the_command(monkeypatch):
    monkeypatch.delenv("STORE", raising=False)
    words = submitted("RECIPE=demo", "ARGS=--set seeds=[0,1] --name mine")
    assert words[0] == "RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}"
    assert words[words.index("--working-dir") + 1] == "."
    assert words[words.index("--address") + 1] == "http://127.0.0.1:8265"
    environment = json.loads(words[words.index("--runtime-env-json") + 1])
    assert environment == {"env_vars": {"PYTHONPATH": "platform"}}
    metadata = json.loads(words[words.index("--metadata-json") + 1])
    assert metadata["recipe"] == "demo"
    assert re.fullmatch(r"[0-9a-f]{40}", metadata["git.commit"])
    assert metadata["git.dirty"] in ("true", "false")
    expected = ["python", "jobs/run_sweep.py", "demo", "--set", "seeds=[0,1]", "--name", "mine"]
    assert entrypoint(words) == expected


def test_a_store_with_options():
    store = "s3://bucket/prefix?endpoint_override=minio:9000&scheme=http"
    assert entrypoint(submitted("RECIPE=demo", f"STORE={store}"))[-2:] == ["--store", store]


def test_another_job():
    words = submitted("JOB=python -m autophagy doctor", "ADDRESS=http://head:8265")
    assert words[words.index("--address") + 1] == "http://head:8265"
    assert entrypoint(words) == ["python", "-m", "autophagy", "doctor"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [([], "give RECIPE="), (["RECIPE=demo", "STORE=s3://KEY:SECRET@bucket"], "STORE holds credentials")],
)
def test_a_submission_that_makes_no_sense_is_refused(settings, told):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        submitted(*settings)
    assert told in failed.value.stderr
    assert "SECRET" not in failed.value.stderr


def test_a_job_without_a_store_that_outlives_it_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOPHAGY_STORE", raising=False)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # as Ray sets it for a submitted job
    with pytest.raises(SystemExit) as stopped:
        main(["store", "gc", "--store", "."])
    assert stopped.value.code == 2
    assert "set AUTOPHAGY_STORE" in capsys.readouterr().err
    monkeypatch.setenv("AUTOPHAGY_STORE", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main(["store", "ls"])
    assert stopped.value.code == 0
