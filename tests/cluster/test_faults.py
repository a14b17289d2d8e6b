"""What happens to a sweep when parts of a cluster go away: it goes on, or it is started again and goes on."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Case, under_way
from mlflow import MlflowClient
from services import Driver, Nodes, wait_for

from autophagy.config.expand import loops
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture(params=["train", "generate", "score"])
def stage(request) -> str:
    """A stage that a node dies in."""
    return str(request.param)


def test_a_node_killed_in_a_stage_is_done_without(nodes: Nodes, bucket, tmp_path, pooled: Case, stage):
    store = StageStore(bucket)
    driver = Driver(pooled.recipe(tmp_path), bucket, "none", nodes.address).start()
    wait_for(under_way(store, stage))
    time.sleep(0.5)
    nodes.kill(nodes.workers[0])
    nodes.workers.append(nodes.add())
    assert driver.wait() == 0, driver.said()
    pooled.check(store)


def test_a_node_killed_in_distributed_training_goes_on_from_the_checkpoint(
    nodes: Nodes, bucket, tmp_path, distributed: Case
):
    store = StageStore(bucket)
    driver = Driver(distributed.recipe(tmp_path), bucket, "none", nodes.address).start()
    scratch = store.storage.at("scratch")
    wait_for(lambda: any("step-" in info.path for info in store.storage.entries(scratch, recursive=True)))
    nodes.kill(nodes.workers[0])
    nodes.workers.append(nodes.add())
    assert driver.wait() == 0, driver.said()
    distributed.check(store)


def test_a_node_with_loops_on_it_killed_moves_them(environment, bucket, tmp_path, pooled: Case):
    # A head that computes: loops are anywhere; it has too little memory for one: they are on workers.
    store, nodes = StageStore(bucket), Nodes(2, head=["--num-cpus=1", "--memory=300000000"])
    try:
        driver = Driver(pooled.recipe(tmp_path), bucket, "none", nodes.address).start()
        host = wait_for(lambda: next((w for w in nodes.workers if nodes.runs(w, "ImplicitFunc")), None))
        nodes.kill(host)
        assert driver.wait() == 0, driver.said()
    finally:
        nodes.shutdown()
    pooled.check(store)


def test_after_the_whole_cluster_is_gone_a_new_one_goes_on(nodes: Nodes, bucket, tmp_path, pooled: Case):
    store = StageStore(bucket)
    driver = Driver(pooled.recipe(tmp_path), bucket, "none", nodes.address).start()
    wait_for(under_way(store, "select"))
    nodes.shutdown()
    driver.kill()
    before = {info.key: info.created for info in ls(store)}
    again = Nodes(2)
    try:
        driver = Driver(pooled.recipe(tmp_path), bucket, "none", again.address).start()
        assert driver.wait() == 0, driver.said()
    finally:
        again.shutdown()
    pooled.check(store)
    after = {info.key: info.created for info in ls(store)}
    assert {key: after[key] for key in before} == before


def test_while_s3_refuses_for_a_minute_the_sweep_waits(nodes: Nodes, door, bucket, tmp_path, pooled: Case):
    store = StageStore(bucket)
    driver = Driver(pooled.recipe(tmp_path), bucket, "none", nodes.address).start()
    wait_for(under_way(store, "train"))
    door.is_open = False
    time.sleep(60)
    door.is_open = True
    assert driver.wait() == 0, driver.said()
    pooled.check(store)


def test_a_full_disk_ends_the_sweep_with_its_name_and_room_lets_it_go_on(
    nodes: Nodes, small_disk, tmp_path, pooled: Case
):
    ballast, store = small_disk / "ballast", StageStore(small_disk / "store")
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 600_000))
    driver = Driver(pooled.recipe(tmp_path), store.uri, "none", nodes.address).start()
    assert driver.wait() == 1
    assert "No space left on device" in driver.said()
    assert "Traceback" not in driver.said()
    assert ls(store), "it had begun"
    ballast.unlink()
    driver = driver.start()
    assert driver.wait() == 0, driver.said()
    pooled.check(store)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a small disk here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_without_mlflow_for_a_minute_no_row_is_lost(nodes: Nodes, mlflow_server, bucket, tmp_path, pooled: Case):
    tracking = f"http://127.0.0.1:{mlflow_server.port}"
    store = StageStore(bucket)
    driver = Driver(pooled.recipe(tmp_path), bucket, tracking, nodes.address).start()
    wait_for(under_way(store, "select"))
    mlflow_server.kill()
    time.sleep(60)
    mlflow_server.start()
    assert driver.wait() == 0, driver.said()
    driver = driver.start()  # logs what is missing
    assert driver.wait() == 0, driver.said()
    pooled.check(store)
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("pooled").experiment_id
    runs = client.search_runs([experiment], "attributes.run_name LIKE 'pooled-%'")
    assert len(runs) == len(loops(pooled.sweep))
    for run in runs:
        assert run.info.status == "FINISHED"
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "fid")]
        assert sorted(steps) == [0, 1, 2]


def test_two_identical_sweeps_at_once_build_every_stage_once(nodes: Nodes, bucket, tmp_path, pooled: Case):
    recipe = pooled.recipe(tmp_path)
    drivers = [Driver(recipe, bucket, "none", nodes.address).start() for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0], drivers[0].said()
    pooled.check(StageStore(bucket))
