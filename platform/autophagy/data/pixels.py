"""Real images as uint8 arrays of one size."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from autophagy.common.errors import UserError
from autophagy.common.samples import UNLABELLED
from autophagy.data.limits import MAX_CLASSES, MAX_PIXELS
from autophagy.data.sources.base import Encoded, naming, one_line
from autophagy.data.sources.open import open_source

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")


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
        source: One of the forms of `sources.open.open_source`. Arrays may be [n, H, W], [n, H, W, C] or
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
    num_classes = len(names) if names else MAX_CLASSES
    if low < 0 or high >= num_classes:
        raise UserError(f"labels from {low} to {high}; give class numbers in [0, {num_classes - 1}], or none")
    return label.astype(np.int64), tuple(names or map(str, range(high + 1)))
