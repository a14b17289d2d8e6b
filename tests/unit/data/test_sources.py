"""Every source of real images, from real files; what is wrong with one is said in one line; fingerprints."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from autophagy.common.errors import UserError
from autophagy.data.pixels import load_images
from autophagy.data.sources import arrow, base
from autophagy.data.sources import open as opening
from autophagy.data.sources.open import fingerprint
from autophagy.data.tables import tensor_column
from autophagy.graph import plan_loop

GREY = np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8)
COLOUR = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0])


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray, compress: bool) -> None:
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        data = idx_bytes(array)
        write(folder / (name + ".gz" * compress), gzip.compress(data) if compress else data)


def write_parquet(path: Path, image: pa.Array, **columns: object) -> str:
    pq.write_table(pa.table({"image": image, **columns}), path)
    return f"parquet:{path}"


# Sources


def test_digits_cover_the_whole_range_and_resize():
    digits = load_images("digits", 8)
    assert digits.image.shape == (1797, 8, 8, 1)
    assert digits.image.dtype == np.uint8
    assert (digits.image.min(), digits.image.max()) == (0, 255)
    assert digits.image[0, 0, 2, 0] == round(5 * 255 / 16)
    assert digits.label.dtype == np.int64
    assert digits.label[:4].tolist() == [0, 1, 2, 3]
    assert digits.classes == tuple("0123456789")
    assert load_images("digits", 16).image.shape == (1797, 16, 16, 1)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_pools_train_then_test(tmp_path: Path, compress: bool):
    write_idx(tmp_path, "t10k", GREY[3:], LABELS[3:], compress)
    write_idx(tmp_path, "train", GREY[:3], LABELS[:3], not compress)
    images = load_images(f"idx:{tmp_path}", 8)
    np.testing.assert_array_equal(images.image[..., 0], GREY)
    np.testing.assert_array_equal(images.label, LABELS)
    assert images.classes == ("0", "1", "2")


def test_fashion_mnist_is_read_where_installed():
    if not os.path.isdir("/usr/share/datasets/fashion-mnist"):
        pytest.skip("dataset-fashion-mnist is not installed")
    images = load_images("fashion_mnist", 28)
    assert images.image.shape == (70_000, 28, 28, 1)
    assert np.bincount(images.label).tolist() == [7_000] * 10
    assert fingerprint("fashion_mnist") == fingerprint("idx:/usr/share/datasets/fashion-mnist")


def test_fashion_mnist_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(base, "FASHION_MNIST", str(tmp_path / "absent"))
    for read in (lambda source: load_images(source, 8), fingerprint):
        with pytest.raises(UserError, match=r"apt-get install dataset-fashion-mnist.*idx:DIR"):
            read("fashion_mnist")


def test_folder_takes_the_top_subfolder_as_class(tmp_path: Path):
    write(tmp_path / "dog" / "1.png", encode(COLOUR[0]))
    write(tmp_path / "cat" / "deep" / "2.PNG", encode(COLOUR[1]))
    write(tmp_path / "cat" / "3.bmp", encode(GREY[0], "BMP"))
    write(tmp_path / ".hidden" / "4.png", b"not an image")
    write(tmp_path / "cat" / "notes.txt", b"not an image")
    images = load_images(f"folder:{tmp_path}", 8)
    assert images.classes == ("cat", "dog")
    assert images.label.tolist() == [0, 0, 1]
    expected = np.stack([np.repeat(GREY[0][..., None], 3, axis=-1), COLOUR[1], COLOUR[0]])
    np.testing.assert_array_equal(images.image, expected)


@pytest.mark.parametrize("form", ["png", "jpg", "jpeg", "bmp", "webp", "gif"])
def test_folder_without_subfolders_is_unlabelled_and_stays_grey(tmp_path: Path, form: str):
    flat = np.full((8, 8, 3), 77, dtype=np.uint8)  # grey in an RGB file
    write(tmp_path / f"a.{form}", encode(flat, {"jpg": "JPEG"}.get(form, form).upper()))
    images = load_images(f"folder:{tmp_path}", 8)
    assert images.image.shape == (1, 8, 8, 1)
    assert abs(int(images.image[0, 4, 4, 0]) - 77) <= 1
    assert images.label.tolist() == [-1]
    assert images.classes == ()


def test_transparency_is_laid_over_white_and_photos_stand_upright(tmp_path: Path):
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    write(tmp_path / "a.png", encode(clear))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(COLOUR[0]).save(tmp_path / "b.png", exif=exif)
    images = load_images(f"folder:{tmp_path}", 8).image
    assert images[0, 0, 0].tolist() == [10, 20, 30]
    assert (images[0, 1:] == 255).all()
    np.testing.assert_array_equal(images[1], COLOUR[0][::-1, ::-1])


@pytest.mark.parametrize("kind", ["tensor", "binary", "struct"])
def test_parquet_reads_three_kinds_of_image_column(tmp_path: Path, kind: str):
    cells = [encode(image) for image in COLOUR]
    column = {
        "tensor": tensor_column(COLOUR),
        "binary": pa.array(cells, pa.binary()),
        "struct": pa.array([{"bytes": cell, "path": None} for cell in cells]),
    }[kind]
    images = load_images(write_parquet(tmp_path / "a.parquet", column, label=pa.array(LABELS)), 8)
    np.testing.assert_array_equal(images.image, COLOUR)
    np.testing.assert_array_equal(images.label, LABELS)


def test_parquet_folder_keeps_the_order_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrow, "_BATCH_ROWS", 2)
    write_parquet(tmp_path / "b.parquet", tensor_column(GREY[3:, ..., None]))
    write_parquet(tmp_path / "a.parquet", tensor_column(GREY[:3, ..., None]))
    write_parquet(tmp_path / "c.parquet", tensor_column(GREY[:0, ..., None]))
    write(tmp_path / "README.md", b"about")
    images = load_images(f"parquet:file://{tmp_path}", 8)
    np.testing.assert_array_equal(images.image[..., 0], GREY)
    assert images.classes == ()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def hub_dataset(datasets):
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["red", "green", "blue"])}
    )
    columns = {"img": [Image.fromarray(image) for image in COLOUR], "label": LABELS}
    return datasets.Dataset.from_dict(columns, features=features)


def test_hf_saved_folder_and_its_splits(hub, tmp_path: Path):
    dataset = hub_dataset(hub)
    hub.DatasetDict(train=dataset, test=dataset.select([4])).save_to_disk(tmp_path / "saved")
    images = load_images(f"hf:{tmp_path / 'saved'}", 8)
    np.testing.assert_array_equal(images.image, COLOUR)
    np.testing.assert_array_equal(images.label, LABELS)
    assert images.classes == ("red", "green", "blue")
    test = load_images(f"hf:{tmp_path / 'saved'}:test", 8)
    np.testing.assert_array_equal(test.image, COLOUR[4:])
    with pytest.raises(UserError, match="split 'valid'"):
        load_images(f"hf:{tmp_path / 'saved'}:valid", 8)
    assert fingerprint(f"hf:{tmp_path / 'saved'}") != fingerprint(f"hf:{tmp_path / 'saved'}:test")


def test_hf_local_copies_of_hub_repositories(hub, tmp_path: Path):
    hub_dataset(hub).to_parquet(tmp_path / "parquet" / "train.parquet")
    by_hub = load_images(f"hf:{tmp_path / 'parquet'}", 8)
    by_parquet = load_images(f"parquet:{tmp_path / 'parquet' / 'train.parquet'}", 8)
    for images in (by_hub, by_parquet):
        np.testing.assert_array_equal(images.image, COLOUR)
        assert images.classes == ("red", "green", "blue")
    for i, label in enumerate(LABELS):
        write(tmp_path / "pictures" / str(label) / f"{i}.png", encode(COLOUR[i]))
    pictures = load_images(f"hf:{tmp_path / 'pictures'}", 8)
    np.testing.assert_array_equal(pictures.image[pictures.label == 1], COLOUR[LABELS == 1])
    assert pictures.classes == ("0", "1", "2")


def test_hf_unreachable_hub_points_at_local_copies(hub):
    with pytest.raises(UserError, match=r"cannot load split 'train' of 'someone/something'.*hf:/local/folder"):
        load_images("hf:someone/something", 8)


def test_hf_without_the_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"datasets.*pip install autophagy\[hf\].*parquet:FILE"):
        load_images("hf:mnist", 8)


# Bad input: (what is written under the folder, source with {} for the folder, what the message names)


def bad_npz(**arrays: np.ndarray):
    return lambda folder: np.savez(folder / "a.npz", **arrays)


def bad_file(name: str, data: bytes):
    return lambda folder: write(folder / name, data)


def bad_idx(images: np.ndarray, labels: np.ndarray):
    return lambda folder: write_idx(folder, "train", images, labels, compress=False)


def bad_parquet(image: pa.Array, **columns: object):
    return lambda folder: write_parquet(folder / "a.parquet", image, **columns)


TENSORS = tensor_column(GREY[..., None])
NAN = np.where(GREY == 3, np.nan, GREY / 255)
ZIPPED = gzip.compress(idx_bytes(GREY))
CASES = {
    "unknown kind": (None, "foldr:{}", "unknown kind 'foldr' (did you mean folder?); use one of digits"),
    "no kind": (None, "{}", "one of digits | fashion_mnist | idx:DIR"),
    "no place": (None, "npz", "write it as npz:FILE"),
    "place too many": (None, "digits:9", "write it as digits"),
    "missing path": (None, "folder:{}/absent", "no such file or folder"),
    "missing file": (None, "npz:{}/a.npz", "no such file or folder"),
    "empty folder": (None, "folder:{}", "no files *.png"),
    "folder is a file": (bad_file("a.png", encode(GREY[0])), "folder:{}/a.png", "is a file"),
    "corrupt image": (bad_file("x/a.png", b"nothing"), "folder:{}", "cannot read image x/a.png"),
    "truncated image": (bad_file("a.png", encode(COLOUR[0])[:90]), "folder:{}", "cannot read image a.png"),
    "16-bit image": (
        bad_file("a.png", encode(GREY[0].astype(np.uint16))),
        "folder:{}",
        "a.png has more than 8",
    ),
    "no idx": (bad_file("other-ubyte", b""), "idx:{}", "no train-images-idx3-ubyte"),
    "idx magic": (bad_idx(GREY[0], LABELS), "idx:{}", "train-images-idx3-ubyte is not an IDX file"),
    "idx labels": (bad_idx(GREY, LABELS[:4]), "idx:{}", "5 images but 4 labels in train-*"),
    "idx size": (bad_file("train-images-idx3-ubyte", idx_bytes(GREY)[:-1]), "idx:{}", "not [5, 8, 8]"),
    "idx gz": (bad_file("train-images-idx3-ubyte.gz", ZIPPED[:-20]), "idx:{}", "files are whole"),
    "not npz": (bad_file("a.npz", b"nothing"), "npz:{}/a.npz", "not an NPZ file"),
    "npz folder": (bad_npz(image=GREY), "npz:{}", "give the .npz file"),
    "npz keys": (bad_npz(pictures=GREY), "npz:{}/a.npz", "image, images, img, x, x_train, only pictures"),
    "npz objects": (bad_npz(image=np.array([None])), "npz:{}/a.npz", "an array cannot be read"),
    "no images": (bad_npz(image=GREY[:0]), "npz:{}/a.npz", "no images (shape [0, 8, 8])"),
    "two axes": (bad_npz(image=GREY[0]), "npz:{}/a.npz", "images of shape [8, 8]"),
    "four channels": (bad_npz(image=np.zeros((2, 8, 8, 4))), "npz:{}/a.npz", "images of shape [2, 8, 8, 4]"),
    "ambiguous": (bad_npz(image=np.zeros((2, 3, 8, 3))), "npz:{}/a.npz", "images of shape [2, 3, 8, 3]"),
    "float range": (bad_npz(image=GREY / 1.0), "npz:{}/a.npz", "float pixels from 0 to 255"),
    "negative label": (bad_npz(image=GREY, label=-LABELS), "npz:{}/a.npz", "labels from -2 to 0"),
    "integer range": (bad_npz(image=GREY.astype(int) - 9), "npz:{}/a.npz", "integer pixels from -9 to 246"),
    "nan": (bad_npz(image=NAN), "npz:{}/a.npz", "pixels are NaN"),
    "complex": (bad_npz(image=GREY * 1j), "npz:{}/a.npz", "pixels of type complex128"),
    "float labels": (bad_npz(image=GREY, label=LABELS / 2), "npz:{}/a.npz", "labels of type float64"),
    "label count": (bad_npz(image=GREY, label=LABELS[1:]), "npz:{}/a.npz", "shape [4] for 5 images"),
    "one-hot labels": (bad_npz(image=GREY, label=np.eye(5)), "npz:{}/a.npz", "shape [5, 5] for 5 images"),
    "huge label": (bad_npz(image=GREY, label=LABELS * 10**9), "npz:{}/a.npz", "labels from 0 to 2000000000"),
    "not parquet": (bad_file("a.parquet", b"nothing"), "parquet:{}", "files are whole"),
    "parquet type": (bad_parquet(pa.array([1, 2])), "parquet:{}", "column 'image' has type int64"),
    "parquet image": (bad_parquet(pa.array([b"nothing"])), "parquet:{}", "image in row 0 of column 'image'"),
    "parquet null": (
        bad_parquet(TENSORS, y=pa.array([1, 2, None, 0, 0])),
        "parquet:{}",
        "'y' has empty rows",
    ),
    "parquet labels": (
        bad_parquet(TENSORS, label=pa.array([[1]] * 5)),
        "parquet:{}",
        "column 'label' has type",
    ),
    "parquet empty": (bad_parquet(TENSORS[:0]), "parquet:{}", "no images"),
    "filesystem": (None, "parquet:nowhere://a/b", "nowhere://a/b"),
    "hf folder": (None, "hf:{}/absent", "no such file or folder"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_sources_are_one_line_that_names_them(case, tmp_path: Path):
    prepare, source, named = case
    source = source.format(tmp_path)
    if prepare is not None:
        prepare(tmp_path)
    with pytest.raises(UserError) as caught:
        load_images(source, 8)
    message = str(caught.value)
    assert message.startswith(f"data.source = {source!r}: ")
    assert named in message
    assert "\n" not in message


def test_images_beside_class_folders_are_refused(tmp_path: Path):
    write(tmp_path / "cat" / "1.png", encode(GREY[0]))
    write(tmp_path / "2.png", encode(GREY[0]))
    with pytest.raises(UserError, match=r"2\.png lies beside class folders"):
        load_images(f"folder:{tmp_path}", 8)


# Fingerprint


def test_fingerprint_follows_content_not_place_or_time(tmp_path: Path):
    for name in ("one", "two"):
        write_idx(tmp_path / name, "train", GREY, LABELS, compress=False)
    first = fingerprint(f"idx:{tmp_path / 'one'}")
    os.utime(tmp_path / "two" / "train-images-idx3-ubyte", (1, 1))
    assert fingerprint(f"idx:{tmp_path / 'two'}") == first
    write(tmp_path / "two" / "notes.txt", b"no part of the source")
    assert fingerprint(f"idx:{tmp_path / 'two'}") == first
    write_idx(tmp_path / "two", "train", GREY + 1, LABELS, compress=False)  # same sizes
    assert fingerprint(f"idx:{tmp_path / 'two'}") != first


def test_fingerprint_of_a_folder_follows_its_class_names(tmp_path: Path):
    write(tmp_path / "cat" / "1.png", encode(GREY[0]))
    first = fingerprint(f"folder:{tmp_path}")
    (tmp_path / "cat").rename(tmp_path / "dog")
    assert fingerprint(f"folder:{tmp_path}") != first


@pytest.fixture
def num_hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that are hashed, in order."""
    sizes: list[int] = []
    monkeypatch.setattr(opening, "blake2b", lambda data, **options: sizes.append(len(data)) or blake2b(data, **options))
    return sizes


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, num_hashed: list[int]):
    names = [write(tmp_path / label / "1.png", encode(GREY[i])) for i, label in enumerate(("cat", "dog"))]
    first = fingerprint(f"folder:{tmp_path}")
    assert [fingerprint(f"folder:{tmp_path}") for _ in range(72)] == [first] * 72
    assert len(num_hashed) == 2
    os.utime(names[0], (1, 1))
    assert fingerprint(f"folder:{tmp_path}") == first
    assert len(num_hashed) == 4
    data = names[0].read_bytes()
    names[0].write_bytes(data[:-1] + b"!")  # of the same size
    assert fingerprint(f"folder:{tmp_path}") != first
    assert fingerprint(f"folder:{tmp_path / 'cat'}") != fingerprint(f"folder:{tmp_path / 'dog'}")


def test_planning_many_loops_hashes_a_file_once(tiny, tmp_path: Path, num_hashed: list[int]):
    np.savez(tmp_path / "a.npz", image=GREY)
    experiments = [tiny(f"data.source=npz:{tmp_path / 'a.npz'}", f"seed={seed}") for seed in range(9)]
    assert len({plan_loop(e)[0]["real"].key for e in experiments}) == 9
    assert num_hashed == [(tmp_path / "a.npz").stat().st_size]


def test_fingerprint_of_large_files_follows_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "_HASHED_BYTES", 1)
    path = tmp_path / "a.npz"
    np.savez(path, image=GREY)
    os.utime(path, (5, 5))
    first = fingerprint(f"npz:{path}")
    assert fingerprint(f"npz:{path}") == first
    os.utime(path, (6, 6))
    assert fingerprint(f"npz:{path}") != first


def test_fingerprint_of_named_sources():
    assert fingerprint("digits") == fingerprint("digits")
    pytest.importorskip("datasets")
    names = ["hf:mnist", "hf:cifar10", "hf:mnist:test", "hf:mnist@77f3279", "digits"]
    assert len({fingerprint(name) for name in names}) == len(names)
    assert fingerprint("hf:mnist:train") == fingerprint("hf:mnist")
