"""The network that measures, fitted on the real images."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from autophagy.common.errors import UserError
from autophagy.common.seeds import rng_for, seed_for
from autophagy.denoisers.noise import to_unit
from autophagy.engine.job import Job, device_of
from autophagy.features.config import EXTRAS
from autophagy.features.networks import NETWORK_FILE, Classifier, ready_made
from autophagy.stages.payloads import real_images

CLASSIFIER_STEPS = 800
CLASSIFIER_BATCH = 128


def fit_feature_network(job: Job) -> dict[str, Any]:
    """Builder of the `feature_network` stage. Input: `real`. Trains `classifier`; the other networks are ready made."""
    info = job.inputs["real"].info
    if job.config["kind"] in EXTRAS:
        ready_made(job.config["kind"], device_of(job))  # what cannot be loaded is one line here, a traceback later
    if job.config["kind"] != "classifier":
        return {}
    if not info["num_classes"]:
        raise UserError("metrics.feature_network = classifier: needs labels, and data.source has none; use pixels")
    device = device_of(job)
    images, labels, _ = real_images(job.inputs, "train")
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
    held_out, held_out_labels, _ = real_images(job.inputs, "held_out")
    job.attempt.write_bytes(NETWORK_FILE, save(network.cpu().state_dict()))
    network.eval()
    with torch.no_grad():
        predicted = torch.cat([network(to_unit(b)).argmax(1) for b in torch.from_numpy(held_out).split(1024)])
    return {"accuracy_held_out": float((predicted.numpy() == held_out_labels).mean())}
