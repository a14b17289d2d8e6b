"""The step loop: model, average and optimizer, any number of workers, resumed bit by bit."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autophagy.denoisers.base import Denoiser
from autophagy.denoisers.batches import Batches, Draws
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.pixels import to_unit
from autophagy.denoisers.precision import autocast

_SEAL = 16  # bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How long and how to train."""

    num_steps: int
    seed: int
    learning_rate: float
    ema_decay: float
    global_batch_size: int
    condition_dropout: float
    precision: str
    checkpoint_every: int  # optimisation steps
    resident_bytes: int  # training sets up to this stay on the device


@dataclass(frozen=True)
class Checkpointing:
    """How a training loop is told where to go on, and how it keeps its state: Ray Train's way or a plain file."""

    load: Callable[[], bytes | None]
    save: Callable[[bytes, int], None]


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together."""

    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network  # for distributed training

    def share(self, size: int) -> slice:
        """This worker's contiguous part of `size` rows; parts differ by at most one row."""
        return slice(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size)

    def mean(self, losses: list[Tensor]) -> Tensor:
        """Mean over workers of their parts of each step's loss, float32 [steps]."""
        mean = torch.stack(losses) if losses else torch.zeros(0)
        if self.world_size > 1:
            torch.distributed.all_reduce(mean)
            mean = mean / self.world_size
        return mean.cpu()


class Learner:
    """Network, average and optimizer: all the state there is, so that it can be saved and gone on with bit by bit."""

    def __init__(self, denoiser: Denoiser, settings: Settings) -> None:
        self.denoiser, self.network = denoiser, denoiser.network
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.learning: list[Tensor] = list(self.network.parameters())
        self.averaged: list[Tensor] = list(self.average.parameters())
        rate = settings.learning_rate
        self.optimizer = torch.optim.AdamW(self.learning, lr=rate, weight_decay=0.0, fused=True)
        self.decay = settings.ema_decay
        self.step = 0
        self.losses: list[Tensor] = []  # this worker's part of the mean loss of each step

    def update(self, loss: Tensor) -> None:
        """One optimisation step."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.step += 1
        # The average follows closely at first, so that a short fine-tuning is not lost in it.
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, self.learning, 1 - decay)
        self.losses.append(loss.detach())

    def weights(self) -> bytes:
        """The averaged weights, as safetensors."""
        return save({n: t.cpu().contiguous() for n, t in self.average.state_dict().items()})

    def state(self, losses: Tensor) -> bytes:
        """Everything a resumed loop needs, as safetensors."""
        tensors = {"step": torch.tensor(self.step), "losses": losses.cpu()}
        tensors |= {f"model.{n}": p for n, p in self.network.state_dict().items()}
        tensors |= {f"average.{n}": p for n, p in self.average.state_dict().items()}
        for index, slot in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{n}": v for n, v in slot.items()}
        return save({n: t.detach().cpu().contiguous() for n, t in tensors.items()})

    def restore(self, state: bytes) -> Tensor:
        """Go on from `state`; returns the losses so far."""
        tensors = load(state)
        self.network.load_state_dict(_under("model.", tensors))
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
    images: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    settings: Settings,
    checkpointing: Checkpointing,
    worker: Worker | None = None,
) -> np.ndarray:
    """Train to predict what the diffusion trains for (DDPM, eq. 14).

    What chance decides hangs on the image and the epoch, see `Draws`: any number of workers computes the same loss.

    Args:
        learner: What learns, on its device.
        images: uint8 [n, H, W, C], the whole training set.
        labels: int64 [n].
        ids: int64 [n], sample ids.
        settings: How.
        checkpointing: Where to go on, and where the state is kept.
        worker: Which of several processes this is; None: the only one.

    Returns:
        The mean loss of every step, float32 [num_steps].
    """
    worker = worker or Worker()
    denoiser, size = learner.denoiser, settings.global_batch_size
    model, null, device = denoiser.model, denoiser.null, denoiser.device
    x, y, whose = torch.from_numpy(images), torch.from_numpy(labels).to(device), torch.from_numpy(ids).to(device)
    if x.nbytes <= settings.resident_bytes:
        x = x.to(device)
    diffusion, batches = Diffusion(model, device), Batches(len(x), size, settings.seed)
    shape = (x.shape[3], x.shape[1], x.shape[2])
    draws = Draws(batches, whose, diffusion, shape, settings.condition_dropout, settings.seed)
    network = worker.wrap(learner.network)
    saved = unsealed(checkpointing.load() or b"")
    done = learner.restore(saved) if saved else torch.zeros(0)

    learner.network.train()
    for drawn in draws(learner.step, settings.num_steps, worker.share(size)):
        rows, t, noise = drawn.rows, drawn.t, drawn.noise
        x0 = to_unit(x[rows.to(x.device)].to(device, non_blocking=True))
        condition = None if null is None else torch.where(drawn.dropped, null, y[rows])
        with autocast(settings.precision, device):
            predicted = model.predict(network, diffusion.noised(x0, noise, t), t, condition)
        # DDP averages over workers: scaled so that the average is the mean over the global batch, even slices or not.
        share = len(rows) * worker.world_size / size
        learner.update(nn.functional.mse_loss(predicted.float(), diffusion.target(x0, noise, t)) * share)

        if learner.step % settings.checkpoint_every == 0 and learner.step < settings.num_steps:
            done = torch.cat([done, worker.mean(learner.losses)])
            learner.losses.clear()
            checkpointing.save(sealed(learner.state(done)) if worker.rank == 0 else b"", learner.step)
    return torch.cat([done, worker.mean(learner.losses)]).numpy()


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


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
