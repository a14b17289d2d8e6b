"""Guidance: the formulas of the papers, one by one and together."""

from __future__ import annotations

import pytest
import torch

from autophagy.denoisers.guidance import classifier_free, extrapolated, guide

NULL, SCALE, WEIGHT = 3, 2.5, 0.7
X, T = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([5, 50, 99])
CONDITION, FREE = torch.tensor([0, 1, 2]), torch.full((3,), NULL)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def auxiliary(built):
    return built(seed=5)


def test_classifier_free_guidance_moves_away_from_the_null_condition(denoiser):
    told, free = (denoiser.predict(X, T, condition) for condition in (CONDITION, FREE))
    expected = free + SCALE * (told - free)
    close(classifier_free(denoiser.predict, NULL, SCALE)(X, T, CONDITION), expected)
    close(guide(denoiser, SCALE, None, 0.0)(X, T, CONDITION), expected)
    assert not torch.allclose(expected, told)
    close(guide(denoiser, 0.0, None, 0.0)(X, T, CONDITION), free)  # of zero: the label is ignored
    close(guide(denoiser, 1.0, None, 0.0)(X, T, CONDITION), told)


def test_sims_moves_away_from_the_auxiliary_denoiser(denoiser, auxiliary):
    own, other = (made.predict(X, T, CONDITION) for made in (denoiser, auxiliary))
    expected = (1 + WEIGHT) * own - WEIGHT * other
    close(extrapolated(denoiser.predict, auxiliary.predict, WEIGHT)(X, T, CONDITION), expected)
    close(guide(denoiser, None, auxiliary, WEIGHT)(X, T, CONDITION), expected)
    assert not torch.allclose(expected, own)
    close(guide(denoiser, None, auxiliary, 0.0)(X, T, CONDITION), own)
    close(guide(denoiser, None, denoiser, WEIGHT)(X, T, CONDITION), own)


def test_with_both_what_is_guided_is_what_was_moved(denoiser, auxiliary):
    told, free = (
        (1 + WEIGHT) * denoiser.predict(X, T, condition) - WEIGHT * auxiliary.predict(X, T, condition)
        for condition in (CONDITION, FREE)
    )
    close(guide(denoiser, SCALE, auxiliary, WEIGHT)(X, T, CONDITION), free + SCALE * (told - free))


def test_without_guidance_or_without_a_null_condition_it_is_the_plain_prediction(denoiser, built):
    free = built(conditional=False)
    assert torch.equal(guide(denoiser, None, None, 0.0)(X, T, CONDITION), denoiser.predict(X, T, CONDITION))
    assert torch.equal(guide(free, SCALE, None, 0.0)(X, T, None), free.predict(X, T, None))
