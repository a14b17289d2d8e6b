"""What no section of an experiment sees by itself: a line for each thing in which its sections do not fit together."""

from __future__ import annotations

from collections.abc import Iterator

from autophagy.common.errors import without_secrets
from autophagy.common.samples import CONFIDENCE, LATENT, MOST_IMAGES
from autophagy.data.config import CLUSTERED, Data
from autophagy.denoisers import Model
from autophagy.denoisers.config import Generation, Training
from autophagy.features.config import Metrics
from autophagy.scenarios import Scenario
from autophagy.selection import Selector


def number_problems(budget: int, keep_ratio: float, metrics: Metrics) -> Iterator[str]:
    """Of how many images there are."""
    if budget / keep_ratio >= MOST_IMAGES:
        yield (
            f"keep_ratio = {keep_ratio} makes budget / keep_ratio = {budget / keep_ratio:.3g} images a generation; it "
            f"must be less than {MOST_IMAGES:.0e}"
        )
    if metrics.num_samples <= metrics.k:
        yield f"metrics.num_samples = {metrics.num_samples} must be more than metrics.k = {metrics.k}"


def denoiser_problems(data: Data, model: Model, generation: Generation, selection: Selector) -> Iterator[str]:
    """Of the size of images, and of timesteps."""
    if misfit := model.problem(data.image_size):
        yield misfit
    steps = model.num_train_timesteps
    if generation.num_inference_steps > steps:
        yield (
            f"generation.num_inference_steps = {generation.num_inference_steps} is more than "
            f"model.num_train_timesteps = {steps}; use at most that"
        )
    latest = max(selection.probe.timesteps, default=0) if selection.probe else 0
    if latest >= steps:
        yield f"selection.timestep = {latest} must be below model.num_train_timesteps = {steps}"
    if data.labels in CLUSTERED and data.cluster_timestep >= steps:
        yield f"data.cluster_timestep = {data.cluster_timestep} must be below model.num_train_timesteps = {steps}"


def data_problems(data: Data, metrics: Metrics) -> Iterator[str]:
    """Of where images and labels come from."""
    if without_secrets(data.source) != data.source:
        yield (
            f"data.source = {data.source} holds a key or password, which run folders and MLflow would show; give it "
            "in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if data.num_clusters is not None and data.labels not in CLUSTERED:
        yield (
            f"data.num_clusters = {data.num_clusters} has no meaning with data.labels = {data.labels}; set it to null, "
            "or data.labels to ssc_omp or kmeans"
        )
    if data.labels == "predicted" and metrics.feature_network != "classifier":
        yield f"data.labels = predicted needs metrics.feature_network = classifier, not {metrics.feature_network}"


def guidance_problems(model: Model, training: Training, generation: Generation) -> Iterator[str]:
    """Of guidance by labels."""
    if generation.guidance_scale is None:
        return
    if training.condition_dropout == 0:
        yield (
            f"generation.guidance_scale = {generation.guidance_scale} needs training.condition_dropout > 0, such as 0.1"
        )
    if not model.conditional:
        yield (
            f"generation.guidance_scale = {generation.guidance_scale} needs labels; set model.conditional=true, or no "
            "guidance"
        )


def label_problems(labelled: bool, selection: Selector, metrics: Metrics) -> Iterator[str]:
    """Of what needs samples to have a label."""
    if labelled:
        return
    needs_labels = {
        f"selection.strategy = {selection.strategy}": bool(selection.needs & {CONFIDENCE, LATENT}),
        "selection.per_class = true": selection.per_class,
        "metrics.feature_network = latent": metrics.feature_network == "latent",
    }
    for setting in (setting for setting, needed in needs_labels.items() if needed):
        yield (
            f"{setting} needs labelled samples; set model.conditional=true, or data.labels to ssc_omp, kmeans or "
            "predicted, or change it"
        )


def schedule_problems(data: Data, model: Model, scenario: Scenario) -> Iterator[str]:
    """Of classes that come and go."""
    if (data.appear or data.vanish) and not model.conditional:
        yield (
            "data.appear, data.vanish: need samples that were asked for a class; set model.conditional=true, or leave "
            "them out"
        )
    if data.appear and scenario.kind == "fresh_mix":
        yield (
            f"data.appear = {data.appear}: scenario.kind = fresh_mix hands out fresh images whatever their class; use "
            "constant_mix, or another scenario"
        )
    for label, end in data.vanish.items():
        first = data.appear.get(label, 0)
        if end <= first:
            yield (
                f"data.vanish.{label} = {end}: the class appears in generation {first}; set it to {first + 1} or more"
            )
