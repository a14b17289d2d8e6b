"""Which versions of the packages computed the stages behind some loops, and whether they are more than one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from autophagy.common.versions import COMPARED, series
from autophagy.runs.folder import read_records
from autophagy.store import StageStore
from autophagy.store.manifests import read_manifest
from autophagy.store.storage import at_once
from page.findings import Finding

KINDS = ("train", "evaluate")  # what makes the numbers, and what measures them
MOST_STAGES = 1000  # whose manifests are read: one request each

Versions = Mapping[str, Counter[str]]  # package -> version -> stages


def versions_of(store: StageStore, runs: Sequence[str]) -> Versions:
    """How many of the stages of some loops each version computed; of many stages a part, evenly spread."""
    records = [record for found in at_once(lambda run: read_records(store, run), runs) for record in found]
    stages = sorted({(name, key) for r in records for name, key in r.stages.items() if name in KINDS})
    looked_at = stages[:: -(-len(stages) // MOST_STAGES) or 1]
    counts: dict[str, Counter[str]] = {}
    for manifest in at_once(lambda stage: read_manifest(store.storage, *stage), looked_at):
        for package, version in (manifest or {"versions": {}})["versions"].items():
            counts.setdefault(package, Counter())[version] += 1
    return counts


def described(versions: Versions) -> list[tuple[str, str]]:
    """Each package with its version, or with all of them and how many of the stages each computed."""
    return [
        (
            package,
            next(iter(found))
            if len(found) == 1
            else ", ".join(f"{version} ({count} of {found.total()} stages)" for version, count in found.items()),
        )
        for package, found in versions.items()
    ]


def several_versions(versions: Versions) -> list[Finding]:
    """Numbers that are compared and were not computed by the same major versions; nothing if that is not known."""
    known = {package: found for package, found in versions.items() if package in COMPARED}
    mixed = {package: found for package, found in known.items() if len(set(map(series, found))) > 1}
    sentence = "; ".join(f"{package} {version}" for package, version in described(mixed or known)) + "."
    if mixed:
        remedy = (
            "Numbers may differ in the last digits: compare loops of one version, each version in a store of its own."
        )
        return [Finding("warning", "Computed by several versions", sentence, remedy)]
    return [Finding("ok", "Computed by one version", sentence)] if known else []
