"""What is known of an image besides its pixels: features, latents, confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa

from autophagy.common.samples import CONFIDENCE, DENOISING_ERROR, FEATURES, LABEL, LATENT, UNLABELLED
from autophagy.common.section import Section, since
from autophagy.common.seeds import seed_for
from autophagy.config import Experiment
from autophagy.data.tables import tensor_column
from autophagy.engine.stage import Stages
from autophagy.stages.payloads import Inputs, RealInfo, load_denoiser, read_network, read_probe

VERSION = 3  # of the columns: what `score`, `generate` and `correct` know of an image


class Scoring(Section):
    """What is to be known of every image; what is dear only where the selection reads it."""

    feature_network: str
    num_latents: int  # of the first images
    assign_labels: Annotated[Literal["classifier", "probe"] | None, since(None)] = None  # to those asked for none
    all_latents: Annotated[bool, since(False)] = False
    error_seed: Annotated[int | None, since(None)] = None  # of the denoising error; None: it is not taken


def scoring(e: Experiment) -> dict[str, Any]:
    """The fields of `Scoring` for a loop."""
    fields: dict[str, Any] = {"feature_network": e.metrics.feature_network, "num_latents": e.metrics.num_samples}
    if not e.model.conditional and e.labelled:
        fields["assign_labels"] = "classifier" if e.data.labels == "predicted" else "probe"
    if LATENT in e.selection.needs:
        fields["all_latents"] = True
    if DENOISING_ERROR in e.selection.needs:
        fields["error_seed"] = seed_for(e.seed, "denoising-error")
    return fields


def scored_by(shared: Stages) -> Stages:
    """The inputs of every stage that scores or measures, from the stages that all generations share.

    They are `real`; `network`, the feature network; `encoder`, the model of generation 0; `probe`, that of generation
    0, where there are labels; and `labels`, where others than the data's are told.
    """
    roles = {"real": "real", "network": "feature_network", "encoder": "train", "probe": "probe", "labels": "labels"}
    return {role: shared[name] for role, name in roles.items() if name in shared}


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


class Scorer:
    """Features of the feature network, and latents, confidence and error of the denoiser of generation 0.

    Of its inputs, which are those of `scored_by`, it reads all but `labels`: labels come with the images.
    """

    def __init__(self, config: Scoring, inputs: Inputs, use_gpu: bool) -> None:
        from autophagy.denoisers.latents import Encoder
        from autophagy.denoisers.weights import device_of
        from autophagy.features.networks import feature_function

        self.config, kind = config, config.feature_network
        self.network = read_network(inputs["network"])
        if kind != "latent":
            real = RealInfo.of(inputs["real"])
            device = device_of(use_gpu)
            self.features = feature_function(kind, self.network, real.channels, real.num_classes, device)
        self.probe = read_probe(inputs["probe"]) if "probe" in inputs else None
        if self.probe or config.error_seed is not None:
            self.encoder = Encoder(load_denoiser(inputs["encoder"], use_gpu))

    def score(self, images: np.ndarray, sample_id: np.ndarray, label: np.ndarray) -> Scores:
        """Scores of uint8 images [n, H, W, C]."""
        hidden: list[np.ndarray] = []
        if self.probe:
            pool, seed = self.probe.pool, self.probe.seed
            timesteps = self.probe.timesteps
            hidden = [self.encoder.encode_batch(images, sample_id, t, pool=pool, seed=seed) for t in timesteps]
        features = hidden[0] if self.config.feature_network == "latent" else self.features(images)
        label = np.where(label == UNLABELLED, self._assigned(features, hidden), label)
        confidence = np.full(len(images), np.nan, np.float32)
        if self.probe:
            confidence = self.probe.confidence(hidden, label)
        error: np.ndarray | None = None
        if self.config.error_seed is not None:
            error = self.encoder.denoising_error(images, sample_id, label, seed=self.config.error_seed)
        return Scores(label, features, confidence, hidden[0] if hidden else None, error)

    def _assigned(self, features: np.ndarray, hidden: list[np.ndarray]) -> np.ndarray | int:
        """The class of samples that were asked for none: the one that the classifier or the probe sees."""
        from autophagy.features.networks import predict_classes

        seen: np.ndarray | None = None
        if self.config.assign_labels == "classifier":
            seen = predict_classes(self.network, features)
        elif self.config.assign_labels == "probe" and self.probe:
            seen = self.probe.probabilities(hidden).argmax(axis=1)
        return UNLABELLED if seen is None else seen
