"""Frames from run folders: rows, columns, types, order, and what is said about bad names."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.config import override, parse
from autophagy.config.settings import flatten
from autophagy.metrics import METRICS
from autophagy.recipes.loops import lsf_digits
from autophagy.runs.folder import RunFolder
from autophagy.runs.frames import KEYS, RecordedLoop, loops_frame, runs_frame, sweep_frame
from autophagy.selection import SELECTORS
from autophagy.store import StageStore
from autophagy.tracking.reading import mlflow_frame, nested


def record(generation: int, **metrics: float) -> GenerationRecord:
    return GenerationRecord(generation, metrics | {"generation": float(generation)}, {}, {"train": 0.1, "select": 0.2})


@pytest.fixture
def save(tiny_values):
    """Write the run folder of a loop."""

    def write(store: StageStore, name: str, records: list[GenerationRecord], *settings: str) -> None:
        values = parse(override(tiny_values, settings) | {"name": name}).model_dump(mode="json")
        RunFolder(store, name).write("experiment.yaml", yaml.safe_dump(values).encode())
        lines = "".join(json.dumps(r.to_json()) + "\n" for r in records)
        RunFolder(store, name).write("records.jsonl", lines.encode())

    return write


@pytest.fixture
def sweep_store(tmp_path, save) -> StageStore:
    """Four loops of a sweep over a field and a named axis; one stopped, one not begun."""
    store = StageStore(tmp_path)
    loops, outcomes = [], {}
    for strategy, seed in (("random", 10), ("random", 2), ("lsf", 2), ("lsf", 10)):
        name = f"s-{strategy}-seed{seed}"
        count = {("lsf", 2): 2, ("lsf", 10): 0}.get((strategy, seed), 3)
        records = [record(k, fid=float(k), share_real=1.0) for k in range(count)]
        save(store, name, records, f"selection.strategy={strategy}", f"seed={seed}")
        labels = {"selection.strategy": strategy, "filter": "on" if strategy == "lsf" else "off"}
        loops.append({"run": name, "arm": strategy, "labels": labels, "seed": seed})
        stopped = {"state": "stopped", "generation": 1, "why": "fid doubled"}
        outcomes[name] = stopped if count == 2 else {"state": "done" if count else "running", "generation": count - 1}
    about = {"sweep": "s", "question": "?", "axes": ["selection.strategy", "filter"], "loops": loops}
    RunFolder(store, "s").write("loops.json", json.dumps(about).encode())
    RunFolder(store, "s").write("outcomes.json", json.dumps(outcomes).encode())
    return store


def test_a_sweep_has_its_arms_axes_and_outcomes(sweep_store):
    frame = sweep_frame(sweep_store, "s")
    assert list(frame.columns[: len(KEYS)]) == KEYS
    assert frame[["arm", "seed", "generation"]].to_numpy().tolist() == [
        *(["lsf", 2, k] for k in range(2)),
        *(["random", seed, k] for seed in (2, 10) for k in range(3)),
    ], "sorted by number; a loop that has not begun has no row"
    assert set(frame["sweep"]) == {"s"}
    assert frame.groupby("arm")[["filter", "state", "why"]].first().to_dict("index") == {
        "lsf": {"filter": "on", "state": "stopped", "why": "fid doubled"},
        "random": {"filter": "off", "state": "done", "why": ""},
    }
    assert frame.attrs["axes"] == ["filter", "selection.strategy"]
    assert frame["seconds"].tolist() == pytest.approx([0.3] * 8)


def test_columns_have_the_types_of_their_fields(sweep_store):
    frame = sweep_frame(sweep_store, "s")
    for column, kind in (("seed", "i"), ("generation", "i"), ("keep_ratio", "f"), ("model.attention", "b")):
        assert frame[column].dtype.kind == kind
    assert set(frame["model.block_out_channels"]) == {"[8, 16]"}
    for metric in METRICS:
        assert frame[metric].dtype == np.float64
    assert frame["kid"].isna().all(), "a known metric that was not measured is there, undefined"


def test_runs_are_found_by_name_or_all(sweep_store, save):
    save(sweep_store, "alone-seed7", [record(0, fid=1.0, made_up=math.nan)], "seed=7")
    frame = runs_frame(sweep_store)
    assert set(frame["run"]) == {"alone-seed7", "s-lsf-seed2", "s-random-seed2", "s-random-seed10"}
    (alone,) = runs_frame(sweep_store, ["alone-seed7", "alone-seed7"]).to_dict("records")
    assert (alone["arm"], alone["sweep"], alone["seed"], alone["state"]) == ("alone", "", 7, "running")
    assert "made_up" not in alone, "a metric nobody knows that is nowhere defined"
    assert set(frame.loc[frame["arm"] == "s-random", "state"]) == {"done"}


def test_rows_do_not_depend_on_the_order_of_loops(tiny_values):
    loops = [
        RecordedLoop(f"a-seed{seed}", parse(tiny_values | {"seed": seed}), [record(0, share_2=0.1, share_10=0.2)])
        for seed in (3, 1, 2)
    ]
    frame = loops_frame(loops)
    pd.testing.assert_frame_equal(frame, loops_frame(reversed(loops)))
    assert list(frame.columns[-3:]) == ["share_2", "share_10", "seconds"]


def test_no_loops_are_an_empty_frame_with_columns(tmp_path):
    frame = runs_frame(StageStore(tmp_path))
    assert frame.empty
    assert {*KEYS, "fid", "seconds"} <= set(frame.columns)


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda store: runs_frame(store, ["nothing"]), "run = nothing: no loop of this name"),
        (lambda store: sweep_frame(store, "nothing"), "sweep = nothing: no loops.json"),
        (lambda store: mlflow_frame(f"sqlite:///{store.uri}/none.db", "x"), "tracking_uri = sqlite"),
        (lambda store: mlflow_frame("somewhere", "x"), "tracking_uri: 'somewhere'"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, read, told):
    with pytest.raises(UserError, match=told) as raised:
        read(StageStore(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda selector: selector.model_fields["strategy"].default)
def test_params_in_mlflow_are_read_back_as_they_were(selector):
    settings = [f"selection.strategy={selector.model_fields['strategy'].default}", "training.learning_rate=1.0e-05"]
    for more in ([], ["data.num_real=100", "model.block_out_channels=[4, 8]", "training.use_gpu=true"]):
        values = override(lsf_digits().model_dump(mode="json"), [*settings, *more])
        experiment = parse(values)
        params = {name: str(value) for name, value in flatten(experiment.model_dump(mode="json")).items()}
        assert parse(nested(params)) == experiment


@pytest.mark.parametrize("timestep", ["auto", 100, [100, 200]])
def test_a_field_of_several_types_keeps_its_own(timestep):
    experiment = parse(override(lsf_digits().model_dump(mode="json"), [f"selection.timestep={timestep}"]))
    params = {name: str(value) for name, value in flatten(experiment.model_dump(mode="json")).items()}
    assert parse(nested(params)) == experiment
