"""Half-lives and times to a threshold: known answers, with loops that never get there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparisons import lifetimes


def test_half_lives_and_doubling_times_are_interpolated(frame_of):
    frame = frame_of({("lsf", 0): {"recall": [0.8, 0.6, 0.2], "fid": [10.0, 15.0, 25.0]}})
    # recall: 0.4 lies half way from 0.6 to 0.2; fid: 20 half way from 15 to 25
    assert lifetimes.times(frame, "recall")["time"].tolist() == [1.5]
    assert lifetimes.times(frame, "fid")["time"].tolist() == [1.5]
    assert lifetimes.times(frame, "recall", threshold=0.7)["time"].tolist() == pytest.approx([0.5])
    assert lifetimes.times(frame, "recall", threshold=0.9)["time"].tolist() == [0.0]


@given(st.floats(0.05, 5), st.floats(0.1, 10))
def test_the_half_life_of_a_line_is_known(slope, start):
    generations = np.arange(200.0)
    time = lifetimes.crossing(generations, start - slope * generations, start / 2, falling=True)
    assert time == pytest.approx(start / 2 / slope)


def test_loops_that_never_get_there_are_censored(frame_of):
    curves = {(arm, seed): {"recall": [0.8, 0.7, 0.6]} for arm in ("lsf", "random") for seed in range(3)}
    curves |= {("random", seed): {"recall": [0.8, 0.0, 0.0]} for seed in range(2)}
    table = lifetimes.lifetimes(frame_of(curves), "recall").set_index("arm")
    assert table.loc["lsf", "text"] == "> 2 [> 2, > 2]"
    assert table.loc["lsf", ["censored", "seeds", "seen"]].tolist() == [3, 3, 2]
    # Two of three are gone at 0.5; of resamples, more than 2.5% have at most one of the two.
    assert table.loc["random", "text"] == "0.5 [0.5, > 2]"
    assert math.isinf(table.loc["random", "high"])


def test_the_median_is_that_of_kaplan_and_meier():
    # At risk 4, 3, (one lost), 1: survival 3/4, 1/2, 1/2, 0
    time, censored = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, False])
    assert lifetimes.median_time(time, censored) == 2.0
    # Lost before anything was seen: 2/3, 1/3
    assert lifetimes.median_time(time, np.array([True, False, False, False])) == 3.0
    assert lifetimes.median_time(time, np.ones(4, bool)) == math.inf


def test_a_single_seed_has_no_interval(frame_of):
    (row,) = lifetimes.lifetimes(frame_of({("lsf", 0): {"recall": [0.8, 0.0]}}), "recall").to_dict("records")
    assert row["text"] == "0.5"
    assert math.isnan(row["low"])
