"""Whether loops can run here: packages, the store, the tracking server, Ray and its nodes; what to mend if not."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement

from autophagy.doctor.findings import Finding, package_findings
from autophagy.doctor.machine import check_rights, check_storage, check_token, needs, version_of
from autophagy.doctor.nodes import check_nodes, check_ray
from autophagy.doctor.tracking import check_tracking
from autophagy.store.storage import Storage
from autophagy.tracking.uri import tracking_for


def examine(store: str, tracking_uri: str | None) -> Iterator[Finding]:
    """Check everything; what takes longest comes last.

    Args:
        store: URI of a store; it is made if it is missing, and nothing is left in it.
        tracking_uri: As of a run: None for the default, "none" for none.
    """
    python, packages = needs()
    yield from package_findings(python, packages, version_of)
    storage = Storage(store)
    stored = check_storage(storage)
    yield stored
    usable = storage if stored.level != "problem" else None
    tracking = tracking_for(tracking_uri, usable.root if usable and usable.local else None)
    yield check_tracking(tracking)
    yield from check_rights(usable, tracking)
    yield from check_token()
    joined = check_ray()
    yield joined
    if joined.level != "problem":
        yield from check_nodes(usable, tracking, [Requirement(package).name for package in packages])
