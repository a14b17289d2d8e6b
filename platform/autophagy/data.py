"""Real images as uint8 arrays of one size; train, held-out and fresh splits of them; tables."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps, UnidentifiedImageError

from autophagy.arrow_source import Encoded
from autophagy.limits import MAX_PIXELS
from autophagy.records import (
    GENERATION,
    IMAGE,
    IS_REAL,
    LABEL,
    REAL,
    SAMPLE_ID,
    UNLABELLED,
    UserError,
    rng_for,
    sample_ids,
)
from autophagy.sources import naming, one_line, open_source
from autophagy.store import Artifact

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_MAX_CLASSES = 100_000  # a label beyond is an id, not a class
_DEFAULT_HELD_OUT = 10_000
LABELS_FILE = "labels.parquet"  # payload of a `labels` artifact: sample_id, label


@dataclass(frozen=True)
class RealImages:
    """Real images in memory, in the order of their source."""

    image: np.ndarray  # uint8 [n, H, W, C], H = W, C = 1 or 3
    label: np.ndarray  # int64 [n], UNLABELLED = -1
    classes: tuple[str, ...]  # class names by label; () if unlabelled


def load_images(source: str, image_size: int) -> RealImages:
    """Read every image of a source as a square of `image_size` pixels.

    Images are cropped at the centre to a square and resized: by averages over whole blocks where the size
    divides evenly (Pillow's BOX), else by an antialiased LANCZOS filter. Encoded images are RGB unless every
    one is grey; transparency is laid over white.

    Args:
        source: One of the forms of `autophagy.sources.open_source`. Arrays may be [n, H, W], [n, H, W, C] or
            [n, C, H, W] with C = 1 or 3, of integers in [0, 255], booleans, or floats in [0, 1]. Labels are
            class numbers >= 0, or strings, numbered in sorted order.
        image_size: Side of the images, in pixels, >= 1.

    Raises:
        UserError: The source is unknown, missing, empty or damaged, or its pixels or labels are not as above.
    """
    images, labels = [], []
    with naming(source):
        opened = open_source(source)
        for part in opened.parts:
            if isinstance(part.images, np.ndarray):
                images.append(_resize_array(_check_pixels(part.images), image_size))
            else:
                images += [_decode(encoded, image_size) for encoded in part.images]
            if part.labels is not None:
                labels.append(np.asarray(part.labels))
        image = _join(images)
        label = np.concatenate(labels) if labels else None
        return RealImages(image, *_check_labels(label, opened.class_names, len(image)))


@dataclass(frozen=True)
class Splits:
    """Row numbers of the real images, int64; no row is in two of them."""

    train: np.ndarray  # what generation 0 is trained on
    held_out: np.ndarray  # the reference of every metric
    fresh: np.ndarray  # real images that later generations may receive


def split_sizes(total: int, num_real: int | None, num_held_out: int | None, num_fresh: int) -> tuple[int, int, int]:
    """How many of `total` real images are for training, held out, and fresh.

    Args:
        total: Number of real images, >= 1.
        num_real: `data.num_real`; None is all that is left but `num_fresh`.
        num_held_out: `data.num_held_out`; None is a quarter, at most 10,000.
        num_fresh: Fewest fresh images that the scenario needs, >= 0; all that is left is fresh.

    Raises:
        UserError: There are not enough images.
    """
    held_out = min(total // 4, _DEFAULT_HELD_OUT) if num_held_out is None else num_held_out
    if not 1 <= held_out < total:
        raise UserError(
            f"data.num_held_out = {num_held_out}: {held_out} of {total} images; set it between 1 and "
            f"{total - 1}, or use a larger data.source"
        )
    left = total - held_out
    train = left - num_fresh if num_real is None else num_real
    if num_real is not None and not 1 <= num_real <= left:
        raise UserError(
            f"data.num_real = {num_real}: there are only {total} images, of which {held_out} are held out "
            f"(data.num_held_out); lower it (1 to {left})"
        )
    if train < 1 or left - train < num_fresh:
        used = f"{train} for training (data.num_real) and " if num_real is not None else ""
        raise UserError(
            f"scenario.real_fraction: needs {num_fresh} fresh real images, but {used}{held_out} held out "
            f"leave {left - (num_real or 0)} of {total}; lower data.num_real, data.num_held_out or "
            "scenario.real_fraction"
        )
    return train, held_out, left - train


def split(total: int, num_real: int | None, num_held_out: int | None, num_fresh: int, seed: int) -> Splits:
    """Divide rows `0 .. total - 1` by a seeded permutation: held-out rows first, then train, then fresh.

    The held-out rows depend on the seed, `total` and `num_held_out` only, so loops with different `num_real`
    are measured against the same reference. Arguments and errors are those of `split_sizes`.
    """
    train, held_out, _ = split_sizes(total, num_real, num_held_out, num_fresh)
    rows = rng_for(seed, "split").permutation(total).astype(np.int64)
    return Splits(rows[held_out : held_out + train], rows[:held_out], rows[held_out + train :])


def to_table(images: RealImages, rows: np.ndarray, sample_id: np.ndarray) -> pa.Table:
    """Some real images as a table with columns sample_id, generation, is_real, label, image.

    Args:
        images: All real images.
        rows: int64 [n], row numbers.
        sample_id: int64 [n], their ids.
    """
    n = len(rows)
    return pa.table(
        {
            SAMPLE_ID: pa.array(sample_id, pa.int64()),
            GENERATION: pa.array(np.full(n, REAL, dtype=np.int32)),
            IS_REAL: pa.array(np.ones(n, dtype=bool)),
            LABEL: pa.array(images.label[rows]),
            IMAGE: tensor_column(images.image[rows]),
        }
    )


def tensor_column(array: np.ndarray) -> pa.Array:
    """An array [n, ...] as an Arrow column of n fixed-shape tensors; n may be 0."""
    shape = array.shape[1:]
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(values.type, shape), storage)


def to_numpy(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array, [n, ...] of a tensor column or [n] of a plain one; it may be read-only."""
    column = table.column(name)
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.combine_chunks().to_numpy_ndarray()
    return column.to_numpy()


def real_ids(inputs: Mapping[str, Artifact], split: str, unseen: Sequence[int] = ()) -> np.ndarray:
    """Sample ids of a split of the real images, int64, sorted; those of `unseen` classes are left out."""
    real = inputs["real"]
    ids = sample_ids(REAL, real.info["first_index"][split], real.info["sizes"][split])
    if not unseen:
        return ids
    table = real.read_table(f"images/{split}", columns=[SAMPLE_ID, LABEL]).sort_by(SAMPLE_ID)
    return ids[~np.isin(told_labels(inputs, ids, to_numpy(table, LABEL)), unseen)]


def read_images(inputs: Mapping[str, Artifact], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W, C] and labels int64 [n] of n >= 1 real and generated samples, sorted by sample id."""
    # Only a range lets Parquet skip row groups unread.
    within = (pc.field(SAMPLE_ID) >= int(ids.min())) & (pc.field(SAMPLE_ID) <= int(ids.max()))
    wanted = within & pc.field(SAMPLE_ID).isin(pa.array(ids))
    sources = [artifact for role, artifact in inputs.items() if role == "real" or role.startswith("samples/")]
    tables = [a.read_table("images", columns=[SAMPLE_ID, LABEL, IMAGE], filter=wanted) for a in sources]
    table = each_once(pa.concat_tables(tables), ids)
    label = told_labels(inputs, to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL))
    return to_numpy(table, IMAGE).copy(), label.copy()  # Arrow's memory is read-only


def each_once(table: pa.Table, ids: np.ndarray) -> pa.Table:
    """The table sorted by sample id.

    Raises:
        RuntimeError: it does not have one row for each of `ids`.
    """
    if table.num_rows != len(ids):
        raise RuntimeError(f"{len(ids)} samples are wanted and {table.num_rows} are there")
    return table.sort_by(SAMPLE_ID)


def told_labels(inputs: Mapping[str, Artifact], ids: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Labels int64 [n] of the images `ids`: those that the `labels` input tells, where there is one and it knows them.

    Args:
        inputs: Artifacts by role, as a stage has them.
        ids: int64 [n].
        label: int64 [n], what the images came with.
    """
    if "labels" not in inputs:
        return label
    table = inputs["labels"].read_table(LABELS_FILE).sort_by(SAMPLE_ID)
    known, told = to_numpy(table, SAMPLE_ID), to_numpy(table, LABEL)
    rows = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[rows] == ids, told[rows], label)


