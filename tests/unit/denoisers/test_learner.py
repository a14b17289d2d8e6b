"""Which images make up which batch, and who takes which part of it."""

from __future__ import annotations

import numpy as np
import pytest

from autophagy.denoisers.learner import Batches, Worker


class TestBatches:
    def test_every_image_comes_once_an_epoch(self):
        batches = Batches(num_images=10, batch_size=5, seed=0)
        for epoch in range(4):
            rows = np.concatenate([batches[2 * epoch], batches[2 * epoch + 1]])
            assert sorted(rows) == list(range(10))

    @pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 13, 25])
    def test_a_batch_reaches_into_the_next_epoch(self, batch_size):
        batches = Batches(num_images=10, batch_size=batch_size, seed=0)
        row = np.concatenate([batches[step] for step in range(100)])
        assert len(row) == 100 * batch_size
        whole = row[: len(row) // 10 * 10].reshape(-1, 10)
        assert (np.sort(whole, axis=1) == np.arange(10)).all()

    def test_the_row_of_images_does_not_depend_on_the_batch_size(self):
        small, large = Batches(10, 4, 0), Batches(10, 12, 0)
        assert np.concatenate([small[s] for s in range(3)]).tolist() == large[0].tolist()

    def test_any_step_can_be_asked_for_first(self):
        assert Batches(10, 3, 0)[57].tolist() == [Batches(10, 3, 0)[s] for s in range(58)][-1].tolist()

    def test_epochs_and_seeds_are_ordered_differently(self):
        rows = [Batches(100, 100, seed)[epoch].tolist() for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(r) for r in rows}) == 4

    def test_one_image_is_enough(self):
        assert Batches(1, 4, 0)[2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 5, 16, 33, 128])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_workers_share_a_batch_evenly_and_leave_nothing(size, world_size):
    parts = [np.arange(size)[Worker(rank, world_size).share(size)] for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(size))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_process_alone_takes_all():
    assert Worker().share(33) == slice(0, 33)
