"""Where real images come from: scikit-learn's digits, IDX, image folders, NPZ, Parquet, the Hugging Face hub.

A source is read as a stream of parts, raw: `autophagy.data` checks the pixels and labels and resizes them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from autophagy.arrow_source import IMAGE_NAMES, LABEL_NAMES, Encoded, Part, Source, pick, pick_image, read_batches
from autophagy.limits import check_numpy, is_below, read_at_most
from autophagy.records import UserError, digest, shown
from autophagy.tables import unreadable, unreadable_files

_FORMS = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "idx": "idx:DIR",
    "folder": "folder:DIR",
    "npz": "npz:FILE",
    "parquet": "parquet:URI",
    "hf": "hf:NAME[@REVISION][:SPLIT]",
}
_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # of Debian's package dataset-fashion-mnist
_SUFFIXES = {
    "idx": ("-ubyte", "-ubyte.gz"),
    "folder": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"),
    "npz": (".npz",),
    "parquet": (".parquet",),
    "hf": ("",),
}
_BATCH_ROWS = 1024
_HASHED_BYTES = 256 << 20  # more than this is named by sizes and times, not read at every plan


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
            name, revision, split = _parse_hf(place)
            if not _is_local(name):
                return digest([kind, name, revision, split, version("datasets")])
            return digest([kind, split, _contents(_find_files(kind, name))])
        return digest([kind, _contents(_find_files(kind, place))])


def absolute(source: str) -> str:
    """A known source with its local path made absolute: other processes may run in another folder."""
    kind, place = _parse(source)
    if source in _FORMS or "://" in place or (kind == "hf" and not _is_local(place.partition(":")[0])):
        return source
    return f"{kind}:{os.path.abspath(os.path.expanduser(place))}"


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


def _parse(source: str) -> tuple[str, str]:
    """The kind of a source and its place; `fashion_mnist` is an alias of an `idx` folder."""
    kind, _, place = source.partition(":")
    if kind not in _FORMS:
        near = get_close_matches(kind, _FORMS, n=1)
        guess = f"did you mean {_FORMS[near[0]]!r}? " if near else ""
        raise UserError(f"unknown kind {kind!r}; {guess}use one of {' | '.join(_FORMS.values())}")
    if bool(place) != (":" in _FORMS[kind]):
        raise UserError(f"write it as {_FORMS[kind]}")
    return ("idx", _FASHION_MNIST) if kind == "fashion_mnist" else (kind, place)


# Files


@dataclass(frozen=True)
class _Files:
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


def _find_files(kind: str, place: str) -> _Files:
    if "://" in place:
        system, path = pa.fs.FileSystem.from_uri(place)
    else:
        system, path = pa.fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(place))
    top = system.get_file_info(path)
    if top.type == pa.fs.FileType.NotFound:
        if place == _FASHION_MNIST:
            raise UserError(
                "Fashion-MNIST is not installed; run `apt-get install dataset-fashion-mnist`, or use idx:DIR "
                "with a folder that has its four files"
            )
        raise UserError("no such file or folder; correct the path")
    if top.type == pa.fs.FileType.File:
        return _Files(system, {top.base_name: top}, is_folder=False)
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
    return _Files(system, dict(sorted(found.items())), is_folder=True)


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


def _contents(files: _Files) -> list[list[Any]]:
    if sum(info.size for info in files.infos.values()) > _HASHED_BYTES:
        return [[name, info.size, info.mtime_ns] for name, info in files.infos.items()]
    contents = []
    for name, info in files.infos.items():
        with files.system.open_input_stream(info.path, compression=None) as stream:
            contents.append([name, hashlib.blake2b(stream.read(), digest_size=16).hexdigest()])
    # A file named by itself is its content alone: renaming it changes nothing.
    return contents if files.is_folder else [contents[0][1:]]


# Readers: a place as a Source


def _read_digits(place: str) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Source([Part(digits.images / 16, digits.target)], None)


def _read_idx(place: str) -> Source:
    files = _find_files("idx", place)
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


def _read_idx_file(files: _Files, stem: str, ndim: int) -> np.ndarray | None:
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


def _read_folder(place: str) -> Source:
    files = _find_files("folder", place)
    if not files.is_folder:
        raise UserError("is a file; give the folder that has the images")
    stray = [name for name in files.infos if "/" not in name]
    if 0 < len(stray) < len(files.infos):
        raise UserError(f"{stray[0]} lies beside class folders; move it into one, or remove the folders")
    parts = (Part([Encoded(name, files.read(name))], None if stray else [name.split("/")[0]]) for name in files.infos)
    return Source(parts, None)


def _read_npz(place: str) -> Source:
    files = _find_files("npz", place)
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


def _read_parquet(place: str) -> Source:
    files = _find_files("parquet", place)
    paths = [info.path for info in files.infos.values()]
    table = pa.dataset.dataset(paths, filesystem=files.system, format="parquet")
    columns = [name for name in table.schema.names if name in IMAGE_NAMES + LABEL_NAMES]
    if found := unreadable_files(table.get_fragments(), columns):
        raise UserError(": ".join(found))
    folder = paths[0].removesuffix(next(iter(files.infos)))
    folders = [folder] if isinstance(files.system, pa.fs.LocalFileSystem) else []
    return read_batches(table.to_batches(columns=columns, batch_size=_BATCH_ROWS), table.schema, folders)


def _read_hf(place: str) -> Source:
    name, revision, split = _parse_hf(place)
    folders = []
    if _is_local(name):
        name = os.path.abspath(os.path.expanduser(name))
        _find_files("hf", name)
        folders = [name]
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        if any(os.path.exists(os.path.join(name, mark)) for mark in ("state.json", "dataset_dict.json")):
            _check_hf_files(folders, list(map(str, Path(name).rglob("*.arrow"))))
            data = datasets.load_from_disk(name)
            data = data[split] if isinstance(data, dict) else data
            _check_hf_files(folders, [file["filename"] for file in data.cache_files])
        else:
            builder = datasets.load_dataset_builder(name, revision=revision)
            _check_hf_files(folders, [file for files in (builder.config.data_files or {}).values() for file in files])
            builder.download_and_prepare()
            data = builder.as_dataset(split=split)
    except UserError:
        raise
    except Exception as error:  # the loaders pass on the errors of a dozen libraries
        raise UserError(
            f"cannot load split {split!r} of {name!r} ({type(error).__name__}: {one_line(error)}); correct "
            "the name, or point at a local copy with hf:/local/folder, folder:DIR or parquet:FILE"
        ) from error
    # What comes from the hub is kept there.
    folders = folders or [os.path.join(datasets.config.HF_DATASETS_CACHE, "downloads"), HF_HUB_CACHE]
    batches = data.with_format("arrow").iter(batch_size=_BATCH_ROWS)
    return read_batches(batches, data.features.arrow_schema, folders)


def _check_hf_files(folders: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError if files that a local data set names lie elsewhere, or hold what is not read."""
    for name in names if folders else ():
        if not is_below(name, folders[0]):
            raise UserError(f"names a file elsewhere, {shown(name)}; give a folder that has all its files")
        schema = _schema(name)
        if schema is not None and (why := unreadable(schema)):
            raise UserError(f"{name}: {why}")


def _schema(path: str) -> pa.Schema | None:
    """The types in a Parquet or Arrow file; None of another file."""
    if path.endswith(".parquet"):
        return pyarrow.parquet.read_schema(path)
    if not path.endswith(".arrow"):
        return None
    with pa.OSFile(path) as file:
        try:
            return pa.ipc.open_stream(file).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(file).schema


def _parse_hf(place: str) -> tuple[str, str | None, str]:
    """NAME[@REVISION][:SPLIT] as name, revision and split; a local folder has no revision."""
    name, _, split = place.partition(":")
    if _is_local(name):
        return name, None, split or "train"
    name, _, revision = name.partition("@")
    return name, revision or None, split or "train"


def _is_local(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or os.path.isdir(name)


_READERS: dict[str, Callable[[str], Source]] = {
    "digits": _read_digits,
    "idx": _read_idx,
    "folder": _read_folder,
    "npz": _read_npz,
    "parquet": _read_parquet,
    "hf": _read_hf,
}
