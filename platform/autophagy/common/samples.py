"""What a sample is called: columns of its tables, and ids that tell origin and index."""

from __future__ import annotations

import numpy as np

SAMPLE_ID = "sample_id"  # int64, unique in a loop: origin generation and index packed
GENERATION = "generation"  # int32, origin; REAL = -1
IS_REAL = "is_real"  # bool
LABEL = "label"  # int64, UNLABELLED = -1
IMAGE = "image"  # uint8 [H, W, C]
LATENT = "latent"  # float16 [L], encoder of generation 0
FEATURES = "features"  # float32 [D], feature network
CONFIDENCE = "confidence"  # float32, own-label probe confidence, NaN if none
DENOISING_ERROR = "denoising_error"  # float32, of the denoiser of generation 0, mean over timesteps
TRAJECTORY_VARIANCE = "trajectory_variance"  # float32, of the last predictions of x_0 while sampling

REAL = -1
UNLABELLED = -1
_INDEX_BITS = 40


def sample_ids(generation: int, start: int, count: int) -> np.ndarray:
    """Ids of images `start .. start + count - 1` of an origin generation (REAL for real images), int64 [count]."""
    return ((generation + 1) << _INDEX_BITS) + np.arange(start, start + count, dtype=np.int64)


def origin_generation(ids: np.ndarray) -> np.ndarray:
    """Origin generation of each sample id, int32 [n]; REAL for real images."""
    return ((np.asarray(ids, dtype=np.int64) >> _INDEX_BITS) - 1).astype(np.int32)


def sample_index(ids: np.ndarray) -> np.ndarray:
    """Index of each sample within its origin generation, int64 [n]."""
    return np.asarray(ids, dtype=np.int64) & ((1 << _INDEX_BITS) - 1)


MOST_IMAGES = 10**9  # of a generation: keys in the store hold their number in nine digits