def _resize(picture: Image.Image, size: int) -> Image.Image:
    side = min(picture.size)
    if picture.size != (side, side):
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if side == size:
        return picture
    return picture.resize((size, size), Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS)


def _decode(encoded: Encoded, size: int) -> np.ndarray:
    """An encoded image as uint8 [1, size, size, C]; C = 1 where it is grey, whatever its file says."""
    try:
        picture: Image.Image = Image.open(io.BytesIO(encoded.data), formats=_FORMATS)  # reads the header alone
        if picture.width * picture.height > MAX_PIXELS:
            raise UserError(
                f"image {encoded.name} is {picture.width} x {picture.height} pixels, more than "
                f"{MAX_PIXELS >> 20} megapixels; make it smaller"
            )
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):
            raise UserError(f"image {encoded.name} has more than 8 bits a channel; convert it to 8 bits")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = _resize(picture.convert("L" if picture.mode in ("1", "L") else "RGB"), size)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        # Pillow names an unreadable stream by its address in memory, which says nothing.
        why = "no PNG, JPEG, BMP, WebP or GIF" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise UserError(f"cannot read image {encoded.name} ({why}); replace or remove it") from error
    pixels = np.asarray(picture).reshape(1, size, size, -1)
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def _check_pixels(array: np.ndarray) -> np.ndarray:
    """An array of images in any accepted layout and type as uint8 [n, H, W, C]."""
    shape = array.shape
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and (shape[1] in (1, 3)) != (shape[3] in (1, 3)):
        array = np.moveaxis(array, 1, 3) if shape[1] in (1, 3) else array
    else:
        raise UserError(f"images of shape {list(shape)}; give [n, H, W], [n, H, W, C] or [n, C, H, W] with C = 1 or 3")
    if array.size == 0:
        raise UserError(f"no images (shape {list(shape)}); give at least one")
    if array.dtype.kind not in "biuf":
        raise UserError(f"pixels of type {array.dtype}; give integers in [0, 255] or floats in [0, 1]")
    low, high = array.min(), array.max()
    if np.isnan(low):
        raise UserError("pixels are NaN; replace them or remove those images")
    top = 255 if array.dtype.kind in "iu" else 1
    if low < 0 or high > top:
        kind = "integer" if top == 255 else "float"
        raise UserError(f"{kind} pixels from {low:g} to {high:g}; scale them to [0, {top}]")
    if top == 1:
        array = np.rint(array * np.float32(255))
    return array.astype(np.uint8)


