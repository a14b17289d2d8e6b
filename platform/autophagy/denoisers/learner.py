"""The step loop: model, average and optimizer, any number of workers, resumed bit by bit."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autophagy.common.seeds import seed_for
from autophagy.denoisers.config import Model, Training
from autophagy.denoisers.diffusion import noise_schedule
from autophagy.denoisers.noise import null_condition, to_unit
from autophagy.denoisers.precision import autocast

_SEAL = 16  # bytes

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


def num_steps(training: Training, budget: int | None, num_images: int) -> int:
    """Optimisation steps of a generation: epochs over R for generation 0, else over `budget` images.

    With `equal_steps` a larger training set does not buy more training.
    """
    if budget is None:
        return training.initial_epochs * math.ceil(num_images / training.global_batch_size)
    images = budget if training.equal_steps else num_images
    return training.epochs * math.ceil(images / training.global_batch_size)


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
