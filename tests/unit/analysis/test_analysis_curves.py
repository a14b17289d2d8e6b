"""Curves, heat maps, lifetimes and survival: known answers on frames made by hand."""

from __future__ import annotations

import math

import collapse_curves
import heat_maps
import lifetimes
import numpy as np
import pandas as pd
import pytest
import survival
from arms import area, number, summary
from hypothesis import given
from hypothesis import strategies as st

from autophagy.common.errors import UserError
from autophagy.runs.pictures import band

PNG = b"\x89PNG"


def test_a_band_is_the_range_of_few_seeds_and_the_t_interval_of_many():
    assert band([1.0, 5.0, 3.0]) == (3.0, 1.0, 5.0)
    # t(0.975, 4) = 2.7764451; the standard deviation of 1 ... 5 is sqrt(2.5)
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert band([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert np.isnan(band([math.nan])).all()


def test_the_mean_ends_where_the_first_seed_was_stopped(frame_of):
    curves = {
        ("lsf", 0): {"fid": [1.0, 2.0, 30.0]},
        ("lsf", 1): {"fid": [3.0, 6.0, 10.0, 20.0]},
        ("random", 0): {"fid": [1.0, 1.0, 1.0, 1.0]},
    }
    frame = frame_of(curves, states={("lsf", 0): "stopped"}, asked=3)
    table = collapse_curves.bands(frame, "fid")
    assert table[table["arm"] == "lsf"][["generation", "mean", "low", "high", "seeds"]].to_numpy().tolist() == [
        [0, 2, 1, 3, 2],
        [1, 4, 2, 6, 2],
        [2, 20, 10, 30, 2],
    ]
    assert table.loc[table["arm"] == "random", "generation"].max() == 3
    assert set(table["band"]) == {"range"}
    (end,) = collapse_curves.ended(frame, "fid").to_dict("records")
    assert (end["run"], end["generation"], end["value"], end["state"]) == ("lsf-seed0", 2, 30.0, "stopped")
    assert collapse_curves.draw(frame, ["fid"]).startswith(PNG)


def test_failed_and_running_loops_do_not_count_and_are_counted(frame_of):
    curves = {("lsf", 0): {"fid": [1.0, 9.0]}, ("lsf", 1): {"fid": [1.0, 5.0, 7.0]}, ("lsf", 2): {"fid": [0.0]}}
    frame = frame_of(curves, states={("lsf", 0): "failed"}, asked=2)
    assert set(frame["state"]) == {"failed", "done", "running"}
    assert collapse_curves.bands(frame, "fid")["mean"].tolist() == [1.0, 5.0, 7.0]
    (row,) = summary(frame, "fid").to_dict("records")
    assert (row["mean"], row["seeds"], row["early"], row["left_out"]) == (7.0, 1, 0, 2)
    with pytest.raises(UserError, match="none of its loops is finished"):
        collapse_curves.draw(frame[frame["state"] != "done"])


def test_a_stopped_loop_counts_with_its_last_value_and_marks_its_arm(frame_of):
    curves = {("lsf", 0): {"fid": [1.0, 9.0]}, ("lsf", 1): {"fid": [1.0, 5.0, 7.0]}}
    (row,) = summary(frame_of(curves, states={("lsf", 0): "stopped"}, asked=2), "fid").to_dict("records")
    assert (row["mean"], row["seeds"], row["early"]) == (8.0, 2, 1)


def test_an_unknown_or_unmeasured_metric_is_one_line(frame_of):
    frame = frame_of({("lsf", 0): {"fid": [1.0, 2.0]}})
    with pytest.raises(UserError, match="metric = fdi: not in the frame; did you mean fid"):
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


def grid(frame_of):
    cells = {
        "lsf_half": (["selection.strategy=lsf", "keep_ratio=0.5"], 4.0),
        "lsf_all": (["selection.strategy=lsf", "keep_ratio=1.0"], 6.0),
        "random_half": (["selection.strategy=random", "keep_ratio=0.5"], 8.0),
        "replace": (["selection.strategy=random", "keep_ratio=0.5", "scenario.kind=replace"], 99.0),
    }
    curves = {(arm, seed): {"fid": [1.0, value + seed]} for arm, (_, value) in cells.items() for seed in (0, 2)}
    return frame_of(curves, {arm: chosen for arm, (chosen, _) in cells.items()})


def test_heat_maps_are_means_by_scenario_strategy_and_keep_ratio(frame_of):
    table = heat_maps.cells(grid(frame_of), "fid")
    subsample = heat_maps.pivot(table[table["scenario.kind"] == "accumulate_subsample"])
    assert subsample.index.tolist() == ["lsf", "random"]
    np.testing.assert_array_equal(subsample, [[5.0, 7.0], [9.0, np.nan]])
    assert table.loc[table["scenario.kind"] == "replace", "mean"].tolist() == [100.0]
    assert set(table["seeds"]) == {2}
    assert heat_maps.draw(grid(frame_of), "fid").startswith(PNG)


def test_two_arms_in_a_cell_are_refused(frame_of):
    with pytest.raises(UserError, match="fall into one cell"):
        heat_maps.cells(grid(frame_of), "fid", columns="budget")
    with pytest.raises(UserError, match=r"axis = model\.depth"):
        heat_maps.cells(grid(frame_of), "fid", rows="model.depth")


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


def test_survival_is_the_share_of_each_origin(frame_of):
    curves = {
        ("lsf", seed): {
            "share_real": [1.0, 0.5 + seed, 0.25],
            "share_0": [math.nan, 0.5 - seed, 0.25],
            "share_1": [math.nan, math.nan, 0.5],
        }
        for seed in (0.0, 0.25)
    }
    frame = frame_of({("lsf", int(4 * seed)): own for (_, seed), own in curves.items()})
    table = survival.shares(frame)
    assert table[["generation", "origin", "mean"]].to_numpy().tolist() == [
        [0, -1, 1.0],
        [1, -1, 0.625],
        [1, 0, 0.375],
        [2, -1, 0.25],
        [2, 0, 0.25],
        [2, 1, 0.5],
    ]
    assert table.groupby("generation")["mean"].sum().tolist() == [1.0, 1.0, 1.0]
    assert survival.draw(frame).startswith(PNG)


def test_numbers_have_three_digits():
    assert [number(x) for x in (0.0, 0.01234, -1.0, 12.34, 123.6, 45678.0)] == [
        *("0", "0.0123", "-1.00", "12.3", "124", "45700")
    ]
