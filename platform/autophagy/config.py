"""The complete, typed description of one self-consuming loop: frozen, checked before any compute, content-addressed."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autophagy.corrections import AnyCorrection, NoCorrection, make_correction
from autophagy.records import UserError, digest, shown, without_secrets
from autophagy.scenarios import AccumulateSubsample, AnyScenario, make_scenario, num_candidates
from autophagy.selection import AnySelector, Random, make_selector
from autophagy.yaml_text import MAX_BYTES, MAX_DEPTH, read_yaml

CHOICES = (("selection", "strategy"), ("scenario", "kind"), ("correction", "kind"))
CLUSTERED = ("ssc_omp", "kmeans")  # label sources that look at no label
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MOST_IMAGES = 10**9  # of a generation: keys in the store hold their number in nine digits
Class = Annotated[int, Field(ge=0)]  # label
Validated = TypeVar("Validated", bound=BaseModel)
# What pydantic says in terms of its own.
_MESSAGES = {
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', with a letter or digit in front",
    "model_type": "write a mapping of fields",
}


class Section(BaseModel):
    """A part of an experiment. `keyed` is what changes numbers; the other fields only say where and how to compute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def keyed(self) -> dict[str, Any]:
        """The fields that change numbers, as JSON: what stage keys are made of."""
        runtime = {n for n, f in type(self).model_fields.items() if "runtime" in f.metadata}
        return self.model_dump(mode="json", exclude=runtime)


class Data(Section):
    """Real images."""

    source: str  # digits | fashion_mnist | idx:DIR | folder:DIR | npz:FILE | parquet:URI | hf:NAME
    image_size: Annotated[int, Field(ge=4, le=1024)] = 32  # pixels, square
    num_real: Annotated[int, Field(ge=2)] | None = None  # size of the fixed real set R; null: all that is left
    num_held_out: Annotated[int, Field(ge=2)] | None = None  # real reference of every metric; null: a quarter
    # Where labels come from. oracle: the data. ssc_omp, kmeans: clusters of latents of a denoiser trained without
    # labels. predicted: the feature classifier. shuffled: the data, but the probe is told wrong ones (a control).
    labels: Literal["oracle", "ssc_omp", "kmeans", "predicted", "shuffled"] = "oracle"
    num_clusters: Annotated[int, Field(ge=2, le=10_000)] | None = None  # null: as many as the data have classes
    cluster_timestep: Annotated[int, Field(ge=0)] = 100  # of the latents that are clustered
    # Dynamic classes: class -> generation. Samples are asked for only of classes with appear <= generation < vanish.
    appear: dict[Class, Annotated[int, Field(ge=1)]] = {}  # before it, no real image of the class is to be had either
    vanish: dict[Class, Annotated[int, Field(ge=1)]] = {}  # what there is of the class stays among the candidates

    def unseen(self, generation: int) -> list[int]:
        """Classes that have not appeared by a generation, sorted."""
        return sorted(c for c, first in self.appear.items() if first > generation)

    def absent(self, generation: int) -> list[int]:
        """Classes that the samples of a generation are not asked for, sorted: not yet there, or gone."""
        return sorted({*self.unseen(generation), *(c for c, end in self.vanish.items() if end <= generation)})


class Model(Section):
    """The denoiser: a diffusers `UNet2DModel` that predicts the noise."""

    block_out_channels: Annotated[tuple[Annotated[int, Field(ge=4, multiple_of=4)], ...], Field(min_length=1)] = (
        32,
        64,
    )
    layers_per_block: Annotated[int, Field(ge=1, le=8)] = 1
    attention: bool = False  # self-attention at the lowest resolution
    conditional: bool = True  # on the class label
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"


class Training(Section):
    """How a generation is trained. Every generation after 0 takes the same number of optimisation steps."""

    initial_epochs: Annotated[int, Field(ge=1)] = 60  # generation 0, over the real set
    epochs: Annotated[int, Field(ge=1)] = 3  # later generations, over `budget` images
    equal_steps: bool = True  # epochs count over `budget` images even where the training set is larger (accumulate)
    init: Literal["previous", "scratch", "initial"] = "previous"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3  # of AdamW
    fine_tune_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None  # generations >= 1; null: the same
    global_batch_size: Annotated[int, Field(ge=1)] = 128
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999  # of the weights that generate
    condition_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of labels replaced by the null condition
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast where the hardware has it
    num_workers: Annotated[int, Field(ge=0), "runtime"] = 1  # Ray Train workers; 0: in the loop's own process
    use_gpu: Annotated[bool, Field(), "runtime"] = False
    checkpoint_every: Annotated[int, Field(ge=1), "runtime"] = 500  # optimisation steps
    resident_bytes: Annotated[int, Field(ge=0), "runtime"] = 4 << 30  # training sets up to this stay on the device


class Generation(Section):
    """How a trained model is sampled."""

    sampler: Literal["ddim", "ddpm"] = "ddim"
    num_inference_steps: Annotated[int, Field(ge=1, le=10_000)] = 25
    guidance_scale: Annotated[float, Field(ge=0)] | None = None  # null: none; 1: none, at twice the cost
    shard_size: Annotated[int, Field(ge=1, le=4096)] = 128  # images per unit of work; part of the numbers
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    num_actors: Annotated[int, Field(ge=0), "runtime"] = 1  # sampler actors; 0: tasks in pooled worker processes
    use_gpu: Annotated[bool, Field(), "runtime"] = False


