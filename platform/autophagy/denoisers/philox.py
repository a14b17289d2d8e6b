"""Random numbers by what they are for: a counter-based generator, the same on every device and in every batch.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a keyed bijection: what it
makes of a counter needs no state, so a worker computes its own rows of a batch, a shard its own images, and a
restarted training goes on, without drawing what others draw. Here the key is the purpose (`seed_for`), and the counter
says which number of which image at which step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key from round to round
_ROUNDS = 10
_WORD = 0xFFFFFFFF  # the largest


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words of 32 bits for each counter.

    Args:
        counter: int64 tensors of words, 0 .. 2**32 - 1, that can be broadcast to one shape.
        key: 64 bits.

    Returns:
        int64 tensors of words, of that shape.
    """
    a, b, c, d = counter
    low, high = key & _WORD, key >> 32 & _WORD
    for _ in range(_ROUNDS):
        # Products of two words fill 64 bits: the sign is one of them, and is masked away.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> 32 & _WORD) ^ b ^ low,
            second & _WORD,
            (first >> 32 & _WORD) ^ d ^ high,
            first & _WORD,
        )
        low, high = low + _WEYL[0] & _WORD, high + _WEYL[1] & _WORD
    return a, b, c, d


def uniforms(key: int, ids: Tensor, step: Tensor | int, count: int) -> Tensor:
    """Uniform numbers in (0, 1), float64 [B, count].

    Args:
        key: `seed_for(seed, purpose)`.
        ids: int64 [B], what each row belongs to: a sample id, say.
        step: int64 [B], or one for all, in 0 .. 2**32 - 1: a timestep, an epoch.
        count: Numbers a row; the first of them do not hang on how many there are.
    """
    ids = ids[:, None]
    rows = torch.as_tensor(step, device=ids.device).expand(len(ids))[:, None]
    fours = torch.arange(math.ceil(count / 4), device=ids.device)[None, :]
    words = torch.stack(philox((fours, rows & _WORD, ids & _WORD, ids >> 32 & _WORD), key), dim=2)
    return words.flatten(1)[:, :count].double().add_(0.5).mul_(2.0**-32)


def normals(key: int, ids: Tensor, step: Tensor | int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32 [B, *shape], by Box and Muller (1958); arguments as for `uniforms`.

    Computed in float64, so that devices whose logarithms differ in the last bit give the same but for rare roundings.
    """
    count = math.prod(shape)
    u = uniforms(key, ids, step, count + count % 2).unflatten(1, (-1, 2))
    radius, angle = u[..., 0].log().mul_(-2.0).sqrt_(), u[..., 1].mul(2.0 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2)
    return pairs.flatten(1)[:, :count].float().unflatten(1, shape)
