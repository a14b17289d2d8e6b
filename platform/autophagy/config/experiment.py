"""The complete, typed description of one self-consuming loop: frozen, checked before any compute, content-addressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any

from pydantic import Field, model_validator

from autophagy.common.errors import without_secrets
from autophagy.common.samples import MOST_IMAGES
from autophagy.common.section import RUNTIME, Section, validate
from autophagy.common.seeds import digest
from autophagy.corrections import AnyCorrection, NoCorrection
from autophagy.data.config import CLUSTERED, Data
from autophagy.denoisers import AnyModel, UNet
from autophagy.denoisers.config import Generation, Training
from autophagy.features.config import Metrics
from autophagy.scenarios import AccumulateSubsample, AnyScenario, num_candidates
from autophagy.selection import AnySelector, ProbeSettings, Random

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Experiment(Section):
    """One self-consuming loop."""

    name: Annotated[str, Field(pattern=RUN_NAME, max_length=100), RUNTIME] = "loop"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    generations: Annotated[int, Field(ge=0, le=10_000)] = 4  # after generation 0
    budget: Annotated[int, Field(ge=1, lt=MOST_IMAGES)] = 500  # images trained on in each generation >= 1
    keep_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0  # every generation makes ceil(budget / keep_ratio)
    data: Data
    model: AnyModel = UNet()
    training: Training = Training()
    generation: Generation = Generation()
    scenario: AnyScenario = AccumulateSubsample()
    selection: AnySelector = Random()
    correction: AnyCorrection = NoCorrection()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for wrong, message in chain(self._number_problems(), self._label_problems(), self._schedule_problems()):
            if wrong:
                raise ValueError(message)
        return self

    def _number_problems(self) -> Iterator[tuple[bool, str]]:
        """What no section can see by itself, of numbers: whether it is wrong, and what to say."""
        misfit = self.model.problem(self.data.image_size)
        yield misfit is not None, str(misfit)
        yield (
            self.budget / self.keep_ratio >= MOST_IMAGES,
            f"keep_ratio = {self.keep_ratio} makes budget / keep_ratio = {self.budget / self.keep_ratio:.3g} images "
            f"a generation; it must be less than {MOST_IMAGES:.0e}",
        )
        steps, inference_steps = self.model.num_train_timesteps, self.generation.num_inference_steps
        yield (
            inference_steps > steps,
            f"generation.num_inference_steps = {inference_steps} is more than model.num_train_timesteps = {steps}; "
            "use at most that",
        )
        latest = max(self.probe.timesteps, default=0)
        yield latest >= steps, f"selection.timestep = {latest} must be below model.num_train_timesteps = {steps}"
        yield (
            self.metrics.num_samples <= self.metrics.k,
            f"metrics.num_samples = {self.metrics.num_samples} must be more than metrics.k = {self.metrics.k}",
        )

    def _label_problems(self) -> Iterator[tuple[bool, str]]:
        """The same of the data and what needs their labels."""
        data, steps = self.data, self.model.num_train_timesteps
        yield (
            without_secrets(data.source) != data.source,
            f"data.source = {data.source} holds a key or password, which run folders and MLflow would show; give it "
            "in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
        yield (
            data.labels in CLUSTERED and data.cluster_timestep >= steps,
            f"data.cluster_timestep = {data.cluster_timestep} must be below model.num_train_timesteps = {steps}",
        )
        yield (
            data.num_clusters is not None and data.labels not in CLUSTERED,
            f"data.num_clusters = {data.num_clusters} has no meaning with data.labels = {data.labels}; set it to null, "
            "or data.labels to ssc_omp or kmeans",
        )
        yield (
            data.labels == "predicted" and self.metrics.feature_network != "classifier",
            f"data.labels = predicted needs metrics.feature_network = classifier, not {self.metrics.feature_network}",
        )
        guidance, dropout = self.generation.guidance_scale, self.training.condition_dropout
        yield (
            guidance is not None and dropout == 0,
            f"generation.guidance_scale = {guidance} needs training.condition_dropout > 0, such as 0.1",
        )
        yield (
            guidance is not None and not self.model.conditional,
            f"generation.guidance_scale = {guidance} needs labels; set model.conditional=true, or no guidance",
        )
        needs = self.selection.needs
        labelled = {
            f"selection.strategy = {self.selection.strategy}": "confidence" in needs or "latent" in needs,
            "selection.per_class = true": self.selection.per_class,
            "metrics.feature_network = latent": self.metrics.feature_network == "latent",
        }
        for setting, needs_labels in labelled.items():
            yield (
                needs_labels and not self.labelled,
                f"{setting} needs labelled samples; set model.conditional=true, or data.labels to ssc_omp, kmeans or "
                "predicted, or change it",
            )

    def _schedule_problems(self) -> Iterator[tuple[bool, str]]:
        """The same of dynamic classes."""
        data = self.data
        yield (
            bool(data.appear or data.vanish) and not self.model.conditional,
            "data.appear, data.vanish: need samples that were asked for a class; set model.conditional=true, or leave "
            "them out",
        )
        yield (
            bool(data.appear) and self.scenario.kind == "fresh_mix",
            f"data.appear = {data.appear}: scenario.kind = fresh_mix hands out fresh images whatever their class; use "
            "constant_mix, or another scenario",
        )
        for label, end in data.vanish.items():
            first = data.appear.get(label, 0)
            yield (
                end <= first,
                f"data.vanish.{label} = {end}: the class appears in generation {first}; set it to {first + 1} or more",
            )

    @property
    def refresh(self) -> int | None:
        """Generations from one fit of the probe that selects to the next; None: fitted once."""
        return self.selection.refit_every

    @property
    def labelled(self) -> bool:
        """Whether samples have a label: the one asked for, or one assigned to them."""
        return self.model.conditional or self.data.labels in (*CLUSTERED, "predicted")

    @property
    def probe(self) -> ProbeSettings:
        """The probe of this loop: the selection's own, or the default one that only measures."""
        return self.selection.probe or ProbeSettings()

    @property
    def num_candidates(self) -> int:
        """Candidate images that every generation makes: ceil(budget / keep_ratio)."""
        return num_candidates(self.budget, self.keep_ratio)

    @property
    def num_fresh(self) -> int:
        """Fresh real images that the scenario uses up over the loop."""
        return self.scenario.num_fresh(self.generations, self.num_candidates)

    @property
    def num_set_aside(self) -> int:
        """Fresh images that the split must set aside; with `data.num_real` given all others are fresh anyway."""
        return 0 if self.data.num_real else self.num_fresh

    @property
    def digest(self) -> str:
        """Name of everything that changes this loop's numbers: going on for more generations does not."""
        keyed = self.keyed() | {"num_set_aside": self.num_set_aside}
        del keyed["generations"]
        return digest(keyed)


def parse(values: Mapping[str, Any]) -> Experiment:
    """An experiment from plain values, as a YAML file holds them.

    Raises:
        UserError: one line with the field, the value, and what is allowed.
    """
    return validate(Experiment, values)
