"""Where training sets come from."""

from __future__ import annotations

import math

from comparisons import survival


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
    assert survival.draw_shares(frame).startswith(b"\x89PNG")
