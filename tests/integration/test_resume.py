"""Nothing is lost: loops killed at random moments, and payloads damaged on disk, end with the same numbers."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from autophagy.cli import main
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.stages.payloads import WEIGHTS
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

START_SECONDS = 8.0  # what a process needs before it computes anything: imports, Ray


def created(store: StageStore) -> dict[tuple[str, str], str]:
    """When each finished stage was published, by name and key."""
    return {(info.stage, info.key): info.created for info in ls(store)}


class Loop:
    """`python -m autophagy run` in a process of its own, again and again, with the same command."""

    def __init__(self, folder: Path, values: dict, *settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self.store = folder / "store"
        self.name = values["name"]
        recipe = folder / "loop.yaml"
        recipe.write_text(yaml.safe_dump(values))
        self.command = [sys.executable, "-m", "autophagy", "run", str(recipe), "--store", str(self.store)]
        self.command += ["--tracking-uri", "none", *(f"--set={setting}" for setting in settings)]
        self.log = folder / "log.txt"

    def start(self) -> psutil.Popen:
        with self.log.open("ab") as log:
            return psutil.Popen(self.command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        """Run to the end."""
        process = self.start()
        try:
            code = process.wait(300)
        finally:
            kill(process)
        assert code == 0, self.log.read_text()[-4000:]

    def created(self) -> dict[tuple[str, str], str]:
        return created(StageStore(self.store))

    def num_finished(self) -> int:
        return sum(1 for _ in self.store.glob("stages/*/*/manifest.json"))

    def metrics(self) -> list[dict]:
        lines = (self.store / "runs" / self.name / "records.jsonl").read_text().splitlines()
        return [json.loads(line)["metrics"] for line in lines]


def kill(process: psutil.Popen) -> None:
    """SIGKILL the driver. Its Ray dies with it, but for agents that were just starting: they are killed here."""
    family = []
    if process.poll() is None:
        family = process.children(recursive=True)
        process.kill()
        process.wait(30)
    _, alive = psutil.wait_procs(family, timeout=10)
    for left in alive:
        left.kill()
    _, alive = psutil.wait_procs(alive, timeout=30)
    assert not alive


def kill_often(loop: Loop, num_kills: int, num_stages: int, seed: int) -> None:
    """Start the loop `num_kills` times and kill it each time: a random while after a random number of stages.

    The numbers of stages are spread over the whole loop. Where a life before has come that far already, this one
    is killed while it starts.
    """
    rng = np.random.default_rng(seed)
    targets = np.sort(rng.choice(num_stages - 2, size=num_kills, replace=False))
    for target in targets:
        before = loop.created()
        process = loop.start()
        if len(before) > target:
            time.sleep(rng.uniform(0, START_SECONDS))
        while loop.num_finished() < target and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        kill(process)
        assert process.returncode == -signal.SIGKILL, loop.log.read_text()[-4000:]
        after = loop.created()
        assert {stage: after.get(stage) for stage in before} == before, "a finished stage was built again"


@pytest.mark.parametrize(
    ("num_kills", "settings"),
    [
        pytest.param(1, (), id="one kill"),
        pytest.param(10, ("generations=5",), id="ten kills", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_at_random_moments_a_loop_ends_with_the_same_numbers(
    tmp_path, tiny, tiny_values, empty_store, num_kills, settings
):
    """Pixels as features: no classifier has to be fitted, which would take most of the time."""
    settings = (*settings, "metrics.feature_network=pixels", "training.epochs=20", "training.checkpoint_every=3")
    undisturbed = run_loop(tiny(*settings), empty_store)
    killed = Loop(tmp_path / "killed", tiny_values, *settings)
    kill_often(killed, num_kills, len(ls(empty_store)), seed=num_kills)
    published = killed.created()
    killed.finish()
    assert killed.metrics() == [record.to_json()["metrics"] for record in undisturbed]
    assert killed.created().keys() == created(empty_store).keys()
    assert {stage: killed.created()[stage] for stage in published} == published
    assert not list(killed.store.glob("scratch/*/*/*")), "scratch outlived its stage"


def test_a_finished_run_is_left_as_it_is(tiny, store):
    files = {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("*") if path.is_file()}
    records = run_loop(tiny(), store)
    assert len(records) == 3
    changed = {
        path.name
        for path in Path(store.root).rglob("*")
        if path.is_file() and files.get(path) != path.stat().st_mtime_ns
    }
    assert not changed - {"experiment.yaml", "stages.json"}  # written again, with the same content


@pytest.mark.slow
def test_killed_while_ray_train_works_a_loop_goes_on_from_the_last_checkpoint(tmp_path, tiny, tiny_values, empty_store):
    settings = ("training.num_workers=1", "training.initial_epochs=100", "training.checkpoint_every=25")
    settings = (*settings, "generations=0", "metrics.feature_network=pixels")
    undisturbed = plan_loop(tiny(*settings))[0]["train"].ensure(empty_store)
    killed = Loop(tmp_path / "killed", tiny_values, *settings)

    def steps() -> set[str]:
        return {path.name for path in killed.store.glob("scratch/train/*/*/step-*")}

    process = killed.start()
    while len(steps()) < 2 and process.poll() is None:
        time.sleep(0.01)
    kill(process)
    reached, seen = steps(), set()
    process = killed.start()
    while process.poll() is None:
        seen |= steps() - reached
        time.sleep(0.01)
    assert process.returncode == 0
    assert reached
    assert seen
    assert min(seen) > min(reached), "training began anew"
    resumed = StageStore(killed.store).open("train", undisturbed.key)
    assert resumed.read_bytes(WEIGHTS) == undisturbed.read_bytes(WEIGHTS)


# Damage


def payload(store: StageStore, stage: str, key: str) -> Path:
    """The first images of a `generate` stage on disk."""
    artifact = store.open(stage, key)
    return Path(artifact.file("images/shard-000000.parquet"))


def rebuilt(store: StageStore, before: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Stages that were published again since `before`."""
    after = created(store)
    assert after.keys() == before.keys()
    return {stage for stage in before if after[stage] != before[stage]}


