"""Manifests: a stage is done if and only if its manifest is there, which names the attempt that counts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from pyarrow.fs import FileInfo
from pydantic import BaseModel

from autophagy.store.artifacts import file_sizes
from autophagy.store.names import check_key, is_name
from autophagy.store.storage import Storage

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


def manifest_path(storage: Storage, stage: str, key: str) -> str:
    """The manifest of a stage: the stage is done if and only if it is there."""
    return storage.at("stages", check_key(stage), check_key(key), MANIFEST)


def payload_path(storage: Storage, manifest: Mapping[str, Any]) -> str:
    """The payload folder a manifest names."""
    return storage.at("stages", manifest["stage"], manifest["key"], manifest["attempt"])


def read_manifest(storage: Storage, stage: str, key: str) -> dict[str, Any] | None:
    """The manifest of a stage, None if the stage is not done or the manifest damaged."""
    data = storage.read(manifest_path(storage, stage, key))
    return None if data is None else decode_manifest(data, stage, key)


def finished(storage: Storage, stage: str, prefix: str = "") -> list[tuple[str, FileInfo]]:
    """Keys of finished stages of one kind that start with `prefix`, sorted, with the file info of their manifests."""
    names = [info.base_name for info in storage.entries(storage.at("stages", check_key(stage)))]
    keys = [name for name in names if is_name(name) and name.startswith(prefix)]
    infos = storage.fs.get_file_info([manifest_path(storage, stage, key) for key in keys])
    return [(key, info) for key, info in zip(keys, infos, strict=True) if info.is_file]


def damage(storage: Storage, manifest: Mapping[str, Any] | None, checksums: bool = False) -> list[str]:
    """What is wrong with a stage's payload, in words; None stands for a manifest that cannot be read."""
    if manifest is None:
        return ["unreadable manifest"]
    problems = []
    folder = payload_path(storage, manifest)
    sizes = file_sizes(storage, folder)
    for name, expected in manifest["files"].items():
        if name not in sizes:
            problems.append(f"{name}: missing")
        elif sizes[name] != expected["size"]:
            problems.append(f"{name}: {sizes[name]} bytes instead of {expected['size']}")
        elif checksums and storage.checksum(f"{folder}/{name}") != expected["blake2b"]:
            problems.append(f"{name}: wrong checksum")
    return problems


def condemn(storage: Storage, path: str, data: bytes, problems: list[str]) -> None:
    """Take the manifest of a damaged stage away, if it still holds `data`: the stage will be built anew."""
    logger.warning("damaged, will be built anew: %s (%s)", path, "; ".join(problems))
    storage.remove_if(path, data)


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON, with a checksum over itself."""
    plain = json.loads(json.dumps(manifest))
    return json.dumps({**plain, "checksum": _checksum(plain)}, indent=1).encode()


class _File(BaseModel, strict=True):
    size: int
    blake2b: str


class _Spec(BaseModel, strict=True):
    inputs: dict[str, str] = {}


class _Manifest(BaseModel, strict=True):
    """What every manifest has; one of a newer version may have more."""

    stage: str
    key: str
    attempt: str
    spec: _Spec
    info: dict[str, Any]
    seconds: float
    created: str
    versions: dict[str, str]
    files: dict[str, _File]


def decode_manifest(data: bytes, stage: str, key: str) -> dict[str, Any] | None:
    """The manifest of this stage and key, None if it is damaged or another's."""
    try:
        manifest = json.loads(data)
        expected = manifest.pop("checksum")
        if expected != _checksum(manifest):
            return None
        # Anybody can write a checksum: what it says is looked at too.
        found = _Manifest.model_validate(manifest)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None
    names = [found.attempt, *found.spec.inputs.values(), *(part for name in found.files for part in name.split("/"))]
    return manifest if (found.stage, found.key) == (stage, key) and all(map(is_name, names)) else None


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=16).hexdigest()
