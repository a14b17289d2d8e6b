"""Which loops of an arm count, and with what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autophagy.common.errors import UserError
from comparisons.arms import area, summary, three_digits
from comparisons.curves import bands, draw_curves


def test_failed_and_running_loops_do_not_count_and_are_counted(frame_of):
    curves = {("lsf", 0): {"fid": [1.0, 9.0]}, ("lsf", 1): {"fid": [1.0, 5.0, 7.0]}, ("lsf", 2): {"fid": [0.0]}}
    frame = frame_of(curves, states={("lsf", 0): "failed"}, asked=2)
    assert set(frame["state"]) == {"failed", "done", "running"}
    assert bands(frame, "fid")["mean"].tolist() == [1.0, 5.0, 7.0]
    (row,) = summary(frame, "fid").to_dict("records")
    assert (row["mean"], row["seeds"], row["early"], row["left_out"]) == (7.0, 1, 0, 2)
    with pytest.raises(UserError, match="none of its loops is finished"):
        draw_curves(frame[frame["state"] != "done"])


def test_a_stopped_loop_counts_with_its_last_value_and_marks_its_arm(frame_of):
    curves = {("lsf", 0): {"fid": [1.0, 9.0]}, ("lsf", 1): {"fid": [1.0, 5.0, 7.0]}}
    (row,) = summary(frame_of(curves, states={("lsf", 0): "stopped"}, asked=2), "fid").to_dict("records")
    assert (row["mean"], row["seeds"], row["early"]) == (8.0, 2, 1)


def test_an_unknown_or_unmeasured_metric_is_one_line(frame_of):
    frame = frame_of({("lsf", 0): {"fid": [1.0, 2.0]}})
    with pytest.raises(UserError, match=r"metric = fdi: not in the frame \(did you mean fid\?\)"):
        summary(frame, "fdi")
    with pytest.raises(UserError, match="metric = vendi: not measured"):
        summary(frame, "vendi")


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.integers(1, 5))
def test_the_area_of_a_straight_line_is_its_mean(ends, generations):
    start, stop = ends[0], ends[1]
    heights = np.linspace(start, stop, generations + 1)
    loop = pd.DataFrame({"generation": range(generations + 1), "fid": heights})
    assert area(loop, "fid", generations) == pytest.approx((start + stop) / 2, abs=1e-9)
    assert area(loop, "fid", 0) == start


def test_numbers_have_three_digits():
    assert [three_digits(x) for x in (0.0, 0.01234, -1.0, 12.34, 123.6, 45678.0)] == [
        *("0", "0.0123", "-1.00", "12.3", "124", "45700")
    ]
