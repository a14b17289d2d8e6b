"""What trials are sent, and what the referee makes of what they report: without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, RayActorError

from autophagy.config.expand import loops, loops_at
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.runs.folder import RunFolder
from autophagy.runs.outcomes import Outcome
from autophagy.store import StageStore
from autophagy.sweeps.ledger import Ledger
from autophagy.sweeps.points import text_of
from autophagy.sweeps.progress import SweepProgress
from autophagy.sweeps.referee import BREAKER, Referee, Reporter
from autophagy.sweeps.trials import Brief

SEEDS = [0, 1, 2]


@pytest.fixture
def sweep(tiny_values) -> Sweep:
    """Four strategies; a point may have three seeds."""
    axes = {"selection.strategy": ["random", "lsf", "greedy", "anti_lsf"]}
    stopping = {"collapse_factor": 2}
    return parse_sweep({"name": "s", "base": tiny_values, "axes": axes, "seeds": SEEDS, "stopping": stopping})


@pytest.fixture
def ledger(sweep, tmp_path) -> Ledger:
    ledger = Ledger(sweep, StageStore(tmp_path / "store"))
    ledger.enter(loops(sweep))
    return ledger


class Trial(SimpleNamespace):
    """What a reporter looks at of a trial, with a point of all seeds."""

    def __init__(self, folder, strategy: str = "random") -> None:
        point = {"labels": {"selection.strategy": strategy}, "seeds": SEEDS}
        super().__init__(config={"point": text_of(point)}, num_failures=0, max_failures=2)
        self.strategy = strategy
        self.error_file = str(folder / f"{strategy}.txt")

    def run(self, seed: int) -> str:
        return f"s-{self.strategy}-seed{seed}"

    def fail(self, error: Exception) -> None:
        """Fail as Tune writes it: with a traceback, or with what Ray says of a process that was lost."""
        self.num_failures += 1
        above = "" if isinstance(error, RayActorError) else "Traceback (most recent call last):\n"
        with open(self.error_file, "a") as file:
            file.write(f"Failure # {self.num_failures} (occurred at noon)\n{above}{error}\n")


def report(referee: Referee, run: str, generation: int, fid: float, computed: int = 0) -> bool:
    return referee("t", {"run": run, "generation": generation, "fid": fid, "computed": computed, "config": {}})


def test_a_trial_is_sent_no_other_trials_loops(sweep, tmp_path):
    """What it is sent is a few kilobytes, whatever the number of loops; and its loops are those of the grid."""
    many = sweep.model_copy(update={"seeds": tuple(range(1000))})
    sizes = [len(cloudpickle.dumps(Brief(x, StageStore(tmp_path / "store"), None))) for x in (sweep, many)]
    assert sizes[0] < 4000
    assert sizes[1] - sizes[0] < 4 * 1000, "seeds alone"
    brief = cloudpickle.loads(cloudpickle.dumps(Brief(sweep, StageStore(tmp_path / "store"), None)))
    assert [loops_at(brief.sweep, loop.point) for loop in loops(sweep)] == [[loop] for loop in loops(sweep)]


def test_with_one_loop_its_point_is_stopped_and_says_so(ledger, tmp_path):
    referee, trial = Referee(ledger, SweepProgress()), Trial(tmp_path)
    for generation in range(3):
        assert not report(referee, trial.run(0), generation, 1.0)
    assert ledger.outcomes[trial.run(0)] == Outcome("done", 2, fid=1.0)
    assert not report(referee, trial.run(1), 0, 1.0)
    assert report(referee, trial.run(1), 1, 2.5)
    Reporter(referee).on_trial_complete(0, [], trial)
    why = "collapsed: FID 2.5 is over 2 times 1 of generation 0"
    assert ledger.outcomes[trial.run(0)].state == "done"
    assert ledger.outcomes[trial.run(1)] == Outcome("stopped", 1, why, 2.5)
    assert ledger.outcomes[trial.run(2)] == Outcome("stopped", -1, f"with {trial.run(1)} of the same point: {why}")


def test_what_is_reported_again_is_told_once(ledger, tmp_path):
    """A trial that is tried again reports what the store holds."""
    told = []
    progress = SweepProgress()
    progress.generation = lambda loop, generation, metrics: told.append(generation)  # type: ignore[method-assign]
    progress.ended = lambda loop, outcome: told.append(outcome.state)  # type: ignore[method-assign]
    referee = Referee(ledger, progress)
    for generation in (0, 1, 0, 1, 2, 2):
        report(referee, "s-random-seed0", generation, 1.0)
    assert told == [0, 1, 2, "done"]


def test_a_point_that_came_further_may_fail_as_often_again(ledger, tmp_path):
    reporter, trial = Reporter(Referee(ledger, SweepProgress())), Trial(tmp_path)
    trial.num_failures = 2
    reporter.on_trial_result(0, [], trial, {"computed": 0})
    assert trial.max_failures == 2
    reporter.on_trial_result(0, [], trial, {"computed": 3})
    assert trial.max_failures == 4


def test_a_failure_is_that_of_the_loop_that_was_under_way(ledger, tmp_path):
    referee, trial, retried = Referee(ledger, SweepProgress()), Trial(tmp_path), []
    referee.progress.retried = lambda loop, why: retried.append((loop.run, why))
    for generation in range(3):
        report(referee, trial.run(0), generation, 1.0)
    for error in ("first", "second"):
        trial.fail(ValueError(error))
        Reporter(referee).on_trial_recover(0, [], trial)
    assert retried == [(trial.run(1), "first"), (trial.run(1), "second")]
    trial.fail(ValueError("third"))
    Reporter(referee).on_trial_error(0, [], trial)
    assert ledger.outcomes[trial.run(0)].state == "done"
    assert [ledger.outcomes[trial.run(seed)] for seed in (1, 2)] == [Outcome("failed", -1, "third")] * 2
    assert RunFolder(ledger.store, trial.run(1)).read("error.txt") == b"Traceback (most recent call last):\nthird"
    assert RunFolder(ledger.store, trial.run(0)).read("error.txt") is None


@pytest.mark.parametrize("lost", [False, True])
def test_points_that_fail_alike_end_all_unless_their_processes_were_lost_together(ledger, tmp_path, lost):
    referee = Referee(ledger, SweepProgress())
    for number, strategy in enumerate(("random", "lsf", "greedy")[:BREAKER]):
        assert not referee.stop_all()
        trial = Trial(tmp_path, strategy)
        trial.fail(ActorDiedError() if lost else ValueError(f"no such file: /a/b{number}"))
        Reporter(referee).on_trial_error(0, [], trial)
    assert referee.stop_all() == (not lost)
    Reporter(referee).on_trial_complete(0, [], Trial(tmp_path, "anti_lsf"))
    assert ledger.outcomes["s-anti_lsf-seed0"].state == ("stopped" if lost else "running")
