"""`feature_network`: the network that measures; the classifier is trained on the real images, others are ready made."""

from __future__ import annotations

from autophagy.common.errors import UserError
from autophagy.common.section import Section
from autophagy.config import Experiment
from autophagy.engine.job import Info, Job, Resources
from autophagy.engine.stage import Stage
from autophagy.features.config import EXTRAS
from autophagy.stages.payloads import NETWORK, RealInfo, real_images

VERSION = 1


class Config(Section):
    """What a `feature_network` stage is keyed by."""

    kind: str
    seed: int


def stage(e: Experiment, real: Stage) -> Stage:
    """What measures all generations of a loop."""
    config = Config(kind=e.metrics.feature_network, seed=e.seed)
    resources = Resources(use_gpu=e.training.use_gpu)
    return Stage("feature_network", build, config, {"real": real}, resources, VERSION)


def build(job: Job[Config]) -> Info:
    """Train the classifier, or see that the network is there. Input: `real`."""
    from autophagy.denoisers.weights import device_of
    from autophagy.features.networks import accuracy, fit_classifier, ready_made, weights_of

    kind, device = job.config.kind, device_of(job.resources.use_gpu)
    if kind in EXTRAS:
        ready_made(kind, device)  # what cannot be loaded is one line here, a traceback later
    if kind != "classifier":
        return {}
    num_classes = RealInfo.of(job.inputs["real"]).num_classes
    if not num_classes:
        raise UserError("metrics.feature_network = classifier: needs labels, and data.source has none; use pixels")
    images, labels, _ = real_images(job.inputs, "train")
    network = fit_classifier(images, labels, num_classes, job.config.seed, device)
    job.attempt.write_bytes(NETWORK, weights_of(network))
    held_out, held_out_labels, _ = real_images(job.inputs, "held_out")
    return {"accuracy_held_out": accuracy(network, held_out, held_out_labels)}
