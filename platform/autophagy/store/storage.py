"""Files below one root, on a local disk or in an S3 bucket: the few atomic operations a store needs."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from autophagy.common.errors import UserError, without_secrets
from autophagy.store import places

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 25  # calls that wait for storage: as many connections as pyarrow opens to S3; more would queue
SETTLE_SECONDS = 0.2  # on S3, where nothing is created only if it is not there: time for other writers to have written
TEMPORARY = "tmp"  # files on their way to their name; what a killed process leaves here is garbage
_CHUNK = 16 * 2**20


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
        self.uri = places.absolute(uri)

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __repr__(self) -> str:
        return f"Storage({without_secrets(self.uri)!r})"

    @cached_property
    def _place(self) -> tuple[FileSystem, str]:
        return places.resolve(self.uri)

    @property
    def fs(self) -> FileSystem:
        """The pyarrow filesystem."""
        return self._place[0]

    @property
    def root(self) -> str:
        """The root within `fs`."""
        return self._place[1]

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
            places.make_root(self.uri)
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
        """What is in a folder, by path; nothing if there is no such folder. On a disk, links are not there."""
        if self.local:
            found = places.walk(path, recursive) if places.is_within(path, self.root) else ()
            return sorted(found, key=lambda info: info.path)
        selector = FileSelector(path, allow_not_found=True, recursive=recursive)
        return sorted(self.fs.get_file_info(selector), key=lambda info: info.path)

    def _check_folder(self, path: str) -> str:
        """The local folder of a path that is to be changed.

        Raises:
            PermissionError: A link leads it out of the root.
        """
        folder = os.path.dirname(path)
        if not places.is_within(folder, self.root):
            raise PermissionError(f"{folder} leads out of the store by a symbolic link; remove the link")
        return folder

    def exists(self, path: str) -> bool:
        """Whether there is a file (not a folder) of this path."""
        return self.fs.get_file_info(path).is_file

    def read(self, path: str) -> bytes | None:
        """The content of a file, None if there is none: a folder is none, nor is a pipe."""
        if self.local and not os.path.isfile(path):
            return None
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
            self._check_folder(f"{path}/")
            os.makedirs(path, exist_ok=True)

    def make_folder_with(self, path: str, name: str) -> None:
        """Create a folder that has a file of this name, with a line in it, from its first moment on."""
        if not self.local:
            self.put(f"{path}/{name}", b"\n")
            return
        aside = self.at(TEMPORARY, uuid.uuid4().hex)
        self.make_folder(aside)
        Path(aside, name).write_bytes(b"\n")
        self.make_folder(os.path.dirname(path))
        os.rename(aside, path)

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
        """Write a file if there is none; False if there is. Best effort on S3: looks first, then writes.

        Like any request, one that was carried out may be answered by an error: who must know reads the file (`claim`).
        """
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
                # A file server may carry out a request twice: then the second one finds the file of the first.
                return os.stat(temporary).st_nlink > 1
        return True

    def claim(self, path: str, data: bytes) -> bool:
        """Write a file if there is none, and say whether it holds `data` now, which nobody else would write."""
        if self.create(path, data) and not self.local:
            time.sleep(SETTLE_SECONDS)  # of several writers the last one wins
        return self.read(path) == data

    def sync(self, folder: str) -> None:
        """See that all below a folder, and the folder itself, outlive a power cut. S3 has done so when it answers."""
        if not self.local:
            return
        for info in self.entries(folder, recursive=True):
            places.sync(info.path)
        while len(folder) >= len(self.root):  # its name in its parent, and so on
            places.sync(folder)
            folder = os.path.dirname(folder)

    def sync_name(self, path: str) -> None:
        """See that the name of a file outlives a power cut."""
        if self.local:
            places.sync(os.path.dirname(path))

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, if there is one. A folder on a disk is there whole or not at all."""
        if self.local:
            self._check_folder(path)
            with suppress(FileNotFoundError, NotADirectoryError):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(self._set_aside(path))
                else:
                    os.unlink(path)
            return
        kind = self.fs.get_file_info(path).type
        with suppress(FileNotFoundError):
            if kind == FileType.Directory:
                self.fs.delete_dir(path)
            elif kind == FileType.File:
                self.fs.delete_file(path)

    def remove_empty(self, path: str) -> None:
        """Remove a folder if nothing is in it; S3 has none."""
        if self.local and places.is_within(path, self.root):
            with suppress(OSError):
                os.rmdir(path)

    def discard(self, path: str) -> None:
        """Remove what is of no use any more; if that fails, garbage collection finds it later."""
        with suppress(OSError):
            self.remove(path)

    def remove_if(self, path: str, data: bytes) -> None:
        """Remove a file if it still holds `data`: what another process has put in its place stays."""
        if self.read(path) != data:
            return
        if not self.local:
            self.remove(path)
            return
        self._check_folder(path)
        with suppress(FileNotFoundError):
            aside = self._set_aside(path)  # of several processes one gets it, and can look at what it got
            if self.read(aside) != data:
                with suppress(FileExistsError):
                    os.link(aside, path)
            os.unlink(aside)

    def obstructed(self, path: str) -> bool:
        """Whether something else than a file is in the way of a file of this path: a folder, or a link to nothing."""
        return self.local and os.path.lexists(path) and not os.path.isfile(path)

    def _set_aside(self, path: str) -> str:
        """Rename a local file or folder, at once and whole; its new path. What a kill leaves there is garbage."""
        aside = self.at(TEMPORARY, uuid.uuid4().hex)
        self.make_folder(os.path.dirname(aside))
        os.rename(path, aside)
        return aside

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
            with suppress(OSError):  # else it is garbage; what it was written for is done or has failed already
                os.unlink(path)
