"""Frozen parts of a configuration: what of them is hashed, families told apart by one key, errors of one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from autophagy.common.errors import UserError, shown

Model = TypeVar("Model", bound=BaseModel)


def make_choice(family: Sequence[type[Model]], section: str, key: str, config: Mapping[str, Any] | Model) -> Model:
    """The member of `family` that `config` describes.

    Args:
        family: classes whose field `key` is a literal with itself as the default.
        section: configuration section the mapping comes from, for messages ("selection").
        key: name of the discriminating field ("strategy").
        config: the mapping, `key` included; a member is given back as it is.

    Raises:
        UserError: no mapping, an unknown member, an unknown field, or a bad value; one line each.
    """
    if not isinstance(config, Mapping) and isinstance(config, tuple(family)):
        return config
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
    path, value = _path(errors[0]["loc"]), errors[0]["input"]
    field = ".".join([section, *path])
    if errors[0]["type"] == "extra_forbidden":
        fields = list(member.model_fields)
        return f"{field} = {shown(value)}: {name} has no such field{_near(path[0], fields)}; it has {', '.join(fields)}"
    # A union reports every alternative that did not match: any of them is a remedy.
    remedies = [e["msg"].removeprefix("Input should be ") for e in errors if e["loc"][0] == errors[0]["loc"][0]]
    return f"{field} = {shown(value)}: should be {' or '.join(dict.fromkeys(remedies))}"


def _path(location: Sequence[int | str]) -> list[str]:
    """The fields to a value. The alternatives of a union stand in a location too, and are no fields."""
    tags = ("int", "float", "str")
    return [str(p) for p in location if str(p) not in tags and "[" not in str(p) and "constrained" not in str(p)]


def _near(word: object, words: Sequence[str]) -> str:
    matches = difflib.get_close_matches(str(word), words)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


Validated = TypeVar("Validated", bound=BaseModel)
# What pydantic says in terms of its own.
_MESSAGES = {
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', with a letter or digit in front",
    "model_type": "write a mapping of fields",
}


RUNTIME = "runtime"  # mark of a field that says where and how to compute: no number hangs on it


@dataclass(frozen=True)
class since:
    """Mark of a field that is younger than results in use: where it has this value, keys are as if there were none."""

    default: Any


class Section(BaseModel):
    """A part of a configuration: what of it changes numbers is `keyed`, and the rest is `runtime`.

    Fields are marked by `Annotated[type, RUNTIME]` and `Annotated[type, since(default)]`, outside of any `| None`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def keyed(self) -> dict[str, Any]:
        """The fields that change numbers, as JSON: what keys are made of."""
        return {name: value for name, value in self._json() if not self._is_runtime(name) and not self._is_unsaid(name)}

    def runtime(self) -> dict[str, Any]:
        """The fields that only say where and how to compute, as JSON."""
        return {name: value for name, value in self._json() if self._is_runtime(name)}

    def _json(self) -> Iterator[tuple[str, Any]]:
        plain = self.model_dump(mode="json")
        for name, value in self:
            yield name, value.keyed() if isinstance(value, Section) else plain.get(name)

    def _is_runtime(self, name: str) -> bool:
        return RUNTIME in type(self).model_fields[name].metadata

    def _is_unsaid(self, name: str) -> bool:
        marks = [mark for mark in type(self).model_fields[name].metadata if isinstance(mark, since)]
        return any(getattr(self, name) == mark.default for mark in marks)


def validate(model: type[Validated], values: Mapping[str, Any]) -> Validated:
    """`values` as a model; a UserError of one line with the first field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, model)) from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error as one line: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    path = _path(first["loc"])
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
