"""Frozen parts of a configuration: what of them is hashed, families told apart by one key, errors of one line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from autophagy.common.errors import UserError, shown

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
        raise UserError(_member_line(error, section, by_name[name], f"{key} {name}")) from None


def _member_line(error: ValidationError, section: str, member: type[BaseModel], name: str) -> str:
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


Validated = TypeVar("Validated", bound=BaseModel)
# What pydantic says in terms of its own.
_MESSAGES = {
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', with a letter or digit in front",
    "model_type": "write a mapping of fields",
}


class Section(BaseModel):
    """A part of an experiment. `keyed` is what changes numbers; the other fields only say where and how to compute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def keyed(self) -> dict[str, Any]:
        """The fields that change numbers, as JSON: what stage keys are made of."""
        runtime = {n for n, f in type(self).model_fields.items() if "runtime" in f.metadata}
        return self.model_dump(mode="json", exclude=runtime)


def validate(model: type[Validated], values: Mapping[str, Any]) -> Validated:
    """`values` as a model; a UserError of one line with the first field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, model)) from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error as one line: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    # The tags of a union, such as the strategy, stand in the location too but are no fields.
    tags = ("int", "float", "str", "[key]")
    path = [str(p) for p in first["loc"] if str(p) not in tags and not str(p).startswith("constrained")]
    field, value = ".".join(path), first["input"]
    if first["type"] == "extra_forbidden":
        names = _fields_of(model, path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"fields here: {', '.join(names)}"
        return f"{field} = {shown(value)}: no such field; {hint}"
    if first["type"] == "missing":
        return f"{field}: is missing and has no default; set it"
    message = _MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{field} = {shown(value)}: {message[0].lower()}{message[1:]}" if field else message


def _fields_of(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the fields of a section of a model."""
    section = model
    for part in path:
        annotation = section.model_fields[part].annotation
        section = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
    return list(section.model_fields)
