"""Sweeps on a real Ray: shared stages, kills, failures, early stops, MLflow."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from autophagy.cli import main
from autophagy.config.expand import loops
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.graph import plan_loop
from autophagy.runs.folder import RunFolder
from autophagy.runs.outcomes import Outcome, read_outcomes
from autophagy.store import StageStore
from autophagy.store.upkeep import ls
from autophagy.sweeps.sweep import run_sweep

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def sweep_values(tiny_values) -> dict:
    """Two strategies by two keep ratios, two generations: 4 loops. Pixels as features: no network has to be fitted."""
    base = tiny_values | {"metrics": {"feature_network": "pixels", "num_samples": 64}}
    axes = {"selection.strategy": ["random", "lsf"], "keep_ratio": [1.0, 0.5]}
    return {"name": "grid", "question": "Which?", "base": base, "axes": axes}


@pytest.fixture(scope="module")
def grid(sweep_values) -> Sweep:
    return parse_sweep(sweep_values)


@pytest.fixture(scope="module")
def done(local_ray, grid, tmp_path_factory) -> tuple[StageStore, str]:
    """A store with the finished grid, and its tracking URI. Not to be changed."""
    path = tmp_path_factory.mktemp("sweep") / "store"
    store, uri = StageStore(path), f"sqlite:///{path}/mlflow.db"
    run_sweep(grid, store, uri)
    return store, uri


def stages_of(sweep: Sweep) -> set[tuple[str, str]]:
    plans = [plan_loop(loop.experiment) for loop in loops(sweep)]
    return {(stage.name, stage.key) for plan in plans for stages in plan for stage in stages.values()}


def metrics(store: StageStore, run: str) -> list[dict]:
    lines = (RunFolder(store, run).read("records.jsonl") or b"").splitlines()
    return [json.loads(line)["metrics"] for line in lines]


class TestFinished:
    def test_every_loop_is_there_and_every_stage_once(self, done, grid):
        store, _ = done
        assert {(info.stage, info.key) for info in ls(store)} == stages_of(grid)
        assert sum(info.stage == "train" for info in ls(store)) == 1 + 2 * 4
        for loop in loops(grid):
            assert [m["generation"] for m in metrics(store, loop.run)] == [0, 1, 2]
        outcomes = read_outcomes(store, "grid")
        assert {run: outcome.state for run, outcome in outcomes.items()} == dict.fromkeys(outcomes, "done")
        assert outcomes.keys() == {loop.run for loop in loops(grid)}

    def test_a_loop_of_it_is_what_the_loop_alone_gives(self, done, grid, empty_store):
        from autophagy.loop import run_loop

        loop = loops(grid)[3]
        alone = run_loop(loop.experiment, empty_store)
        assert [record.to_json()["metrics"] for record in alone] == metrics(done[0], loop.run)

    def test_again_nothing_is_computed_and_the_frame_is_the_same(self, done, grid):
        store, uri = done
        before = {info.key: info.created for info in ls(store)}
        frames = [run_sweep(grid, store, uri), run_sweep(grid, store, None)]
        assert frames[0].equals(frames[1])
        assert len(frames[0]) == 4 * 3
        assert {info.key: info.created for info in ls(store)} == before

    def test_what_people_look_at_is_there(self, done):
        store, _ = done
        table = (RunFolder(store, "grid").read("table.md") or b"").decode()
        assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
            "random, 1.0", "random, 0.5", "lsf, 1.0", "lsf, 0.5"
        ]  # fmt: skip
        assert (RunFolder(store, "grid").read("collapse_curves.png") or b"").startswith(b"\x89PNG")
        assert yaml.safe_load(RunFolder(store, "grid").read("sweep.yaml"))["question"] == "Which?"

    def test_mlflow_has_a_parent_with_children_to_compare(self, done, grid):
        _, uri = done
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("grid")
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = {run.info.run_name: run for run in runs if run.info.run_id != parent.info.run_id}
        assert parent.info.status == "FINISHED"
        artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert artifacts == {"sweep.json", "plan.txt", "table.md", "generations.csv", "collapse_curves.png"}
        assert children.keys() == {loop.run for loop in loops(grid)}
        for loop in loops(grid):
            data = children[loop.run].data
            assert data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert (data.tags["autophagy.arm"], data.tags["autophagy.state"]) == (loop.arm, "done")
            assert data.tags["autophagy.label.keep_ratio"] == loop.labels["keep_ratio"]
            assert data.params["keep_ratio"] == str(loop.experiment.keep_ratio)
            assert {"summary/best_fid", "summary/last_fid", "summary/area_fid"} <= data.metrics.keys()

    def test_a_loop_that_mlflow_has_lost_is_logged_again(self, done, grid):
        store, uri = done
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("grid").experiment_id
        (lost,) = client.search_runs([experiment], "attributes.run_name = 'grid-lsf-0.5-seed0'")
        client.delete_run(lost.info.run_id)
        run_sweep(grid, store, uri)
        (found,) = client.search_runs([experiment], "attributes.run_name = 'grid-lsf-0.5-seed0'")
        assert found.info.status == "FINISHED"
        assert len(client.get_metric_history(found.info.run_id, "fid")) == 3


def test_a_collapsed_loop_is_stopped_and_says_so(local_ray, grid, done, tmp_path):
    """FID of a loop rises by some per cent at once: over 1.0001 times generation 0's is "collapsed"."""
    store = StageStore(tmp_path / "store")
    rule = {"collapse_factor": 1.0001}
    values = grid.model_dump(mode="json") | {"stopping": rule, "axes": {"selection.strategy": ["random"]}}
    frame = run_sweep(parse_sweep(values), store)
    (outcome,) = read_outcomes(store, "grid").values()
    assert outcome == Outcome("stopped", 1, outcome.why, outcome.fid)
    assert outcome.why.startswith("collapsed: FID ")
    assert frame["generation"].tolist() == [0, 1]
    assert set(frame["state"]) == {"stopped"}
    # The same rule leaves it stopped; without the rule it goes on.
    before = len(ls(store))
    run_sweep(parse_sweep(values), store)
    assert len(ls(store)) == before
    frame = run_sweep(parse_sweep(values | {"stopping": {}}), store)
    assert frame["generation"].tolist() == [0, 1, 2]
    assert set(frame["state"]) == {"done"}


