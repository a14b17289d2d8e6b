"""Metrics that order the arms alike, and metrics that do not."""

from __future__ import annotations

import pytest

from autophagy.common.errors import UserError
from comparisons import disagreement


def test_metrics_agree_as_far_as_they_order_the_arms_alike(frame_of):
    curves = {
        ("a", 0): {"fid": [9.0, 1.0], "recall": [0.5, 0.9], "precision": [0.5, 0.1]},
        ("b", 0): {"fid": [9.0, 2.0], "recall": [0.5, 0.7], "precision": [0.5, 0.2]},
        ("c", 0): {"fid": [9.0, 3.0], "recall": [0.5, 0.8], "precision": [0.5, 0.3]},
    }
    frame, metrics = frame_of(curves), ["fid", "recall", "precision"]
    taus = disagreement.kendall(frame, metrics)
    # fid and recall: of three pairs of arms one is turned; fid and precision: all of them.
    assert taus.loc["fid", "recall"] == pytest.approx(1 / 3)
    assert taus.loc["fid", "precision"] == pytest.approx(-1.0)
    found = disagreement.disagreements(frame, metrics)
    assert found[["metric", "other", "best", "other_best"]].to_numpy().tolist() == [
        ["fid", "precision", "a", "c"],
        ["recall", "precision", "a", "c"],
    ]
    assert disagreement.draw_agreement(frame, metrics).startswith(b"\x89PNG")
    with pytest.raises(UserError, match="two are needed"):
        disagreement.kendall(frame[frame["arm"] == "a"], metrics)
