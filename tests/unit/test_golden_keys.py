"""Stage keys are those of tests/golden/keys.json: a store in use is found again by whatever the code has become."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Collection
from itertools import chain
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "golden"))

import write_keys
from loops import RUNTIME, make_files, planned
from write_keys import KEYS, OF_MACHINE, WHOLE, compare, data_here, entries, keys_of, line_of, source_of, summary

GOLDEN = json.loads(KEYS.read_text())
LINES = GOLDEN["loops"]
HERE = data_here()
MOST_NAMED = 10
HOW_TO_WRITE = """
`python tests/golden/write_keys.py` writes the file anew, and says what was added, has changed and is gone. Where only
new loops or stages were meant, it must say: 0 changed, 0 gone."""
HOW_TO_LOOK = f"""
What is hashed: `python tests/golden/write_keys.py --show NAME`, by the code before (PYTHONPATH=CHECKOUT/platform) and
after. If the change is meant:{HOW_TO_WRITE}"""


def named(what: str, lines: Collection[str]) -> str:
    """How many there are, and the first of them."""
    more = ["..."] if len(lines) > MOST_NAMED else []
    return "\n  ".join([f"{len(lines)} {what}", *list(lines)[:MOST_NAMED], *more]) + "\n" if lines else ""


def how_it_changed(before: str, after: str) -> str:
    """What differs between two lines of a loop: `changed evaluate; added rescore`."""
    parts = compare(entries(before), entries(after))._asdict()
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)


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
    new, gone = [n for n in experiments if n not in LINES], [n for n in LINES if n not in experiments]
    if new or gone:
        pytest.fail(named("loops are new", new) + named("loops are gone", gone) + HOW_TO_WRITE, pytrace=False)
    assert set(GOLDEN["keys"]) == set(WHOLE), HOW_TO_WRITE


@pytest.mark.parametrize("source", ["files", *OF_MACHINE])
def test_every_key_is_the_golden_one(source, experiments, files):
    needed, found = GOLDEN["data"].get(source), HERE.get(source)
    if found != needed:
        pytest.skip(f"golden keys are of {source} as of {needed}; here it is {found}")
    chosen = {name: line_of(e) for name, e in experiments.items() if source_of(e) == source and name in LINES}
    assert chosen
    changed = {name: line for name, line in chosen.items() if line != LINES[name]}
    if changed:
        told = [f"{name}: {how_it_changed(LINES[name], line)}" for name, line in changed.items()]
        counts = "\n".join(summary({name: LINES[name] for name in chosen}, chosen))
        pytest.fail(named(f"of {len(chosen)} loops have other keys", told) + counts + HOW_TO_LOOK, pytrace=False)


@pytest.mark.parametrize("name", WHOLE)
def test_keys_by_generation_and_stage_are_the_golden_ones(name, experiments, files):
    assert by_stage(keys_of(experiments[name])) == by_stage(GOLDEN["keys"][name])


def test_where_and_how_to_compute_changes_no_golden_key():
    """Of the loops in the file: each setting of `RUNTIME`, and the loop without it."""
    pairs = [(name, name.replace(f" {setting}", "")) for name in LINES for setting in RUNTIME if f" {setting}" in name]
    assert len(pairs) > len(RUNTIME)
    for name, without in pairs:
        assert LINES[name] == LINES[without], name


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


def test_loops_whose_data_are_not_here_keep_their_lines(experiments, files, monkeypatch):
    by_source = {source_of(e): name for name, e in experiments.items() if name in LINES}
    some = {name: experiments[name] for name in by_source.values()}
    before = GOLDEN | {"loops": {name: LINES[name] for name in some}}
    elsewhere = {"digits": "scikit-learn 0.1"}
    monkeypatch.setattr(write_keys, "data_here", lambda: elsewhere)
    monkeypatch.setattr("autophagy.data.sources.base.FASHION_MNIST", "/nowhere")
    kept = write_keys.golden(some, before)
    assert (kept["data"], kept["loops"]) == (before["data"], before["loops"])
    assert write_keys.golden(some, before | {"loops": {}})["loops"].keys() == {by_source["files"]}
    monkeypatch.setattr(write_keys, "line_of", lambda _: "of here")
    anew = write_keys.golden(some, before, new_data=True)
    assert [anew["loops"][by_source[source]] for source in ("files", "digits")] == ["of here", "of here"]
    assert anew["loops"][by_source["fashion_mnist"]] == LINES[by_source["fashion_mnist"]]
    assert anew["data"] == GOLDEN["data"] | elsewhere


def test_what_was_added_has_changed_and_is_gone_is_told_by_stage():
    before = {"one": "e1 real=a score=b", "two": "e2 real=a", "three": "e3 real=a"}
    after = {"one": "e1 real=a score=c", "two": "e2 real=a rescore=d", "four": "e4 real=a"}
    assert summary(before, after) == [
        "loops: 1 added, 1 changed, 1 gone",
        "their stages and experiments: 3 added (1 rescore, 1 experiment, 1 real), 1 changed (1 score), "
        "2 gone (1 experiment, 1 real)",
    ]
    assert summary(before, before) == [
        "loops: 0 added, 0 changed, 0 gone",
        "their stages and experiments: 0 added, 0 changed, 0 gone",
    ]
    assert how_it_changed("e1 real=a score=b", "e1 real=a score=c rescore=d") == "added rescore; changed score"