@pytest.mark.slow
def test_successive_halving_ends_the_worse_half_and_lets_the_best_finish(local_ray, sweep_values, tmp_path):
    axes = {"selection.strategy": ["oldest_first", "random", "lsf", "anti_lsf", "class_balanced_random"]}
    asha = {"grace_period": 1, "reduction_factor": 2}
    sweep = parse_sweep(sweep_values | {"axes": axes, "stopping": {"asha": asha}, "max_concurrent": 1})
    frame = run_sweep(sweep, StageStore(tmp_path / "store"))
    at_rung = frame[frame["generation"] == 1].set_index("arm")["fid"][axes["selection.strategy"]]
    ends = frame.groupby("arm")["generation"].max()
    assert len(at_rung) == 5, "stopped loops keep their records"
    assert set(ends) == {1, 2}
    # One after the other: a loop goes on if it is no worse than the median of those before it.
    for position, (arm, fid) in enumerate(at_rung.items()):
        goes_on = position == 0 or fid <= at_rung.iloc[:position].median()
        assert ends[arm] == (2 if goes_on else 1)
    why = frame.loc[frame["state"] == "stopped", "why"]
    assert why.str.startswith("successive halving").all()


def block(store: StageStore, sweep: Sweep, arm: str) -> Path:
    """Make one stage of a loop impossible: where its folder should be lies a file."""
    (loop,) = (loop for loop in loops(sweep) if loop.arm == arm)
    stage = plan_loop(loop.experiment)[1]["select"]
    path = Path(store.root, "stages", "select", stage.key)
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    return path


