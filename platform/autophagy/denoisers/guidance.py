"""Predictions moved away from another one's: classifier-free guidance, and SIMS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autophagy.denoisers.base import Denoiser

# Predictions [B, C, H, W] for noisy images [B, C, H, W] at timesteps [B] under conditions [B].
Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def guided(own: Predict, reference: Predict, mix: Callable[[Tensor, Tensor], Tensor]) -> Predict:
    """What `mix` makes of one's own prediction and that of the reference."""
    return lambda x, t, condition: mix(own(x, t, condition), reference(x, t, condition))


def classifier_free(own: Predict, null: int, scale: float) -> Predict:
    """Away from the prediction under the null condition (arXiv 2207.12598): a scale of 1 changes nothing."""

    def free(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return own(x, t, torch.full_like(t, null))

    return guided(own, free, lambda conditional, unconditional: unconditional + scale * (conditional - unconditional))


def extrapolated(own: Predict, auxiliary: Predict, weight: float) -> Predict:
    """Away from the prediction of an auxiliary denoiser, `(1 + w) own - w auxiliary` (SIMS, arXiv 2408.16333)."""
    return guided(own, auxiliary, lambda eps, eps_auxiliary: (1 + weight) * eps - weight * eps_auxiliary)


def guide(denoiser: Denoiser, scale: float | None, auxiliary: Denoiser | None, weight: float) -> Predict:
    """The prediction that samples are made with: one's own, with what guidance is asked for.

    Args:
        denoiser: What predicts.
        scale: Of classifier-free guidance; None for none.
        auxiliary: What is moved away from; None for none.
        weight: How far away from the auxiliary denoiser.
    """
    predict: Predict = denoiser.predict
    if auxiliary is not None:
        predict = extrapolated(predict, auxiliary.predict, weight)
    if scale is not None and denoiser.null is not None:
        predict = classifier_free(predict, denoiser.null, scale)
    return predict
