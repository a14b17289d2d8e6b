"""Train, held-out and fresh splits of the real images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autophagy.common.errors import UserError
from autophagy.common.seeds import rng_for

_DEFAULT_HELD_OUT = 10_000


@dataclass(frozen=True)
class Splits:
    """Row numbers of the real images, int64; no row is in two of them."""

    train: np.ndarray  # what generation 0 is trained on
    held_out: np.ndarray  # the reference of every metric
    fresh: np.ndarray  # real images that later generations may receive


def split_sizes(total: int, num_real: int | None, num_held_out: int | None, num_fresh: int) -> tuple[int, int, int]:
    """How many of `total` real images are for training, held out, and fresh.

    Args:
        total: Number of real images, >= 1.
        num_real: `data.num_real`; None is all that is left but `num_fresh`.
        num_held_out: `data.num_held_out`; None is a quarter, at most 10,000.
        num_fresh: Fewest fresh images that the scenario needs, >= 0; all that is left is fresh.

    Raises:
        UserError: There are not enough images.
    """
    held_out = min(total // 4, _DEFAULT_HELD_OUT) if num_held_out is None else num_held_out
    if not 1 <= held_out < total:
        raise UserError(
            f"data.num_held_out = {num_held_out}: {held_out} of {total} images; set it between 1 and "
            f"{total - 1}, or use a larger data.source"
        )
    left = total - held_out
    train = left - num_fresh if num_real is None else num_real
    if num_real is not None and not 1 <= num_real <= left:
        raise UserError(
            f"data.num_real = {num_real}: there are only {total} images, of which {held_out} are held out "
            f"(data.num_held_out); lower it (1 to {left})"
        )
    if train < 1 or left - train < num_fresh:
        used = f"{train} for training (data.num_real) and " if num_real is not None else ""
        raise UserError(
            f"scenario.real_fraction: needs {num_fresh} fresh real images, but {used}{held_out} held out "
            f"leave {left - (num_real or 0)} of {total}; lower data.num_real, data.num_held_out or "
            "scenario.real_fraction"
        )
    return train, held_out, left - train


def split(total: int, num_real: int | None, num_held_out: int | None, num_fresh: int, seed: int) -> Splits:
    """Divide rows `0 .. total - 1` by a seeded permutation: held-out rows first, then train, then fresh.

    The held-out rows depend on the seed, `total` and `num_held_out` only, so loops with different `num_real`
    are measured against the same reference. Arguments and errors are those of `split_sizes`.
    """
    train, held_out, _ = split_sizes(total, num_real, num_held_out, num_fresh)
    rows = rng_for(seed, "split").permutation(total).astype(np.int64)
    return Splits(rows[held_out : held_out + train], rows[:held_out], rows[held_out + train :])