def _resize_array(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, H, W, C] to uint8 [n, size, size, C]."""
    n, height, width, channels = pixels.shape
    if height == width == size:
        return pixels
    resized = np.empty((n, size, size, channels), np.uint8)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image[..., 0] if channels == 1 else np.ascontiguousarray(image))
        resized[i] = np.asarray(_resize(picture, size)).reshape(size, size, channels)
    return resized


def _join(parts: list[np.ndarray]) -> np.ndarray:
    """Stack uint8 [n_i, S, S, C_i]: grey if every part is grey, else RGB."""
    if not parts:
        raise UserError("no images; give at least one")
    channels = max(part.shape[3] for part in parts)
    return np.concatenate([np.broadcast_to(part, (*part.shape[:3], channels)) for part in parts])


def _check_labels(
    label: np.ndarray | None, names: Sequence[str] | None, num_images: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int64 [n] and the class names by label; `names` are those the source itself knows."""
    if label is None:
        return np.full(num_images, UNLABELLED, dtype=np.int64), ()
    if label.shape == (num_images, 1):
        label = label[:, 0]
    if label.shape != (num_images,):
        raise UserError(f"labels of shape {list(label.shape)} for {num_images} images; give one an image")
    if label.dtype.kind in "US":
        try:
            label = label.astype(str)
        except UnicodeDecodeError:
            raise UserError("labels are bytes that are no ASCII; give them as strings") from None
        classes, label = np.unique(label, return_inverse=True)
        return label.astype(np.int64), tuple(classes.tolist())
    if label.dtype.kind not in "iu":
        raise UserError(f"labels of type {label.dtype}; give class numbers (integers) or names (strings)")
    low, high = int(label.min()), int(label.max())
    num_classes = len(names) if names else _MAX_CLASSES
    if low < 0 or high >= num_classes:
        raise UserError(f"labels from {low} to {high}; give class numbers in [0, {num_classes - 1}], or none")
    return label.astype(np.int64), tuple(names or map(str, range(high + 1)))
