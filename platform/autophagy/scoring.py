"""What is known of an image besides its pixels: features, latents, confidence; and the probe that gives confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from autophagy.config import Model
from autophagy.config import Probe as ProbeConfig
from autophagy.data import read_images, real_ids, tensor_column
from autophagy.denoiser import denoising_error, latents, load_denoiser, noise_schedule
from autophagy.features import device_of, feature_function, predict_classes, real_images
from autophagy.probe import FIXED_PENALTY, TIMESTEPS, LinearProbe, Probe, Split, fit_best_penalty, fit_linear
from autophagy.records import (
    CONFIDENCE,
    DENOISING_ERROR,
    FEATURES,
    GENERATION,
    IS_REAL,
    LABEL,
    LATENT,
    REAL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    UNLABELLED,
    rng_for,
    seed_for,
)
from autophagy.stages import Job, once, stream
from autophagy.store import NUM_FILES, Artifact, Attempt

PROBE_FILE = "probe.safetensors"
PROBE_COMPARISON = 3000  # real images that timesteps and penalties are compared on
ENCODE_BATCH = 256


@dataclass(frozen=True)
class Scores:
    """What the scorer adds to n images."""

    label: np.ndarray  # int64 [n], as asked for; of an unconditional sample, as assigned
    features: np.ndarray  # float32 [n, D]
    confidence: np.ndarray  # float32 [n], NaN without a label
    latent: np.ndarray | None  # float32 [n, L] at the probe's first timestep; None without a probe
    denoising_error: np.ndarray | None  # float32 [n]; None where nobody asked for it

    def columns(self) -> dict[str, pa.Array]:
        """The light columns of a table of scores."""
        columns = {
            LABEL: pa.array(self.label),
            FEATURES: tensor_column(self.features),
            CONFIDENCE: pa.array(self.confidence),
        }
        return columns if self.denoising_error is None else columns | {DENOISING_ERROR: pa.array(self.denoising_error)}

    def write_latents(self, attempt: Attempt, name: str, ids: np.ndarray, count: int) -> int:
        """Write the latents of the first `count` images to a file of their own: they are heavy. Returns how many files
        that takes: one or, without a probe or images, none."""
        if self.latent is None or count <= 0:
            return 0
        table = pa.table({SAMPLE_ID: pa.array(ids), LATENT: tensor_column(self.latent.astype(np.float16))})
        attempt.write_table(name, table.slice(0, count))
        return 1


class Scorer:
    """Features of the feature network, and latents, confidence and error of the denoiser of generation 0."""

    def __init__(self, job: Job) -> None:
        config, inputs = job.config, job.inputs
        self.kind, self.device = config["feature_network"], device_of(job)
        self.network = inputs["network"]
        if self.kind != "latent":
            self.features = feature_function(self.kind, self.network, inputs["real"].info, self.device)
        self.error_seed: int | None = config.get("error_seed")
        self.assign: str | None = config.get("assign_labels")
        self.probe = read_probe(inputs["probe"]) if "probe" in inputs else None
        if self.probe or self.error_seed is not None:
            self.encoder = load_denoiser(inputs["encoder"], self.device)
            self.schedule = noise_schedule(Model(**inputs["encoder"].info["model"]))

    @torch.no_grad()
    def score(self, images: np.ndarray, sample_id: np.ndarray, label: np.ndarray) -> Scores:
        """Scores of uint8 images [n, H, W, C]."""
        x = torch.from_numpy(np.array(images)).to(self.device)
        hidden: list[np.ndarray] = []
        if self.probe:
            pool, seed = self.probe.pool, self.probe.seed
            for t in self.probe.timesteps:
                h = latents(self.encoder, self.schedule, x, sample_id, t, pool=pool, seed=seed)
                hidden.append(h.cpu().numpy())
        features = hidden[0] if self.kind == "latent" else self.features(x).cpu().numpy().astype(np.float32)
        label = np.where(label == UNLABELLED, self._assigned(features, hidden), label)
        confidence = np.full(len(x), np.nan, np.float32)
        if self.probe:
            confidence = self.probe.confidence(hidden, label)
        error: np.ndarray | None = None
        if self.error_seed is not None:
            told = torch.from_numpy(label).to(self.device)
            errors = denoising_error(self.encoder, self.schedule, x, sample_id, told, seed=self.error_seed)
            error = errors.cpu().numpy()
        return Scores(label, features, confidence, hidden[0] if hidden else None, error)

    def _assigned(self, features: np.ndarray, hidden: list[np.ndarray]) -> np.ndarray | int:
        """The class of samples that were asked for none: the one that the classifier or the probe sees."""
        seen: np.ndarray | None = None
        if self.assign == "classifier":
            seen = predict_classes(self.network, features)
        elif self.assign == "probe" and self.probe:
            seen = self.probe.probabilities(hidden).argmax(axis=1)
        return UNLABELLED if seen is None else seen


@dataclass(frozen=True)
class ScoreReal:
    """Scores one shard of the real images and writes the scores; the images stay where they are."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard {split, start, count} in, its number of images and of files out."""
        job, split = self.job, str(batch["split"][0])
        start, count = int(batch["start"][0]), int(batch["count"][0])
        images, label, ids = real_images(job.inputs, split, start, count)
        scores = once(f"scorer {job.key}", lambda: Scorer(job)).score(images, ids, label)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(np.full(len(ids), REAL, np.int32)),
            IS_REAL: pa.array(np.ones(len(ids), bool)),
            TRAJECTORY_VARIANCE: pa.array(np.full(len(ids), np.nan, np.float32)),  # nothing was sampled
            **scores.columns(),
        }
        job.attempt.write_table(f"{split}/shard-{start:09d}.parquet", pa.table(columns))
        wanted = job.config["num_latents"] if split == "held_out" else 0
        if job.config.get("all_latents"):
            wanted = start + count
        latents = scores.write_latents(job.attempt, f"latents/{split}/shard-{start:09d}.parquet", ids, wanted - start)
        return {"count": np.array([count]), "files": np.array([1 + latents])}


