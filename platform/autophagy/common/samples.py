"""What a sample is called: columns of its tables, and ids that tell origin and index."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

IMAGE = "image"  # uint8 [H, W, C]
FEATURES = "features"
LATENT = "latent"
PIXELS = "pixels"
SAMPLE_ID = "sample_id"
GENERATION = "generation"
LABEL = "label"
IS_REAL = "is_real"
CONFIDENCE = "confidence"
DENOISING_ERROR = "denoising_error"
TRAJECTORY_VARIANCE = "trajectory_variance"


class Column(NamedTuple):
    """How what is known of n samples is held in memory."""

    dtype: str  # of numpy
    is_vector: bool = False  # [n, D]; else [n]


COLUMNS = {
    FEATURES: Column("float32", is_vector=True),  # of the feature network
    LATENT: Column("float32", is_vector=True),  # by the encoder of generation 0; float16 in files
    PIXELS: Column("uint8", is_vector=True),  # of the image as a point
    SAMPLE_ID: Column("int64"),  # unique in a loop: origin generation and index packed
    GENERATION: Column("int32"),  # origin; REAL = -1
    LABEL: Column("int64"),  # UNLABELLED = -1
    IS_REAL: Column("bool"),
    CONFIDENCE: Column("float32"),  # of the probe in the label, NaN if none
    DENOISING_ERROR: Column("float32"),  # of the denoiser of generation 0, mean over timesteps
    TRAJECTORY_VARIANCE: Column("float32"),  # of the last predictions of x_0 while sampling, NaN for real images
}

REAL = -1
UNLABELLED = -1
MOST_IMAGES = 10**9  # of a generation: keys in the store hold their number in nine digits
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
