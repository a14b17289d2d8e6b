"""`train`: the model of a generation, trained in the loop's own process or by Ray Train workers."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa

from autophagy.common.section import RUNTIME, Section, since
from autophagy.common.seeds import seed_for
from autophagy.config import Experiment
from autophagy.corrections import SelfTrained
from autophagy.denoisers import AnyModel, Model
from autophagy.denoisers.base import Shape
from autophagy.denoisers.config import Training
from autophagy.engine.cluster import ARRIVAL_SECONDS
from autophagy.engine.job import Info, Job, Resources
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import LOSSES, WEIGHTS, RealInfo, load_denoiser, training_set

if TYPE_CHECKING:
    from autophagy.denoisers.learner import Checkpointing, Settings, Worker

VERSION = 2
STATE_FILE = "state.sealed"  # safetensors behind their checksum
_SNAPSHOT = "checkpoint_manager_snapshot.json"  # in which Ray Train lists the checkpoints of a run

logger = logging.getLogger(__name__)


class Steps(Section):
    """The training settings that matter for one generation: those of other generations do not change its key."""

    initial_epochs: Annotated[int | None, since(None)] = None  # of generation 0
    epochs: Annotated[int | None, since(None)] = None  # of later ones, as the next field
    equal_steps: Annotated[bool | None, since(None)] = None
    learning_rate: float
    global_batch_size: int
    ema_decay: float
    condition_dropout: float
    precision: str
    checkpoint_every: Annotated[int, RUNTIME]
    resident_bytes: Annotated[int, RUNTIME]


class Config(Section):
    """What a `train` stage is keyed by."""

    model: AnyModel
    image_size: int
    training: Steps
    budget: int | None  # images that `epochs` count over; None: generation 0, over R
    seed: int
    unseen: Annotated[tuple[int, ...], since(())] = ()  # classes of R that are left out


def stage(
    e: Experiment,
    k: int,
    inputs: Mapping[str, Stage],
    *,
    model: Model | None = None,
    auxiliary: SelfTrained | None = None,
) -> Stage:
    """Training generation k on whatever the inputs say; generation 0 trains on R.

    Args:
        e: The loop.
        k: The generation.
        inputs: As `build` has them.
        model: Another one than the loop's: what is to find the labels, and sees all images.
        auxiliary: The correction that this is the auxiliary model of.
    """
    training, budget, epochs = e.training, e.budget, e.training.epochs
    if auxiliary:
        budget, epochs = auxiliary.num_samples or budget, auxiliary.epochs or epochs
    config = Config(
        model=model or e.model,
        image_size=e.data.image_size,
        training=_steps(training, k, epochs),
        budget=budget if k else None,
        seed=seed_for(e.seed, "train auxiliary" if auxiliary else "train", k),
        unseen=() if k or model else tuple(e.data.unseen(0)),
    )
    images = epochs * budget if k else training.initial_epochs * (e.data.num_real or 0)
    return Stage(
        "train",
        build,
        config,
        inputs,
        Resources(use_gpu=training.use_gpu, num_workers=training.num_workers),
        VERSION,
        generation=k,
        place="driver" if training.num_workers else "either",
        work=images or None,
    )


def _steps(training: Training, k: int, epochs: int) -> Steps:
    settings = {name: value for name, value in training if name in Steps.model_fields}
    if k == 0:
        return Steps(**settings | {"epochs": None, "equal_steps": None})
    learning_rate = training.fine_tune_learning_rate or training.learning_rate
    return Steps(**settings | {"initial_epochs": None, "epochs": epochs, "learning_rate": learning_rate})


def build(job: Job[Config]) -> Info:
    """Train a denoiser on images. Payload: the averaged weights, and the loss of every step.

    Inputs: `real`; what generations >= 1 are trained on, either `select` and the `samples/j` it chose from, or
    `training_set`, whose images are all trained on; `init`, the model to go on from, if any; and `labels`, where others
    than the data's are told and the model is conditional.
    """
    return _train_on_workers(job) if job.resources.num_workers else _train_in_process(job)


def num_steps(training: Steps, budget: int | None, num_images: int) -> int:
    """Optimisation steps of a generation: epochs over R for generation 0, else over `budget` images.

    With `equal_steps` a larger training set does not buy more training.
    """
    if budget is None:
        return (training.initial_epochs or 0) * math.ceil(num_images / training.global_batch_size)
    images = budget if training.equal_steps else num_images
    return (training.epochs or 0) * math.ceil(images / training.global_batch_size)


def _settings(config: Config, num_images: int) -> Settings:
    from autophagy.denoisers.learner import Settings

    training = config.training
    return Settings(
        num_steps=num_steps(training, config.budget, num_images),
        seed=config.seed,
        learning_rate=training.learning_rate,
        ema_decay=training.ema_decay,
        global_batch_size=training.global_batch_size,
        condition_dropout=training.condition_dropout,
        precision=training.precision,
        checkpoint_every=training.checkpoint_every,
        resident_bytes=training.resident_bytes,
    )


def _run(job: Job[Config], checkpointing: Checkpointing, worker: Worker | None = None) -> Info:
    """The work of one worker from reading the images to, on rank 0, writing the weights."""
    import torch

    from autophagy.denoisers.learner import Learner, train_steps
    from autophagy.denoisers.weights import new_denoiser

    config, use_gpu = job.config, job.resources.use_gpu
    images, labels, ids = training_set(job.inputs, config.unseen)
    settings = _settings(config, len(images))
    if "init" in job.inputs:
        denoiser = load_denoiser(job.inputs["init"], use_gpu)
    else:
        denoiser = new_denoiser(config.model, _shape(job), config.seed, use_gpu)
    learner = Learner(denoiser, settings)
    losses = train_steps(learner, images, labels, ids, settings, checkpointing, worker)
    if worker is None or worker.rank == 0:
        job.attempt.write_bytes(WEIGHTS, learner.weights())
        steps = np.arange(1, len(losses) + 1)
        job.attempt.write_table(LOSSES, pa.table({"step": steps, "loss": losses}))
    return {
        "model": config.model.keyed(),
        "shape": list(_shape(job)),
        "num_images": len(images),
        "num_steps": settings.num_steps,
        "last_loss": float(torch.from_numpy(losses[-50:]).mean()),  # numpy adds in another order
        "precision": settings.precision,
        "num_parameters": sum(p.numel() for p in denoiser.network.parameters()),
    }


def _shape(job: Job[Config]) -> Shape:
    real = RealInfo.of(job.inputs["real"])
    num_classes = job.inputs["labels"].info["num_classes"] if "labels" in job.inputs else real.num_classes
    return Shape(job.config.image_size, real.channels, num_classes)


def _train_in_process(job: Job[Config]) -> Info:
    from autophagy.denoisers.learner import Checkpointing

    storage, path = job.attempt.storage, f"{job.attempt.scratch}/{STATE_FILE}"
    return _run(job, Checkpointing(lambda: storage.read(path), lambda state, _: storage.put(path, state)))


def _train_on_workers(job: Job[Config]) -> Info:
    """The same work by Ray Train: restarts dead workers from their last checkpoint, and goes on after a dead driver."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ARRIVAL_SECONDS))
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    _forget_damaged(job)
    use_gpu = job.resources.use_gpu
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.resources.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 0.9},
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


def _forget_damaged(job: Job[Config]) -> None:
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


def _worker(config: dict[str, Any]) -> Info:
    """What each Ray Train worker runs."""
    import ray.train
    from ray.train import Checkpoint
    from ray.train.torch import prepare_model

    from autophagy.denoisers.learner import Checkpointing, Worker

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

    worker = Worker(rank, context.get_world_size(), prepare_model)
    return _run(config["job"], Checkpointing(load_state, save_state), worker)