def score_real(job: Job) -> dict[str, Any]:
    """Builder of the `score` stage: features and confidence of the real images. Inputs as for `generate`."""
    sizes = job.inputs["real"].info["sizes"]
    size = job.config["shard_size"]
    shards = [
        {"split": split, "start": start, "count": min(size, count - start)}
        for split, count in sizes.items()
        if split != "fresh" or job.config.get("fresh")
        for start in range(0, count, size)
    ]
    done = list(stream(job, shards, ScoreReal))
    count, wanted = sum(int(row["count"]) for row in done), sum(int(str(shard["count"])) for shard in shards)
    if count != wanted:
        raise RuntimeError(f"score: {count} of {wanted} images came back")
    return {NUM_FILES: sum(int(row["files"]) for row in done)}


class Encoder:
    """The denoiser of a generation as what a probe is fitted on: images to pooled latents at a timestep."""

    def __init__(self, artifact: Artifact, pool: str, seed: int, device: torch.device) -> None:
        self.denoiser = load_denoiser(artifact, device)
        self.model = Model(**artifact.info["model"])
        self.schedule = noise_schedule(self.model)
        self.pool, self.seed, self.device = pool, seed, device

    def encode(self, images: np.ndarray, sample_id: np.ndarray, timestep: int) -> np.ndarray:
        """Latents float32 [n, L] of uint8 images [n, H, W, C]."""
        parts = []
        for start in range(0, len(images), ENCODE_BATCH):
            part = slice(start, start + ENCODE_BATCH)
            x = torch.from_numpy(images[part]).to(self.device)
            hidden = latents(self.denoiser, self.schedule, x, sample_id[part], timestep, pool=self.pool, seed=self.seed)
            parts.append(hidden.cpu().numpy())
        return np.concatenate(parts)


def fit_probe(job: Job) -> dict[str, Any]:
    """Builder of a `probe` stage (LSF). Inputs: `real`, and `encoder`, the denoiser of generation 0 or a later one.

    R stands for the real images there are: none of `unseen` classes, in which the probe therefore has no confidence.
    Timestep and L2 strength are compared on at most PROBE_COMPARISON images of R, by accuracy on a fifth of them; the
    probe is then fitted on all of R.
    """
    config, seed = ProbeConfig(**job.config["probe"]), job.config["seed"]
    encoder = Encoder(job.inputs["encoder"], config.pool, seed_for(seed, "probe-noise"), device_of(job))
    ids, held_out_ids = (real_ids(job.inputs, split, job.config.get("unseen", ())) for split in ("train", "held_out"))
    images, label = read_images(job.inputs, ids)
    held_out, held_out_label = read_images(job.inputs, held_out_ids)
    rng = rng_for(seed, "probe")
    told = rng.permutation(label) if job.config["labels"] == "shuffled" else label
    rows = rng.permutation(len(images))[:PROBE_COMPARISON]
    fit, validation = np.split(rows, [len(rows) * 4 // 5])

    def split_at(timestep: int) -> Split:
        h = encoder.encode(images[rows], ids[rows], timestep)
        return Split(h[: len(fit)], told[fit], h[len(fit) :], told[validation])

    grid = sorted({t * encoder.model.num_train_timesteps // 1000 for t in TIMESTEPS})
    compared: dict[int, float] = {}
    if not config.timesteps:
        compared = {t: fit_linear(split_at(t), t, FIXED_PENALTY)[1] for t in grid}
    chosen = config.timesteps or (max(compared, key=lambda t: compared[t]),)

    parts: list[LinearProbe] = []
    train_latents, held_out_latents, penalties = [], [], []
    for t in chosen:
        penalty = fit_best_penalty(split_at(t), t)[2]
        train_latents.append(encoder.encode(images, ids, t))
        held_out_latents.append(encoder.encode(held_out, held_out_ids, t))
        whole = Split(train_latents[-1], told, held_out_latents[-1], held_out_label)
        parts.append(fit_linear(whole, t, penalty)[0])
        penalties.append(penalty)
    probe = Probe(tuple(parts), config.pool, encoder.seed)
    data, info = probe.to_bytes()
    job.attempt.write_bytes(PROBE_FILE, data)
    right = probe.probabilities(held_out_latents).argmax(1) == held_out_label
    right_train = probe.probabilities(train_latents).argmax(1) == told
    return info | {
        "accuracy_held_out": float(right.mean()),
        "accuracy_train": float(right_train.mean()),
        "confidence_held_out": float(probe.confidence(held_out_latents, held_out_label).mean()),
        "validation_accuracy_by_timestep": {str(t): a for t, a in compared.items()},
        "penalties": penalties,
    }


def read_probe(artifact: Artifact) -> Probe:
    """The fitted probe of a `probe` artifact."""
    return Probe.from_bytes(artifact.read_bytes(PROBE_FILE), dict(artifact.info))
