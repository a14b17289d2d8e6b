"""Points of a search: their names, and what Optuna is told about them."""

from __future__ import annotations

import math

import pytest

from autophagy.common.errors import UserError
from autophagy.config.expand import loops, loops_at
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.store import StageStore
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.points import at, corners, known_points, labels_of, point_of, sampled
from autophagy.sweeps.search import Proposer, check_search


@pytest.fixture
def values(tiny_values) -> dict:
    axes = {"a/b": {"x": {}, "y": {"selection.strategy": "lsf"}}, "keep_ratio": {"low": 0.33333, "high": 1.0}}
    search = {"metric": "recall", "num_loops": 12}
    return {"name": "s", "base": tiny_values, "axes": axes, "seeds": [3, 4], "search": search}


@pytest.fixture
def sweep(values) -> Sweep:
    return parse_sweep(values)


@pytest.fixture
def ledger(sweep, tmp_path) -> Ledger:
    return Ledger(sweep, StageStore(tmp_path / "store"))


def test_points_have_labels_of_few_digits_within_their_ranges(sweep):
    assert labels_of(sweep, {"a/b": "x", "keep_ratio": 0.512345}) == {"a/b": "x", "keep_ratio": "0.5123"}
    assert labels_of(sweep, {"a/b": "y", "keep_ratio": 0.333331}) == {"a/b": "y", "keep_ratio": "0.33333"}
    assert corners(sweep) == [{"a/b": x, "keep_ratio": end} for x in "xy" for end in ("0.33333", "1.0")]
    for labels in corners(sweep):
        assert labels_of(sweep, sampled(sweep, labels)) == labels
        assert [loop.labels for loop in loops_at(sweep, at(sweep, labels))] == [labels] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"metric": "beauty"}}, "search.metric = beauty: no such metric; choose one of fid, "),
        ({"axes": {"arm": {"x": {}, "y": {"budget": 33}}}}, "the loops differ in budget"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(values, change, message):
    sweep = parse_sweep(values | change)
    with pytest.raises(UserError, match=message):
        check_search(sweep, loops(sweep))


def test_a_point_is_judged_by_the_last_generation_and_one_that_was_stopped_is_worse(ledger, sweep):
    """Recall, which is best high, falls from 0.9: a loop that was stopped before it fell must not look good."""
    proposer = Proposer(ledger)
    assert (proposer.num_over, proposer.count) == (0, 6)
    curves = {"whole": [0.9, 0.5, 0.2], "early": [0.9], "later": [0.9, 0.8], "none": [0.9, 0.5, math.nan]}
    for name, curve in curves.items():
        point = point_of(proposer.suggest(name))
        assert point["seeds"] == [3, 4]
        for loop in loops_at(sweep, point):
            assert ledger.outcomes[loop.run].state == "running", "it is planned from now on"
            ledger.curves[loop.run] = {k: {"recall": value} for k, value in enumerate(curve)}
    proposer.suggest("failed")
    assert [labels["a/b"] in "xy" for labels in known_points(sweep, ledger.store)] == [True] * 5
    for name in curves:
        proposer.on_trial_complete(name, {"recall": 1.0})
    proposer.on_trial_complete("failed", error=True)
    trials = dict(zip([*curves, "failed"], proposer.study.trials, strict=True))
    assert {name: trial.state.name for name, trial in trials.items()} == {
        "whole": "COMPLETE", "early": "PRUNED", "later": "PRUNED", "none": "PRUNED", "failed": "FAIL"
    }  # fmt: skip
    assert trials["whole"].value == pytest.approx(0.2)
    assert proposer.study.best_trial.number == trials["whole"].number
    assert [trials[name].last_step for name in ("early", "later", "none")] == [2, 4, 6]


def test_an_earlier_runs_points_are_gone_on_with_first(ledger, sweep):
    proposer = Proposer(ledger)
    begun = [proposer.suggest(str(number)) for number in range(3)]
    again = Proposer(Ledger(sweep, ledger.store))
    assert (again.num_over, again.count) == (0, 6)
    assert again.ledger.loops.keys() == ledger.loops.keys()
    assert [again.suggest(str(number)) for number in range(3)] == begun
