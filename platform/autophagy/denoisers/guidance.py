"""Predictions moved away from another one's: classifier-free guidance, and SIMS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autophagy.denoisers.base import Denoiser

# Predictions [B, C, H, W] for noisy images [B, C, H, W] at timesteps [B] under conditions [B].
Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# One's own prediction, and that which it is moved away from.
Pair = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def guided(both: Pair, scale: float) -> Predict:
    """The reference, and `scale` times the way from it to one's own prediction: a scale of 1 changes nothing."""

    def predict(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        own, reference = both(x, t, condition)
        return reference + scale * (own - reference)

    return predict


def classifier_free(predict: Predict, null: int, scale: float) -> Predict:
    """Away from the prediction under the null condition (arXiv 2207.12598); both in one batch."""

    def both(x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        own = torch.full_like(t, null) if condition is None else condition
        conditions = torch.cat([own, torch.full_like(own, null)])
        conditional, unconditional = predict(torch.cat([x, x]), torch.cat([t, t]), conditions).chunk(2)
        return conditional, unconditional

    return guided(both, scale)


def extrapolated(predict: Predict, auxiliary: Predict, weight: float) -> Predict:
    """Away from the prediction of an auxiliary denoiser, `(1 + w) own - w auxiliary` (SIMS, arXiv 2408.16333)."""
    return guided(lambda x, t, condition: (predict(x, t, condition), auxiliary(x, t, condition)), 1 + weight)


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