@pytest.mark.slow
def test_a_loop_that_always_fails_is_named_and_the_others_are_done(local_ray, sweep_values, tmp_path, capsys):
    values = sweep_values | {"max_retries": 1}
    sweep, store = parse_sweep(values), StageStore(tmp_path / "store")
    obstacle = block(store, sweep, "lsf, 0.5")
    recipe = tmp_path / "grid.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    command = ["sweep", str(recipe), "--store", store.root, "--tracking-uri", "none"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    out = capsys.readouterr().out
    assert stopped.value.code == 1
    assert out.count("tried again: grid-lsf-0.5-seed0: ") == 1
    (line,) = [line for line in out.splitlines() if line.startswith("failed grid-lsf-0.5-seed0: ")]
    assert obstacle.name in line, "the cause names what is in the way"
    outcomes = read_outcomes(store, "grid")
    assert sorted(outcome.state for outcome in outcomes.values()) == ["done", "done", "done", "failed"]

    obstacle.unlink()
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 0
    assert {outcome.state for outcome in read_outcomes(store, "grid").values()} == {"done"}
    assert "3 of 4 loops have ended before" in capsys.readouterr().out


def test_when_all_fail_alike_the_rest_is_not_tried(local_ray, sweep_values, tmp_path):
    axes = {"selection.strategy": ["random", "lsf", "oldest_first", "oracle_real", "anti_lsf"]}
    sweep = parse_sweep(sweep_values | {"axes": axes, "max_retries": 0, "max_concurrent": 1})
    store = StageStore(tmp_path / "store")
    for loop in loops(sweep):
        stage = plan_loop(loop.experiment)[1]["select"]
        path = Path(store.root, "stages", "select", stage.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("in the way")
    run_sweep(sweep, store)
    states = [outcome.state for outcome in read_outcomes(store, "grid").values()]
    assert states == ["failed", "failed", "failed", "running", "running"]


@pytest.mark.slow
def test_a_trial_killed_once_is_tried_again(local_ray, killing, grid, done, tmp_path):
    store = StageStore(tmp_path / "store")
    with killing("ImplicitFunc", store):
        run_sweep(grid, store)
    assert {outcome.state for outcome in read_outcomes(store, "grid").values()} == {"done"}
    for loop in loops(grid):
        assert metrics(store, loop.run) == metrics(done[0], loop.run)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_driver_killed_and_started_again_ends_with_the_same_frame(grid, done, sweep_values, tmp_path, share):
    store = StageStore(tmp_path / "store")
    recipe, log = tmp_path / "grid.yaml", tmp_path / "log.txt"
    recipe.write_text(yaml.safe_dump(sweep_values, sort_keys=False))
    command = [sys.executable, "-m", "autophagy", "sweep", str(recipe), "--store", store.root, "--tracking-uri", "none"]
    wanted = share * len(stages_of(grid))
    with log.open("wb") as file:
        process = psutil.Popen(command, stdout=file, stderr=file, start_new_session=True)
        while len(list(Path(store.root).glob("stages/*/*/manifest.json"))) < wanted and process.poll() is None:
            time.sleep(0.02)
        family = process.children(recursive=True)
        process.kill()
        process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=15)
        for left in alive:
            left.kill()
        before = {info.key: info.created for info in ls(store)}
        again = psutil.Popen(command, stdout=file, stderr=file, start_new_session=True)
        assert again.wait(600) == 0, log.read_text()[-4000:]
    after = {info.key: info.created for info in ls(store)}
    assert {key: after[key] for key in before} == before, "a finished stage was built again"
    assert {(info.stage, info.key) for info in ls(store)} == stages_of(grid)
    for loop in loops(grid):
        assert metrics(store, loop.run) == metrics(done[0], loop.run)
