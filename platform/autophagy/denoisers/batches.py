"""What chance decides in training: which images make up each batch, and the timestep and the noise of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from autophagy.common.seeds import rng_for, seed_for
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.philox import normals, uniforms

_AT_ONCE = 1 << 20  # numbers of noise that are drawn together: one step's may be too few to keep a device busy


@dataclass(frozen=True)
class Batches:
    """Which images make up each global batch: positions in an endless row of seeded permutations.

    Depends on the seed alone, not on the number of workers; a batch may reach from one epoch into the next.
    """

    num_images: int
    batch_size: int
    seed: int

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training set in the batch of a step, and how often each was used before, int64 [batch_size]."""
        first = step * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.num_images)
        rows = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rows[inside] = _permutation(self.num_images, self.seed, int(epoch))[places[inside]]
        return rows, epochs


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def _permutation(num_images: int, seed: int, epoch: int) -> np.ndarray:
    return rng_for(seed, "epoch", epoch).permutation(num_images)


@dataclass(frozen=True)
class Draw:
    """Of one step, on the device that trains."""

    rows: Tensor  # int64 [B], of the training set
    t: Tensor  # int64 [B], timesteps
    dropped: Tensor  # bool [B], whether the condition is replaced by the null condition
    noise: Tensor  # float32 [B, C, H, W]


@dataclass(frozen=True)
class Draws:
    """What is drawn for the images of each step, by (sample id, epoch): whoever trains on an image in a given epoch
    gives it the same noise at the same timestep, in whatever batch, loop or worker.
    """

    batches: Batches
    ids: Tensor  # int64 [n], sample ids of the training set, on the device that trains
    diffusion: Diffusion
    shape: tuple[int, ...]  # of an image, [C, H, W]
    condition_dropout: float
    seed: int

    def __call__(self, first: int, stop: int, mine: slice) -> Iterator[Draw]:
        """Those of the steps `first .. stop - 1`, for a worker's part of each batch."""
        size = len(range(*mine.indices(self.batches.batch_size)))
        together = max(1, _AT_ONCE // (max(1, size) * prod(self.shape)))
        for start in range(first, stop, together):
            yield from self._several(range(start, min(start + together, stop)), mine)

    def _several(self, steps: range, mine: slice) -> Iterator[Draw]:
        taken = np.array([[part[mine] for part in self.batches[step]] for step in steps])  # [steps, 2, B]
        rows, epochs = torch.from_numpy(taken).to(self.ids.device).transpose(0, 1).flatten(1)
        ids = self.ids[rows]
        chance = uniforms(seed_for(self.seed, "timestep"), ids, epochs, 2)
        t, dropped = self.diffusion.timesteps(chance[:, 0]), chance[:, 1] < self.condition_dropout
        noise = normals(seed_for(self.seed, "noise"), ids, epochs, self.shape)
        for drawn in zip(*(part.unflatten(0, taken.shape[::2]) for part in (rows, t, dropped, noise)), strict=True):
            yield Draw(*drawn)
