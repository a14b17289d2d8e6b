"""What `make submit` sends: the command, and the working directory as Ray packs it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from autophagy.cli import main

ROOT = Path(__file__).parents[3]
VARIABLES = ("RECIPE", "ARGS", "STORE", "JOB", "ADDRESS", "RAY_AUTH_MODE", "MAKEFLAGS", "MAKEOVERRIDES")


def pack(folder: Path, path: Path) -> dict[str, int]:
    """Files of a working directory as Ray packs it into a zip file at `path`, by name, with their sizes in it."""
    create_package(str(folder), path, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(path) as package:
        return {info.filename: info.compress_size for info in package.infolist() if not info.is_dir()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> dict[str, int]:
    """What a job takes along from here."""
    return pack(ROOT, tmp_path_factory.mktemp("package") / "working_dir.zip")


@pytest.fixture
def submitted(tmp_path) -> Callable[..., list[str]]:
    """`make submit` with some variables, to a command that takes Ray's place; its arguments."""
    commands = tmp_path / "venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    told = "json.dumps([os.environ['RAY_AUTH_MODE'], *sys.argv[1:]])"
    (commands / "ray").write_text(f"#!{sys.executable}\nimport json, os, sys\nprint({told})\n")
    for command in commands.iterdir():
        command.chmod(0o755)

    def submit(*settings: str) -> list[str]:
        command = ["make", "--silent", "submit", "READY=", f"VENV={commands.parent}", *settings]
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
        return json.loads(done.stdout)

    return submit


def entrypoint(words: list[str]) -> list[str]:
    """What runs on the cluster: Ray quotes each word for the shell there."""
    return words[words.index("--") + 1 :]


def test_the_package_and_the_jobs_travel(packed):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "platform" / "autophagy").rglob("*.py")}
    assert modules | {"jobs/run_sweep.py", "jobs/run_loop.py", "pyproject.toml"} <= set(packed)


def test_nothing_else_does(packed):
    folders = {name.split("/")[0] for name in packed if "/" in name}
    assert folders == {"platform", "jobs"}
    assert {Path(name).suffix for name in packed} <= {".py", ".typed", ".toml", ".yaml"}
    assert sum(packed.values()) < 1_000_000


STRANGE = [
    "storage.env",
    ".env",
    ".envrc",
    "id_rsa",
    "credentials",
    "key.pem",
    "autophagy.zip",
    "notes.txt",
    "experiment.yaml~",
    ".hidden.yaml",
    "cluster.yaml",
    "run.py",
    "data/scan.png",
    "data/labels.yaml",
    "~/auth_token",
    "autophagy-store/stages/train/key/manifest.json",
    "jobs/storage.env",
    "jobs/.env",
    "jobs/id_rsa",
    "jobs/run_sweep.py~",
    "platform/id_rsa",
    "platform/module.py",
    "platform/autophagy/.env",
    "platform/autophagy/id_rsa",
    "platform/autophagy/weights.safetensors",
    "platform/autophagy/metrics/scan.png",
    "platform/autophagy/data/scan.png",
]
TAKEN = [
    "mine.yaml",
    "pyproject.toml",
    "jobs/run_sweep.py",
    "platform/autophagy/cli/app.py",
    "platform/autophagy/py.typed",
    "platform/autophagy/selection/ole.py",
]


@pytest.mark.parametrize("ignored_by_git", [True, False])
def test_keys_and_data_beside_the_code_stay_at_home(tmp_path, ignored_by_git):
    folder = tmp_path / "checkout"
    for name in [*STRANGE, *TAKEN]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("SECRET")
    shutil.copy(ROOT / ".rayignore", folder)
    if ignored_by_git:
        shutil.copy(ROOT / ".gitignore", folder)
    assert sorted(pack(folder, tmp_path / "working_dir.zip")) == sorted(TAKEN)


@pytest.mark.parametrize("name", ["storage.env", ".env", "deploy/storage.env", "autophagy.zip", "key.pem", "id_rsa"])
def test_git_adds_no_keys(name):
    assert subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT).returncode == 0


def test_the_working_directory_needs_nothing_from_outside_it():
    for job in (ROOT / "jobs").glob("*.py"):
        names = [n for n in ast.walk(ast.parse(job.read_text())) if isinstance(n, ast.ImportFrom)]
        assert {name.module.split(".")[0] for name in names} == {"autophagy"}


def test_the_command(submitted):
    mode, *words = submitted("RECIPE=demo", "ARGS=--set seeds=[0,1] --name mine")
    assert mode == "token"
    assert words[:2] == ["job", "submit"]
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


@pytest.mark.parametrize("store", ["s3://bucket/prefix?endpoint_override=minio:9000&scheme=http", "/data/o'brien s"])
def test_a_store(submitted, store):
    assert entrypoint(submitted("RECIPE=demo", f"STORE={store}"))[-2:] == ["--store", store]


def test_another_job(submitted):
    words = submitted("JOB=python -m autophagy doctor", "ADDRESS=http://head:8265")
    assert words[words.index("--address") + 1] == "http://head:8265"
    assert entrypoint(words) == ["python", "-m", "autophagy", "doctor"]


@pytest.mark.parametrize("names", [("RECIPE", "ARGS", "STORE", "ADDRESS"), ("JOB",)])
def test_nothing_in_a_variable_is_run_here(submitted, tmp_path, names):
    forms = ("$(shell touch {})", "$$(touch {})", "$(touch {})", "`touch {}`", "; touch {}", "' ; touch {} ; '")
    text = " ".join(form.format(tmp_path / f"made-{i}") for i, form in enumerate(forms))
    words = submitted(*(f"{name}={text}" for name in names))
    assert words.count(text) == len([name for name in names if name in ("RECIPE", "STORE", "ADDRESS")])
    assert not list(tmp_path.glob("made-*"))


def test_words_may_be_quoted(submitted):
    words = submitted("RECIPE=it's $(HOME)", """ARGS=--set question='is it so?' --name "a b" --set x=$HOME""")
    assert entrypoint(words)[2:] == ["it's $(HOME)", "--set", "question=is it so?", "--name", "a b", "--set", "x=$HOME"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], "give RECIPE="),
        (["RECIPE=demo", "STORE=s3://KEY:SECRET@bucket"], "STORE holds credentials"),
        (["RECIPE=demo", "STORE=s3://bucket/prefix?secret_key=SECRET"], "STORE holds credentials"),
        (["RECIPE=demo", "ARGS=--tracking-uri=postgresql://u:SECRET@host/db"], "ARGS holds credentials"),
        (["RECIPE=demo", "ARGS=--store 's3://bucket/prefix?token=SECRET'"], "ARGS holds credentials"),
        (["JOB=env AWS_SECRET_ACCESS_KEY=SECRET python -m autophagy doctor"], "JOB holds credentials"),
    ],
)
def test_a_submission_that_makes_no_sense_is_refused(submitted, settings, told):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        submitted(*settings)
    assert told in failed.value.stderr
    assert "SECRET" not in failed.value.stderr + failed.value.stdout


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
