"""The softmax probe of Latent Space Filtering: own-label confidence of an image, from its bottleneck latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load, save

TIMESTEPS = (10, 50, 100, 200, 400, 600)  # what `timestep: auto` chooses from, as shares of a thousand steps
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse L2 strengths tried against the validation images
FIXED_PENALTY = 1e-2  # while timesteps are compared


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardised latents at one timestep."""

    timestep: int
    mean: np.ndarray  # float32 [L]
    scale: np.ndarray  # float32 [L]
    weight: np.ndarray  # float32 [C, L]
    bias: np.ndarray  # float32 [C]

    def probabilities(self, latents: np.ndarray) -> np.ndarray:
        """softmax(W h + b) of latents [n, L]: float32 [n, C]."""
        logits = ((latents - self.mean) / self.scale) @ self.weight.T + self.bias
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Probe:
    """One linear probe per timestep; their probabilities are averaged."""

    parts: tuple[LinearProbe, ...]
    pool: str
    seed: int  # of the noise that latents are diffused with

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps at which latents are needed, in the order of the parts."""
        return tuple(p.timestep for p in self.parts)

    def probabilities(self, latents: Sequence[np.ndarray]) -> np.ndarray:
        """Mean over timesteps of the class probabilities, float32 [n, C]; `latents` holds [n, L] per timestep."""
        return np.mean([p.probabilities(h) for p, h in zip(self.parts, latents, strict=True)], axis=0)

    def confidence(self, latents: Sequence[np.ndarray], label: np.ndarray) -> np.ndarray:
        """Own-label confidence xi(x, y) = softmax(o(x))_y (LSF), float32 [n].

        NaN for a sample without a label, 0 for a class that the probe was not fitted on.
        """
        known = self.probabilities(latents)
        own = known[np.arange(len(label)), label.clip(0, known.shape[1] - 1)]
        own = np.where(label < known.shape[1], own, 0)
        return np.where(label >= 0, own, np.nan).astype(np.float32)

    def to_bytes(self) -> tuple[bytes, dict[str, Any]]:
        """Arrays as safetensors, and what else is needed to read them back."""
        arrays = {}
        for i, part in enumerate(self.parts):
            for name in ("mean", "scale", "weight", "bias"):
                arrays[f"{i}.{name}"] = np.ascontiguousarray(getattr(part, name))
        return save(arrays), {"timesteps": list(self.timesteps), "pool": self.pool, "seed": self.seed}

    @classmethod
    def from_bytes(cls, data: bytes, info: dict[str, Any]) -> Probe:
        """The inverse of `to_bytes`."""
        arrays = load(data)
        parts = tuple(
            LinearProbe(t, *(arrays[f"{i}.{name}"] for name in ("mean", "scale", "weight", "bias")))
            for i, t in enumerate(info["timesteps"])
        )
        return cls(parts, info["pool"], info["seed"])


@dataclass(frozen=True)
class Split:
    """Latents [n, L] and labels [n] of the images a probe is fitted on and of those it is validated on."""

    fit: np.ndarray
    fit_label: np.ndarray
    validation: np.ndarray
    validation_label: np.ndarray


def fit_linear(split: Split, timestep: int, penalty: float) -> tuple[LinearProbe, float]:
    """Softmax regression with L2 of inverse strength `penalty`, and its accuracy on the validation images."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = split.fit.mean(axis=0), split.fit.std(axis=0) + 1e-6
    model = LogisticRegression(C=penalty, max_iter=200, tol=1e-3)
    model.fit((split.fit - mean) / scale, split.fit_label)
    num_classes = int(max(split.fit_label.max(), split.validation_label.max())) + 1
    weight = np.zeros((num_classes, split.fit.shape[1]), np.float32)
    bias = np.full(num_classes, -1e9, np.float32)  # a class without images has no probability
    # With two classes sklearn keeps the second one's row only; the first one's logit is then 0.
    rows = model.classes_[1:] if len(model.classes_) == 2 else model.classes_
    bias[model.classes_] = 0.0
    weight[rows], bias[rows] = model.coef_, model.intercept_
    probe = LinearProbe(timestep, mean.astype(np.float32), scale.astype(np.float32), weight, bias)
    accuracy = probe.probabilities(split.validation).argmax(axis=1) == split.validation_label
    return probe, float(accuracy.mean())


def fit_best_penalty(split: Split, timestep: int) -> tuple[LinearProbe, float, float]:
    """The probe whose L2 strength does best on the validation images, with its accuracy and its penalty."""
    fits = [(*fit_linear(split, timestep, penalty), penalty) for penalty in PENALTIES]
    return max(fits, key=lambda f: f[1])  # the first of equals: the strongest L2
