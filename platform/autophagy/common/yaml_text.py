"""YAML as plain values: by the safe loader, and of bounded size and depth, aliases written out."""

from __future__ import annotations

from itertools import chain
from typing import Any

import yaml

from autophagy.common.errors import UserError

MAX_BYTES = 256 << 10  # some ten seconds of reading at the worst
MAX_DEPTH = 50
_MAX_EXPANDED = 1 << 20  # characters, aliases written out
_MAX_BITS = 64  # of a whole number


class _Refused(yaml.YAMLError):
    """What is valid YAML and not read all the same."""


class _Loader(yaml.SafeLoader):
    """The safe loader; a few lines can mean gigabytes with aliases of aliases, or exhaust the stack by nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.measured: dict[yaml.Node, tuple[int, int]] = {}  # characters and levels, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self._check(0, self.depth)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias and node not in self.measured:
            raise _Refused("has a value that holds itself; write it out instead")
        if node is not None and not is_alias:
            self.measured[node] = self._measure(node)
            self._check(*self.measured[node])
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value), 1
        below = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes, levels = zip((1, 0), *(self.measured[child] for child in below), strict=True)
        return sum(sizes), 1 + max(levels)

    def _check(self, size: int, levels: int) -> None:
        if size > _MAX_EXPANDED:
            raise _Refused(f"has aliases that stand for more than {_MAX_EXPANDED} characters; use fewer")
        if levels > MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH} levels; make it flatter")


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    value = loader.construct_yaml_int(node)
    if value.bit_length() > _MAX_BITS:  # Python writes no number of many thousand digits, in messages either
        raise _Refused(f"has a whole number of more than {_MAX_BITS} bits; quote what is text")
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The values of a YAML document; bytes are UTF-8.

    Args:
        text: The document.
        where: The file or setting that it comes from, for messages.

    Raises:
        UserError: It is not valid, longer than `MAX_BYTES`, or too deep; says where.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: is longer than {MAX_BYTES} bytes; give less")
    try:
        loader = _Loader(text if isinstance(text, str) else text.decode())
        return loader.get_single_data()
    except _Refused as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # values such as 2020-13-45 end in any of Python's own errors
        raise UserError(f"{where}: is not valid YAML ({' '.join(str(error).split())}); quote what is text") from None
