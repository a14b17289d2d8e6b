"""What files of strangers may not do: lie elsewhere than they seem to, or ask for more memory than they can fill."""

from __future__ import annotations

import io
import math
import os
import zipfile
from typing import IO

import numpy as np

MAX_PIXELS = 64 << 20  # of an encoded image; some 100 kB of PNG can stand for more, and are decoded for seconds
MAX_LABEL = 1000  # characters of a class name
MAX_CLASSES = 100_000  # a label beyond is an id, not a class
_MAX_DEFLATE = 1032  # bytes that a byte of a compressed member of a zip file can stand for
_CHUNK = 1 << 20
_HEADER = 12 + 10_000  # bytes at most of an array's header, as NumPy reads it
_ZIPPED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as np.savez and np.savez_compressed write


def is_below(path: str, folder: str) -> bool:
    """Whether a local path lies below a folder once symbolic links are followed."""
    top = os.path.realpath(folder)
    try:
        return os.path.commonpath([top, os.path.realpath(path)]) == top
    except ValueError:  # a name with a NUL
        return False


def read_at_most(stream: IO[bytes], count: int) -> bytes:
    """What is left of a stream, `count` bytes at most; memory is taken for what comes, not for what was promised."""
    data = bytearray()
    while len(data) < count and (chunk := stream.read(min(_CHUNK, count - len(data)))):
        data += chunk
    return bytes(data)


def check_numpy(stream: IO[bytes]) -> None:
    """Look at the headers of an NPY or NPZ file, and go back to where the stream stood.

    Raises:
        ValueError: It is neither; or an array is larger than the file can be, or made of pickles.
    """
    start, end = stream.tell(), stream.seek(0, os.SEEK_END)
    stream.seek(start)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                _check_member(archive, member, end)
    else:
        stream.seek(start)
        _check_array("", stream, end - start)
    stream.seek(start)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, archive_size: int) -> None:
    if member.compress_type not in _ZIPPED:
        raise ValueError(f"{member.filename!r} is compressed in another way than np.savez_compressed does")
    # The sizes in the archive's directory are what its writer says, too.
    possible = min(member.compress_size, archive_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        possible *= _MAX_DEFLATE
    try:
        with archive.open(member) as stream:
            _check_array(f"{member.filename!r}: ", stream, min(member.file_size, possible))
    except RuntimeError as error:  # encrypted, or of a kind that zipfile does not know
        raise ValueError(f"{member.filename!r}: {error}") from error


def _check_array(name: str, stream: IO[bytes], size: int) -> None:
    """`size`: the most bytes that there can be in the stream."""
    header = io.BytesIO(stream.read(_HEADER))
    try:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(header)
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"{name}the header is of no array") from error
    if dtype.hasobject:
        raise ValueError(f"{name}objects are not read, only numbers and strings")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name}{dtype} of shape {list(shape)} is more than the file holds")
