"""Who may read what: Ray's token, a database of MLflow's, a store."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autophagy.common.rights import create_private, guard_token, readers, token_file
from autophagy.doctor.machine import check_rights, check_token
from autophagy.store.storage import Storage
from autophagy.tracking.tracker import RunInfo
from autophagy.tracking.uri import make_tracker


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all may enter, which those of pytest are not; files are made as most systems make them."""
    before = os.umask(0o022)
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        if not readers(name):
            pytest.skip("others cannot enter the folder of temporary files")
        yield Path(name)
    os.umask(before)


@pytest.fixture
def token(folder, monkeypatch) -> Path:
    """A token as Ray makes it."""
    monkeypatch.setenv("HOME", str(folder))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    path = folder / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("SECRET")
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_readers(folder):
    path = folder / "file"
    assert readers(path) == ""
    path.write_bytes(b"")
    assert readers(path) == "group and others"
    path.chmod(0o640)
    assert readers(path) == "group"
    path.chmod(0o604)
    assert readers(path) == "others"
    (folder / "link").symlink_to(path)
    assert readers(folder / "link") == "others"
    folder.chmod(0o700)
    assert readers(path) == ""


def test_a_token_that_others_may_read_is_closed_to_them(token):
    assert (mode(token.parent), mode(token)) == (0o755, 0o644)
    guard_token()
    assert (mode(token.parent), mode(token)) == (0o700, 0o600)
    token.chmod(0o400)
    guard_token()
    assert mode(token) == 0o400


def test_the_folder_is_closed_before_there_is_a_token(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    guard_token()
    assert mode(folder / ".ray") == 0o700


def test_a_token_elsewhere(token, monkeypatch):
    other = token.parents[1] / "token"
    other.write_text("SECRET")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    guard_token()
    assert mode(other) == 0o600
    assert (mode(other.parent), mode(token)) == (0o755, 0o644)  # a folder that may have other uses
    monkeypatch.setenv("RAY_AUTH_TOKEN", "SECRET")
    assert token_file() is None
    assert list(check_token()) == []


def test_the_doctor_closes_the_token_and_says_so(token):
    (found,) = check_token()
    assert (found.level, found.check) == ("note", "token")
    assert "group and others might read it until now" in found.text
    assert f"rm {token}" in found.remedy
    assert mode(token) == 0o600
    assert list(check_token()) == []


def test_a_token_that_is_not_ours_to_close_is_a_problem(token, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: token.stat().st_uid + 1)
    (found,) = check_token()
    assert (found.level, found.remedy) == ("problem", f"chmod 600 {token}")
    assert mode(token) == 0o644


def test_the_doctor_notes_a_store_and_a_database_that_others_may_read(folder):
    store, database = folder / "store", folder / "mlflow.db"
    store.mkdir()
    database.write_bytes(b"")
    found = list(check_rights(Storage(store), f"sqlite:///{database}"))
    assert [(finding.level, finding.check) for finding in found] == [("note", "storage"), ("note", "tracking")]
    assert [f"chmod 700 {store}" in found[0].remedy, f"chmod 600 {database}" in found[1].remedy] == [True, True]
    assert mode(store) == 0o755  # it may be shared on purpose
    store.chmod(0o700)
    database.chmod(0o600)
    assert list(check_rights(Storage(store), f"sqlite:///{database}")) == []
    assert list(check_rights(None, "http://host:5000")) == list(check_rights(None, None)) == []


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_the_database_of_runs_is_ours_alone(folder):
    tracker = make_tracker(f"sqlite:///{folder}/runs/mlflow.db")
    tracker.start(RunInfo("loop", "0" * 32, {}, {}, {"source": "digits", "digest": "0"}))
    assert tracker.run_id
    path = folder / "runs" / "mlflow.db"
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    database = sqlite3.connect(path)
    database.execute("create table ours (id)")
    database.execute("insert into ours values (1)")  # begins a transaction, which has a file of its own
    assert mode(path.parent / "mlflow.db-journal") == 0o600
    database.close()


@pytest.mark.parametrize(("rights", "expected"), [(0o755, 0o600), (0o775, 0o644), (0o1777, 0o600)])
def test_a_folder_that_a_group_shares_stays_shared(folder, rights, expected):
    folder.chmod(rights)
    create_private(folder / "mlflow.db")
    assert mode(folder / "mlflow.db") == expected
    (folder / "mlflow.db").chmod(0o666)
    create_private(folder / "mlflow.db")
    assert mode(folder / "mlflow.db") == 0o666  # what was there before
