"""What is known of an image besides its pixels: features, latents, confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from autophagy.common.samples import CONFIDENCE, DENOISING_ERROR, FEATURES, LABEL, LATENT, SAMPLE_ID, UNLABELLED
from autophagy.data.tables import tensor_column
from autophagy.denoisers.config import Model
from autophagy.denoisers.diffusion import noise_schedule
from autophagy.denoisers.latents import denoising_error, latents
from autophagy.engine.job import Job, device_of
from autophagy.features.networks import feature_function, predict_classes
from autophagy.stages.payloads import load_denoiser, read_probe
from autophagy.store import Attempt


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
