"""What may be the name of a stage, a key, a run or a file of theirs: one plain file name anywhere."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


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
