"""Feature networks, the scorer that adds features, latents and confidence to images, and the stages that fit them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autophagy.config import Model
from autophagy.config import Probe as ProbeConfig
from autophagy.data import tensor_column, to_numpy
from autophagy.denoiser import latents, load_denoiser, noise_schedule, to_unit
from autophagy.probe import FIXED_PENALTY, TIMESTEPS, LinearProbe, Probe, Split, fit_best_penalty, fit_linear
from autophagy.records import (
    CONFIDENCE,
    FEATURES,
    GENERATION,
    IMAGE,
    IS_REAL,
    LABEL,
    LATENT,
    REAL,
    SAMPLE_ID,
    UserError,
    rng_for,
    sample_ids,
    seed_for,
)
from autophagy.stages import Job, once, stream
from autophagy.store import Artifact

NETWORK_FILE = "network.safetensors"
PROBE_FILE = "probe.safetensors"
CLASSIFIER_STEPS = 800
CLASSIFIER_BATCH = 128
PROBE_COMPARISON = 3000  # real images that timesteps and penalties are compared on
ENCODE_BATCH = 256
EXTRAS = {"inception": ("torch_fidelity", "inception"), "dinov2": ("transformers", "dinov2")}


class Classifier(nn.Module):
    """A small convolutional classifier; the activations before its last layer are the features (64 numbers)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, channels, H, W] in [-1, 1]."""
        return self.head(self.body(x))


def check_available(kind: str) -> None:
    """Raise a UserError if the packages of a feature network are not installed."""
    package, extra = EXTRAS.get(kind, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"metrics.feature_network = {kind}: needs the package {package}; "
            f"install it with pip install 'autophagy[{extra}]', or use classifier"
        )


def fit_feature_network(job: Job) -> dict[str, Any]:
    """Builder of the `feature_network` stage. Input: `real`. Trains `classifier`; the other networks are ready made."""
    info = job.inputs["real"].info
    if job.config["kind"] in EXTRAS:
        _ready_made(job.config["kind"], device_of(job))  # what cannot be loaded is one line here, a traceback later
    if job.config["kind"] != "classifier":
        return {}
    if not info["num_classes"]:
        raise UserError("metrics.feature_network = classifier: needs labels, and data.source has none; use pixels")
    device = device_of(job)
    images, labels, _ = _real(job.inputs["real"], "train")
    torch.manual_seed(seed_for(job.config["seed"], "classifier"))
    network = Classifier(info["channels"], info["num_classes"]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=CLASSIFIER_STEPS)
    rng = rng_for(job.config["seed"], "classifier-batches")
    for _ in range(CLASSIFIER_STEPS):
        rows = rng.integers(len(images), size=CLASSIFIER_BATCH)
        x, y = to_unit(torch.from_numpy(images[rows])).to(device), torch.from_numpy(labels[rows]).to(device)
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    held_out, held_out_labels, _ = _real(job.inputs["real"], "held_out")
    job.attempt.write_bytes(NETWORK_FILE, save(network.cpu().state_dict()))
    network.eval()
    with torch.no_grad():
        predicted = torch.cat([network(to_unit(b)).argmax(1) for b in torch.from_numpy(held_out).split(1024)])
    return {"accuracy_held_out": float((predicted.numpy() == held_out_labels).mean())}


def predict_classes(network: Artifact, features: np.ndarray) -> np.ndarray | None:
    """Class that the classifier sees, int64 [n], from its features [n, 64]; None for a network without classes."""
    if not network.files():
        return None
    weights = load(network.read_bytes(NETWORK_FILE))
    logits = torch.from_numpy(features) @ weights["head.weight"].T + weights["head.bias"]
    return logits.argmax(1).numpy()


def feature_function(
    kind: str, network: Artifact, info: Mapping[str, Any], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, H, W, C] -> float32 features [B, D] for every kind but `latent`."""
    if kind == "classifier":
        classifier = Classifier(info["channels"], info["num_classes"])
        classifier.load_state_dict(load(network.read_bytes(NETWORK_FILE)))
        body = classifier.body.to(device).eval()
        return lambda images: body(to_unit(images))
    if kind == "pixels":
        return lambda images: images.flatten(1).float()
    return _ready_made(kind, device)


