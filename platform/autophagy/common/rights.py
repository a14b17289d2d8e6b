"""Who may read what is ours alone: Ray's token, a database of MLflow's, the folder of a store."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_WHO = (("group", stat.S_IRGRP, stat.S_IXGRP), ("others", stat.S_IROTH, stat.S_IXOTH))


def readers(path: str | Path) -> str:
    """Who else may read a file or list a folder: `group`, `others` or both; empty for nobody, or if there is none."""
    real = Path(os.path.realpath(path))
    try:
        mode, above = real.stat().st_mode, [folder.stat().st_mode for folder in real.parents]
    except OSError:
        return ""
    return " and ".join(who for who, read, enter in _WHO if mode & read and all(folder & enter for folder in above))


def narrow(path: str | Path) -> None:
    """Take from group and others all rights to what is ours; what is somebody else's stays as it is."""
    with suppress(OSError):
        about = os.stat(path)
        if about.st_uid == os.geteuid() and about.st_mode & 0o077:
            os.chmod(path, stat.S_IMODE(about.st_mode) & 0o700)


def token_file() -> str | None:
    """The file that Ray reads its token from, whether or not it is there; None where the environment has the token."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or f"{_ray_folder()}/auth_token"


def guard_token() -> None:
    """Leave Ray's token to us alone. Ray makes it, and the folder for it, as open as umask says: here the folder first.

    Whoever can read the token can run code as the user that Ray runs as.
    """
    token = token_file()
    if token is None:
        return
    folder = _ray_folder()
    if os.path.dirname(token) == folder:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
        narrow(folder)
    narrow(token)


def create_private(path: Path) -> None:
    """Make an empty file that we alone may read, if there is none; as umask says where a group shares the folder."""
    shared = path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) == stat.S_IWGRP
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if shared else 0o600))


def _ray_folder() -> str:
    return os.path.expanduser("~/.ray")
