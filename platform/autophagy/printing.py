"""Lines on a terminal: what somebody named is printed as it is, never read as markup, and steers nothing."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from autophagy.records import visible, without_secrets


def plain(*parts: str | tuple[str, str]) -> Text:
    """Parts that are text, or text and its style, side by side."""
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((visible(without_secrets(text)), style) for text, style in styled))


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print the parts, see `plain`, as they are: long lines are for the terminal to break."""
    console.print(plain(*parts), soft_wrap=True)
