"""Searches on a real Ray: a budget of loops, and all that grids have: early stops, retries, the breaker, the bar."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from autophagy.config.sweep import parse_sweep
from autophagy.runs.folder import RunFolder, read_records
from autophagy.runs.outcomes import read_outcomes
from autophagy.store import StageStore
from autophagy.store.upkeep import ls
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.search import Proposer
from autophagy.sweeps.sweep import run_sweep

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def values(tiny_values) -> dict:
    """A search for one of two strategies and a keep ratio, one generation. Pixels as features: nothing is fitted."""
    base = tiny_values | {"generations": 1, "metrics": {"feature_network": "pixels", "num_samples": 64}}
    axes = {"selection.strategy": ["random", "lsf"], "keep_ratio": {"low": 0.5, "high": 1.0}}
    return {"name": "look", "base": base, "axes": axes, "search": {"num_loops": 3}}


class Told(SweepProgress):
    """Keeps what a sweep tells."""

    def __init__(self) -> None:
        self.begun, self.generations = (), Counter()
        self.states: dict[str, str] = {}
        self.retries: list[str] = []

    def begin(self, num_loops, num_left, num_generations):
        self.begun = (num_loops, num_left, num_generations)

    def generation(self, loop, generation, metrics):
        self.generations[loop.run, generation] += 1

    def retried(self, loop, why):
        self.retries.append(loop.run)

    def ended(self, loop, outcome):
        assert loop.run not in self.states
        self.states[loop.run] = outcome.state


def test_a_search_keeps_to_its_budget_moves_the_bar_and_goes_on(local_ray, values, tmp_path):
    controls = {"random": {"selection.strategy": "random"}}
    store, told = StageStore(tmp_path / "store"), Told()
    sweep = values | {"controls": controls, "search": {"metric": "recall", "num_loops": 3}}
    frame = run_sweep(parse_sweep(sweep), store, None, told)
    assert frame["run"].nunique() == 3
    assert frame.loc[frame["arm"] != "random", "keep_ratio"].between(0.5, 1.0).all()
    assert told.begun == (3, 3, 6)
    assert told.generations == {(run, k): 1 for run in frame["run"] for k in (0, 1)}
    assert told.states == dict.fromkeys(frame["run"], "done")
    before = {info.key: info.created for info in ls(store)}
    frame, told = (
        run_sweep(parse_sweep(sweep | {"search": {"metric": "recall", "num_loops": 5}}), store, None, told),
        told,
    )
    assert frame["run"].nunique() == 5
    assert told.begun == (5, 2, 4)
    assert {outcome.state for outcome in read_outcomes(store, "look").values()} == {"done"}
    after = {info.key: info.created for info in ls(store)}
    assert {key: after[key] for key in before} == before


@pytest.mark.slow
def test_a_point_with_a_collapsed_loop_is_over_and_worse_than_all_that_are_whole(local_ray, values, tmp_path):
    """FID rises at once: over 1.0001 times generation 0's is "collapsed". Recall is best in generation 0."""
    store, told = StageStore(tmp_path / "store"), Told()
    rule = {"stopping": {"collapse_factor": 1.0001}, "seeds": [0, 1], "max_concurrent": 1}
    search = {"search": {"metric": "recall", "num_loops": 4}}
    sweep = parse_sweep(values | rule | search | {"base": values["base"] | {"generations": 2}})
    frame = run_sweep(sweep, store, None, told)
    outcomes = read_outcomes(store, "look")
    assert {outcome.state for outcome in outcomes.values()} == {"stopped"}
    assert told.states == {run: "stopped" for run in outcomes}
    assert len(outcomes) == 4
    for run, outcome in outcomes.items():
        first = run.replace("seed1", "seed0")
        if run == first:
            assert outcome.generation == 1
            assert outcome.why.startswith("collapsed: FID ")
        else:  # the other seed was not begun
            assert outcome.generation == -1
            assert outcome.why == f"with {first} of the same point: {outcomes[first].why}"
    assert frame["generation"].tolist() == [0, 1] * 2
    assert set(frame["state"]) == {"stopped"}
    # The same rule leaves the points as they are, without a value; without it they go on before others are named.
    before = len(ls(store))
    run_sweep(sweep, store)
    assert len(ls(store)) == before
    proposer = Proposer(Ledger(sweep, store))
    assert (proposer.num_over, proposer.count) == (2, 0)
    for trial in proposer.study.trials:
        assert trial.state.name == "PRUNED"
        assert list(trial.intermediate_values) == [1, 2]
    frame = run_sweep(parse_sweep(sweep.model_dump(mode="json") | {"stopping": {}}), store)
    assert read_outcomes(store, "look").keys() == outcomes.keys()
    assert frame["generation"].tolist() == [0, 1, 2] * 4
    assert set(frame["state"]) == {"done"}


@pytest.mark.slow
def test_when_all_points_fail_alike_no_other_is_named(local_ray, values, tmp_path):
    axes = {"selection.strategy": ["random", "lsf", "oldest_first", "oracle_real", "anti_lsf", "greedy"]}
    sweep = values | {"axes": axes, "search": {"num_loops": 8}, "max_retries": 0, "max_concurrent": 1}
    store, told = StageStore(tmp_path / "store"), Told()
    obstacle = Path(store.root, "stages", "select")
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("in the way")
    run_sweep(parse_sweep(sweep), store, None, told)
    failed = [(run, o) for run, o in read_outcomes(store, "look").items() if o.state == "failed"]
    assert len(failed) == len(told.states) == 3
    assert all("stages/select" in outcome.why for _, outcome in failed), "the cause names what is in the way"
    assert all(b"stages/select" in RunFolder(store, run).read("error.txt") for run, _ in failed)
    # Once that is mended, what was begun is run before others are named.
    obstacle.unlink()
    run_sweep(parse_sweep(sweep | {"search": {"num_loops": 3}}), store, None, told := Told())
    assert told.states == {run: "done" for run, _ in failed}


@pytest.mark.slow
def test_a_point_whose_process_is_killed_is_tried_again(local_ray, killing, values, tmp_path):
    store, told = StageStore(tmp_path / "store"), Told()
    with killing("ImplicitFunc", store):
        frame = run_sweep(parse_sweep(values | {"max_concurrent": 1}), store, None, told)
    assert len(told.retries) == 1
    assert set(frame["state"]) == {"done"}
    assert told.generations == {(run, k): 1 for run in frame["run"] for k in (0, 1)}
    assert [len(read_records(store, run)) for run in told.states] == [2, 2, 2]
