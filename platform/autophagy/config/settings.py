"""Settings such as `training.epochs=5`, and YAML files: values before they are checked."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autophagy.common.errors import UserError
from autophagy.common.yaml_text import MAX_BYTES, MAX_DEPTH, read_yaml
from autophagy.denoisers import UNet

# Fields that choose the member of a family, and what is chosen where they are left out.
CHOICES = {
    "selection.strategy": None,
    "scenario.kind": None,
    "correction.kind": None,
    "model.kind": UNet.model_fields["kind"].default,
}


def override(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values` with settings such as `training.epochs=5` applied, as `assign` does; a value is read as YAML."""
    return assign(values, dict(map(parse_setting, settings)))


def assign(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with fields set by their dotted names.

    Choosing another `selection.strategy`, `scenario.kind`, `correction.kind` or `model.kind` starts that section anew,
    from the defaults of the choice.
    """
    result = copy.deepcopy(dict(values))
    for name in sorted(settings, key=lambda name: name not in CHOICES):
        *path, field = name.split(".")
        if len(path) >= MAX_DEPTH:
            raise UserError(f"--set {name}: has {len(path) + 1} parts; no field is that deep")
        section = result
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"--set {name}: {part} has no fields; give it a value instead")
        if name in CHOICES and section.get(field, CHOICES[name]) != settings[name]:
            section.clear()
        section[field] = settings[name]
    return result


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, see `read_yaml`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a recipe name or a YAML file") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of fields such as `seed: 0`, not {type(values).__name__}")
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name; lists stay whole, as text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def parse_setting(text: str) -> tuple[str, Any]:
    """Dotted name and value of a setting such as `training.epochs=5`."""
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(f"--set {text}: must be written as section.field=value, such as training.epochs=5")
    return name.strip(), read_yaml(value, f"--set {text}")
