"""Training a generation: one step loop in plain torch, run in the loop's own process or by Ray Train workers."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autophagy.cluster import ARRIVAL_SECONDS
from autophagy.config import Model, Training
from autophagy.data import read_images, real_ids, to_numpy
from autophagy.denoiser import (
    WEIGHTS_FILE,
    autocast,
    build_denoiser,
    load_denoiser,
    noise_schedule,
    null_condition,
    resolve_precision,
    to_unit,
)
from autophagy.records import IMAGE, LABEL, SAMPLE_ID, seed_for
from autophagy.stages import Job
from autophagy.store import Artifact

STATE_FILE = "state.sealed"  # safetensors behind their checksum
_SEAL = 16  # bytes
_SNAPSHOT = "checkpoint_manager_snapshot.json"  # in which Ray Train lists the checkpoints of a run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batches:
    """Which images make up each global batch: positions in an endless row of seeded permutations.

    Depends on the seed alone, not on the number of workers; a batch may reach from one epoch into the next.
    """

    num_images: int
    batch_size: int
    seed: int

    def __getitem__(self, step: int) -> np.ndarray:
        """Rows of the training set in the batch of a step, int64 [batch_size]."""
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        epochs = positions // self.num_images
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            rng = np.random.default_rng(seed_for(self.seed, "epoch", int(epoch)))
            inside = epochs == epoch
            rows[inside] = rng.permutation(self.num_images)[positions[inside] % self.num_images]
        return rows


@dataclass
class Checkpointing:
    """How a training loop is told where to go on, and how it keeps its state: Ray Train's way or a plain file."""

    load: Callable[[], bytes | None]
    save: Callable[[bytes, int], None]


