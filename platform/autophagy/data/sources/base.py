"""What a source gives, and the files of those on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa

from autophagy.common.errors import UserError, shown
from autophagy.data.limits import is_below

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # of Debian's package dataset-fashion-mnist
IMAGE_NAMES = ("image", "images", "img", "x", "x_train")
LABEL_NAMES = ("label", "labels", "fine_label", "y", "y_train")


class Encoded(NamedTuple):
    """One image as its file's bytes (PNG, JPEG ...)."""

    name: str  # for messages
    data: bytes


class Part(NamedTuple):
    """Some consecutive images of a source, as they come."""

    images: np.ndarray | list[Encoded]
    labels: Sequence[Any] | np.ndarray | None  # one an image


class Source(NamedTuple):
    """A source opened for reading."""

    parts: Iterable[Part]
    class_names: Sequence[str] | None  # by label, where the source knows them


def pick(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` that is among `names`."""
    names = set(names)
    return next((name for name in wanted if name in names), None)


def pick_image(names: Sequence[str]) -> str:
    """The name that images are under."""
    picked = pick(names, IMAGE_NAMES)
    if picked is None:
        raise UserError(f"no images under {', '.join(IMAGE_NAMES)}, only {', '.join(names)}; rename one")
    return picked


_SUFFIXES = {
    "idx": ("-ubyte", "-ubyte.gz"),
    "folder": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"),
    "npz": (".npz",),
    "parquet": (".parquet",),
    "hf": ("",),
}


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Turn what goes wrong with a source into one line that names it."""
    try:
        yield
    except (UserError, OSError, ImportError, MemoryError, pa.ArrowException) as error:
        remedy = "; check the path, and that its files are whole"
        if isinstance(error, ImportError):
            remedy = "; run `pip install autophagy[hf]`, or use a local copy as folder:DIR or parquet:FILE"
        elif isinstance(error, MemoryError):
            remedy = "; it needs more memory than there is: take a part of it, or a larger machine"
        elif isinstance(error, UserError):
            remedy = ""
        raise UserError(f"data.source = {shown(source)}: {one_line(error)}{remedy}") from error


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Files:
    """The files behind a source, sorted by path."""

    system: pa.fs.FileSystem
    infos: dict[str, pa.fs.FileInfo]  # by path relative to the source
    is_folder: bool

    def open(self, name: str, compression: str | None = None) -> IO[bytes]:
        """A file as a stream of bytes."""
        return self.system.open_input_stream(self.infos[name].path, compression=compression)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self.open(name) as stream:
            return stream.read()


def find_files(kind: str, place: str) -> Files:
    """The files of a kind of source: the one at a path or URI, or those below a folder but hidden ones.

    Raises:
        UserError: There are none, or one lies outside of the folder.
    """
    if "://" in place:
        system, path = pa.fs.FileSystem.from_uri(place)
    else:
        system, path = pa.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(place))
    top = system.get_file_info(path)
    if top.type == pa.fs.FileType.NotFound:
        if place == FASHION_MNIST:
            raise UserError(
                "Fashion-MNIST is not installed; run `apt-get install dataset-fashion-mnist`, or use idx:DIR "
                "with a folder that has its four files"
            )
        raise UserError("no such file or folder; correct the path")
    if top.type == pa.fs.FileType.File:
        return Files(system, {top.base_name: top}, is_folder=False)
    if top.type != pa.fs.FileType.Directory:
        raise UserError("is neither a file nor a folder, but a device or the like; correct the path")
    found = {}
    for info in system.get_file_info(pa.fs.FileSelector(path, recursive=True)):
        name = os.path.relpath(info.path, path)
        hidden = any(part.startswith(".") for part in name.split("/"))
        # Devices and pipes have a type of their own.
        if info.type == pa.fs.FileType.File and not hidden and name.lower().endswith(_SUFFIXES[kind]):
            found[name] = info
    if isinstance(system, pa.fs.LocalFileSystem):
        _check_links(path, found)
    if not found:
        wanted = ", ".join(f"*{suffix}" for suffix in _SUFFIXES[kind])
        raise UserError(f"no files {wanted} in this folder; correct the path")
    return Files(system, dict(sorted(found.items())), is_folder=True)


def _check_links(folder: str, names: Iterable[str]) -> None:
    """Raise UserError if one of these files, by path relative to the folder, lies elsewhere."""
    below: dict[str, bool] = {}  # by folder
    for name in names:
        path = os.path.join(folder, name)
        parent = os.path.dirname(path)
        if parent not in below:
            below[parent] = is_below(parent, folder)
        if not below[parent] or (os.path.islink(path) and not is_below(path, folder)):
            raise UserError(
                f"{name} is, or is below, a link that leads out of this folder; copy what it means, or remove it"
            )
