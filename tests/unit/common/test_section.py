"""Parts of a configuration: which fields keys are made of, marks that cannot be lost, errors of one line."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from autophagy.common.errors import UserError
from autophagy.common.section import RUNTIME, Section, make_choice, since, validate


class Disk(Section):
    path: Annotated[str, RUNTIME] = "/tmp"
    size: int = 3


class Settings(Section):
    rate: float = 0.1
    kind: Annotated[str, since("old"), Field(exclude_if=lambda kind: kind == "old")] = "old"
    steps: Annotated[Annotated[int, Field(ge=1)] | None, since(None)] = None
    threads: Annotated[int, Field(ge=0), RUNTIME] = 1
    disk: Disk = Disk()
    spare: Disk | None = None


def test_keys_are_made_of_all_but_what_says_where():
    assert Settings().keyed() == {"rate": 0.1, "disk": {"size": 3}, "spare": None}
    assert Settings(spare=Disk()).keyed() == {"rate": 0.1, "disk": {"size": 3}, "spare": {"size": 3}}
    assert Settings(threads=8, disk=Disk(path="/data")).keyed() == Settings().keyed()


def test_a_younger_field_is_in_keys_where_it_has_another_value():
    assert Settings(kind="new", steps=4).keyed() == Settings().keyed() | {"kind": "new", "steps": 4}


def test_runtime_fields_are_named_down_to_those_of_sections_and_members():
    class Family(Section):
        kind: str

    class Member(Family):
        kind: Literal["member"] = "member"
        cache: Annotated[bool, RUNTIME] = False

    class Whole(Section):
        settings: Settings
        member: Family

    found = {"settings.threads", "settings.disk.path", "settings.spare.path", "member.cache"}
    assert Whole.runtime_fields() == found
    assert Member.runtime_fields() == {"cache"}


@pytest.mark.parametrize(
    "lost",
    [
        Annotated[int, RUNTIME] | None,
        Annotated[int, since(3)] | None,
        list[Annotated[int, RUNTIME]],
        Annotated[dict[str, Annotated[int, Field(ge=1), since(1)]] | None, RUNTIME],
    ],
)
def test_a_mark_where_nobody_would_find_it_is_an_error_of_the_class(lost):
    with pytest.raises(TypeError, match=r"Broken\.value: a mark inside of its type would be lost"):
        type("Broken", (Section,), {"__annotations__": {"value": lost}})


class Model(Section):
    kind: Literal["model"] = "model"
    width: Annotated[int, Field(ge=4)] | Literal["auto"] = "auto"
    settings: Settings | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Model:
        if self.seed == 13:
            raise ValueError("seed = 13 brings bad luck; take another")
        return self


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"wdth": 4}, "wdth = 4: OWNER has no such field (did you mean width?); it has kind, width, settings, seed"),
        (
            {"settings": {"threds": 4}},
            "settings.threds = 4: settings has no such field (did you mean threads?); it has rate, kind, steps, ",
        ),
        ({"width": 3}, "width = 3: should be greater than or equal to 4 or 'auto'"),
        (
            {"width": "wide"},
            "width = 'wide': should be a valid integer, unable to parse string as an integer or 'auto'",
        ),
        ({"settings": 4}, "settings = 4: write a mapping of fields"),
        ({"settings": {"disk": {"size": "x"}}}, "settings.disk.size = 'x': should be a valid integer, unable to parse"),
    ],
)
def test_what_is_wrong_is_told_alike_of_a_model_and_of_a_member_of_a_family(values, line):
    with pytest.raises(UserError) as whole:
        validate(Model, values)
    assert str(whole.value).startswith(line.replace("OWNER", "model"))
    with pytest.raises(UserError) as member:
        make_choice([Model], "here", "kind", {"kind": "model", **values})
    assert str(member.value).startswith("here." + line.replace("OWNER", "kind model"))


def test_what_concerns_several_fields_is_told_in_the_words_of_its_check():
    with pytest.raises(UserError, match=r"^seed = 13 brings bad luck; take another$"):
        validate(Model, {"seed": 13})


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match=r"^model: is missing and has no default; set it$"):
        validate(type("Needy", (Section,), {"__annotations__": {"model": Model}}), {})