def test_a_truncated_payload_is_built_again(tiny, store):
    calm, before = run_loop(tiny(), store), created(store)
    key = calm[1].stages["generate"]
    path = payload(store, "generate", key)
    path.write_bytes(path.read_bytes()[:-100])
    mended = run_loop(tiny(), store)
    assert [r.to_json()["metrics"] for r in mended] == [r.to_json()["metrics"] for r in calm]
    assert rebuilt(store, before) == {("generate", key)}


def test_a_missing_payload_is_built_again(tiny, store):
    calm, before = run_loop(tiny(), store), created(store)
    key = calm[0].stages["train"]
    Path(store.open("train", key).file(WEIGHTS)).unlink()
    mended = run_loop(tiny(), store)
    assert [r.to_json()["metrics"] for r in mended] == [r.to_json()["metrics"] for r in calm]
    assert rebuilt(store, before) == {("train", key)}


def test_verify_finds_a_flipped_byte_and_the_next_run_builds_anew(tiny, store, capsys):
    calm, before = run_loop(tiny(), store), created(store)
    key = calm[2].stages["generate"]
    path = payload(store, "generate", key)
    data, good = bytearray(path.read_bytes()), path.read_bytes()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SystemExit) as stopped:
        main(["store", "verify", "--store", store.root])
    assert stopped.value.code == 1
    assert f"damaged: generate {key}: images/shard-000000.parquet: wrong checksum" in capsys.readouterr().out
    run_loop(tiny(), store)
    assert rebuilt(store, before) == {("generate", key)}
    assert payload(store, "generate", key).read_bytes() == good
    with pytest.raises(SystemExit) as stopped:
        main(["store", "verify", "--store", store.root])
    assert stopped.value.code == 0
