"""The shape of the source tree: who may import whom, who knows Ray and torch, how long a file may be.

All but one test read syntax trees.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "autophagy"

# Floors, from the ground up. A room is a package or a module of `autophagy`; it imports from lower floors only.
FLOORS = [
    ["common"],
    ["selection", "scenarios", "corrections", "metrics", "denoisers", "data", "store"],
    ["engine", "features", "theory"],
    ["config"],
    ["stages", "recipes", "standalone"],
    ["runs"],
    ["graph", "tracking"],
    ["preflight", "planning", "doctor"],
    ["loop"],
    ["sweeps"],
    ["cli"],
    ["__main__", "__init__"],
]
# Rooms that know Ray, and the files that import it as they are imported: Tune's classes are made of its own.
KNOW_RAY = {"engine", "stages", "sweeps", "doctor"}
OF_TUNE = {"sweeps/trials.py", "sweeps/referee.py", "sweeps/search.py"}
PLAIN = {"common", "selection", "scenarios", "corrections", "metrics", "theory", "config", "recipes"}
ON_TENSORS = {"selection", "metrics"}  # plain, and may compute with torch
TORCH_AT_IMPORT = ("denoisers/", "features/networks.py", "metrics/")  # but for what is loaded with LIGHT
# What reads a configuration and follows a loop: these modules, and all that they import, load nothing heavy.
LIGHT = ["autophagy", "autophagy.cli", "autophagy.config.sweep", "autophagy.loop", "autophagy.sweeps.sweep"]
SLOW = {"ray", "diffusers", "mlflow", "matplotlib", "sklearn", "scipy"}
HEAVY = {*SLOW, "torch"}
REMEDY = (
    "import it inside the function that uses it, for annotations under `if TYPE_CHECKING:`; "
    "a class derived from one of its own goes into a file that is imported so"
)
MAX_LINES = 300
MAX_LINES_OF_TESTS = 400

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]
DOTTED = ["autophagy." + name.removesuffix(".py").replace("/", ".") for name in NAMES]
MODULES = {dotted.removesuffix(".__init__"): path for dotted, path in zip(DOTTED, FILES, strict=True)}
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=NAMES)


def imports(source: str, at_the_top: bool = False) -> set[str]:
    """Dotted names of everything a file imports: at its top, in functions, and for type checkers alike."""
    found: set[str] = set()
    tree = ast.parse(source)
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            modules = {
                f"{node.module}.{alias.name}" for alias in node.names
            }  # such as `from autophagy.store import leases`
            found |= modules & MODULES.keys() or {str(node.module)}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_imported(path: Path) -> set[str]:
    """Rooms that a file imports from, its own left out."""
    names = {name.split(".")[1] for name in imports(path.read_text()) if name.startswith("autophagy.")}
    return names - {room_of(path)}


def roots_imported(path: Path, at_the_top: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(path.read_text(), at_the_top)}


def chains(module: str) -> dict[str, list[str]]:
    """Modules of the package that are loaded with one, as it imports them at the top; each with the way to it."""
    found = {module: [module]} if module in MODULES else {}
    todo = list(found)
    for name in todo:
        above = {
            name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)
        }  # packages are loaded with their modules
        needed = (imports(MODULES[name].read_text(), at_the_top=True) | above) & MODULES.keys() - found.keys()
        found |= {new: [*found[name], new] for new in needed}
        todo += sorted(needed)
    return found


def told(module: str, heavy: Collection[str]) -> str:
    """Who imports heavy packages that are loaded with a module, and what to do."""
    lines = [f"loaded with {module}: {', '.join(sorted(heavy))}"]
    for name, way in chains(module).items():
        if own := roots_imported(MODULES[name], at_the_top=True) & set(heavy):
            lines.append(f"{' -> '.join(way)} imports {', '.join(sorted(own))} at its top")
    if len(lines) == 1:
        lines.append("none of our files imports it at its top, but perhaps a package that one of them does")
    return "\n  ".join([*lines, REMEDY])


LIGHT_FILES = {MODULES[name] for module in LIGHT for name in chains(module)}


def test_imports_are_found_wherever_they_stand():
    source = (
        "import os.path\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from autophagy.store import Artifact\n"
        "def f():\n    import ray.data\n    from autophagy.store import leases\n"
    )
    assert imports(source) == {"os.path", "ray.data", "typing", "autophagy.store", "autophagy.store.leases"}
    assert imports(source, at_the_top=True) == {"os.path", "typing"}


def test_every_room_is_on_a_floor():
    assert {room_of(path) for path in FILES} == set(FLOOR)


@EVERY_FILE
def test_a_room_imports_only_from_below(path):
    room = room_of(path)
    for name in rooms_imported(path):
        why = "it is on a higher floor"
        if FLOOR[name] == FLOOR[room]:
            why = "rooms on the same floor do not import each other"
        assert FLOOR[name] < FLOOR[room], f"{path.name}, of room {room}, must not import {name}: {why}; see FLOORS"


def test_no_file_imports_itself_by_way_of_others():
    below = {name: imports(path.read_text()) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while leaves := [name for name, needed in below.items() if not needed & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below


@EVERY_FILE
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(path):
    name = str(path.relative_to(PACKAGE))
    slow = SLOW - {"ray"} if name in OF_TUNE else SLOW
    slow = slow if name.startswith(TORCH_AT_IMPORT) and path not in LIGHT_FILES else {*slow, "torch"}
    found = sorted(roots_imported(path, at_the_top=True) & slow)
    assert not found, f"{name} imports {', '.join(found)} at its top: {REMEDY}"
    tune = {f"autophagy.{file.removesuffix('.py').replace('/', '.')}" for file in OF_TUNE}
    found = sorted(imports(path.read_text(), at_the_top=True) & tune)
    assert name in OF_TUNE or not found, f"{name} imports {', '.join(found)} at its top, which takes Ray Tune: {REMEDY}"


def test_few_rooms_know_ray():
    assert {room_of(path) for path in FILES if "ray" in roots_imported(path)} == KNOW_RAY


@pytest.mark.parametrize(
    "path", [p for p in FILES if room_of(p) in PLAIN], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_plain_rooms_need_no_ray_and_only_those_on_tensors_torch(path):
    room = room_of(path)
    heavy = HEAVY - {"sklearn", "scipy"}  # imported where they are used, see above
    assert not roots_imported(path) & (heavy - {"torch"} if room in ON_TENSORS else heavy)
    sections = {"autophagy.data.config", "autophagy.denoisers", "autophagy.features.config"}
    others = {n for n in imports(path.read_text()) if n.startswith("autophagy.") and not n.startswith(tuple(sections))}
    # What metrics imports at its top, selection imports where it is used: reading a configuration is quick.
    assert {name.split(".")[1] for name in others} <= PLAIN - ({"metrics"} - {room})


def loaded(module: str, then: str = "") -> set[str]:
    """The heavy packages that importing a module loads, and doing something with it."""
    program = f"import sys, {module}\n{then}\nprint(*({HEAVY | {'pandas', 'optuna'}} & sys.modules.keys()))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("module", LIGHT)
def test_reading_a_configuration_and_following_a_loop_need_nothing_heavy(module):
    heavy = loaded(module)
    assert not heavy, told(module, heavy)


def test_planning_a_loop_needs_nothing_heavy():
    heavy = loaded("autophagy.graph", "autophagy.graph.plan_loop(autophagy.load_recipe('lsf_digits'))")
    assert not heavy, told("autophagy.graph", heavy)


def test_a_trial_that_waits_has_loaded_what_ray_tune_loads_and_no_more():
    heavy, of_tune = loaded("autophagy.sweeps.trials"), loaded("ray.tune")
    assert heavy == of_tune, told("autophagy.sweeps.trials", heavy ^ of_tune)


def test_the_package_is_imported_by_jobs_and_analysis_and_imports_neither():
    outside = {"jobs", "analysis", "tests", "benchmarks"}
    assert all(not roots_imported(path) & outside for path in FILES)
    scripts = [*(ROOT / "jobs").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]
    assert any("autophagy" in roots_imported(path) for path in scripts)
    assert all("jobs" not in roots_imported(path) for path in (ROOT / "analysis").rglob("*.py"))


def test_the_source_root_is_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's `platform`"


def test_no_file_is_too_long():
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith((".", "build"))]
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert len(files) > len(FILES)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    most = {name: MAX_LINES_OF_TESTS if name.startswith("tests/") else MAX_LINES for name in lengths}
    assert {name: n for name, n in lengths.items() if n > most[name]} == {}
