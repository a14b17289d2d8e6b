"""The classes that samples are asked for: in proportion from the first on, whatever part of the row is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from autophagy.data.shares import classes_in_turn

WEIGHTS = [[1, 1, 1], [449, 1, 50], [9, 1], [3.5], [0, 2, 0, 1], [1] * 10, [0.1, 0.2, 0.7]]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_every_beginning_has_each_class_in_its_share(weights):
    row = classes_in_turn(np.array(weights), 0, 1000)
    assert (row.dtype, row.shape) == (np.int64, (1000,))
    counts = np.cumsum(row[:, None] == np.arange(len(weights)), axis=0)
    wanted = np.arange(1, 1001)[:, None] * np.array(weights) / np.sum(weights)
    assert np.abs(counts - wanted).max() < max(1, len(weights) / 2)
    assert np.abs(counts[-1] - wanted[-1]).max() <= 1
    assert not counts[-1][np.array(weights) == 0].any()


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_a_part_of_the_row_is_what_stands_there(weights):
    row = classes_in_turn(np.array(weights), 0, 1000)
    for start, stop in [(0, 1), (128, 256), (999, 1000), (5, 5)]:
        np.testing.assert_array_equal(classes_in_turn(np.array(weights), start, stop), row[start:stop])


def test_with_equal_shares_classes_take_turns():
    assert classes_in_turn(np.full(4, 25), 0, 9).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
