"""A recipe by its name, or from a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autophagy.common.errors import UserError, near
from autophagy.config import Experiment, override, parse
from autophagy.config.settings import load_yaml
from autophagy.config.sweep import Sweep, override_sweep, parse_sweep
from autophagy.recipes.loops import RECIPES
from autophagy.recipes.sweeps import SWEEPS


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment | Sweep:
    """The experiment or sweep of a recipe or a YAML file, with overrides such as `keep_ratio=0.5` applied.

    A file with `axes` is a sweep; its `base` is a mapping of fields, a recipe or another file.

    Raises:
        UserError: no such recipe or file, or a field that is unknown or out of range.
    """
    values = _values(name_or_path)
    if "axes" not in values:
        return parse(override(values, overrides))
    if isinstance(values.get("base"), str):
        values["base"] = _values(values["base"])
    return parse_sweep(override_sweep(values, overrides))


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """As `load_recipe`, where it must be one loop."""
    chosen = load_recipe(name_or_path, overrides)
    if isinstance(chosen, Sweep):
        raise UserError(f"{name_or_path}: is a sweep, not one loop; use `autophagy sweep {name_or_path}`")
    return chosen


def load_sweep(name_or_path: str, overrides: Sequence[str] = ()) -> Sweep:
    """As `load_recipe`, where it must be a sweep."""
    chosen = load_recipe(name_or_path, overrides)
    if isinstance(chosen, Experiment):
        raise UserError(f"{name_or_path}: is one loop, not a sweep; use `autophagy run {name_or_path}`")
    return chosen


def _values(name_or_path: str) -> dict[str, Any]:
    """What a recipe or a file says."""
    by_name = {recipe.__name__: recipe for recipe in (*RECIPES, *SWEEPS)}
    if name_or_path in by_name:
        return by_name[name_or_path]().model_dump(mode="json")
    if name_or_path.endswith((".yaml", ".yml")) or Path(name_or_path).is_file():
        return {"name": Path(name_or_path).stem} | load_yaml(Path(name_or_path))
    guess = near(name_or_path, by_name)
    raise UserError(f"{name_or_path}: no such recipe, and no YAML file{guess}; recipes: {', '.join(by_name)}")
