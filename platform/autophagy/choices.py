"""Families of pydantic models told apart by one key: which member a mapping means, or why it means none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autophagy.records import UserError, shown

Model = TypeVar("Model", bound=BaseModel)


def make_choice(family: Sequence[type[Model]], section: str, key: str, config: Mapping[str, Any]) -> Model:
    """The member of `family` that `config` describes.

    Args:
        family: classes whose field `key` is a literal with itself as the default.
        section: configuration section the mapping comes from, for messages ("selection").
        key: name of the discriminating field ("strategy").
        config: the mapping, `key` included.

    Raises:
        UserError: no mapping, an unknown member, an unknown field, or a bad value; one line each.
    """
    by_name = {member.model_fields[key].default: member for member in family}
    names = ", ".join(by_name)
    if not isinstance(config, Mapping):
        raise UserError(f"{section} = {shown(config)}: write a mapping with {section}.{key}, one of {names}")
    name = config.get(key)
    if not isinstance(name, str) or name not in by_name:
        raise UserError(f"{section}.{key} = {shown(name)}: unknown{_near(name, list(by_name))}; choose one of {names}")
    try:
        return by_name[name].model_validate(dict(config))
    except ValidationError as error:
        raise UserError(_one_line(error, section, by_name[name], f"{key} {name}")) from None


def _one_line(error: ValidationError, section: str, member: type[BaseModel], name: str) -> str:
    """The first bad field, its value, and what it may be."""
    errors = error.errors(include_url=False)
    field, value = errors[0]["loc"][0], errors[0]["input"]
    if errors[0]["type"] == "extra_forbidden":
        fields = list(member.model_fields)
        hint = f"{_near(field, fields)}; it has {', '.join(fields)}"
        return f"{section}.{field} = {shown(value)}: {name} has no such field{hint}"
    # A union reports every alternative that did not match: any of them is a remedy.
    remedies = [e["msg"].removeprefix("Input should be ") for e in errors if e["loc"][0] == field]
    return f"{section}.{field} = {shown(value)}: should be {' or '.join(dict.fromkeys(remedies))}"


def _near(word: object, words: Sequence[str]) -> str:
    matches = difflib.get_close_matches(str(word), words)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
