"""A metric over two axes: known answers on frames made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from autophagy.common.errors import UserError
from comparisons import heat_maps


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
    assert heat_maps.draw_cells(grid(frame_of), "fid").startswith(b"\x89PNG")


def test_two_arms_in_a_cell_are_refused(frame_of):
    with pytest.raises(UserError, match="fall into one cell"):
        heat_maps.cells(grid(frame_of), "fid", columns="budget")
    with pytest.raises(UserError, match=r"axis = model\.depth"):
        heat_maps.cells(grid(frame_of), "fid", rows="model.depth")
