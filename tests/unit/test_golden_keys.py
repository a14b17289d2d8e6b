"""Stage keys are those of tests/golden/keys.json: a store in use is found again by whatever the code has become."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "golden"))

from loops import RUNTIME, make_files, planned
from write_keys import KEYS, WHOLE, data_here, keys_of, line_of

GOLDEN = json.loads(KEYS.read_text())
HERE = data_here()
MOST_NAMED = 10
HOW_TO_LOOK = """
What is hashed: `python tests/golden/write_keys.py --show NAME`, by the code before (PYTHONPATH=CHECKOUT/platform) and
after. If the change is meant: `python tests/golden/write_keys.py` writes the file anew."""


def source_of(experiment) -> str:
    """The data that a loop needs of this machine; `files` of our own are everywhere."""
    source = experiment.data.source
    return source if source in GOLDEN["data"] else "files"


def by_stage(keys) -> dict[str, str]:
    """All keys of a loop in one mapping, of which pytest shows what differs."""
    return {f"{k} {name}": key for k, stages in enumerate(keys) for name, key in stages.items()}


@pytest.fixture(scope="module")
def experiments():
    return planned()


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """The current folder, with the files that some loops read."""
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_golden_loops_are_those_there_are(experiments):
    assert set(experiments) == set(GOLDEN["loops"]), HOW_TO_LOOK
    assert set(GOLDEN["keys"]) == set(WHOLE), HOW_TO_LOOK


@pytest.mark.parametrize("source", ["files", *GOLDEN["data"]])
def test_every_key_is_the_golden_one(source, experiments, files):
    needed, found = GOLDEN["data"].get(source), HERE.get(source)
    if found != needed:
        pytest.skip(f"golden keys are of {source} as of {needed}; here it is {found}")
    chosen = {name: e for name, e in experiments.items() if source_of(e) == source}
    assert chosen
    changed = [name for name, e in chosen.items() if line_of(e) != GOLDEN["loops"].get(name)]
    if changed:
        named = "\n  ".join(changed[:MOST_NAMED])
        pytest.fail(f"{len(changed)} of {len(chosen)} loops have other keys, such as\n  {named}\n{HOW_TO_LOOK}")


@pytest.mark.parametrize("name", WHOLE)
def test_keys_by_generation_and_stage_are_the_golden_ones(name, experiments, files):
    assert by_stage(keys_of(experiments[name])) == by_stage(GOLDEN["keys"][name])


def test_where_and_how_to_compute_changes_no_golden_key():
    """Of the loops in the file: each setting of `RUNTIME`, and the loop without it."""
    lines = GOLDEN["loops"]
    pairs = [(name, name.replace(f" {setting}", "")) for name in lines for setting in RUNTIME if f" {setting}" in name]
    assert len(pairs) > len(RUNTIME)
    for name, without in pairs:
        assert lines[name] == lines[without], name


def test_where_the_files_lie_changes_no_key(experiments, files, tmp_path_factory, monkeypatch):
    relative = [e for e in experiments.values() if ":" in e.data.source]
    keys = [keys_of(e) for e in relative]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    make_files(elsewhere)
    monkeypatch.chdir("/")
    data = [e.data.model_copy(update={"source": e.data.source.replace(":", f":{elsewhere}/", 1)}) for e in relative]
    assert [keys_of(e.model_copy(update={"data": d})) for e, d in zip(relative, data, strict=True)] == keys


def test_every_field_has_another_value_in_some_loop(experiments):
    """A new field belongs into `FIELDS` or `SELECTED` of tests/golden/loops.py."""
    values = defaultdict(set)
    for name, value in chain.from_iterable(map(fields_of, experiments.values())):
        values[name].add(json.dumps(value))
    constant = {name for name, seen in values.items() if len(seen) == 1}
    assert constant == {("selection", "class_balanced_random", "per_class")}


def fields_of(experiment):
    """Every field with its value; of a selector, scenario or correction by the name of that."""
    for name, value in experiment.model_dump(mode="json").items():
        if not isinstance(value, dict):
            yield (name,), value
            continue
        tag = value.pop("strategy", value.pop("kind", ""))
        for field, inner in value.items():
            yield (name, tag, field), inner
