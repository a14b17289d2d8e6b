"""Denoisers: which there are, and the one that a configuration means. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from autophagy.common.errors import UserError, shown
from autophagy.common.section import make_choice
from autophagy.denoisers.base import Model
from autophagy.denoisers.unet import UNet

MODELS: tuple[type[Model], ...] = (UNet,)
OUTSIDE = "autophagy.denoisers"  # entry points of installed packages that bring denoisers of their own, named by `kind`

__all__ = ["MODELS", "OUTSIDE", "AnyModel", "Model", "UNet", "make_model"]


def make_model(config: Mapping[str, Any] | Model) -> Model:
    """The denoiser that `{"kind": name, field: value, ...}` describes; without a `kind` it is a `unet`.

    Raises:
        UserError: unknown kind, unknown field, a value out of range, or an entry point of no use; one line.
    """
    if isinstance(config, Model):
        return config
    family, others = MODELS, list[EntryPoint]()
    if isinstance(config, Mapping):
        config = {"kind": UNet.model_fields["kind"].default} | dict(config)
        if config["kind"] not in [member.model_fields["kind"].default for member in MODELS]:
            # Only what is installed and says so: a configuration names no code to be run.
            others = list(entry_points(group=OUTSIDE))
            family += tuple(_loaded(entry) for entry in others if entry.name == config["kind"])
    return make_choice(family, "model", "kind", config, [entry.name for entry in others])


def _loaded(entry: EntryPoint) -> type[Model]:
    """The class that an entry point names.

    Raises:
        UserError: it cannot be loaded, is no denoiser, or one of another kind.
    """
    package = entry.dist.name if entry.dist else "unknown"
    whose = f"model.kind = {shown(entry.name)}: the entry point `{entry.name} = {entry.value}` of the package {package}"
    try:
        found = entry.load()
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{whose} cannot be loaded ({why}); mend the package, or install it again") from error
    if not isinstance(found, type) or not issubclass(found, Model) or isabstract(found):
        remedy = "name a class there that derives from autophagy.denoisers.Model and has build, predict and encode"
        raise UserError(f"{whose} is no denoiser; {remedy}")
    if (kind := found.model_fields["kind"].default) != entry.name:
        remedy = f"give both the same name, the class by `kind: Literal[{entry.name!r}] = {entry.name!r}`"
        its = f"kind is {shown(kind)}" if isinstance(kind, str) else "kind has no default"
        raise UserError(f"{whose} is of a class whose {its}; {remedy}")
    return found


AnyModel = Annotated[SerializeAsAny[Model], BeforeValidator(make_model)]
