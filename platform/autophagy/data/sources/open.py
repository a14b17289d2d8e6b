"""Where real images come from: scikit-learn's digits, IDX, image folders, NPZ, Parquet, the Hugging Face hub.

A source is read as a stream of parts, raw: `data.pixels` checks the pixels and labels and resizes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from autophagy.common.errors import UserError, near
from autophagy.common.seeds import digest
from autophagy.data.sources import base
from autophagy.data.sources.arrow import is_local, parse_hf, read_hf, read_parquet
from autophagy.data.sources.base import Files, Source, find_files, naming
from autophagy.data.sources.files import read_digits, read_folder, read_idx, read_npz

_FORMS = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "idx": "idx:DIR",
    "folder": "folder:DIR",
    "npz": "npz:FILE",
    "parquet": "parquet:URI",
    "hf": "hf:NAME[@REVISION][:SPLIT]",
}
_HASHED_BYTES = 256 << 20  # more than this is named by sizes and times, not read
_hashed: dict[tuple[Any, ...], dict[str, str]] = {}  # digests by file, of files as they were: read once by a process


def open_source(source: str) -> Source:
    """Open a source of real images; its parts are read as they are asked for, inside `naming(source)`.

    Args:
        source: One of these. A path may be a URI of any pyarrow filesystem, such as s3://bucket/key.
            `digits`: scikit-learn's 1,797 images of 8x8.
            `fashion_mnist`: the files of Debian's package dataset-fashion-mnist.
            `idx:DIR`: MNIST's files, `train-*` then `t10k-*`, plain or .gz.
            `folder:DIR`: image files; the top-level subfolder is the class, no subfolders = unlabelled.
            `npz:FILE`: images under image, images, img, x or x_train; labels, if any, under label, labels,
                fine_label, y or y_train.
            `parquet:URI`: a file or folder with columns of the same names; images are fixed-shape tensors,
                or encoded (PNG, JPEG ...) as binary or as struct{bytes, path}, the path below the same folder.
            `hf:NAME[@REVISION][:SPLIT]`: a dataset of the Hugging Face hub, or a local folder that `datasets`
                can load; the split is `train` unless said.

    Raises:
        UserError: The source is unknown, missing, without images, or damaged.
    """
    kind, place = _parse(source)
    return _READERS[kind](place)


def fingerprint(source: str) -> str:
    """Digest of the content behind a source, 32 hex digits: the same wherever the content lies.

    Files are read when they are at most 256 MiB together; beyond that their names, sizes and modification
    times stand for them. `digits` is its name and the version of scikit-learn. A hub dataset is its name,
    revision, split and the version of `datasets`: pin the revision where the dataset may change.

    Raises:
        UserError: The source is unknown or missing, or has no files.
    """
    with naming(source):
        kind, place = _parse(source)
        if kind == "digits":
            return digest([kind, version("scikit-learn")])
        if kind == "hf":
            name, revision, split = parse_hf(place)
            if not is_local(name):
                return digest([kind, name, revision, split, version("datasets")])
            return digest([kind, split, _contents(name, find_files(kind, name))])
        return digest([kind, _contents(place, find_files(kind, place))])


def absolute(source: str) -> str:
    """A known source with its local path made absolute: other processes may run in another folder."""
    kind, place = _parse(source)
    if source in _FORMS or "://" in place or (kind == "hf" and not is_local(place.partition(":")[0])):
        return source
    return f"{kind}:{os.path.abspath(os.path.expanduser(place))}"


def _parse(source: str) -> tuple[str, str]:
    """The kind of a source and its place; `fashion_mnist` is an alias of an `idx` folder."""
    kind, _, place = source.partition(":")
    if kind not in _FORMS:
        raise UserError(f"unknown kind {kind!r}{near(kind, _FORMS)}; use one of {' | '.join(_FORMS.values())}")
    if bool(place) != (":" in _FORMS[kind]):
        raise UserError(f"write it as {_FORMS[kind]}")
    return ("idx", base.FASHION_MNIST) if kind == "fashion_mnist" else (kind, place)


def _contents(place: str, files: Files) -> list[list[Any]]:
    """Name and digest of every file, or name, size and time where they are large."""
    if sum(info.size for info in files.infos.values()) > _HASHED_BYTES:
        return [[name, info.size, info.mtime_ns] for name, info in files.infos.items()]
    seen = (place, *((info.path, info.size, info.mtime_ns) for info in files.infos.values()))
    if seen not in _hashed:
        _hashed[seen] = {name: blake2b(files.read(name), digest_size=16).hexdigest() for name in files.infos}
    # A file named by itself is its content alone: renaming it changes nothing.
    return [[name, found] if files.is_folder else [found] for name, found in _hashed[seen].items()]


_READERS: dict[str, Callable[[str], Source]] = {
    "digits": read_digits,
    "idx": read_idx,
    "folder": read_folder,
    "npz": read_npz,
    "parquet": read_parquet,
    "hf": read_hf,
}