def _ready_made(kind: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    check_available(kind)
    try:
        return _inception(device) if kind == "inception" else _dinov2(device)
    except OSError as error:
        raise UserError(
            f"metrics.feature_network = {kind}: its weights cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "put them into the local cache or use classifier"
        ) from None


def _inception(device: torch.device) -> Callable[[Tensor], Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    return lambda images: network(_rgb(images).permute(0, 3, 1, 2).contiguous())[0]


def _dinov2(device: torch.device) -> Callable[[Tensor], Tensor]:
    from transformers import AutoModel

    network = AutoModel.from_pretrained("facebook/dinov2-small").to(device).eval()
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def class_token(images: Tensor) -> Tensor:
        x = _rgb(images).permute(0, 3, 1, 2).float() / 255
        x = nn.functional.interpolate(x, size=(224, 224), mode="bicubic", antialias=True)
        return network((x - mean) / std).last_hidden_state[:, 0]

    return class_token


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images


@dataclass(frozen=True)
class Scores:
    """What the scorer adds to n images."""

    features: np.ndarray  # float32 [n, D]
    confidence: np.ndarray  # float32 [n], NaN without a label
    latent: np.ndarray | None  # float32 [n, L] at the probe's first timestep; None without a probe


class Scorer:
    """Features of the feature network, and latents and own-label confidence from the encoder of generation 0."""

    def __init__(self, job: Job) -> None:
        self.kind, self.device = job.config["feature_network"], device_of(job)
        real = job.inputs["real"].info
        if self.kind != "latent":
            self.features = feature_function(self.kind, job.inputs["network"], real, self.device)
        self.probe = read_probe(job.inputs["probe"]) if "probe" in job.inputs else None
        if self.probe:
            self.encoder = load_denoiser(job.inputs["encoder"], self.device)
            self.schedule = noise_schedule(Model(**job.inputs["encoder"].info["model"]))

    @torch.no_grad()
    def score(self, images: np.ndarray, sample_id: np.ndarray, label: np.ndarray) -> Scores:
        """Scores of uint8 images [n, H, W, C]."""
        x = torch.from_numpy(np.array(images)).to(self.device)
        hidden: list[np.ndarray] = []
        confidence = np.full(len(x), np.nan, np.float32)
        if self.probe:
            for t in self.probe.timesteps:
                h = latents(self.encoder, self.schedule, x, sample_id, t, pool=self.probe.pool, seed=self.probe.seed)
                hidden.append(h.cpu().numpy())
            confidence = self.probe.confidence(hidden, label)
        features = hidden[0] if self.kind == "latent" else self.features(x).cpu().numpy()
        return Scores(features.astype(np.float32), confidence, hidden[0] if hidden else None)


@dataclass(frozen=True)
class ScoreReal:
    """Scores one shard of the real images and writes the scores; the images stay where they are."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard {split, start, count} in, its number of images out."""
        job, split = self.job, str(batch["split"][0])
        start, count = int(batch["start"][0]), int(batch["count"][0])
        images, label, ids = _real(job.inputs["real"], split, start, count)
        scores = once(f"scorer {job.key}", lambda: Scorer(job)).score(images, ids, label)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(np.full(len(ids), REAL, np.int32)),
            IS_REAL: pa.array(np.ones(len(ids), bool)),
            LABEL: pa.array(label),
            FEATURES: tensor_column(scores.features),
            CONFIDENCE: pa.array(scores.confidence),
        }
        job.attempt.write_table(f"{split}/shard-{start:09d}.parquet", pa.table(columns))
        measured = job.config["num_latents"] - start
        if scores.latent is not None and split == "held_out" and measured > 0:
            latent = {SAMPLE_ID: columns[SAMPLE_ID], LATENT: tensor_column(scores.latent.astype(np.float16))}
            job.attempt.write_table(f"latents/shard-{start:09d}.parquet", pa.table(latent).slice(0, measured))
        return {"count": np.array([count])}


def score_real(job: Job) -> None:
    """Builder of the `score` stage: features and confidence of the real images. Inputs as for `generate`."""
    sizes = job.inputs["real"].info["sizes"]
    size = job.config["shard_size"]
    shards = [
        {"split": split, "start": start, "count": min(size, count - start)}
        for split, count in sizes.items()
        if split != "fresh" or job.config.get("fresh")
        for start in range(0, count, size)
    ]
    for _ in stream(job, shards, ScoreReal):
        pass


class Encoder:
    """The denoiser of generation 0 as what a probe is fitted on: images to pooled latents at a timestep."""

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
    """Builder of the `probe` stage (LSF). Inputs: `real`, and `encoder`, the denoiser of generation 0.

    Timestep and L2 strength are compared on at most PROBE_COMPARISON images of R, by accuracy on a fifth of them; the
    probe is then fitted on all of R.
    """
    config, seed = ProbeConfig(**job.config["probe"]), job.config["seed"]
    encoder = Encoder(job.inputs["encoder"], config.pool, seed_for(seed, "probe-noise"), device_of(job))
    images, label, ids = _real(job.inputs["real"], "train")
    held_out, held_out_label, held_out_ids = _real(job.inputs["real"], "held_out")
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


def device_of(job: Job) -> torch.device:
    """Where a job's networks run."""
    return torch.device("cuda" if job.runtime.get("use_gpu") else "cpu")


def _real(
    real: Artifact, split: str, start: int = 0, count: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C], labels and sample ids of a split of the real images, or of a part of it."""
    first = real.info["first_index"][split]
    span = None
    if count is not None:
        low = int(sample_ids(REAL, first + start, 1)[0])
        span = (pc.field(SAMPLE_ID) >= low) & (pc.field(SAMPLE_ID) < low + count)
    table = real.read_table(f"images/{split}", columns=[SAMPLE_ID, LABEL, IMAGE], filter=span)
    table = table.sort_by(SAMPLE_ID)
    # Copied: Arrow's memory is read-only.
    return to_numpy(table, IMAGE).copy(), to_numpy(table, LABEL).copy(), to_numpy(table, SAMPLE_ID)