class Learner:
    """Model, average and optimizer: all the state there is, so that it can be saved and gone on with bit by bit."""

    def __init__(self, model: nn.Module, training: Training) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
        self.decay = training.ema_decay
        self.step = 0
        self.losses: list[Tensor] = []  # this worker's part of the mean loss of each step

    def update(self, network: nn.Module, loss: Tensor) -> None:
        """One optimisation step; `network` is the model, or the model in its distributed wrapping."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        # The average follows closely at first, so that a short fine-tuning is not lost in it.
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.losses.append(loss.detach())

    def state(self, losses: Tensor) -> bytes:
        """Everything a resumed loop needs, as safetensors."""
        tensors = {"step": torch.tensor(self.step), "losses": losses.cpu()}
        tensors |= {f"model.{n}": p for n, p in self.model.state_dict().items()}
        tensors |= {f"average.{n}": p for n, p in self.average.state_dict().items()}
        for index, slot in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{n}": v for n, v in slot.items()}
        return save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})

    def restore(self, state: bytes) -> Tensor:
        """Go on from `state`; returns the losses so far."""
        tensors = load(state)
        self.model.load_state_dict(_under("model.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.step = int(tensors["step"])
        return tensors["losses"]


def train_steps(
    learner: Learner,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    model: Model,
    training: Training,
    num_steps: int,
    seed: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    checkpointing: Checkpointing,
) -> Tensor:
    """Train to predict the noise (DDPM, eq. 14) and return the mean loss of every step, float32 [num_steps].

    Args:
        images: uint8 [n, H, W, C], the whole training set, on any device.
        labels: int64 [n].
        rank, world_size: this worker takes one slice of every global batch; noise, timesteps and dropped conditions
            are drawn for the global batch from (seed, step), so that any number of workers computes the same loss.
    """
    batches = Batches(len(images), training.global_batch_size, seed)
    mine = _slice(training.global_batch_size, rank, world_size)
    schedule = noise_schedule(model)
    null = null_condition(learner.model)
    shape = (images.shape[3], images.shape[1], images.shape[2])
    saved = unsealed(checkpointing.load() or b"")
    done = learner.restore(saved) if saved else torch.zeros(0)

    learner.model.train()
    while learner.step < num_steps:
        rows = torch.from_numpy(batches[learner.step][mine])
        draw = torch.Generator().manual_seed(seed_for(seed, "step", learner.step))
        t = torch.randint(model.num_train_timesteps, (training.global_batch_size,), generator=draw)[mine].to(device)
        dropped = torch.rand(training.global_batch_size, generator=draw)[mine] < training.condition_dropout
        noise = torch.randn((training.global_batch_size, *shape), generator=draw)[mine].to(device)
        x0 = to_unit(images[rows.to(images.device)].to(device))
        condition = None
        if null is not None:
            condition = torch.where(dropped, null, labels[rows]).to(device)

        with autocast(training.precision, device):
            predicted = network(schedule.add_noise(x0, noise, t), t, condition).sample
        # DDP averages over workers: scaled so that the average is the mean over the global batch, even slices or not.
        share = len(rows) * world_size / training.global_batch_size
        learner.update(network, nn.functional.mse_loss(predicted.float(), noise) * share)

        if learner.step % training.checkpoint_every == 0 and learner.step < num_steps:
            done = torch.cat([done, _mean_over_workers(learner.losses, world_size)])
            learner.losses.clear()
            checkpointing.save(sealed(learner.state(done)) if rank == 0 else b"", learner.step)
    return torch.cat([done, _mean_over_workers(learner.losses, world_size)])


def sealed(state: bytes) -> bytes:
    """A state behind its checksum: a power cut may leave a file of the right size with something else in it."""
    return hashlib.blake2b(state, digest_size=_SEAL).digest() + state


def unsealed(data: bytes) -> bytes:
    """The state that was sealed; none if it is damaged, which is logged: training then begins anew."""
    state = data[_SEAL:]
    if not data or sealed(state) == data:
        return state
    logger.warning("a checkpoint is damaged: training begins anew")
    return b""


def train(job: Job) -> dict[str, Any]:
    """Builder of a `train` stage: a model from images. Inputs: `real`, and for generations >= 1 `select`, the samples
    and the model to start from. Payload: the averaged weights and the loss of every step."""
    training = Training(**job.config["training"], **job.runtime)
    if training.num_workers == 0:
        return _train_in_process(job, training)
    return _train_on_workers(job, training)


def num_steps(training: Training, budget: int | None, num_images: int) -> int:
    """Optimisation steps of a generation: epochs over R for generation 0, else over `budget` images.

    With `equal_steps` a larger training set does not buy more training.
    """
    if budget is None:
        return training.initial_epochs * math.ceil(num_images / training.global_batch_size)
    images = budget if training.equal_steps else num_images
    return training.epochs * math.ceil(images / training.global_batch_size)


def read_training_set(inputs: Mapping[str, Artifact], unseen: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, H, W, C] and labels int64 [n] of a `train` stage, sorted by sample id.

    They are the whole of the `training_set` input if there is one, else what `select` kept, else the real set R
    without `unseen` classes.
    """
    if "training_set" in inputs:
        table = inputs["training_set"].read_table("images", columns=[SAMPLE_ID, LABEL, IMAGE]).sort_by(SAMPLE_ID)
        return torch.tensor(to_numpy(table, IMAGE)), torch.tensor(to_numpy(table, LABEL))
    if "select" in inputs:
        ids = to_numpy(inputs["select"].read_table("kept.parquet", columns=[SAMPLE_ID]), SAMPLE_ID)
    else:
        ids = real_ids(inputs, "train", unseen)
    images, labels = read_images(inputs, ids)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _learner(job: Job, training: Training, device: torch.device) -> Learner:
    """The model this stage starts from, with a fresh optimizer."""
    if "init" in job.inputs:
        return Learner(load_denoiser(job.inputs["init"], device), training)
    torch.manual_seed(seed_for(job.config["seed"], "initial-weights"))
    shape = _shape(job)
    return Learner(build_denoiser(Model(**job.config["model"]), *shape).to(device), training)


