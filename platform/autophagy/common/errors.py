"""What is said to people: errors of the user, without secrets and without what a terminal would act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

# Control characters but tab and line feed, marks of direction, and halves of characters, which cannot be printed.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# What holds a secret, and what is left of it. In the names of a URI's options, words such as `key` may stand anywhere,
# and short ones by themselves; elsewhere, where `key` and `auth` mean other things, a name must end as secrets do.
_QUOTE = r"['\"](?![\s,:;)\]}]|$)"  # of a password, not around it
_WORDS, _SHORT = "secret|token|passw|passphrase|key|credential|signature", "sig|sas|pwd|pass|auth"
_OPTION = rf"(?:[\w-]{{0,60}}(?:{_WORDS})[\w-]{{0,60}}|(?:[\w-]{{0,60}}[-_])?(?:{_SHORT})(?:[-_][\w-]{{0,60}})?)"
_NAME = (
    r"[\w.-]{0,60}?(?:secret|token|password|passwd|passphrase|pwd|credentials?|"
    r"(?:api|access|secret|private|account|shared|storage)[-_]?key(?:[-_]?id)?)"
)
_QUOTED = r"\\+\"[^\"]*\"|\\+'[^']*'|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), rest)
    for pattern, rest in (
        (rf"://(?:[^/\s:'\"]*:(?:(?!://)[^\s'\"]|{_QUOTE})*|[^/\s'\"]*)@", "://***@"),
        (rf"([?&#;]{_OPTION}=)(?:[^&\s'\"]|{_QUOTE})*", r"\1***"),
        (rf"((?:%(?:25)*[0-9a-f]{{2}}|\b){_OPTION}%(?:25)*3d)(?:(?!%(?:25)*(?:26|3b))[^&\s'\"])*", r"\1***"),
        (rf"(?<![\w.?&#;-])({_NAME}=)(?:{_QUOTED}|\*\*\*(?=[\s,;)]|$)|[^\s'\"]+)", r"\1***"),
        (rf"(['\"]{_NAME}\\*['\"]\s*:\s*)b?(?:{_QUOTED}|(?!null|none|true|false)[^\s,)\]}}]+)", r'\1"***"'),
        (r"(authorization\\*['\"]?\s*[:=]\s*\\*['\"]?(?:bearer|basic|token)\s+)[^\s'\"\\]+", r"\1***"),
        (r"(\bbearer\s+)[\w.~+/=-]{16,}", r"\1***"),
    )
]


def without_secrets(text: str) -> str:
    """`text` with *** for its passwords and keys: for whatever is printed, logged or tracked.

    These are known by where they stand: in URIs, in queries, percent-encoded too, in assignments such as
    `AWS_SECRET_ACCESS_KEY=...`, in JSON and what Python prints of a dict, in headers.
    """
    for pattern, rest in _SECRETS:
        text = pattern.sub(rest, text)
    return text


def visible(text: str) -> str:
    """`text` with what a terminal would act on, or cannot print, in Python's notation: an escape is `\\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(value: Any) -> str:
    """A value from a file or a command line as a message shows it: its repr, cut where it is long."""
    return _cut(without_secrets(repr(value)), 200)  # half a secret would not be known as one


def near(word: object, words: Iterable[str]) -> str:
    """Which of the words was probably meant, as messages say it: " (did you mean fid?)"; empty if none is like it."""
    matches = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _cut(text: str, most: int) -> str:
    """A text of `most` characters: where it is longer, its beginning and its end, which is the remedy."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[-(most // 3 - 5) :]}"


class UserError(Exception):
    """Something the user can mend: says what is wrong, where in the configuration, and what to do."""

    def __str__(self) -> str:
        return _cut(visible(without_secrets(super().__str__())), 2000)
