"""Weights that are moved away from those of an auxiliary model."""

from __future__ import annotations

from typing import Any

from safetensors.numpy import load, save

from autophagy.engine.job import Job
from autophagy.stages.payloads import WEIGHTS_FILE


def extrapolate(job: Job) -> dict[str, Any]:
    """Builder of an `extrapolate` stage: weights `(1 + w) theta - w theta_aux`. Inputs: `model`, `auxiliary`."""
    weight = job.config["weight"]
    own, auxiliary = (load(job.inputs[role].read_bytes(WEIGHTS_FILE)) for role in ("model", "auxiliary"))
    weights = {name: (1 + weight) * value - weight * auxiliary[name] for name, value in own.items()}
    job.attempt.write_bytes(WEIGHTS_FILE, save({n: v.astype(own[n].dtype) for n, v in weights.items()}))
    return {name: job.inputs["model"].info[name] for name in ("model", "shape")}
