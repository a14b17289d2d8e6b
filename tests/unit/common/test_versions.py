"""Whose numbers these are: how versions are compared, and what a report makes of those in manifests."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from autophagy.common.records import GenerationRecord
from autophagy.common.versions import differences, series
from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore
from autophagy.store.manifests import encode_manifest, manifest_path
from page.computed_by import described, several_versions, versions_of


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.7.1", "2"),
        ("2.9.0+cpu", "2"),
        ("3", "3"),
        ("0.1.0", "0.1"),
        ("0.1.9rc1", "0.1"),
        ("0.2", "0.2"),
        ("0", "0.0"),
        ("mine", "mine"),
    ],
)
def test_versions_of_one_series_promise_the_same(version, expected):
    assert series(version) == expected


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        ([], {}),
        ([{"torch": "2.6.0", "autophagy": "0.1.7", "ray": "1.0"}], {}),
        ([{"torch": "1.13.0", "autophagy": "0.1.0"}, {"torch": "3.0"}], {"torch": {"1", "3"}}),
        ([{"torch": "2.0", "autophagy": "0.2.0"}], {"autophagy": {"0.2"}}),
        ([{"python": "2.7"}, {}], {}),
    ],
)
def test_only_other_series_differ_and_only_where_both_are_known(computed, expected):
    assert differences(computed, {"torch": "2.7.1", "autophagy": "0.1.0"}) == expected
    assert differences(computed, {}) == {}


def computed_by(store: StageStore, stage: str, key: str, **other: str) -> None:
    """Let the manifest of a stage name other versions."""
    path = manifest_path(store.storage, stage, key)
    manifest = json.loads(store.storage.read(path))
    del manifest["checksum"]
    manifest["versions"] |= other
    store.storage.put(path, encode_manifest(manifest))


def stage(store: StageStore, name: str, key: str, torch: str) -> None:
    store.build(name, key, {"inputs": {}}, lambda attempt: attempt.write_bytes("x", b"x"))
    computed_by(store, name, key, torch=torch)


def test_a_report_counts_the_stages_of_each_version(tmp_path):
    store, lines = StageStore(tmp_path), []
    for k, torch in enumerate(["2.7.0", "2.8.1", "3.0.0"]):
        stage(store, "evaluate", f"e{k}", torch)
        stages = {"evaluate": f"e{k}", "train": "gone", "score": "not looked at"}
        lines.append(json.dumps(GenerationRecord(k, {}, stages, {}).to_json()))
    for run in ("a", "b"):
        RunFolder(store, run).write("records.jsonl", "\n".join(lines).encode())
    found = versions_of(store, ["a", "b", "nothing"])
    assert found["torch"] == Counter({"2.7.0": 1, "2.8.1": 1, "3.0.0": 1})
    assert dict(described(found))["torch"] == "2.7.0 (1 of 3 stages), 2.8.1 (1 of 3 stages), 3.0.0 (1 of 3 stages)"
    (finding,) = several_versions(found)
    assert (finding.severity, finding.title) == ("warning", "Computed by several versions")
    assert "torch 2.7.0" in finding.sentence
    assert "autophagy" not in finding.sentence, "only what differs is told"


@pytest.mark.parametrize(
    ("found", "severities"),
    [
        ({}, []),
        ({"python": Counter({"3.11.1": 2, "4.0": 1})}, []),
        ({"torch": Counter({"2.7.0": 4, "2.8.0": 1})}, ["ok"]),
        ({"torch": Counter({"2.7.0": 4}), "autophagy": Counter({"0.1.0": 3, "0.2.0": 1})}, ["warning"]),
    ],
)
def test_one_series_is_good_news_and_nothing_known_is_no_news(found, severities):
    assert [finding.severity for finding in several_versions(found)] == severities
