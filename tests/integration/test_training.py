"""Training for real: killed and resumed, alone or on Ray Train workers, always the same weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from autophagy.common.samples import sample_ids
from autophagy.denoisers import UNet
from autophagy.denoisers.base import Shape
from autophagy.denoisers.learner import Checkpointing, Learner, Settings, sealed, train_steps, unsealed
from autophagy.denoisers.weights import new_denoiser
from autophagy.graph import plan_loop
from autophagy.stages.payloads import WEIGHTS
from autophagy.store import Artifact, StageStore

MODEL = UNet(block_out_channels=(8, 16))
SETTINGS = Settings(
    num_steps=19,  # neither a multiple of checkpoint_every nor of the steps in an epoch
    seed=3,
    learning_rate=1e-3,
    ema_decay=0.999,
    global_batch_size=33,
    condition_dropout=0.1,
    precision="float32",
    checkpoint_every=4,
    resident_bytes=4 << 30,
)


class KilledError(Exception):
    """Stands for the end of the process."""


def run_steps(checkpointing: Checkpointing, weights_seed: int = 0) -> bytes:
    """All the state there is after training on 50 random images, losses included."""
    images = np.random.default_rng(7).integers(256, size=(50, 8, 8, 1), dtype=np.uint8)
    learner = Learner(new_denoiser(MODEL, Shape(8, 1, 10), weights_seed), SETTINGS)
    losses = train_steps(learner, images, np.arange(50) % 10, sample_ids(0, 0, 50), SETTINGS, checkpointing)
    assert (losses.dtype, losses.shape) == (np.float32, (SETTINGS.num_steps,))
    assert learner.step == SETTINGS.num_steps
    return learner.state(torch.from_numpy(losses))


def test_resumed_in_the_middle_training_ends_with_the_same_bits():
    states: list[tuple[int, bytes]] = []

    def save_and_die_after_two(state: bytes, step: int) -> None:
        states.append((step, state))
        if len(states) == 2:
            raise KilledError

    undisturbed = run_steps(Checkpointing(lambda: None, lambda state, step: None))
    with pytest.raises(KilledError):
        run_steps(Checkpointing(lambda: None, save_and_die_after_two))
    # Other initial weights: everything must come from the state.
    resumed = run_steps(Checkpointing(lambda: states[1][1], save_and_die_after_two), weights_seed=1)
    assert [step for step, _ in states] == [4, 8, 12, 16]
    assert resumed == undisturbed


@pytest.mark.parametrize("part", ["optimizer.", "average.", "model."])
def test_every_part_of_the_state_matters(part):
    """The test above would see it if one of these were not restored."""
    from safetensors.torch import load, save

    states: list[bytes] = []
    undisturbed = run_steps(Checkpointing(lambda: None, lambda state, step: states.append(state)))
    damaged = {n: t * 0 if n.startswith(part) else t for n, t in load(unsealed(states[1])).items()}
    assert run_steps(Checkpointing(lambda: sealed(save(damaged)), lambda state, step: None)) != undisturbed


@pytest.mark.parametrize("damage", [lambda s: s[:-9], lambda s: bytes(len(s)), lambda s: s[:-1] + b"x", lambda s: b""])
def test_a_damaged_checkpoint_is_no_checkpoint(damage):
    states: list[bytes] = []
    undisturbed = run_steps(Checkpointing(lambda: None, lambda state, step: states.append(state)))
    assert run_steps(Checkpointing(lambda: damage(states[1]), lambda state, step: None)) == undisturbed


# On Ray Train


LONG = ("training.initial_epochs=50",)  # 350 steps: seconds, long enough to be killed in


def fit(experiment, store: StageStore) -> Artifact:
    """The model of generation 0."""
    return plan_loop(experiment)[0]["train"].ensure(store)


def losses_of(artifact: Artifact) -> np.ndarray:
    return artifact.read_table("losses.parquet")["loss"].to_numpy()


@pytest.fixture(scope="module")
def undisturbed(local_ray, tiny, tmp_path_factory) -> Callable[[int], Artifact]:
    """The model that 0, 1 or 2 workers train when nothing happens to them, trained once."""

    @cache
    def fit_once(num_workers: int) -> Artifact:
        store = StageStore(tmp_path_factory.mktemp(f"workers-{num_workers}"))
        return fit(tiny(*LONG, f"training.num_workers={num_workers}"), store)

    return fit_once


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_any_number_of_workers_computes_the_same_losses(undisturbed, num_workers):
    """33 images a step: two workers take 16 and 17, and the mean must still be that over the 33."""
    alone, together = losses_of(undisturbed(0)), losses_of(undisturbed(num_workers))
    assert len(together) == len(alone) == 350
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(together[:50], alone[:50], rtol=1e-4)
    np.testing.assert_allclose(together, alone, rtol=1e-2)  # rounding differs, and grows over the steps


class Killer(threading.Thread):
    """Kills one training worker as soon as there is a checkpoint, and notes which checkpoints come after that."""

    def __init__(self, store: StageStore) -> None:
        super().__init__(daemon=True)
        self.scratch = Path(store.root, "scratch", "train")
        self.killed_at: set[str] = set()
        self.after: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.01):
            steps = {path.name for path in self.scratch.glob("*/*/step-*")}
            if self.killed_at:
                self.after |= steps - self.killed_at
            elif steps and (workers := training_workers()):
                self.killed_at = steps
                workers[-1].kill()


def training_workers() -> list[psutil.Process]:
    """The Ray Train workers of the Ray that these tests started, and of no other."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "TrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def fit_with_a_kill(experiment, store: StageStore) -> Artifact:
    """The model of generation 0 although a worker is killed; it must have gone on from its last checkpoint."""
    killer = Killer(store)
    killer.start()
    try:
        artifact = fit(experiment, store)
    finally:
        killer.stop.set()
        killer.join()
    assert killer.killed_at, "no worker was found to kill"
    assert killer.after, "no checkpoint was written after the kill: it came too late"
    assert min(killer.after) > max(killer.killed_at), "training began anew"
    return artifact


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_worker_changes_nothing(undisturbed, tiny, empty_store, num_workers):
    settings = (*LONG, f"training.num_workers={num_workers}", "training.checkpoint_every=25")
    killed = fit_with_a_kill(tiny(*settings), empty_store)
    calm = undisturbed(num_workers)
    assert killed.key == calm.key
    assert killed.read_bytes(WEIGHTS) == calm.read_bytes(WEIGHTS)
    assert losses_of(killed).tolist() == losses_of(calm).tolist()


@pytest.mark.parametrize(
    "left",
    [
        b'{"checkpoint_res',
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b'{"checkpoint_results": [{"checkpoint_dir_name": "gone"}]}', marks=pytest.mark.slow),
    ],
)
def test_a_list_of_checkpoints_that_a_kill_has_torn_is_begun_anew(tiny, finished_store, empty_store, left):
    """Ray Train writes it in place, and begins no run with such a one."""
    experiment = tiny("training.num_workers=1")
    key = plan_loop(experiment)[0]["train"].key
    calm = StageStore(finished_store).open("train", key)  # trained in the loop's own process
    path = empty_store.storage.at("scratch", "train", key, key, "checkpoint_manager_snapshot.json")
    empty_store.storage.put(path, left)
    assert fit(experiment, empty_store).read_bytes(WEIGHTS) == calm.read_bytes(WEIGHTS)
