"""How many optimisation steps there are."""

from __future__ import annotations

import pytest

from autophagy.denoisers.config import Training
from autophagy.stages.train import num_steps


@pytest.mark.parametrize(
    ("budget", "num_images", "settings", "steps"),
    [
        (None, 1000, {}, 60 * 8),  # generation 0: ceil(1000 / 128) = 8 steps an epoch
        (None, 128, {}, 60),
        (500, 500, {}, 3 * 4),
        (500, 5000, {}, 3 * 4),  # a larger training set does not buy more training
        (500, 5000, {"equal_steps": False}, 3 * 40),
        (100, 100, {"global_batch_size": 100}, 3),
        (101, 101, {"global_batch_size": 100}, 6),
        (1, 1, {"epochs": 1}, 1),
    ],
)
def test_number_of_steps(budget, num_images, settings, steps):
    training = Training(initial_epochs=60, **{"epochs": 3, "global_batch_size": 128, **settings})
    assert num_steps(training, budget, num_images) == steps
