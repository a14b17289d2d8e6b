"""Pixels and labels of real images, splits, and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autophagy.common.errors import UserError
from autophagy.common.samples import REAL, sample_ids
from autophagy.data.pixels import load_images
from autophagy.data.splits import Splits, split, split_sizes
from autophagy.data.tables import tensor_column, to_numpy
from autophagy.stages.payloads import sample_columns

GREY = np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8)
COLOUR = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0])


# Pixels and labels


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, GREY[..., None]),
        (GREY[:, None].astype(np.int64), GREY[..., None]),
        (GREY[..., None] / np.float32(255), GREY[..., None]),
        (COLOUR, COLOUR),
        (np.moveaxis(COLOUR, 3, 1) / 255, COLOUR),
        (GREY > 100, (GREY > 100)[..., None] * 255),
    ],
)
def test_npz_accepts_every_unambiguous_layout(tmp_path: Path, image: np.ndarray, expected: np.ndarray):
    np.savez_compressed(tmp_path / "a.npz", x_train=image, y_train=LABELS[:, None])
    images = load_images(f"npz:{tmp_path / 'a.npz'}", 8)
    np.testing.assert_array_equal(images.image, expected)
    assert images.image.dtype == np.uint8
    np.testing.assert_array_equal(images.label, LABELS)


def test_string_labels_are_numbered_in_sorted_order(tmp_path: Path):
    np.savez(tmp_path / "a.npz", image=GREY[:3], label=np.array(["b", "c", "a"]))
    images = load_images(f"npz:{tmp_path / 'a.npz'}", 8)
    assert images.classes == ("a", "b", "c")
    assert images.label.tolist() == [1, 2, 0]


def test_resize_averages_whole_blocks_and_crops_to_the_centre(tmp_path: Path):
    wide = np.zeros((1, 8, 12), dtype=np.uint8)
    wide[:, :, 2:10] = GREY[0]
    wide[:, :, [0, 1, 10, 11]] = 255  # outside the central square
    np.savez(tmp_path / "a.npz", image=wide)
    image = load_images(f"npz:{tmp_path / 'a.npz'}", 4).image[0, ..., 0]
    blocks = GREY[0].reshape(4, 2, 4, 2).mean(axis=(1, 3))
    assert np.abs(image - blocks).max() <= 0.5


def test_resize_by_a_fraction_does_not_alias(tmp_path: Path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (1, 28, 14))
    np.savez(tmp_path / "a.npz", image=stripes)
    image = load_images(f"npz:{tmp_path / 'a.npz'}", 12).image[0, :, 2:-2, 0]
    assert image.min() > 80  # stripes too fine to be seen become grey
    assert image.max() < 175


# Splits


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1797, None, None, 0), (1348, 449, 0)),
        ((70_000, None, None, 0), (60_000, 10_000, 0)),
        ((100, None, 20, 30), (50, 20, 30)),
        ((100, 40, 20, 30), (40, 20, 40)),
        ((100, 80, 20, 0), (80, 20, 0)),
        ((4, None, None, 0), (3, 1, 0)),
    ],
)
def test_splits_never_overlap_and_cover_all(sizes, expected, seed: int):
    assert split_sizes(*sizes) == expected
    rows = split(*sizes, seed=seed)
    assert (len(rows.train), len(rows.held_out), len(rows.fresh)) == expected
    together = np.concatenate([rows.train, rows.held_out, rows.fresh])
    assert together.dtype == np.int64
    np.testing.assert_array_equal(np.sort(together), np.arange(sizes[0]))


def test_split_is_a_seeded_permutation_with_a_stable_reference():
    def same(one: Splits, two: Splits) -> bool:
        return bool(np.array_equal(one.held_out, two.held_out))

    reference = split(1000, 300, 100, 0, seed=7)
    again = split(1000, 300, 100, 0, seed=7)
    assert all(np.array_equal(getattr(reference, part), getattr(again, part)) for part in vars(reference))
    assert same(reference, split(1000, 500, 100, 50, seed=7))
    assert not same(reference, split(1000, 300, 100, 0, seed=8))
    assert not np.array_equal(reference.held_out, np.sort(reference.held_out))


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((1797, 5000, None, 0), r"data.num_real = 5000: there are only 1797 images.*lower it \(1 to 1348\)"),
        ((100, 81, 20, 0), r"data.num_real = 81"),
        ((100, 0, 20, 0), r"data.num_real = 0"),
        ((100, 60, 20, 30), r"scenario.real_fraction: needs 30.*leave 20 of 100; lower data.num_real"),
        ((100, None, 20, 80), r"scenario.real_fraction: needs 80 .*20 held out leave 80 of 100"),
        ((100, None, 100, 0), r"data.num_held_out = 100"),
        ((100, None, 0, 0), r"data.num_held_out = 0"),
        ((3, None, None, 0), r"data.num_held_out = None: 0 of 3 images"),
    ],
)
def test_splits_that_cannot_be_made_name_the_field(sizes, named: str):
    with pytest.raises(UserError, match=named) as caught:
        split(*sizes, seed=0)
    assert "\n" not in str(caught.value)


# Tables


def test_table_round_trips_through_parquet(tmp_path: Path):
    rows = np.array([4, 0, 2])
    columns = {"label": pa.array(LABELS[rows]), "image": tensor_column(COLOUR[rows])}
    pq.write_table(pa.table(sample_columns(sample_ids(REAL, 0, 3)) | columns), tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["sample_id", "generation", "is_real", "label", "image"]
    assert [str(table.schema.field(name).type) for name in table.column_names[:4]] == [
        *("int64", "int32", "bool", "int64"),
    ]
    assert table.schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (8, 8, 3))
    np.testing.assert_array_equal(to_numpy(table, "image"), COLOUR[rows])
    np.testing.assert_array_equal(to_numpy(table, "label"), LABELS[rows])
    np.testing.assert_array_equal(to_numpy(table, "sample_id"), [0, 1, 2])
    assert to_numpy(table, "generation").tolist() == [REAL] * 3
    assert to_numpy(table, "is_real").all()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 3, 1), (0, 2, 3)])
def test_tensor_columns_of_any_shape_in_pieces(tmp_path: Path, dtype: str, shape: tuple[int, ...]):
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    table = pa.table({"x": tensor_column(array)})
    pq.write_table(pa.concat_tables([table, table.slice(1)]), tmp_path / "a.parquet", row_group_size=4)
    back = to_numpy(pq.read_table(tmp_path / "a.parquet"), "x")
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, np.concatenate([array, array[1:]]))


def test_tensor_column_copies_what_is_not_contiguous():
    array = np.moveaxis(COLOUR, 3, 1)
    np.testing.assert_array_equal(to_numpy(pa.table({"x": tensor_column(array)}), "x"), array)
