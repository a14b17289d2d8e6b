"""What a generation is trained on, read from what stages wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from autophagy.common.samples import IMAGE, LABEL, REAL, SAMPLE_ID, sample_ids, sample_index
from autophagy.data.tables import tensor_column
from autophagy.stages.payloads import KEPT, SAMPLES, RealInfo, image_file, real_file, sample_columns, training_set
from autophagy.store import Artifact, Attempt, StageStore

NUM_REAL, NUM_MADE = 12, 6


def images(ids: np.ndarray, offset: int) -> pa.Table:
    """Images whose pixels say which they are: their index, and an offset of their generation."""
    values = (offset + sample_index(ids)).astype(np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (len(ids), 4, 4, 1))
    columns = {LABEL: pa.array(values.astype(np.int64) % 3), IMAGE: tensor_column(pixels)}
    return pa.table(sample_columns(ids) | columns)


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "store")


@pytest.fixture
def artifacts(store) -> dict[str, Artifact]:
    """Real images, and the samples of two generations."""

    def real(attempt: Attempt) -> None:
        # Two files and a split that is not to be trained on, in an order that is not that of the ids.
        attempt.write_table(real_file("train", 1), images(sample_ids(REAL, 0, 5), 0))
        attempt.write_table(real_file("train", 0), images(sample_ids(REAL, 5, 7), 0))
        attempt.write_table(real_file("held_out", 0), images(sample_ids(REAL, 12, 4), 0))
        attempt.write_table(real_file("fresh", 0), images(sample_ids(REAL, 16, 4), 0))
        attempt.info.update(vars(RealInfo({"train": NUM_REAL}, {"train": 0}, 1, 3, ["a", "b", "c"])))

    def made(generation: int, attempt: Attempt) -> None:
        ids = sample_ids(generation, 0, NUM_MADE)
        attempt.write_table(image_file(0), images(ids, 100 * (generation + 1)))

    built = {"real": store.build("real", "r", {}, real)}
    for k in (0, 1):
        built[f"{SAMPLES}{k}"] = store.build("generate", f"g{k}", {}, partial(made, k))
    return built


def selected(store: StageStore, ids: np.ndarray) -> Artifact:
    table = pa.table({SAMPLE_ID: ids})
    return store.build("select", "s", {}, lambda attempt: attempt.write_table(KEPT, table))


def read(inputs: Mapping[str, Artifact]) -> tuple[list[int], list[int]]:
    """Pixel value and label of every image of the training set."""
    images, labels, ids = training_set(inputs)
    assert images.shape == (len(labels), 4, 4, 1)
    assert (np.diff(ids) > 0).all()
    assert len(ids) == len(labels)
    assert (images == images[:, :1, :1]).all()
    images += 0  # writable: training must not fail on Arrow's read-only memory
    return images[:, 0, 0, 0].tolist(), labels.tolist()


def test_generation_0_reads_the_real_set_in_the_order_of_its_ids(artifacts):
    values, labels = read({"real": artifacts["real"]})
    assert values == list(range(NUM_REAL))
    assert labels == [v % 3 for v in values]


def test_later_ones_read_what_was_selected_in_the_order_of_the_ids(store, artifacts):
    kept = [sample_ids(1, 4, 1), sample_ids(REAL, 3, 2), sample_ids(0, 1, 3), sample_ids(REAL, 17, 1)]
    values, labels = read(artifacts | {"select": selected(store, np.concatenate(kept))})
    assert values == [3, 4, 17, 101, 102, 103, 204]
    assert labels == [v % 3 for v in values]


def test_synthetic_images_alone(store, artifacts):
    values, _ = read(artifacts | {"select": selected(store, sample_ids(0, 0, 6))})
    assert values == [100, 101, 102, 103, 104, 105]


def test_a_training_set_that_was_made_is_read_as_a_whole(artifacts):
    values, _ = read({"real": artifacts["real"], "training_set": artifacts[f"{SAMPLES}1"]})
    assert values == [200, 201, 202, 203, 204, 205]
