"""The `labels` stage: classes for images whose own classes are not to be used, or are not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from autophagy.common.errors import UserError
from autophagy.common.samples import LABEL, SAMPLE_ID, UNLABELLED
from autophagy.common.seeds import rng_for, seed_for
from autophagy.denoisers.latents import ENCODE_BATCH
from autophagy.engine.job import Job, device_of
from autophagy.features.clustering import kmeans_labels, match_clusters, ssc_omp
from autophagy.features.networks import feature_function, predict_classes
from autophagy.stages.payloads import LABELS_FILE, load_encoder, real_images

SPLITS = ("train", "held_out", "fresh")


def assign_labels(job: Job) -> dict[str, Any]:
    """Builder of the `labels` stage: a label for every real image.

    Inputs: `real`, and `network` (the classifier) for `predicted`, or `encoder` (a denoiser trained without labels)
    for the clusterings. Clusters are found among the training images; held-out and fresh images join the cluster of
    their nearest neighbour there. Where the data know their classes, clusters are named after them: this changes no
    cluster, and makes agreement readable.
    """
    config, info = job.config, job.inputs["real"].info
    parts = {split: real_images(job.inputs, split) for split in SPLITS if info["sizes"][split]}
    own = parts["train"][1]
    if config["source"] == "predicted":
        labels = {split: _predicted(job, images) for split, (images, _, _) in parts.items()}
        num_classes = info["num_classes"]
    else:
        num_classes = config["num_clusters"] or info["num_classes"]
        if not num_classes:
            raise UserError("data.num_clusters = null: data.source has no classes to take the number of; set it")
        labels = _clustered(job, parts, num_classes)
        if info["num_classes"]:
            num_classes = max(num_classes, info["num_classes"])
            labels = _named(labels, own, num_classes)
    ids = np.concatenate([parts[split][2] for split in labels])
    table = pa.table({SAMPLE_ID: pa.array(ids), LABEL: pa.array(np.concatenate(list(labels.values())))})
    job.attempt.write_table(LABELS_FILE, table)
    agreement = {"agreement": float((labels["train"] == own).mean())} if info["num_classes"] else {}
    return {"num_classes": num_classes, **agreement}


def _predicted(job: Job, images: np.ndarray) -> np.ndarray:
    network, device = job.inputs["network"], device_of(job)
    extract = feature_function("classifier", network, job.inputs["real"].info, device)
    with torch.no_grad():
        parts = [extract(batch.to(device)).cpu() for batch in torch.from_numpy(images).split(ENCODE_BATCH)]
    seen = predict_classes(network, torch.cat(parts).numpy())
    if seen is None:
        raise UserError("data.labels = predicted: needs metrics.feature_network = classifier")
    return seen


def _clustered(
    job: Job, parts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], num_clusters: int
) -> dict[str, np.ndarray]:
    """Cluster numbers of every split."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    config, seed = job.config, job.config["seed"]
    encoder = load_encoder(job.inputs["encoder"], "flatten", seed_for(seed, "label-noise"), device_of(job))
    hidden = {split: encoder.encode(images, ids, config["timestep"]) for split, (images, _, ids) in parts.items()}
    cluster = ssc_omp if config["source"] == "ssc_omp" else kmeans_labels
    labels = {"train": cluster(hidden["train"], num_clusters, rng_for(seed, "clusters"))}
    nearest = KNeighborsClassifier(n_neighbors=1).fit(normalize(hidden["train"]), labels["train"])
    return labels | {split: nearest.predict(normalize(hidden[split])) for split in parts if split != "train"}


def _named(labels: dict[str, np.ndarray], own: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """The same clusters, called by the classes `own` of the training images that they agree with most."""
    clusters = np.concatenate(list(labels.values()))
    classes = np.full_like(clusters, UNLABELLED)
    classes[: len(own)] = own  # "train" comes first
    names = match_clusters(clusters, classes, num_classes)
    return dict(zip(labels, np.split(names, np.cumsum([len(c) for c in labels.values()])[:-1]), strict=True))
