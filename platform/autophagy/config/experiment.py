"""The complete, typed description of one self-consuming loop: frozen, checked before any compute, content-addressed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any

from pydantic import Field, model_validator

from autophagy.common.samples import MOST_IMAGES
from autophagy.common.section import RUNTIME, Section, validate
from autophagy.common.seeds import digest
from autophagy.config import checks
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
        problems = chain(
            checks.number_problems(self.budget, self.keep_ratio, self.metrics),
            checks.denoiser_problems(self.data, self.model, self.generation, self.selection),
            checks.data_problems(self.data, self.metrics),
            checks.guidance_problems(self.model, self.training, self.generation),
            checks.label_problems(self.labelled, self.selection, self.metrics),
            checks.schedule_problems(self.data, self.model, self.scenario),
        )
        if problem := next(problems, None):
            raise ValueError(problem)
        return self

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

    def settled(self) -> Experiment:
        """The same loop with what `auto` stands for."""
        sections = {"training": self.training.settled(), "generation": self.generation.settled()}
        return self.model_copy(update=sections)

    @property
    def digest(self) -> str:
        """Name of everything that changes this loop's numbers: going on for more generations does not."""
        keyed = self.settled().keyed() | {"num_set_aside": self.num_set_aside}
        del keyed["generations"]
        return digest(keyed)


def parse(values: Mapping[str, Any]) -> Experiment:
    """An experiment from plain values, as a YAML file holds them.

    Raises:
        UserError: one line with the field, the value, and what is allowed.
    """
    return validate(Experiment, values)
