"""Which images make up which batch, who takes which part of it, how many steps there are, what is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from autophagy.common.samples import REAL, sample_ids, sample_index
from autophagy.data.pixels import RealImages
from autophagy.data.tables import to_table
from autophagy.denoisers.config import Training
from autophagy.denoisers.learner import Batches, _slice, num_steps
from autophagy.stages.payloads import read_training_set
from autophagy.store import Artifact, Attempt, StageStore


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
    parts = [np.arange(size)[_slice(size, rank, world_size)] for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(size))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


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


class TestRead:
    """What a generation is trained on, from real artifacts; the pixels of an image say which it is."""

    NUM_REAL, NUM_MADE = 12, 6

    @pytest.fixture
    def artifacts(self, tmp_path) -> Mapping[str, Artifact]:
        store = StageStore(tmp_path / "store")

        def images(ids: np.ndarray, offset: int) -> Any:
            values = (offset + sample_index(ids)).astype(np.uint8)
            pixels = np.broadcast_to(values[:, None, None, None], (len(ids), 4, 4, 1)).copy()
            rows = np.arange(len(ids))
            return to_table(RealImages(pixels, values.astype(np.int64) % 3, ("a", "b", "c")), rows, ids)

        def real(attempt: Attempt) -> None:
            # Two files and a split that is not to be trained on, in an order that is not that of the ids.
            attempt.write_table("images/train/part-1.parquet", images(sample_ids(REAL, 0, 5), 0))
            attempt.write_table("images/train/part-0.parquet", images(sample_ids(REAL, 5, 7), 0))
            attempt.write_table("images/held_out/part-0.parquet", images(sample_ids(REAL, 12, 4), 0))
            attempt.write_table("images/fresh/part-0.parquet", images(sample_ids(REAL, 16, 4), 0))
            attempt.info.update(first_index={"train": 0}, sizes={"train": self.NUM_REAL})

        def made(generation: int, attempt: Attempt) -> None:
            ids = sample_ids(generation, 0, self.NUM_MADE)
            attempt.write_table("images/shard-0.parquet", images(ids, 100 * (generation + 1)))

        built = {"real": store.build("real", "r", {}, real)}
        for k in (0, 1):
            built[f"samples/{k}"] = store.build("generate", f"g{k}", {}, lambda attempt, k=k: made(k, attempt))
        return built

    def read(self, artifacts: Mapping[str, Artifact], kept: np.ndarray | None) -> tuple[list[int], list[int]]:
        """Pixel value and label of every image of the training set."""
        import pyarrow as pa

        inputs = dict(artifacts)
        if kept is None:
            inputs = {"real": artifacts["real"]}
        else:
            store = StageStore(artifacts["real"].storage.uri)
            table = pa.table({"sample_id": kept})
            inputs["select"] = store.build(
                "select", "s", {}, lambda attempt: attempt.write_table("kept.parquet", table)
            )
        images, labels = read_training_set(inputs)
        assert images.shape == (len(labels), 4, 4, 1)
        assert (images == images[:, :1, :1]).all()
        images += 0  # writable: training must not fail on Arrow's read-only memory
        return images[:, 0, 0, 0].tolist(), labels.tolist()

    def test_generation_0_reads_the_real_set_in_the_order_of_its_ids(self, artifacts):
        values, labels = self.read(artifacts, None)
        assert values == list(range(self.NUM_REAL))
        assert labels == [v % 3 for v in values]

    def test_later_ones_read_what_was_selected_in_the_order_of_the_ids(self, artifacts):
        kept = np.concatenate(
            [sample_ids(1, 4, 1), sample_ids(REAL, 3, 2), sample_ids(0, 1, 3), sample_ids(REAL, 17, 1)]
        )
        values, labels = self.read(artifacts, kept)
        assert values == [3, 4, 17, 101, 102, 103, 204]
        assert labels == [v % 3 for v in values]

    def test_synthetic_images_alone(self, artifacts):
        assert self.read(artifacts, sample_ids(0, 0, 6))[0] == [100, 101, 102, 103, 104, 105]
