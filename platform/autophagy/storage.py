"""Files below one root, on a local disk or in an S3 bucket: the few atomic operations a store needs."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pyarrow.fs import (
    AwsDefaultS3RetryStrategy,
    FileInfo,
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    S3FileSystem,
)

from autophagy.records import UserError, without_secrets

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 25  # calls that wait for storage: as many connections as pyarrow opens to S3; more would queue
TEMPORARY = "tmp"  # files on their way to their name; what a killed process leaves here is garbage
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_SCHEMES = ("file", "s3")
_CHUNK = 16 * 2**20
_ATTEMPTS = 12  # after 0.025 s, 0.05 s and so on: 100 s in all


def is_name(name: str) -> bool:
    """Whether `name` is safe as one file name: letters, digits, `._-`, not starting with a dot."""
    return _NAME.fullmatch(name) is not None


def check_key(name: str) -> str:
    """A stage name or key, as it is.

    Raises:
        ValueError: It is not one plain file name.
    """
    if not is_name(name):
        raise ValueError(f"not a stage name or key: {name!r}")
    return name


def at_once(function: Callable[[T], R], items: Iterable[T], limit: int = AT_ONCE) -> list[R]:
    """What a function that mostly waits for a server gives for each item, in their order; `limit` calls at a time."""
    with ThreadPoolExecutor(limit) as pool:
        return list(pool.map(function, items))


class Storage:
    """Files below `root` of a pyarrow filesystem; all paths are paths within it. Only `uri` is pickled."""

    def __init__(self, uri: str | Path) -> None:
        """Name a root; nothing is touched before the first use.

        Args:
            uri: A folder, `file://...`, or `s3://bucket/prefix?endpoint_override=...&scheme=...&region=...`.
        """
        text = str(uri)
        self.uri = text if "://" in text or not text else os.path.abspath(os.path.expanduser(text))

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __repr__(self) -> str:
        return f"Storage({without_secrets(self.uri)!r})"

    @cached_property
    def _resolved(self) -> tuple[FileSystem, str]:
        if "://" not in self.uri:
            return LocalFileSystem(), self.uri
        fs, root = FileSystem.from_uri(self.uri)
        return _patient(fs) if isinstance(fs, S3FileSystem) else fs, root

    @property
    def fs(self) -> FileSystem:
        """The pyarrow filesystem."""
        return self._resolved[0]

    @property
    def root(self) -> str:
        """The root within `fs`."""
        return self._resolved[1].rstrip("/")

    @property
    def local(self) -> bool:
        """Whether the files are on a local (or mounted) disk."""
        return isinstance(self.fs, LocalFileSystem)

    def check(self) -> None:
        """Create the root and write to it once.

        Raises:
            UserError: The URI is malformed, or nothing can be written there.
        """
        try:
            if "://" in self.uri and self.uri.split("://")[0] not in _SCHEMES:
                raise ValueError("unknown scheme")
            if not self.root:
                raise ValueError("no folder or bucket given")
            # Not the patient one: a mistyped address is to be noticed at once.
            impatient = self.fs if self.local else FileSystem.from_uri(self.uri)[0]
            impatient.create_dir(self.root, recursive=True)
            probe = self.at(TEMPORARY, uuid.uuid4().hex)
            self.create(probe, b"")
            self.remove(probe)
        except (OSError, ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"store: cannot use {self.uri!r} ({reason}); "
                "give a writable folder, or s3://bucket/prefix with its credentials in the environment"
            ) from error

    def at(self, *parts: str) -> str:
        """The path of `parts` below the root."""
        return "/".join((self.root, *parts))

    def entries(self, path: str, recursive: bool = False) -> list[FileInfo]:
        """What is in a folder, by path; nothing if there is no such folder."""
        selector = FileSelector(path, allow_not_found=True, recursive=recursive)
        return sorted(self.fs.get_file_info(selector), key=lambda info: info.path)

    def exists(self, path: str) -> bool:
        """Whether there is a file (not a folder) of this path."""
        return self.fs.get_file_info(path).is_file

    def read(self, path: str) -> bytes | None:
        """The content of a file, None if there is none."""
        try:
            with self.fs.open_input_stream(path, compression=None) as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def checksum(self, path: str) -> str:
        """The blake2b of a file's content, 32 hex digits."""
        result = hashlib.blake2b(digest_size=16)
        with self.fs.open_input_stream(path, compression=None) as stream:
            while chunk := stream.read(_CHUNK):
                result.update(chunk)
        return result.hexdigest()

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; S3 needs none."""
        if self.local:
            os.makedirs(path, exist_ok=True)

    def put(self, path: str, data: bytes) -> None:
        """Write or replace a file: readers see the old content or the new one, never a part."""
        self.make_folder(os.path.dirname(path))
        if self.local:
            with self._temporary(data) as temporary:
                os.replace(temporary, path)
        else:
            with self.fs.open_output_stream(path, compression=None) as stream:
                stream.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file if there is none; False if there is. Best effort on S3: looks first, then writes."""
        if not self.local:
            if self.exists(path):
                return False
            self.put(path, data)
            return True
        self.make_folder(os.path.dirname(path))
        with self._temporary(data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        return True

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if there is one."""
        kind = self.fs.get_file_info(path).type
        with suppress(FileNotFoundError):
            if kind == FileType.Directory:
                self.fs.delete_dir(path)
            elif kind == FileType.File:
                self.fs.delete_file(path)

    def discard(self, path: str) -> None:
        """Remove what is of no use any more; if that fails, garbage collection finds it later."""
        with suppress(OSError):
            self.remove(path)

    def remove_if(self, path: str, data: bytes) -> None:
        """Remove a file if it still holds `data`: what another process has put in its place stays."""
        if not self.local:
            if self.read(path) == data:
                self.remove(path)
            return
        aside = self.at(TEMPORARY, uuid.uuid4().hex)
        self.make_folder(os.path.dirname(aside))
        with suppress(FileNotFoundError):
            os.rename(path, aside)  # atomic: of several processes one gets it, and can look at what it got
            if self.read(aside) != data:
                with suppress(FileExistsError):
                    os.link(aside, path)
            os.unlink(aside)

    @contextmanager
    def _temporary(self, data: bytes) -> Iterator[str]:
        """A complete local file on the same disk as the root, gone afterwards."""
        path = self.at(TEMPORARY, uuid.uuid4().hex)
        self.make_folder(os.path.dirname(path))
        try:
            with open(path, "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _patient(fs: S3FileSystem) -> S3FileSystem:
    """The same file system, which outlives a minute without an answer: loops go on, and nothing is computed twice.

    A small file is one request, not three in turn.
    """
    _, (options,) = fs.__reduce__()  # how pyarrow itself copies one; nothing else gives the options of a URI
    options |= {"allow_delayed_open": True, "retry_strategy": AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS)}
    return S3FileSystem(**options)
