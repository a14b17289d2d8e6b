"""The shape of the source tree: who may import whom, who knows Ray, how long a file may be. Read from syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "autophagy"

# A module imports from earlier rows only. A subpackage is one entry.
ORDER = [
    ["records"],
    ["tables", "limits", "yaml_text", "printing"],
    ["choices", "signals", "versions"],
    ["selection", "scenarios", "corrections", "clustering", "metrics"],
    ["theory", "config"],
    ["sweep_config"],
    ["recipes", "stopping"],
    ["rights"],
    ["storage", "cluster"],
    ["leases", "artifacts"],
    ["garbage", "findings"],
    ["store"],
    ["run_files"],
    ["outcomes"],
    ["stages"],
    ["arrow_source"],
    ["sources"],
    ["data"],
    ["denoiser"],
    ["probe"],
    ["features"],
    ["scoring"],
    ["labels", "hooks", "sampling", "training"],
    ["curation"],
    ["evaluation"],
    ["graph"],
    ["tracking", "pictures", "comparison", "lineage", "progress", "planning", "sweep_progress"],
    ["loop", "sweep_tracking"],
    ["frames"],
    ["trials"],
    ["grid"],
    ["search"],
    ["sweep"],
    ["doctor"],
    ["columns"],
    ["standalone"],
    ["cli"],
    ["__main__", "__init__"],
]
IMPORT_RAY = {"cluster", "stages", "training", "trials", "grid", "search", "doctor"}
OF_TUNE = {"trials", "search"}  # made of Ray's classes, and itself imported where it is used
PLAIN = {
    "records",
    "yaml_text",
    "choices",
    "selection",
    "scenarios",
    "corrections",
    "metrics",
    "theory",
    "config",
    "sweep_config",
    "stopping",
    "recipes",
    "probe",
}
ON_TENSORS = {"selection", "metrics"}  # plain, and may compute with torch
HEAVY = {"ray", "torch", "diffusers", "mlflow", "matplotlib"}
MAX_LINES = 400

RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(source: str, package: str = "autophagy") -> set[str]:
    """Dotted names of everything a file imports: at its top, in functions, and for type checkers alike."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*([package] if node.level else []), *([node.module] if node.module else [])])
            found.add(base)
            # `from autophagy import leases` imports a module of the package.
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == package else set()
    return found


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def modules_imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, itself left out."""
    names = {name.split(".")[1] for name in imports(path.read_text()) if name.startswith("autophagy.")}
    return names - {module_of(path)}


def roots_imported(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path.read_text())}


def roots_at_the_top(path: Path) -> set[str]:
    """What importing the file imports."""
    statements = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return {name.split(".")[0] for node in statements for name in imports(ast.unparse(node))}


def test_imports_are_found_wherever_they_stand():
    source = (
        "import os.path\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from autophagy.store import Artifact\n"
        "def f():\n    import ray.data\n    from autophagy import leases\nclass A:\n    from . import loop\n"
    )
    expected = {"os.path", "ray.data", "typing", "autophagy", "autophagy.store", "autophagy.leases", "autophagy.loop"}
    assert imports(source) == expected


def test_every_module_has_a_place_in_the_order():
    assert {module_of(path) for path in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_left(path):
    for name in modules_imported(path):
        assert RANK[name] < RANK[module_of(path)], f"{path.name} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(path):
    slow = {"ray", "diffusers", "mlflow", "matplotlib", "sklearn", "scipy"}
    assert not roots_at_the_top(path) & (slow - {"ray"} if module_of(path) in OF_TUNE else slow)
    statements = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
    at_the_top = {name for node in statements for name in imports(ast.unparse(node))}
    assert module_of(path) in OF_TUNE or not at_the_top & {f"autophagy.{name}" for name in OF_TUNE}


def test_few_modules_know_ray():
    assert {module_of(path) for path in FILES if "ray" in roots_imported(path)} == IMPORT_RAY


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) in PLAIN], ids=lambda path: path.name)
def test_plain_modules_need_no_ray_and_only_those_on_tensors_torch(path):
    module = module_of(path)
    assert not roots_imported(path) & (HEAVY - {"torch"} if module in ON_TENSORS else HEAVY)
    # What metrics imports at its top, selection imports where it is used: reading a configuration is quick.
    assert modules_imported(path) <= PLAIN - {"metrics"}
    if module != "metrics":
        assert "torch" not in roots_at_the_top(path)


def test_the_package_is_imported_by_jobs_and_analysis_and_imports_neither():
    outside = {"jobs", "analysis", "tests", "benchmarks"}
    assert all(not roots_imported(path) & outside for path in FILES)
    scripts = [*(ROOT / "jobs").glob("*.py"), *(ROOT / "analysis").glob("*.py")]
    assert any("autophagy" in roots_imported(path) for path in scripts)
    assert all("jobs" not in roots_imported(path) for path in (ROOT / "analysis").glob("*.py"))


def test_the_source_root_is_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's `platform`"


def test_no_file_is_too_long():
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith((".", "build"))]
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert len(files) > len(FILES)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