class Metrics(Section):
    """What is measured, from the same number of samples and the same held-out reference in every generation."""

    feature_network: Literal["classifier", "latent", "pixels", "inception", "dinov2"] = "classifier"
    num_samples: Annotated[int, Field(ge=10, lt=MOST_IMAGES)] = 1000  # first images of every generation, unfiltered
    k: Annotated[int, Field(ge=1, le=100)] = 5  # neighbours of precision, recall, density, coverage


class Probe(Section):
    """The softmax probe on bottleneck latents; taken from the selection where the strategy has its own."""

    timestep: Literal["auto"] | int | tuple[int, ...] = "auto"  # auto: best held-out accuracy on a grid
    pool: Literal["flatten", "mean", "max"] = "flatten"

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps that were given; empty for auto."""
        if self.timestep == "auto":
            return ()
        return (self.timestep,) if isinstance(self.timestep, int) else self.timestep


class Experiment(Section):
    """One self-consuming loop."""

    name: Annotated[str, Field(pattern=RUN_NAME, max_length=100), "runtime"] = "loop"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    generations: Annotated[int, Field(ge=0, le=10_000)] = 4  # after generation 0
    budget: Annotated[int, Field(ge=1, lt=MOST_IMAGES)] = 500  # images trained on in each generation >= 1
    keep_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0  # every generation makes ceil(budget / keep_ratio)
    data: Data
    model: Model = Model()
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
        halvings, size = len(self.model.block_out_channels) - 1, self.data.image_size
        yield (
            bool(size % 2**halvings),
            f"data.image_size = {size} cannot be halved {halvings} times; use a multiple of {2**halvings} "
            "or fewer model.block_out_channels",
        )
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
        return self.selection.model_dump(include={"refresh"}).get("refresh")

    @property
    def labelled(self) -> bool:
        """Whether samples have a label: the one asked for, or one assigned to them."""
        return self.model.conditional or self.data.labels in (*CLUSTERED, "predicted")

    @property
    def probe(self) -> Probe:
        """The probe of this loop: the selection's own, or the default one that only measures."""
        return Probe(**self.selection.model_dump(include={"timestep", "pool"}))

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
        sections = {n: v.keyed() for n, v in self if isinstance(v, Section)}
        keyed = self.keyed() | sections | {"num_set_aside": self.num_set_aside}
        del keyed["generations"]
        # Fields that are younger than runs in use: where they say nothing, the runs keep their digests.
        for section, field in (("data", "appear"), ("data", "vanish"), ("selection", "refresh")):
            if not keyed[section].get(field):
                keyed[section].pop(field, None)
        return digest(keyed)


def parse(values: Mapping[str, Any]) -> Experiment:
    """An experiment from plain values, as a YAML file holds them.

    Raises:
        UserError: one line with the field, the value, and what is allowed.
    """
    if "selection" in values:
        make_selector(values["selection"])
    if "scenario" in values:
        make_scenario(values["scenario"])
    if "correction" in values:
        make_correction(values["correction"])
    return validate(Experiment, values)


def validate(model: type[Validated], values: Mapping[str, Any]) -> Validated:
    """`values` as a model; a UserError of one line with the first field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, model)) from None


def override(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values` with settings such as `training.epochs=5` applied, as `assign` does; a value is read as YAML."""
    return assign(values, dict(map(parse_setting, settings)))


def assign(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with fields set by their dotted names.

    Choosing another `selection.strategy`, `scenario.kind` or `correction.kind` starts that section anew, from the
    defaults of the choice.
    """
    result = copy.deepcopy(dict(values))
    paths = [(name.split("."), value) for name, value in settings.items()]
    for path, value in sorted(paths, key=lambda p: p[0][-1] not in ("strategy", "kind")):
        if len(path) > MAX_DEPTH:
            raise UserError(f"--set {'.'.join(path)}: has {len(path)} parts; no field is that deep")
        section = result
        for part in path[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"--set {'.'.join(path)}: {part} has no fields; give it a value instead")
        if tuple(path) in CHOICES and section.get(path[-1]) != value:
            section.clear()
        section[path[-1]] = value
    return result


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, see `read_yaml`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a recipe name or a YAML file") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of fields such as `seed: 0`, not {type(values).__name__}")
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name; lists stay whole, as text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def parse_setting(text: str) -> tuple[str, Any]:
    """Dotted name and value of a setting such as `training.epochs=5`."""
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(f"--set {text}: must be written as section.field=value, such as training.epochs=5")
    return name.strip(), read_yaml(value, f"--set {text}")


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error as one line: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    # The tags of a union, such as the strategy, stand in the location too but are no fields.
    tags = ("int", "float", "str", "[key]")
    path = [str(p) for p in first["loc"] if str(p) not in tags and not str(p).startswith("constrained")]
    field, value = ".".join(path), first["input"]
    if first["type"] == "extra_forbidden":
        names = _fields_of(model, path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"fields here: {', '.join(names)}"
        return f"{field} = {shown(value)}: no such field; {hint}"
    if first["type"] == "missing":
        return f"{field}: is missing and has no default; set it"
    message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{field} = {shown(value)}: {message[0].lower()}{message[1:]}" if field else message


def _fields_of(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the fields of a section of a model."""
    section = model
    for part in path:
        annotation = section.model_fields[part].annotation
        section = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
    return list(section.model_fields)
