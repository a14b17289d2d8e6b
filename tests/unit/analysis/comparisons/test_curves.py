"""The curve of every arm, and which arms share a picture."""

from __future__ import annotations

from comparisons.curves import bands, by_picture, draw_curves, ended


def test_the_mean_ends_where_the_first_seed_was_stopped(frame_of):
    curves = {
        ("lsf", 0): {"fid": [1.0, 2.0, 30.0]},
        ("lsf", 1): {"fid": [3.0, 6.0, 10.0, 20.0]},
        ("random", 0): {"fid": [1.0, 1.0, 1.0, 1.0]},
    }
    frame = frame_of(curves, states={("lsf", 0): "stopped"}, asked=3)
    table = bands(frame, "fid")
    assert table[table["arm"] == "lsf"][["generation", "mean", "low", "high", "seeds"]].to_numpy().tolist() == [
        [0, 2, 1, 3, 2],
        [1, 4, 2, 6, 2],
        [2, 20, 10, 30, 2],
    ]
    assert table.loc[table["arm"] == "random", "generation"].max() == 3
    assert set(table["band"]) == {"range"}
    (end,) = ended(frame, "fid").to_dict("records")
    assert (end["run"], end["generation"], end["value"], end["state"]) == ("lsf-seed0", 2, 30.0, "stopped")
    assert draw_curves(frame, ["fid"]).startswith(b"\x89PNG")


def test_many_arms_are_spread_over_pictures_with_random_selection_in_each(frame_of):
    names = [f"arm{i}" for i in range(10)]
    settings = {name: ["selection.strategy=random", "correction.kind=neon"] for name in names}
    settings["replaced"] = ["selection.strategy=lsf", "scenario.kind=replace"]
    frame = frame_of({(name, 0): {"fid": [1.0, 2.0]} for name in ["random", *names, "replaced"]}, settings)
    arms = {name: sorted(part["arm"].unique()) for name, part in by_picture(frame).items()}
    assert arms == {
        "_accumulate_subsample_1": [*names[:7], "random"],
        "_accumulate_subsample_2": [*names[7:], "random"],
        "_replace": ["replaced"],
    }
    assert list(by_picture(frame[frame["arm"].isin(names[:3])])) == [""]
