"""The two places where a store may be, a disk and S3: what a URI means, and what only one of the two needs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pyarrow.fs import AwsDefaultS3RetryStrategy, FileInfo, FileSystem, FileType, LocalFileSystem, S3FileSystem

_SCHEMES = ("file", "s3")
_ATTEMPTS = 12  # after 0.025 s, 0.05 s and so on: 100 s in all


def absolute(uri: str | Path) -> str:
    """A URI as it is; a folder, wherever the process goes."""
    text = str(uri)
    return text if "://" in text or not text else os.path.abspath(os.path.expanduser(text))


def resolve(uri: str) -> tuple[FileSystem, str]:
    """The filesystem of a URI or a folder, and the root within it; nothing is touched.

    Raises:
        OSError, ValueError, NotImplementedError: The URI is malformed.
    """
    fs, root = _named(uri)
    return _patient(fs) if isinstance(fs, S3FileSystem) else fs, root


def make_root(uri: str) -> None:
    """Create the root that a URI names; on a disk it is its owner's alone.

    Raises:
        OSError, ValueError, NotImplementedError: The URI is malformed, or nothing can be made there.
    """
    if "://" in uri and uri.split("://")[0] not in _SCHEMES:
        raise ValueError("unknown scheme")
    fs, root = _named(uri)  # not the patient one: a mistyped address is to be noticed at once
    if not root:
        raise ValueError("no folder or bucket given")
    if isinstance(fs, LocalFileSystem):
        _make_private(root)
    else:
        fs.create_dir(root, recursive=True)


def _named(uri: str) -> tuple[FileSystem, str]:
    fs, root = FileSystem.from_uri(uri) if "://" in uri else (LocalFileSystem(), uri)
    return fs, root.rstrip("/")


# A disk


def walk(path: str, recursive: bool) -> Iterator[FileInfo]:
    """Files and folders below a local folder, links left out, and what is gone by the time of the look."""
    folders = [path]
    while folders:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    mtime = datetime.fromtimestamp(about.st_mtime, UTC)
                    if stat.S_ISREG(about.st_mode):
                        yield FileInfo(entry.path, FileType.File, mtime=mtime, size=about.st_size)
                    elif stat.S_ISDIR(about.st_mode):
                        yield FileInfo(entry.path, FileType.Directory, mtime=mtime)
                        folders += [entry.path] if recursive else []


def is_within(path: str, root: str) -> bool:
    """Whether a local path stays below the root when links are followed; the root itself may be reached by one."""
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    return real == real_root or real.startswith(real_root.rstrip("/") + "/")


def sync(path: str) -> None:
    """Write what the system still holds of a local file or folder to the disk."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file servers keep no folder back that could be written
                raise
        finally:
            os.close(descriptor)


def _make_private(folder: str) -> None:
    """Create a folder that only its owner may enter: a store is as confidential as its images. One there is stays."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder} is no folder")


# S3


def _patient(fs: S3FileSystem) -> S3FileSystem:
    """The same file system, which outlives a minute without an answer: loops go on, and nothing is computed twice.

    A small file is one request, not three in turn.
    """
    _, (options,) = fs.__reduce__()  # how pyarrow itself copies one; nothing else gives the options of a URI
    options |= {"allow_delayed_open": True, "retry_strategy": AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS)}
    return S3FileSystem(**options)
