"""`labels`: classes for images whose own classes are not to be used, or are not known."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from autophagy.common.errors import UserError
from autophagy.common.samples import LABEL, SAMPLE_ID, UNLABELLED
from autophagy.common.section import Section
from autophagy.common.seeds import rng_for, seed_for
from autophagy.config import Experiment
from autophagy.data.config import CLUSTERED
from autophagy.engine.job import Info, Job, Resources
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import LABELS, SPLITS, RealInfo, load_denoiser, read_network, real_images

VERSION = 2

Parts = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # split -> images, labels, ids


class Config(Section):
    """What a `labels` stage is keyed by."""

    source: Literal["predicted", "ssc_omp", "kmeans"]
    seed: int


class ClusteredConfig(Config):
    """The same of clusterings."""

    num_clusters: int | None  # None: as many as the data have classes
    timestep: int  # of the latents that are clustered


def stage(e: Experiment, real: Stage, network: Stage, encoder: Stage | None) -> Stage | None:
    """The labels that stand in for those of the data; None where these are told.

    Args:
        e: The loop.
        real: The real images.
        network: Which predicts labels.
        encoder: A denoiser trained without labels, whose latents are clustered.
    """
    data, resources = e.data, Resources(use_gpu=e.training.use_gpu)
    config: Config
    if data.labels == "predicted":
        config, inputs = Config(source="predicted", seed=e.seed), {"real": real, "network": network}
    elif data.labels in CLUSTERED and encoder is not None:
        config = ClusteredConfig(
            source=data.labels, seed=e.seed, num_clusters=data.num_clusters, timestep=data.cluster_timestep
        )
        inputs = {"real": real, "encoder": encoder}
    else:
        return None
    return Stage("labels", build, config, inputs, resources, VERSION)


def build(job: Job[Config]) -> Info:
    """Give every real image a label.

    Inputs: `real`, and `network` (the classifier) for `predicted`, or `encoder` (a denoiser trained without labels)
    for the clusterings. Clusters are found among the training images; held-out and fresh images join the cluster of
    their nearest neighbour there. Where the data know their classes, clusters are named after them: this changes no
    cluster, and makes agreement readable.
    """
    config, info = job.config, RealInfo.of(job.inputs["real"])
    parts: Parts = {split: real_images(job.inputs, split) for split in SPLITS if info.sizes[split]}
    own = parts["train"][1]
    if not isinstance(config, ClusteredConfig):
        labels, num_classes = _predicted(job, parts), info.num_classes
    else:
        num_classes = config.num_clusters or info.num_classes
        if not num_classes:
            raise UserError("data.num_clusters = null: data.source has no classes to take the number of; set it")
        labels = _clustered(job, config, parts, num_classes)
        if info.num_classes:
            num_classes = max(num_classes, info.num_classes)
            labels = _named(labels, own, num_classes)
    ids = np.concatenate([parts[split][2] for split in labels])
    table = pa.table({SAMPLE_ID: pa.array(ids), LABEL: pa.array(np.concatenate(list(labels.values())))})
    job.attempt.write_table(LABELS, table)
    agreement = {"agreement": float((labels["train"] == own).mean())} if info.num_classes else {}
    return {"num_classes": num_classes, **agreement}


def _predicted(job: Job[Config], parts: Parts) -> dict[str, np.ndarray]:
    """What the classifier sees in the images of every split."""
    from autophagy.denoisers.latents import ENCODE_BATCH
    from autophagy.denoisers.weights import device_of
    from autophagy.features.networks import feature_function, predict_classes

    weights, info = read_network(job.inputs["network"]), RealInfo.of(job.inputs["real"])
    device = device_of(job.resources.use_gpu)
    extract = feature_function("classifier", weights, info.channels, info.num_classes, device)
    labels = {}
    for split, (images, _, _) in parts.items():
        batches = [images[start : start + ENCODE_BATCH] for start in range(0, len(images), ENCODE_BATCH)]
        seen = predict_classes(weights, np.concatenate([extract(batch) for batch in batches]))
        if seen is None:
            raise UserError("data.labels = predicted: needs metrics.feature_network = classifier")
        labels[split] = seen
    return labels


def _clustered(job: Job[Config], config: ClusteredConfig, parts: Parts, num_clusters: int) -> dict[str, np.ndarray]:
    """Cluster numbers of every split."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    from autophagy.denoisers.latents import Encoder
    from autophagy.features.clustering import kmeans_labels, ssc_omp

    encoder = Encoder(load_denoiser(job.inputs["encoder"], job.resources.use_gpu))
    noise = seed_for(config.seed, "label-noise")
    hidden = {
        split: encoder.encode(images, ids, config.timestep, pool="flatten", seed=noise)
        for split, (images, _, ids) in parts.items()
    }
    cluster = ssc_omp if config.source == "ssc_omp" else kmeans_labels
    labels = {"train": cluster(hidden["train"], num_clusters, rng_for(config.seed, "clusters"))}
    nearest = KNeighborsClassifier(n_neighbors=1).fit(normalize(hidden["train"]), labels["train"])
    return labels | {split: nearest.predict(normalize(hidden[split])) for split in parts if split != "train"}


def _named(labels: dict[str, np.ndarray], own: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """The same clusters, called by the classes `own` of the training images that they agree with most."""
    from autophagy.features.clustering import match_clusters

    clusters = np.concatenate(list(labels.values()))
    classes = np.full_like(clusters, UNLABELLED)
    classes[: len(own)] = own  # "train" comes first
    names = match_clusters(clusters, classes, num_classes)
    return dict(zip(labels, np.split(names, np.cumsum([len(c) for c in labels.values()])[:-1]), strict=True))
