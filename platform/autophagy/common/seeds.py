"""Every random number and every name: digests, and seeds that say what they are for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(value: Any) -> str:
    """blake2b of the canonical JSON of `value`, 32 hex digits: the name of everything content-addressed."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def seed_for(seed: int, purpose: str, *ids: int) -> int:
    """A 63-bit seed for one purpose, independent of every other (purpose, ids) under the same experiment seed."""
    return int(digest([seed, purpose, *ids])[:16], 16) >> 1


def rng_for(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A numpy generator seeded by `seed_for`."""
    return np.random.default_rng(seed_for(seed, purpose, *ids))
