"""Training a generation: one step loop in plain torch, run in the loop's own process or by Ray Train workers."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save

from autophagy.common.seeds import seed_for
from autophagy.denoisers.config import Model, Training
from autophagy.denoisers.learner import Checkpointing, Learner, num_steps, train_steps
from autophagy.denoisers.precision import resolve_precision
from autophagy.denoisers.unet import build_denoiser
from autophagy.engine.cluster import ARRIVAL_SECONDS
from autophagy.engine.job import Job
from autophagy.stages.payloads import WEIGHTS_FILE, load_denoiser, read_training_set

STATE_FILE = "state.sealed"  # safetensors behind their checksum
_SNAPSHOT = "checkpoint_manager_snapshot.json"  # in which Ray Train lists the checkpoints of a run

logger = logging.getLogger(__name__)


def train(job: Job) -> dict[str, Any]:
    """Builder of a `train` stage: a model from images. Inputs: `real`, and for generations >= 1 `select`, the samples
    and the model to start from. Payload: the averaged weights and the loss of every step."""
    training = Training(**job.config["training"], **job.runtime)
    if training.num_workers == 0:
        return _train_in_process(job, training)
    return _train_on_workers(job, training)


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
