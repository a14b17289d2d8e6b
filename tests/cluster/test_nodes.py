"""Sweeps on several nodes, and what happens when parts of the cluster go away."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from services import Driver, Nodes, wait_for

from autophagy.graph import plan_loop
from autophagy.outcomes import read_outcomes
from autophagy.store import StageStore
from autophagy.sweep_config import Sweep, loops, parse_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def sweep(tiny_values) -> Sweep:
    """Two strategies; two training workers, so that with one CPU a node they are on two nodes."""
    base = tiny_values | {"metrics": {"feature_network": "pixels", "num_samples": 64}}
    base["training"] = base["training"] | {"num_workers": 2, "initial_epochs": 10, "checkpoint_every": 5}
    return parse_sweep({"name": "grid", "base": base, "axes": {"selection.strategy": ["random", "lsf"]}})


@pytest.fixture
def recipe(sweep, tmp_path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    return path


@pytest.fixture(scope="module")
def undisturbed(sweep, environment, tmp_path_factory) -> dict[str, list[dict]]:
    """Metrics of the same sweep on this machine alone: run -> generation."""
    folder = tmp_path_factory.mktemp("alone")
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    driver = Driver(path, str(folder / "store"), "none", None).start()
    assert driver.wait() == 0, driver.log.read_text()[-4000:]
    return metrics(StageStore(folder / "store"), sweep)


def metrics(store: StageStore, sweep: Sweep) -> dict[str, list[dict]]:
    found = {}
    for loop in loops(sweep):
        lines = (store.read_run_file(loop.run, "records.jsonl") or b"").splitlines()
        found[loop.run] = [json.loads(line)["metrics"] for line in lines]
    return found


def check(store: StageStore, sweep: Sweep, undisturbed: dict[str, list[dict]]) -> None:
    """Everything is there, once, and as if nothing had happened."""
    assert {outcome.state for outcome in read_outcomes(store, sweep.name).values()} == {"done"}
    plans = [plan_loop(loop.experiment) for loop in loops(sweep)]
    wanted = {(stage.name, stage.key) for plan in plans for stages in plan for stage in stages.values()}
    assert {(info.stage, info.key) for info in store.ls()} == wanted
    assert not any(problems for _, problems in store.verify())
    assert metrics(store, sweep) == undisturbed


def under_way(store: StageStore, stage: str) -> bool:
    """Whether such a stage is being built."""
    return bool(store.storage.entries(store.storage.at("leases", stage)))


def test_a_sweep_over_nodes_gives_what_one_machine_gives(
    nodes: Nodes, bucket, mlflow_server, recipe, sweep, undisturbed
):
    tracking = f"http://127.0.0.1:{mlflow_server.port}"
    driver = Driver(recipe, bucket, tracking, nodes.address).start()
    assert driver.wait() == 0, driver.log.read_text()[-4000:]
    check(StageStore(bucket), sweep, undisturbed)
    client = MlflowClient(tracking)
    runs = client.search_runs([client.get_experiment_by_name("grid").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_name for run in runs} == {"grid", *(loop.run for loop in loops(sweep))}


@pytest.mark.parametrize("stage", ["train", "generate", "score"])
def test_a_worker_node_killed_at_work_is_done_without(nodes: Nodes, bucket, recipe, sweep, undisturbed, stage):
    store = StageStore(bucket)
    driver = Driver(recipe, bucket, "none", nodes.address).start()
    wait_for(lambda: under_way(store, stage))
    time.sleep(0.5)
    nodes.kill(nodes.workers[0])
    nodes.workers.append(nodes.add())
    assert driver.wait() == 0, driver.log.read_text()[-4000:]
    check(store, sweep, undisturbed)


def test_after_the_whole_cluster_is_gone_a_new_one_goes_on(nodes: Nodes, bucket, recipe, sweep, undisturbed):
    store = StageStore(bucket)
    driver = Driver(recipe, bucket, "none", nodes.address).start()
    wait_for(lambda: under_way(store, "select"))
    nodes.cluster.shutdown()
    driver.kill()
    before = {info.key: info.created for info in store.ls()}
    again = Nodes(2)
    try:
        driver = Driver(recipe, bucket, "none", again.address).start()
        assert driver.wait() == 0, driver.log.read_text()[-4000:]
    finally:
        again.cluster.shutdown()
    check(store, sweep, undisturbed)
    after = {info.key: info.created for info in store.ls()}
    assert {key: after[key] for key in before} == before


def test_while_s3_refuses_for_a_minute_the_sweep_fails_clearly_or_waits_and_goes_on(
    nodes: Nodes, door, bucket, recipe, sweep, undisturbed
):
    store = StageStore(bucket)
    driver = Driver(recipe, bucket, "none", nodes.address).start()
    wait_for(lambda: under_way(store, "train"))
    door.is_open = False
    time.sleep(60)
    door.is_open = True
    if code := driver.wait():
        assert code in (1, 2)
        driver = driver.start()
        assert driver.wait() == 0, driver.log.read_text()[-4000:]
    check(store, sweep, undisturbed)


def test_without_mlflow_for_a_minute_no_row_is_lost(nodes: Nodes, mlflow_server, bucket, recipe, sweep, undisturbed):
    tracking = f"http://127.0.0.1:{mlflow_server.port}"
    store = StageStore(bucket)
    driver = Driver(recipe, bucket, tracking, nodes.address).start()
    wait_for(lambda: under_way(store, "select"))
    mlflow_server.kill()
    time.sleep(60)
    mlflow_server.start()
    assert driver.wait() == 0, driver.log.read_text()[-4000:]
    driver = driver.start()  # logs what is missing
    assert driver.wait() == 0, driver.log.read_text()[-4000:]
    check(store, sweep, undisturbed)
    client = MlflowClient(tracking)
    runs = client.search_runs(
        [client.get_experiment_by_name("grid").experiment_id], "attributes.run_name LIKE 'grid-%'"
    )
    assert len(runs) == len(loops(sweep))
    for run in runs:
        assert run.info.status == "FINISHED"
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "fid")]
        assert sorted(steps) == [0, 1, 2]


def test_two_identical_sweeps_at_once_build_every_stage_once(nodes: Nodes, bucket, recipe, sweep, undisturbed):
    drivers = [Driver(recipe, bucket, "none", nodes.address).start() for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0], drivers[0].log.read_text()[-4000:]
    check(StageStore(bucket), sweep, undisturbed)
