"""Frames of what was recorded, and what is read from them."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import report
from autophagy.runs.folder import read_records
from autophagy.store import StageStore
from entropy_generalization import ALIKE, X, Y, all_runs, correlations, main, scored


def test_a_row_for_each_generation_with_metrics_and_settings(finished_store, tmp_path):
    frame = all_runs([str(finished_store), str(finished_store)])
    records = read_records(StageStore(finished_store), "tiny")
    assert frame["generation"].tolist() == [0, 1, 2], "a loop that is there twice counts once"
    assert frame["fid"].tolist() == [record.metrics["fid"] for record in records]
    assert set(frame["selection.strategy"]) == {"random"}
    assert set(frame["correction.kind"]) == {"none"}
    assert all_runs([str(tmp_path / "nothing")]).empty


def points(slope: float, gap: float, num_loops: int = 6) -> pd.DataFrame:
    """Two strategies whose loops follow lines of one slope, `gap` apart in the score."""
    rng, rows = np.random.default_rng(0), []
    for loop in range(num_loops):
        for generation in range(1, 6):
            strategy = loop % 2
            x = generation + 10 * strategy
            y = slope * generation + gap * strategy + 0.01 * rng.standard_normal()
            rows.append({"run": f"loop-{loop}", "strategy": f"s{strategy}", X: x, Y: y})
    return pd.DataFrame(rows).assign(**dict.fromkeys(ALIKE, "same"))


def test_correlations_across_and_within_strategies():
    (together,) = correlations(points(slope=0.1, gap=1.0)).to_dict("records")
    assert together["loops"] == 6
    assert together["points"] == 30
    assert together["r"] > 0.95
    assert together["low"] <= together["r"] <= together["high"]
    # Strategies that lie the other way round hide what happens within each of them.
    (apart,) = correlations(points(slope=0.1, gap=-5.0)).to_dict("records")
    assert apart["r"] < -0.9
    assert apart["within"] > 0.95


def test_the_command_draws_and_prints(finished_store, tmp_path, monkeypatch, capsys):
    out = tmp_path / "entropy.png"
    monkeypatch.setattr(sys, "argv", ["entropy_generalization.py", str(finished_store), "--out", str(out)])
    main()
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "digits 8 classifier 64" in capsys.readouterr().out
    assert len(scored(all_runs([str(finished_store)]))) == 2


def test_no_runs_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["entropy_generalization.py", str(tmp_path), "--out", "x.png"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: no runs in")


def test_a_page_made_to_be_passed_on_holds_no_keys_of_the_store(finished_store, monkeypatch):
    uris = [
        "s3://KEY:SECRET@bucket/loops",
        "s3://bucket/loops?access_key=KEY&secret_key=SECRET&scheme=http",
        "https://account.blob.core.windows.net/loops?sig=SECRET",
        "file:///data/loops#token=SECRET",
    ]
    monkeypatch.setattr(report, "StageStore", lambda uri: StageStore(finished_store))
    page = report.report(" ".join(uris), ["tiny"])
    assert page.count("s3://***@bucket/loops") == 2  # in the command, and below the table of keys
    assert "SECRET" not in page
    assert "KEY:" not in page
    assert "=KEY" not in page
