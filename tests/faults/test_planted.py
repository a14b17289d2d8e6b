"""What somebody who may write to a store can plant there: links that lead out, manifests that are none."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import PAYLOAD, build, collect, read

from autophagy.cli import main
from autophagy.runs.folder import RunFolder
from autophagy.store import Artifact, StageStore
from autophagy.store.manifests import MANIFEST, encode_manifest
from autophagy.store.upkeep import ls, verify


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


@pytest.fixture
def victim(tmp_path) -> Path:
    """Somebody's folder outside the store."""
    folder = tmp_path / "victim"
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("thesis.tex", "sub/data.csv", "sub/deep/old"):
        (folder / name).write_text("mine")
        os.utime(folder / name, (1, 1))
    return folder


def below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


LINKS = [
    "tmp",
    "leases",
    "leases/train",
    "scratch",
    "scratch/train",
    "stages",
    "stages/train",
    "stages/train/k1",
    "runs",
]


class TestLinks:
    @pytest.mark.parametrize("link", [*LINKS, "stages/train/k9", "scratch/train/sub", "runs/other"])
    def test_are_not_followed_out_of_the_store(self, store, victim, link):
        """Whatever is done: nothing out there is deleted, and nothing is written there."""
        before = below(victim)
        planted = Path(store.root, link)
        if planted.is_dir():
            shutil.rmtree(planted)
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.symlink_to(victim, target_is_directory=True)
        acts: list[Callable[[], object]] = [
            lambda: collect(store, delete=True, older_than=0),
            lambda: build(store, "sub"),
            lambda: build(store, "k1"),
            lambda: RunFolder(store, "r").write("records.jsonl", b""),
            lambda: RunFolder(store, "other").write("thesis.tex", b"yours"),
            lambda: RunFolder(store, "other").remove("thesis.tex"),
            lambda: list(verify(store)),
            lambda: ls(store),
            lambda: collect(store, delete=True, older_than=0),
        ]
        for act in acts:
            with contextlib.suppress(PermissionError):
                act()
            assert below(victim) == before

    def test_an_error_says_what_to_do(self, store, victim, tmp_path, capsys):
        Path(store.root, "runs").symlink_to(victim)
        with pytest.raises(SystemExit) as stopped:
            main(["run", "lsf_digits", "--store", store.root, "--tracking-uri", "none"])
        assert stopped.value.code == 1
        assert "runs/lsf_digits leads out of the store by a symbolic link; remove the link" in capsys.readouterr().err

    def test_the_root_itself_may_be_one(self, tmp_path):
        (tmp_path / "big disk").mkdir()
        (tmp_path / "store").symlink_to(tmp_path / "big disk")
        store = StageStore(tmp_path / "store")
        assert read(build(store)) == PAYLOAD
        assert [item.why for item in collect(store, delete=True, older_than=0)] == ["no run reaches it"]

    def test_a_file_that_is_one_is_damage(self, store, victim):
        artifact = build(store)
        Path(artifact.file("part-0")).unlink()
        Path(artifact.file("part-0")).symlink_to(victim / "thesis.tex")
        assert store.open("train", "k1") is None
        assert read(build(store)) == PAYLOAD
        assert (victim / "thesis.tex").read_text() == "mine"


def manifest(artifact: Artifact) -> Path:
    return Path(artifact.path).parent / MANIFEST


def rewritten(**changes: Any) -> Callable[[Artifact], None]:
    """A manifest with a right checksum that says something else."""

    def damage(artifact: Artifact) -> None:
        found = {**artifact.manifest, **changes}
        manifest(artifact).write_bytes(encode_manifest({k: v for k, v in found.items() if v is not None}))

    return damage


def replaced(data: bytes) -> Callable[[Artifact], None]:
    return lambda artifact: manifest(artifact).write_bytes(data) and None


def folder(artifact: Artifact) -> None:
    manifest(artifact).unlink()
    (manifest(artifact) / "below").mkdir(parents=True)


def dangling(artifact: Artifact) -> None:
    manifest(artifact).unlink()
    manifest(artifact).symlink_to("/nowhere")


def pipe(artifact: Artifact) -> None:
    manifest(artifact).unlink()
    os.mkfifo(manifest(artifact))


def attempt_is_a_file(artifact: Artifact) -> None:
    shutil.rmtree(artifact.path)
    Path(artifact.path).touch()


DAMAGES = {
    "deep": replaced(b'{"a":' * 30_000 + b"1" + b"}" * 30_000),
    "deep list": replaced(b"[" * 100_000),
    "deep with the right keys": replaced(b'{"checksum": "x", "spec": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "no attempt": rewritten(attempt=None),
    "no files": rewritten(files=None),
    "files a list": rewritten(files=["part-0"]),
    "sizes as text": rewritten(files={"part-0": {"size": "9", "blake2b": "x"}}),
    "attempt a number": rewritten(attempt=7),
    "attempt outside": rewritten(attempt="../../.."),
    "no spec": rewritten(spec=None),
    "spec text": rewritten(spec="x"),
    "inputs a list": rewritten(spec={"inputs": ["k0"]}),
    "inputs outside": rewritten(spec={"inputs": {"real": "../k0"}}),
    "no created": rewritten(created=None),
    "seconds text": rewritten(seconds="soon"),
    "info a list": rewritten(info=[1]),
    "versions a list": rewritten(versions=["3.11"]),
    "not UTF-8": replaced(b"\xff\xfe"),
    "a folder": folder,
    "a link to nothing": dangling,
    "a pipe": pipe,
    "attempt is a file": attempt_is_a_file,
}


class TestManifests:
    @pytest.mark.parametrize("kind", DAMAGES)
    def test_one_bad_one_is_named_and_built_anew_and_takes_nobody_down(self, store, caplog, kind):
        build(store, "good")
        DAMAGES[kind](build(store, "bad"))
        RunFolder(store, "run").write("stages.json", json.dumps([["train", "good"], ["train", "bad"]]).encode())
        assert read(build(store, "good")) == PAYLOAD
        store.history("train")
        assert "good" in [info.key for info in ls(store)]
        collect(store)
        with caplog.at_level(logging.WARNING):
            assert read(build(store, "bad")) == PAYLOAD
        assert "bad/manifest.json" in caplog.text
        assert {info.key for info in ls(store)} == {"good", "bad"}
        collect(store, delete=True, older_than=0)
        assert not any(problems for _, problems in verify(store))
        assert {str(p.relative_to(store.root)) for p in Path(store.root, "stages/train").iterdir()} == {
            "stages/train/good",
            "stages/train/bad",
        }

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_verify_and_gc_go_on_to_the_others(self, store, kind):
        DAMAGES[kind](build(store, "bad"))
        build(store, "other")
        assert "other" in [info.key for info, problems in verify(store) if not problems]
        collect(store, delete=True, older_than=0)
        collect(store, delete=True, older_than=0)
        assert ls(store) == []
