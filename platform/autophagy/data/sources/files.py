"""Sources that are files: digits, MNIST's IDX, folders of images, NPZ."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib

import numpy as np

from autophagy.common.errors import UserError
from autophagy.data.limits import check_numpy, read_at_most
from autophagy.data.sources.base import (
    LABEL_NAMES,
    Encoded,
    Files,
    Part,
    Source,
    find_files,
    one_line,
    pick,
    pick_image,
)


def read_digits(place: str) -> Source:
    """scikit-learn's digits; they have no place."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Source([Part(digits.images / 16, digits.target)], None)


def read_idx(place: str) -> Source:
    """A folder of MNIST's files: `train-*`, then `t10k-*`, those that are there."""
    files = find_files("idx", place)
    parts = []
    for part in ("train", "t10k"):
        images = _read_idx_file(files, f"{part}-images", 3)
        if images is None:
            continue
        labels = _read_idx_file(files, f"{part}-labels", 1)
        if labels is None or len(labels) != len(images):
            found = "no" if labels is None else len(labels)
            raise UserError(f"{len(images)} images but {found} labels in {part}-*; give the matching files")
        parts.append(Part(images, labels))
    if not parts:
        raise UserError("no train-images-idx3-ubyte or t10k-images-idx3-ubyte (or .gz); correct the path")
    return Source(parts, None)


def _read_idx_file(files: Files, stem: str, ndim: int) -> np.ndarray | None:
    """uint8 array of `ndim` axes from an IDX file (magic number, big-endian sizes, data)."""
    candidates = [f"{stem}{mark}idx{ndim}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    name = pick(files.infos, tuple(candidates))
    if name is None:
        return None
    start = 4 + 4 * ndim
    with files.open(name, "gzip" if name.endswith(".gz") else None) as stream:
        header = read_at_most(stream, start)
        if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < start:
            raise UserError(f"{name} is not an IDX file of bytes with {ndim} axes; replace it")
        shape = struct.unpack(f">{ndim}I", header[4:])
        size = math.prod(shape)
        data = read_at_most(stream, size + 1)  # .gz may stand for more than there is memory
    if len(data) != size:
        found = len(data) if len(data) < size else "more"
        raise UserError(f"{name} has {found} bytes of data, not {list(shape)}; replace it")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_folder(place: str) -> Source:
    """A folder of images, a part each; the top-level subfolder is the class."""
    files = find_files("folder", place)
    if not files.is_folder:
        raise UserError("is a file; give the folder that has the images")
    stray = [name for name in files.infos if "/" not in name]
    if 0 < len(stray) < len(files.infos):
        raise UserError(f"{stray[0]} lies beside class folders; move it into one, or remove the folders")
    parts = (Part([Encoded(name, files.read(name))], None if stray else [name.split("/")[0]]) for name in files.infos)
    return Source(parts, None)


def read_npz(place: str) -> Source:
    """An NPZ file as one part."""
    files = find_files("npz", place)
    if files.is_folder:
        raise UserError("is a folder; give the .npz file")
    (name,) = files.infos
    stream = io.BytesIO(files.read(name))
    if not zipfile.is_zipfile(stream):
        raise UserError("not an NPZ file; write it with np.savez(FILE, image=..., label=...)")
    try:
        check_numpy(stream)
        arrays = np.load(stream, allow_pickle=False)
        names = list(arrays.keys())
        labels = pick(names, LABEL_NAMES)
        part = Part(arrays[pick_image(names)], None if labels is None else arrays[labels])
    except (ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"an array cannot be read ({one_line(error)}); write it with np.savez") from error
    return Source([part], None)
