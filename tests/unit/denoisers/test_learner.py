"""Which images make up which batch, what is drawn for them, and who takes which part of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autophagy.common.samples import sample_ids
from autophagy.denoisers import UNet
from autophagy.denoisers.batches import Batches, Draws
from autophagy.denoisers.diffusion import Diffusion
from autophagy.denoisers.learner import Worker


class TestBatches:
    def test_every_image_comes_once_an_epoch(self):
        batches = Batches(num_images=10, batch_size=5, seed=0)
        for epoch in range(4):
            rows = np.concatenate([batches[2 * epoch][0], batches[2 * epoch + 1][0]])
            assert sorted(rows) == list(range(10))

    @pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 13, 25])
    def test_a_batch_reaches_into_the_next_epoch(self, batch_size):
        batches = Batches(num_images=10, batch_size=batch_size, seed=0)
        row = np.concatenate([batches[step][0] for step in range(100)])
        assert len(row) == 100 * batch_size
        whole = row[: len(row) // 10 * 10].reshape(-1, 10)
        assert (np.sort(whole, axis=1) == np.arange(10)).all()

    def test_the_row_of_images_does_not_depend_on_the_batch_size(self):
        small, large = Batches(10, 4, 0), Batches(10, 12, 0)
        assert np.concatenate([small[s][0] for s in range(3)]).tolist() == large[0][0].tolist()

    def test_any_step_can_be_asked_for_first(self):
        assert Batches(10, 3, 0)[57][0].tolist() == [Batches(10, 3, 0)[s][0] for s in range(58)][-1].tolist()

    def test_epochs_and_seeds_are_ordered_differently(self):
        rows = [Batches(100, 100, seed)[epoch][0].tolist() for seed in (0, 1) for epoch in (0, 1)]
        assert len({tuple(r) for r in rows}) == 4

    def test_one_image_is_enough(self):
        rows, epochs = Batches(1, 4, 0)[2]
        assert rows.tolist() == [0, 0, 0, 0]
        assert epochs.tolist() == [8, 9, 10, 11]

    def test_it_is_told_how_often_an_image_was_used_before(self):
        assert Batches(10, 4, 0)[2][1].tolist() == [0, 0, 1, 1]


IDS, SHAPE = sample_ids(0, 0, 50), (1, 4, 4)


def drawn(
    ids: np.ndarray = IDS, batch_size: int = 33, first: int = 0, stop: int = 5, mine: slice = slice(None)
) -> list:
    """What is drawn for some steps on a training set."""
    batches, diffusion = Batches(len(ids), batch_size, 3), Diffusion(UNet(), torch.device("cpu"))
    return list(Draws(batches, torch.from_numpy(ids), diffusion, SHAPE, 0.25, 3)(first, stop, mine))


class TestDraws:
    def test_a_step_has_a_row_for_each_image_of_its_batch(self):
        draws = drawn()
        assert [d.rows.tolist() for d in draws] == [Batches(50, 33, 3)[step][0].tolist() for step in range(5)]
        assert {(d.t.shape, d.dropped.shape, d.noise.shape) for d in draws} == {((33,), (33,), (33, *SHAPE))}
        assert 0.1 < torch.cat([d.dropped for d in draws]).double().mean() < 0.4
        assert len(torch.cat([d.t for d in draws]).unique()) > 100

    def test_no_number_hangs_on_the_steps_drawn_together_or_on_where_they_begin(self, monkeypatch):
        whole = drawn()
        monkeypatch.setattr("autophagy.denoisers.batches._AT_ONCE", 1)
        for one, other in zip(whole[2:], drawn(first=2), strict=True):
            assert all(torch.equal(vars(one)[name], vars(other)[name]) for name in vars(one))

    def test_a_worker_draws_its_part(self):
        for one, part in zip(drawn(), drawn(mine=slice(8, 16)), strict=True):
            assert all(torch.equal(vars(one)[name][8:16], vars(part)[name]) for name in vars(one))
        assert all(len(d.noise) == 0 for d in drawn(mine=slice(0, 0)))

    def test_an_image_has_the_same_noise_in_every_training_set_and_batch(self):
        """Of other company, at other places: by sample id and epoch; in the next epoch it has another."""

        def by_image(ids: np.ndarray, batch_size: int) -> dict[tuple[int, int], tuple]:
            steps = range(2 * len(ids) // batch_size)
            epochs = [Batches(len(ids), batch_size, 3)[step][1] for step in steps]
            return {
                (int(ids[row]), int(epoch)): (int(t), bool(dropped), *noise.flatten().tolist())
                for d, of in zip(drawn(ids, batch_size, stop=len(steps)), epochs, strict=True)
                for row, epoch, t, dropped, noise in zip(d.rows, of, d.t, d.dropped, d.noise, strict=True)
            }

        some, others = by_image(IDS, 25), by_image(sample_ids(0, 30, 40), 8)
        shared = some.keys() & others.keys()
        assert len(shared) == 2 * 20
        assert {key: some[key] for key in shared} == {key: others[key] for key in shared}
        assert len({value[2] for value in some.values()}) == 2 * 50


@pytest.mark.parametrize("size", [1, 2, 5, 16, 33, 128])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_workers_share_a_batch_evenly_and_leave_nothing(size, world_size):
    parts = [np.arange(size)[Worker(rank, world_size).share(size)] for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(size))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_process_alone_takes_all():
    assert Worker().share(33) == slice(0, 33)
