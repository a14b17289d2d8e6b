"""The audit of constraints.txt: what it asks, and what it makes of no answer."""

from __future__ import annotations

import importlib.util
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("required", "code", "told"), [("1", 1, "audit failed"), ("", 0, "audit SKIPPED")])
def test_no_answer_is_told_and_where_one_is_required_an_error(
    audit, monkeypatch, capsys, tmp_path, required, code, told
):
    (tmp_path / "answer.json").write_text('{"vulnerabilities": []}')  # of a mirror that has no advisories
    monkeypatch.setenv("AUDIT_REQUIRED", required)
    for known in (f"file://{tmp_path}/none.json", f"file://{tmp_path}/answer.json"):
        monkeypatch.setattr(audit, "KNOWN", known)
        assert audit.main() == code
        assert told in capsys.readouterr().err


def test_what_is_asked(audit, monkeypatch, tmp_path):
    """In an environment of its own, by a pinned version, and what cannot be looked up fails."""
    ran: list[list[str]] = []
    monkeypatch.setattr(audit, "advisories", lambda: "")
    monkeypatch.setattr(audit, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(audit.venv, "create", lambda folder, with_pip: None)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command) or SimpleNamespace(returncode=1))
    assert audit.main() == 1
    install, ask = ran
    assert install[0] == ask[0] == str(tmp_path / "bin" / "python")
    assert Requirement(install[-1]).specifier
    assert {"--strict", str(ROOT / "constraints.txt")} <= set(ask)


def test_all_that_can_be_installed_is_pinned_by_its_public_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert not [name for name, version in pinned.items() if Version(version).local]  # PyPI knows no torch==2+cpu
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [needed for extra in project["optional-dependencies"].values() for needed in extra]
    for needed in map(Requirement, [*project["dependencies"], *extras]):
        assert needed.specifier.contains(pinned[needed.name.lower()]), needed
