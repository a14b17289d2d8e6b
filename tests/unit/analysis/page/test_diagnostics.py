"""Diagnostics on frames whose failure signature is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from page.diagnostics import diagnose

# One loop that nothing is wrong with, over generations 0 .. 3.
SOUND = {
    "fid": [20.0, 30.0, 45.0, 60.0],
    "ole": [10.0, 11.0, 12.0, 13.0],
    "confidence": [0.70, 0.65, 0.60, 0.55],
    "confidence_real": [0.80] * 4,
    "confidence_p10": [0.10] * 4,
    "confidence_p50": [0.75] * 4,
    "confidence_p90": [0.99] * 4,
    "real_vs_real_fid": [1.0] * 4,
    "probe_accuracy_train": [0.90, np.nan, np.nan, np.nan],
    "probe_accuracy_held_out": [0.85, np.nan, np.nan, np.nan],
    "feature_network_accuracy_held_out": [0.95, np.nan, np.nan, np.nan],
}
FIELDS = {
    "sweep": "",
    "generations": 3,
    "state": "done",
    "why": "",
    "selection.strategy": "random",
    "scenario.kind": "accumulate_subsample",
    "data.source": "digits",
    "data.labels": "oracle",
    "keep_ratio": 0.5,
    "budget": 500,
    "metrics.num_samples": 1000,
    "feature_width": 64.0,
    "num_classes": 10.0,
    "num_reference": 1000.0,
}


def loop(arm: str = "random", seed: int = 0, **changed) -> pd.DataFrame:
    """One loop; `changed` replaces fields, or metrics over the generations."""
    values = SOUND | FIELDS | {"run": f"{arm}-seed{seed}", "arm": arm, "seed": seed} | changed
    return pd.DataFrame({name.replace("__", "."): value for name, value in values.items()}, index=range(4)).assign(
        generation=range(4)
    )


def loops(*arms: dict, seeds: int = 3) -> pd.DataFrame:
    return pd.concat([loop(seed=seed, **arm) for arm in arms or ({},) for seed in range(seeds)], ignore_index=True)


def found(frame: pd.DataFrame, comparison: pd.DataFrame | None = None) -> dict[str, str]:
    """Titles with their severities."""
    return {finding.title: finding.severity for finding in diagnose(frame, comparison)}


LSF = {"arm": "lsf", "selection__strategy": "lsf"}
SHUFFLED = {
    "arm": "shuffled",
    "selection__strategy": "lsf",
    "data__labels": "shuffled",
    "probe_accuracy_held_out": [0.11, np.nan, np.nan, np.nan],
    "confidence": [0.1] * 4,
    "confidence_real": [0.1] * 4,
    "fid": [20.0, 60.0, 90.0, 120.0],
}


def test_a_sound_comparison_has_only_good_news():
    frame = loops({}, LSF, SHUFFLED)
    assert set(found(frame).values()) == {"ok"}
    sentences = [finding.sentence for finding in diagnose(frame)]
    assert all(any(letter.isdigit() for letter in sentence) for sentence in sentences), "numbers in every sentence"


@pytest.mark.parametrize(
    ("changed", "title", "severity"),
    [
        ({"probe_accuracy_train": [0.99] * 4}, "The probe overfits", "warning"),
        (
            {"probe_accuracy_train": [0.2] * 4, "probe_accuracy_held_out": [0.15] * 4},
            "The probe has learnt little",
            "warning",
        ),
        ({"confidence_p10": [0.98] * 4, "confidence_p50": [0.985] * 4}, "Confidence is uniformly high", "warning"),
        (
            {"confidence_p10": [0.09] * 4, "confidence_p50": [0.1] * 4, "confidence_p90": [0.11] * 4},
            "Confidence is uniformly low",
            "warning",
        ),
        ({"confidence_p50": [0.9999] * 4}, "Confidence saturates", "note"),
        ({"ole": [13.0, 12.0, 11.0, 10.0]}, "OLE does not follow the generations", "warning"),
        ({"confidence": [0.9, 0.6, 0.6, 0.6]}, "Generated images are surer than real ones", "warning"),
        ({"confidence": [0.7, 0.8, 0.9, 0.9]}, "Confidence rises above real images", "note"),
        ({"metrics.num_samples": 60}, "Too few images for FID", "warning"),
        ({"num_reference": 60.0}, "Too few images for FID", "warning"),
        ({"metrics.num_samples": 600}, "Few images for FID", "note"),
        ({"real_vs_real_fid": [15.0] * 4}, "FID is near its floor", "note"),
        ({"feature_network_accuracy_held_out": [0.6] * 4}, "The feature network is weak", "warning"),
        ({"feature_network_accuracy_held_out": [0.8] * 4}, "The feature network is middling", "note"),
    ],
)
def test_a_signature_is_found_and_is_the_only_one(changed, title, severity):
    sound = found(loops({}, SHUFFLED))
    sick = found(loops(changed, SHUFFLED))
    assert title not in sound
    assert sick[title] == severity
    assert [name for name, level in sick.items() if level != "ok"] == [title]


def test_ole_of_loops_that_choose_by_latents_says_nothing():
    falling = {"ole": [13.0, 12.0, 11.0, 10.0]}
    assert "OLE does not follow the generations" not in found(loops({**LSF, **falling}))
    assert "OLE does not follow the generations" in found(loops(falling))


def test_ole_has_nothing_to_follow_where_nothing_degrades():
    titles = found(loops({"ole": [13.0, 12.0, 11.0, 10.0], "fid": [20.0, 21.0, 20.0, 22.0]}))
    assert not [title for title in titles if title.startswith("OLE")]


def test_shuffled_labels_that_do_as_well_are_told():
    titles = found(loops({}, LSF, SHUFFLED | {"fid": SOUND["fid"]}))
    assert titles["Shuffled labels do as well"] == "warning"
    assert "Labels matter, and do not leak" not in titles
    # Only loops that differ in nothing but the labels are compared.
    other = loops({}, LSF, SHUFFLED | {"fid": SOUND["fid"], "budget": 100})
    assert "Shuffled labels do as well" not in found(other)


def test_a_probe_that_learns_wrong_labels_leaks():
    leaking = SHUFFLED | {"probe_accuracy_held_out": [0.5, np.nan, np.nan, np.nan]}
    assert found(loops({}, LSF, leaking))["Labels leak"] == "warning"


def test_without_a_control_the_report_says_so():
    assert found(loops({}))["No control with shuffled labels"] == "note"


@pytest.mark.parametrize(
    ("verdict", "pairs", "title", "severity"),
    [
        ("better", 3, "Filtering beats random selection", "ok"),
        ("worse", 3, "Filtering is worse than random selection", "warning"),
        ("not decisive", 3, "Random selection is as good so far", "warning"),
        ("not decisive", 1, "Random selection is as good so far", "note"),
    ],
)
def test_filtering_that_is_as_good_as_random_is_told(verdict, pairs, title, severity):
    row = {"arm": "lsf", "metric": "fid", "verdict": verdict, "pairs": pairs, "mean": 50.0, "baseline_mean": 60.0}
    comparison = pd.DataFrame([row])
    assert found(loops({}, LSF), comparison)[title] == severity
    assert title not in found(loops({}), comparison), "only an arm that filters is spoken of"


def test_loops_that_did_not_end_are_told_with_their_reason():
    ends = pd.concat([loop(), loop(seed=1, state="failed", why="out of memory"), loop(seed=2, state="stopped")])
    by_title = {finding.title: finding for finding in diagnose(ends)}
    assert by_title["Loops that failed"].severity == "warning"
    assert "out of memory" in by_title["Loops that failed"].sentence
    assert by_title["Loops that were stopped early"].severity == "note"
    assert "All loops are finished" not in by_title


def test_one_seed_is_too_few():
    assert found(loops(seeds=1))["Few repetitions"] == "note"


def test_warnings_come_first():
    levels = [finding.severity for finding in diagnose(loops({"probe_accuracy_train": [1.0] * 4}))]
    assert levels == sorted(levels, key=["warning", "note", "ok"].index)
    assert levels[0] == "warning"


def test_loops_without_a_probe_are_looked_at_without_one():
    nothing = dict.fromkeys(["confidence", "confidence_real", "confidence_p10", "confidence_p50", "confidence_p90"])
    frame = loops(nothing | {"ole": np.nan}).astype({name: float for name in nothing})
    frame = frame.drop(columns=["probe_accuracy_train", "probe_accuracy_held_out"])
    titles = found(frame)
    assert not [title for title in titles if "probe" in title.lower() or "confidence" in title.lower()]