def _run(
    job: Job, training: Training, device: torch.device, checkpointing: Checkpointing, **worker: Any
) -> dict[str, Any]:
    """The work of one worker from reading the images to, on rank 0, writing the weights."""
    images, labels = read_training_set(job.inputs, job.config.get("unseen", ()))
    if images.nbytes <= training.resident_bytes:
        images = images.to(device)
    learner = _learner(job, training, device)
    network = worker.pop("wrap", lambda model: model)(learner.model)
    model = Model(**job.config["model"])
    steps = num_steps(training, job.config["budget"], len(images))
    losses = train_steps(
        learner,
        network,
        images,
        labels,
        model=model,
        training=training,
        num_steps=steps,
        seed=job.config["seed"],
        device=device,
        checkpointing=checkpointing,
        **worker,
    )
    if worker.get("rank", 0) == 0:
        weights = {n: t.cpu().contiguous() for n, t in learner.average.state_dict().items()}
        job.attempt.write_bytes(WEIGHTS_FILE, save(weights))
        table = pa.table({"step": np.arange(1, len(losses) + 1), "loss": losses.numpy()})
        job.attempt.write_table("losses.parquet", table)
    return {
        "model": model.keyed(),
        "shape": _shape(job),
        "num_images": len(images),
        "num_steps": steps,
        "last_loss": float(losses[-50:].mean()),
        "precision": str(resolve_precision(training.precision, device)).removeprefix("torch."),
        "num_parameters": sum(p.numel() for p in learner.model.parameters()),
    }


def _shape(job: Job) -> tuple[int, int, int]:
    """Image size, channels and classes."""
    real = job.inputs["real"].info
    num_classes = job.inputs["labels"].info["num_classes"] if "labels" in job.inputs else real["num_classes"]
    return job.config["image_size"], real["channels"], num_classes


def _train_in_process(job: Job, training: Training) -> dict[str, Any]:
    device = torch.device("cuda" if training.use_gpu else "cpu")
    storage, path = job.attempt.storage, f"{job.attempt.scratch}/{STATE_FILE}"
    checkpointing = Checkpointing(lambda: storage.read(path), lambda state, _: storage.put(path, state))
    return _run(job, training, device, checkpointing)


def _train_on_workers(job: Job, training: Training) -> dict[str, Any]:
    """The same work by Ray Train: restarts dead workers from their last checkpoint, and goes on after a dead driver."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ARRIVAL_SECONDS))
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    _forget_damaged(job)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "training": training},
        torch_config=TorchConfig(backend="nccl" if training.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=training.use_gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if training.use_gpu else {"CPU": 0.9},
        ),
        run_config=RunConfig(
            name=job.key,  # the same name finds the checkpoints of a killed attempt again
            storage_path=job.attempt.scratch,
            storage_filesystem=job.store.fs,
            failure_config=FailureConfig(max_failures=3, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    return trainer.fit().return_value


def _forget_damaged(job: Job) -> None:
    """Remove the checkpoints of a run whose list is torn, or names one that is gone: Ray Train would begin no more.

    It writes the list in place, where a kill or a power cut may leave half of it.
    """
    storage, folder = job.attempt.storage, f"{job.attempt.scratch}/{job.key}"
    data = storage.read(f"{folder}/{_SNAPSHOT}")
    if data is None:
        return
    try:
        names = [result["checkpoint_dir_name"] for result in json.loads(data)["checkpoint_results"]]
        whole = all(storage.exists(f"{folder}/{name}/{STATE_FILE}") for name in names)
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        logger.warning("the checkpoints of train %s are damaged: training begins anew", job.key)
        storage.remove(folder)


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs."""
    import ray.train
    from ray.train import Checkpoint
    from ray.train.torch import get_device, prepare_model

    context = ray.train.get_context()
    rank = context.get_world_rank()

    def load_state() -> bytes | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return Path(folder, STATE_FILE).read_bytes()

    def save_state(state: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                Path(folder, STATE_FILE).write_bytes(state)
            checkpoint = Checkpoint.from_directory(folder) if rank == 0 else None
            ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_dir_name=f"step-{step:09d}")

    return _run(
        config["job"],
        config["training"],
        get_device(),
        Checkpointing(load_state, save_state),
        wrap=prepare_model,
        rank=rank,
        world_size=context.get_world_size(),
    )


def _slice(size: int, rank: int, world_size: int) -> slice:
    """This worker's contiguous part of `size` rows; parts differ by at most one row."""
    return slice(size * rank // world_size, size * (rank + 1) // world_size)


def _mean_over_workers(losses: list[Tensor], world_size: int) -> Tensor:
    """Mean over workers of their parts of each step's loss, float32 [steps]."""
    mean = torch.stack(losses) if losses else torch.zeros(0)
    if world_size > 1:
        torch.distributed.all_reduce(mean)
        mean = mean / world_size
    return mean.cpu()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
