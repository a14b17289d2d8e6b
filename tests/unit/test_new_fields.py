"""A field that is new renames no key, wherever it is added; and what says where to compute is in no key at all."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest

import autophagy.stages
from autophagy.common.section import RUNTIME, Section, since
from autophagy.config import Experiment
from autophagy.config.sweep import parse_sweep
from autophagy.corrections import CORRECTIONS
from autophagy.denoisers import MODELS
from autophagy.graph import plan_loop
from autophagy.scenarios import SCENARIOS
from autophagy.selection import SELECTORS

STAGES = [
    importlib.import_module(f"autophagy.stages.{file.name}") for file in pkgutil.iter_modules(autophagy.stages.__path__)
]
FAMILIES = [
    ("selection.strategy", SELECTORS),
    ("scenario.kind", SCENARIOS),
    ("correction.kind", CORRECTIONS),
    ("model.kind", MODELS),
]
SETTINGS = [
    *([f"{key}={member.model_fields[key.partition('.')[2]].default}"] for key, family in FAMILIES for member in family),
    ["selection={strategy: lsf, refresh: 1}", "data.appear={7: 1}", "data.vanish={3: 1}"],
    ["data.labels=kmeans"],
    ["data.labels=predicted", "model.conditional=false"],
]
SECTIONS = ["data", "model", "training", "generation", "scenario", "selection", "correction", "metrics"]
# Sections of which stages take fields by their names: one that no stage has changes no number.
BY_NAME = {"data", "training", "correction"}


def keys(e: Experiment) -> list[dict[str, str]]:
    return [{name: stage.key for name, stage in stages.items()} for stages in plan_loop(e)]


def sections(value: Any) -> Iterator[Section]:
    """All sections in a value."""
    if isinstance(value, Section):
        yield value
        for _, inner in value:
            yield from sections(inner)
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from sections(inner)


def leaves(kind: type[Section] = Section) -> Iterator[type[Section]]:
    """Every section of the package that no other is derived from."""
    below = [member for member in kind.__subclasses__() if member.__module__.startswith("autophagy.")]
    for member in below:
        yield from leaves(member)
    if not below:
        yield kind


def younger(kind: type[Section], value: int = 3) -> type[Section]:
    """The section with two fields more, of which results in use know nothing."""

    class Younger(kind):
        later: Annotated[int, since(3)] = value
        where: Annotated[int, RUNTIME] = 0

    return Younger


def test_every_field_is_in_keys_or_says_where_to_compute(tiny, tiny_values):
    search = {"axes": {"keep_ratio": {"low": 0.1, "high": 1}}, "search": {"num_loops": 4}}
    grid = {"axes": {"keep_ratio": [1]}, "stopping": {"asha": {"grace_period": 1}}}
    sweeps = [parse_sweep({"base": tiny_values, **values}) for values in (search, grid)]
    experiments = [tiny(*settings) for settings in SETTINGS]
    configs = [stage.config for e in experiments for stages in plan_loop(e) for stage in stages.values()]
    seen = {type(section): section for section in sections([*sweeps, *experiments, *configs])}
    assert set(leaves()) <= set(seen)
    for kind, section in seen.items():
        for name in kind.model_fields:
            changed = section.model_copy(update={name: "another value"})
            with warnings.catch_warnings(action="ignore"):  # of a value of another type
                assert (changed.keyed() == section.keyed()) == (name in kind.runtime_fields()), (kind, name)


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("settings", [[], ["selection.strategy=ole", "correction.kind=sims"]], ids=" ".join)
def test_a_new_field_of_a_section_renames_no_key(tiny, settings, name):
    e = tiny("scenario.kind=fresh_mix", *settings)
    section = getattr(e, name)
    made = {
        fields: e.model_copy(update={name: younger(type(section))(**dict(section), **dict([fields]))})
        for fields in [("later", 3), ("where", 5), ("later", 4)]
    }
    for same in (made["later", 3], made["where", 5]):
        assert keys(same) == keys(e)
        assert same.digest == e.digest
    assert made["later", 4].digest != e.digest
    assert (keys(made["later", 4]) == keys(e)) == (name in BY_NAME)


@pytest.mark.parametrize(
    "module", [m for m in STAGES if hasattr(m, "Config")], ids=lambda m: m.__name__.rpartition(".")[2]
)
def test_a_new_field_of_a_stage_renames_no_key(tiny, monkeypatch, module):
    experiments = [tiny(*settings) for settings in SETTINGS]
    before = list(map(keys, experiments))
    config = module.Config
    monkeypatch.setattr(module, "Config", younger(config))
    assert list(map(keys, experiments)) == before
    monkeypatch.setattr(module, "Config", younger(config, 4))
    assert list(map(keys, experiments)) != before
