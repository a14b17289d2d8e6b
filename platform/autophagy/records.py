"""The words every module shares: column names, sample ids, seeds, records, the tracker protocol, user errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
# Control characters but tab and line feed, marks of direction, and halves of characters, which cannot be printed.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


# What holds a secret, and what is left of it. In the names of a URI's options, words such as `key` may stand anywhere,
# and short ones by themselves; elsewhere, where `key` and `auth` mean other things, a name must end as secrets do.
_QUOTE = r"['\"](?![\s,:;)\]}]|$)"  # of a password, not around it
_WORDS, _SHORT = "secret|token|passw|passphrase|key|credential|signature", "sig|sas|pwd|pass|auth"
_OPTION = rf"(?:[\w-]{{0,60}}(?:{_WORDS})[\w-]{{0,60}}|(?:[\w-]{{0,60}}[-_])?(?:{_SHORT})(?:[-_][\w-]{{0,60}})?)"
_NAME = (
    r"[\w.-]{0,60}?(?:secret|token|password|passwd|passphrase|pwd|credentials?|"
    r"(?:api|access|secret|private|account|shared|storage)[-_]?key(?:[-_]?id)?)"
)
_QUOTED = r"\\+\"[^\"]*\"|\\+'[^']*'|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), rest)
    for pattern, rest in (
        (rf"://(?:[^/\s:'\"]*:(?:(?!://)[^\s'\"]|{_QUOTE})*|[^/\s'\"]*)@", "://***@"),
        (rf"([?&#;]{_OPTION}=)(?:[^&\s'\"]|{_QUOTE})*", r"\1***"),
        (rf"((?:%(?:25)*[0-9a-f]{{2}}|\b){_OPTION}%(?:25)*3d)(?:(?!%(?:25)*(?:26|3b))[^&\s'\"])*", r"\1***"),
        (rf"(?<![\w.?&#;-])({_NAME}=)(?:{_QUOTED}|\*\*\*(?=[\s,;)]|$)|[^\s'\"]+)", r"\1***"),
        (rf"(['\"]{_NAME}\\*['\"]\s*:\s*)b?(?:{_QUOTED}|(?!null|none|true|false)[^\s,)\]}}]+)", r'\1"***"'),
        (r"(authorization\\*['\"]?\s*[:=]\s*\\*['\"]?(?:bearer|basic|token)\s+)[^\s'\"\\]+", r"\1***"),
        (r"(\bbearer\s+)[\w.~+/=-]{16,}", r"\1***"),
    )
]


def without_secrets(text: str) -> str:
    """`text` with *** for its passwords and keys: for whatever is printed, logged or tracked.

    These are known by where they stand: in URIs, in queries, percent-encoded too, in assignments such as
    `AWS_SECRET_ACCESS_KEY=...`, in JSON and what Python prints of a dict, in headers.
    """
    for pattern, rest in _SECRETS:
        text = pattern.sub(rest, text)
    return text


def visible(text: str) -> str:
    """`text` with what a terminal would act on, or cannot print, in Python's notation: an escape is `\\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(value: Any) -> str:
    """A value from a file or a command line as a message shows it: its repr, cut where it is long."""
    return _cut(without_secrets(repr(value)), 200)  # half a secret would not be known as one


def _cut(text: str, most: int) -> str:
    """A text of `most` characters: where it is longer, its beginning and its end, which is the remedy."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[-(most // 3 - 5) :]}"


class UserError(Exception):
    """Something the user can mend: says what is wrong, where in the configuration, and what to do."""

    def __str__(self) -> str:
        return _cut(visible(without_secrets(super().__str__())), 2000)


def sample_ids(generation: int, start: int, count: int) -> np.ndarray:
    """Ids of images `start .. start + count - 1` of an origin generation (REAL for real images), int64 [count]."""
    return ((generation + 1) << _INDEX_BITS) + np.arange(start, start + count, dtype=np.int64)


def origin_generation(ids: np.ndarray) -> np.ndarray:
    """Origin generation of each sample id, int32 [n]; REAL for real images."""
    return ((np.asarray(ids, dtype=np.int64) >> _INDEX_BITS) - 1).astype(np.int32)


def sample_index(ids: np.ndarray) -> np.ndarray:
    """Index of each sample within its origin generation, int64 [n]."""
    return np.asarray(ids, dtype=np.int64) & ((1 << _INDEX_BITS) - 1)


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


@dataclass(frozen=True)
class GenerationRecord:
    """What one generation leaves behind: one line of `records.jsonl`."""

    generation: int
    metrics: Mapping[str, float]  # keys of METRICS in autophagy.metrics; a value that is undefined is NaN
    stages: Mapping[str, str]  # stage name -> key in the store
    seconds: Mapping[str, float]  # stage name -> wall seconds when it was built

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null, so that every reader can parse the line."""
        metrics = {k: (None if np.isnan(v) else float(v)) for k, v in self.metrics.items()}
        return {
            "generation": self.generation,
            "metrics": metrics,
            "stages": dict(self.stages),
            "seconds": {k: round(float(v), 3) for k, v in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> GenerationRecord:
        """The inverse of `to_json`."""
        metrics = {k: float("nan") if v is None else float(v) for k, v in row["metrics"].items()}
        return cls(row["generation"], metrics, row["stages"], row["seconds"])


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told once, when a loop starts or goes on."""

    name: str  # name of the run: a folder below <root>/runs
    digest: str  # digest of the experiment: the same loop has the same digest in every process
    params: Mapping[str, str | int | float | bool | None]  # flattened configuration, e.g. "training.epochs": 3
    tags: Mapping[str, str]  # seed, git commit, package versions, dataset digest ...
    dataset: Mapping[str, str | int]  # source, digest, num_real, num_held_out: the lineage of the real data


class Tracker(Protocol):
    """Where a loop's numbers go besides its run folder. No method may raise because a server is away."""

    def start(self, run: RunInfo) -> None:
        """Open or find again the run of this loop."""

    def log(self, records: Sequence[GenerationRecord]) -> None:
        """All records so far, oldest first. Log those not yet logged; what fails is tried again at the next call."""

    def finish(self, records: Sequence[GenerationRecord], pictures: Sequence[Path], complete: bool) -> None:
        """Log what is still missing, attach the pictures, and close the run (`complete`: not interrupted)."""
