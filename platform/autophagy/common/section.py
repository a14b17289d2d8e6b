"""Frozen parts of a configuration: what of them is hashed, families told apart by one key, errors of one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from autophagy.common.errors import UserError, near, shown

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Runtime:
    """Mark of a field that says where and how to compute: no number hangs on it."""


@dataclass(frozen=True)
class since:
    """Mark of a field that is younger than results in use: where it has this value, keys are as if there were none."""

    default: Any


RUNTIME = Runtime()


class Section(BaseModel):
    """A part of a configuration: what of it changes numbers is `keyed`, all but its `runtime_fields`.

    Fields are marked by `Annotated[type, RUNTIME]` and `Annotated[type, since(default)]`, outside of any `| None`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if _has_mark_inside(field.annotation):
                raise TypeError(
                    f"{cls.__name__}.{name}: a mark inside of its type would be lost; write Annotated[... | None, mark]"
                )

    def keyed(self) -> dict[str, Any]:
        """The fields that change numbers, as JSON: what keys are made of."""
        plain = self.model_dump(mode="json")
        return {
            name: value.keyed() if isinstance(value, Section) else plain[name]
            for name, value in self
            if not _is_left_out(value, type(self).model_fields[name].metadata)
        }

    @classmethod
    def runtime_fields(cls) -> set[str]:
        """Dotted names of all fields marked RUNTIME, those of the sections inside and of members of a family too."""
        found = set()
        for name, field in cls.model_fields.items():
            if RUNTIME in field.metadata:
                found.add(name)
            for section in _sections_in(field.annotation):
                found |= {f"{name}.{inner}" for inner in section.runtime_fields()}
        return found.union(*(member.runtime_fields() for member in cls.__subclasses__()))


def _is_left_out(value: Any, marks: Sequence[Any]) -> bool:
    """Whether keys are made without a field of this value."""
    return RUNTIME in marks or any(isinstance(mark, since) and mark.default == value for mark in marks)


def _has_mark_inside(annotation: Any) -> bool:
    return any(isinstance(part, Runtime | since) or _has_mark_inside(part) for part in get_args(annotation))


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The section that a field is, or may be."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Section):
            yield part


def validate(model: type[M], values: Mapping[str, Any]) -> M:
    """`values` as a model.

    Raises:
        UserError: one line with the first field that is wrong, its value, and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, model)) from None


def make_choice(
    family: Sequence[type[M]], section: str, key: str, config: Mapping[str, Any] | M, others: Iterable[str] = ()
) -> M:
    """The member of `family` that `config` describes.

    Args:
        family: classes whose field `key` is a literal with itself as the default.
        section: configuration section the mapping comes from, for messages ("selection").
        key: name of the discriminating field ("strategy").
        config: the mapping, `key` included; a member is given back as it is.
        others: names of members that are there too, and are not loaded unless asked for; for messages.

    Raises:
        UserError: no mapping, an unknown member, an unknown field, or a bad value; one line each.
    """
    if not isinstance(config, Mapping) and isinstance(config, tuple(family)):
        return config
    by_name = {member.model_fields[key].default: member for member in family}
    known = dict.fromkeys([*by_name, *others])
    names = ", ".join(known)
    if not isinstance(config, Mapping):
        raise UserError(f"{section} = {shown(config)}: write a mapping with {section}.{key}, one of {names}")
    name = config.get(key)
    if not isinstance(name, str) or name not in by_name:
        raise UserError(f"{section}.{key} = {shown(name)}: unknown{near(name, known)}; choose one of {names}")
    try:
        return by_name[name].model_validate(dict(config))
    except ValidationError as error:
        raise UserError(_one_line(error, by_name[name], section, f"{key} {name}")) from None


# What pydantic says in terms of its own.
_MESSAGES = {
    "string_pattern_mismatch": "use letters, digits, '.', '_' and '-', with a letter or digit in front",
    "model_type": "write a mapping of fields",
}
_SHOULD_BE = "Input should be "


def _one_line(error: ValidationError, model: type[BaseModel], section: str = "", owner: str = "") -> str:
    """The first problem of a validation error: field, value, what is allowed.

    Args:
        error: As it was raised by `model`.
        model: What was validated.
        section: Dotted name of what was validated, if it is a part.
        owner: What to call it; by default its class.
    """
    errors = error.errors(include_url=False)
    kind, path, value = errors[0]["type"], _path(errors[0]["loc"]), errors[0]["input"]
    field = ".".join([section, *path] if section else path)
    if kind == "missing":
        return f"{field}: is missing and has no default; set it"
    if kind == "extra_forbidden":
        inner = _section_at(model, path[:-1])
        whose = owner if owner and inner is model else inner.__name__.lower()
        there = ", ".join(inner.model_fields)
        return (
            f"{field} = {shown(value)}: {whose} has no such field{near(path[-1], inner.model_fields)}; it has {there}"
        )
    # A union reports every alternative that did not match: any of them is a remedy.
    messages = [_MESSAGES.get(e["type"], e["msg"]) for e in errors if _path(e["loc"])[: len(path)] == path]
    message = messages[0].removeprefix("Value error, ")
    if message.startswith(_SHOULD_BE):
        message = f"should be {' or '.join(dict.fromkeys(m.removeprefix(_SHOULD_BE) for m in messages))}"
    return f"{field} = {shown(value)}: {message[0].lower()}{message[1:]}" if field else message


def _path(location: Sequence[int | str]) -> list[str]:
    """The fields to a value. The alternatives of a union stand in a location too, and are no fields."""
    tags = ("int", "float", "str")
    return [str(p) for p in location if str(p) not in tags and "[" not in str(p) and "constrained" not in str(p)]


def _section_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The section of a model that has this dotted name."""
    for name in path:
        model = next(_sections_in(model.model_fields[name].annotation))
    return model
