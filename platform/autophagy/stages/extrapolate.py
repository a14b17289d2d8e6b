"""`extrapolate`: weights that are moved away from those of an auxiliary model (Neon, arXiv 2510.03597)."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.numpy import load, save

from autophagy.common.section import Section
from autophagy.corrections import Neon
from autophagy.engine.job import Info, Job
from autophagy.engine.stage import Stage
from autophagy.stages.payloads import WEIGHTS

VERSION = 1


class Config(Section):
    """What a `extrapolate` stage is keyed by."""

    weight: float


def stage(k: int, inputs: Mapping[str, Stage], correction: Neon) -> Stage:
    """The weights of generation k >= 1; `inputs` as `build` has them."""
    return Stage("extrapolate", build, Config(weight=correction.weight), inputs, version=VERSION, generation=k)


def build(job: Job[Config]) -> Info:
    """Write the weights `(1 + w) theta - w theta_aux`. Inputs: `model` and `auxiliary`, both of this generation."""
    weight = job.config.weight
    own, auxiliary = (load(job.inputs[role].read_bytes(WEIGHTS)) for role in ("model", "auxiliary"))
    weights = {name: (1 + weight) * value - weight * auxiliary[name] for name, value in own.items()}
    job.attempt.write_bytes(WEIGHTS, save({n: v.astype(own[n].dtype) for n, v in weights.items()}))
    return {name: job.inputs["model"].info[name] for name in ("model", "shape")}
