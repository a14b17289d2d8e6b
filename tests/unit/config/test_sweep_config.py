"""Sweeps: how they expand into loops, how settings reach them, and what is refused in one line."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from autophagy.common.errors import UserError
from autophagy.config import Experiment
from autophagy.config.expand import label_of, loops, loops_at, optimisation_steps, run_name
from autophagy.config.experiment import RUN_NAME
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.recipes import SWEEPS, load_experiment, load_recipe, load_sweep


@pytest.fixture
def values(tiny_values):
    """A sweep of two strategies and two keep ratios, as a YAML file would hold it."""
    axes = {"selection.strategy": ["random", "lsf"], "keep_ratio": [1.0, 0.5]}
    return {"name": "s", "base": copy.deepcopy(tiny_values), "axes": axes, "seeds": [3, 4]}


def test_a_grid_is_every_combination_seed_by_seed(values):
    made = loops(parse_sweep(values))
    assert [(x.seed, x.experiment.selection.strategy, x.experiment.keep_ratio) for x in made] == [
        (seed, strategy, ratio) for seed in (3, 4) for strategy in ("random", "lsf") for ratio in (1.0, 0.5)
    ]
    assert [x.run for x in made[:2]] == ["s-random-1.0-seed3", "s-random-0.5-seed3"]
    assert made[0].labels == {"selection.strategy": "random", "keep_ratio": "1.0"}
    assert made[0].arm == "random, 1.0" == made[4].arm
    assert all(x.experiment.seed == x.seed for x in made)
    # Whatever is not varied is the base's.
    base = parse_sweep(values).base.model_dump(exclude={"name", "seed", "selection", "keep_ratio"})
    assert all(x.experiment.model_dump(exclude={"name", "seed", "selection", "keep_ratio"}) == base for x in made)


def test_a_loop_is_told_by_its_point_alone(values):
    values |= {"controls": {"anti": {"selection.strategy": "anti_lsf"}}}
    sweep = parse_sweep(
        values | {"axes": values["axes"] | {"arm": {"plain": {}, "few": {"training.epochs": 1}}}, "equal": []}
    )
    made = loops(sweep)
    assert len(made) == 2 * (1 + 8)
    for loop in made:
        assert loops_at(sweep, json.loads(json.dumps(loop.point))) == [loop]
        assert loop.run == run_name(sweep.name, loop.labels, loop.seed)
    assert loops_at(sweep, {"labels": made[3].labels, "seeds": [3, 4]}) == [made[3], made[12]]


def test_a_number_of_a_range_is_told_by_its_label(values):
    axes = {"keep_ratio": {"low": 0.1, "high": 1.0}}
    sweep = parse_sweep(values | {"axes": axes, "search": {"num_loops": 4}})
    for label, value in (("0.25", 0.25), ("1.0", 1.0)):
        (loop, _) = loops_at(sweep, {"labels": {"keep_ratio": label}, "seeds": [3, 4]})
        assert (loop.experiment.keep_ratio, loop.labels) == (value, {"keep_ratio": label})


def test_a_label_may_stand_for_several_settings(values):
    values["axes"] = {"arm": {"plain": {}, "few": {"selection.strategy": "lsf", "selection.per_class": True}}}
    plain, few = (x.experiment for x in loops(parse_sweep(values))[:2])
    assert plain.selection.strategy == "random"
    assert (few.selection.strategy, few.selection.per_class) == ("lsf", True)


def test_controls_stand_beside_the_grid(values):
    values |= {"axes": {"keep_ratio": [1.0, 0.5]}, "controls": {"anti": {"selection.strategy": "anti_lsf"}}}
    made = loops(parse_sweep(values))
    assert [x.arm for x in made] == ["anti", "1.0", "0.5"] * 2
    assert made[0].labels == {"control": "anti"}
    assert made[0].experiment.selection.strategy == "anti_lsf"


@pytest.mark.parametrize("recipe", SWEEPS, ids=lambda recipe: recipe.__name__)
def test_recipes_expand_with_names_of_their_own(recipe):
    sweep = recipe()
    made = loops(sweep)
    assert sweep.name == recipe.__name__
    assert sweep.question.endswith("?")
    assert len({x.run for x in made}) == len({x.experiment.digest for x in made}) == len(made)
    assert len({optimisation_steps(x.experiment) for x in made}) == 1
    assert any(x.experiment.selection.strategy == "random" for x in made), "random is in every comparison"


def test_names_stay_apart_and_within_a_file_name():
    import re

    axes = {
        "a": {"x-y": {}, "x": {"budget": 500}, "a b": {}, "a_b": {"budget": 500}, "l" * 200: {}},
        "b": {"z": {}, "y-z": {}},
    }
    made = loops(parse_sweep({"base": load_experiment("lsf_digits").model_dump(mode="json"), "axes": axes}))
    assert len({x.run for x in made}) == len(made) == 10
    assert all(re.match(RUN_NAME, x.run) and len(x.run) <= 100 for x in made)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        ([16, 32], "16+32"),
        ("lsf", "lsf"),
        ({"a": 1}, "a=1"),
        ({}, "none"),
    ],
)
def test_labels_are_short(value, label):
    assert label_of(value) == label


class TestSettings:
    def test_of_the_sweep_and_of_its_base(self):
        sweep = load_sweep("demo", ["seeds=[5]", "budget=128", "base.training.epochs=1", "stopping.collapse_factor=4"])
        (first, *_) = loops(sweep)
        assert (first.seed, first.experiment.budget, first.experiment.training.epochs) == (5, 128, 1)
        assert sweep.stopping.collapse_factor == 4

    def test_of_axes_whose_names_have_dots(self):
        sweep = load_sweep(
            "timestep_sensitivity", ["axes.selection.timestep=[7]", "axes.selection.pool=null", "seeds=[0]"]
        )
        assert [x.arm for x in loops(sweep)] == ["random", "7"]

    def test_a_file_may_name_a_recipe_as_its_base(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("base: random_digits\naxes: {budget: [100]}\n")
        sweep = load_recipe(str(path))
        assert isinstance(sweep, Sweep)
        assert sweep.name == "mine"
        assert loops(sweep)[0].experiment.data == load_experiment("random_digits").data

    def test_a_sweep_comes_back_from_its_own_yaml(self, tmp_path):
        path = tmp_path / "again.yaml"
        sweep = load_sweep("selectors_digits")
        path.write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
        assert load_recipe(str(path)) == sweep


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": None}, "base: is missing; give a recipe name or the fields of an experiment"),
        ({"axes": {}}, "axes = {}: "),
        ({"axes": {"keep_ratio": []}}, "axes.keep_ratio"),
        ({"axes": {"keep_ratio": [2]}}, "axes: the loop (2): keep_ratio = 2: "),
        (
            {"axes": {"keep_rate": [1]}},
            "axes: the loop (1): keep_rate = 1: experiment has no such field (did you mean keep_ratio?)",
        ),
        ({"axes": {"seed": [1]}}, "axes.seed: is no axis; use seeds"),
        (
            {"axes": {"budget": [64, 32]}},
            "the loops differ in budget (32, 64): that is no fair comparison; hold it equal",
        ),
        ({"axes": {"training.epochs": [1, 2]}}, "the loops differ in steps (2, 4): that is no fair comparison"),
        (
            {"axes": {"keep_ratio": {"low": 0.1, "high": 1}}},
            "axes.keep_ratio is a range, which takes a search; list values",
        ),
        ({"seeds": []}, "seeds = []: "),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: must differ"),
        ({"stopping": {"collapse_factor": 0.5}}, "stopping.collapse_factor = 0.5: "),
        ({"stopping": {"asha": {"grace_period": 2}}}, "stopping.asha.grace_period = 2 leaves nothing to stop in 2 "),
        ({"stoping": {}}, "stoping = {}: sweep has no such field (did you mean stopping?)"),
        ({"search": {"num_loops": 3}}, "search.num_loops = 3 leaves no two points to try with 2 seeds and 0 controls"),
        (
            {"search": {"num_loops": 8}, "stopping": {"asha": {"grace_period": 1}}},
            "stopping.asha, search: halving compares loops by FID as they go, a search compares points by",
        ),
        ({"axes": {"budget": list(range(1, 100_001))}}, "axes: 200000 loops are more than 100000"),
    ],
)
def test_what_is_wrong_is_one_line(values, change, message):
    with pytest.raises(UserError) as raised:
        loops(parse_sweep(values | change))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_may_differ_has_to_be_said(values):
    values |= {"axes": {"budget": [64, 33]}, "equal": []}
    assert {x.experiment.budget for x in loops(parse_sweep(values))} == {64, 33}


def test_loops_and_sweeps_are_told_apart():
    assert isinstance(load_recipe("lsf_digits"), Experiment)
    with pytest.raises(UserError, match="demo: is a sweep, not one loop; use `autophagy sweep demo`"):
        load_experiment("demo")
    with pytest.raises(UserError, match="lsf_digits: is one loop, not a sweep; use `autophagy run lsf_digits`"):
        load_sweep("lsf_digits")
    with pytest.raises(UserError, match=r"a sweep has seeds; set seeds=\[3\]"):
        load_sweep("demo", ["seed=3"])
