"""Whole loops on a real Ray: reproducible to the last digit, shared stage by stage, every scenario and selector."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from autophagy.cli import main
from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.common.samples import CONFIDENCE, SAMPLE_ID, origin_generation
from autophagy.data.tables import to_numpy
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.metrics import METRICS, metric_of
from autophagy.metrics.registry import OTHERS
from autophagy.runs.folder import read_records
from autophagy.scenarios import SCENARIOS
from autophagy.selection import SELECTORS
from autophagy.stages.payloads import KEPT
from autophagy.store import StageStore
from autophagy.store.upkeep import ls

NUM_REAL, BUDGET = 200, 64  # of `tiny`


def metrics_of(records: list[GenerationRecord]) -> list[dict[str, Any]]:
    return [record.to_json()["metrics"] for record in records]


def stages_of(store: StageStore) -> set[tuple[str, str]]:
    return {(info.stage, info.key) for info in ls(store)}


def new_stages(store: StageStore, before: set[tuple[str, str]]) -> dict[str, int]:
    """How many stages of each kind were built since `before`."""
    return dict(Counter(stage for stage, _ in stages_of(store) - before))


# Reproducible


def test_a_fresh_store_gives_the_same_numbers_to_the_last_digit(tiny, store, empty_store):
    first = read_records(store, "tiny")
    again = run_loop(tiny(), empty_store)
    assert len(first) == 3
    assert metrics_of(again) == metrics_of(first)
    assert [record.stages for record in again] == [record.stages for record in first]
    assert metrics_of(read_records(empty_store, "tiny")) == metrics_of(first)


def test_another_seed_gives_other_numbers(tiny, store):
    other = run_loop(tiny("seed=1", "name=other", "generations=1", "metrics.feature_network=pixels"), store)
    same = run_loop(tiny("name=same", "generations=1", "metrics.feature_network=pixels"), store)
    assert other[0].metrics["fid"] != same[0].metrics["fid"]
    assert other[1].stages["generate"] != same[1].stages["generate"]


def test_generations_differ(store):
    fids = [record.metrics["fid"] for record in read_records(store, "tiny")]
    assert all(map(math.isfinite, fids))
    assert len(set(fids)) == 3


def test_going_on_for_more_generations_keeps_the_first(tiny, store):
    """The last generation of the shorter loop had no candidates to make, as here, or made them all: same images."""
    before = stages_of(store)
    longer = run_loop(tiny("generations=3", "name=longer"), store)
    assert metrics_of(longer)[:3] == metrics_of(read_records(store, "tiny"))
    assert new_stages(store, before) == {"select": 1, "train": 1, "generate": 1, "evaluate": 1}


# Shared


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("metrics.k=3", {"floor": 1, "evaluate": 3}),
        ("selection.strategy=lsf", {"select": 2, "train": 2, "generate": 2, "evaluate": 2}),
        ("scenario.kind=replace", {"select": 2, "train": 2, "generate": 2, "evaluate": 2}),
        ("training.epochs=2", {"train": 2, "generate": 2, "evaluate": 2, "select": 1}),
        (
            "training.learning_rate=0.002",
            {"train": 3, "probe": 1, "score": 1, "floor": 1, "generate": 3, "evaluate": 3, "select": 2},
        ),
        ("generation.num_actors=1", {}),
        ("training.checkpoint_every=7", {}),
    ],
)
def test_a_change_runs_only_what_depends_on_it(tiny, store, setting, expected):
    before = stages_of(store)
    run_loop(tiny(setting, "name=changed"), store)
    assert new_stages(store, before) == expected


# Every scenario, every selector


def expected_of(kind: str, k: int) -> tuple[int, int, float | None]:
    """Candidates, kept images and share of real images of generation k; None: it depends on the draw."""
    everything = NUM_REAL + BUDGET * k
    return {
        "replace": (BUDGET, BUDGET, 0.0),
        "augment": (NUM_REAL + BUDGET, BUDGET, None),
        "fresh_mix": (BUDGET, BUDGET, 19 / BUDGET),  # round(0.3 * 64) = 19
        "constant_mix": (BUDGET, BUDGET, 19 / BUDGET),
        "accumulate": (everything, everything, NUM_REAL / everything),
        "accumulate_subsample": (everything, BUDGET, None),
    }[kind]


@pytest.mark.parametrize("kind", [scenario.model_fields["kind"].default for scenario in SCENARIOS])
def test_every_scenario(tiny, shared_store, kind):
    experiment = tiny(f"scenario.kind={kind}", f"name={kind}")
    records = run_loop(experiment, shared_store)
    plan = plan_loop(experiment)
    trained: list[np.ndarray] = []
    for k in (1, 2):
        num_candidates, num_kept, real_share = expected_of(kind, k)
        info = shared_store.open("select", records[k].stages["select"]).info
        assert (info["num_candidates"], info["num_kept"]) == (num_candidates, num_kept)
        assert shared_store.open("train", records[k].stages["train"]).info["num_images"] == num_kept
        metrics = records[k].metrics
        assert [key for key in metrics if metric_of(key) not in (METRICS | OTHERS).values()] == ["generation"]
        assert metrics["kept_share"] == pytest.approx(num_kept / num_candidates)
        assert metrics["real_share"] == pytest.approx(info["real_share"])
        if real_share is not None:
            assert metrics["real_share"] == pytest.approx(real_share)
        table = plan[k]["select"].ensure(shared_store).read_table(KEPT)
        trained.append(to_numpy(table, SAMPLE_ID))
        assert len(set(trained[-1].tolist())) == num_kept
        shares = {j: float((origin_generation(trained[-1]) == j).mean()) for j in range(k)}
        assert {j: metrics[f"share_{j}"] for j in range(k)} == pytest.approx(shares)
        if kind in ("replace", "augment", "fresh_mix", "constant_mix"):
            assert {j for j, share in shares.items() if share} <= {k - 1}
    real = [set(ids[origin_generation(ids) == -1].tolist()) for ids in trained]
    train_split = set(range(NUM_REAL))  # real images are numbered from those of R
    if kind == "fresh_mix":
        assert not real[0] & real[1], "a fresh image was used twice"
        assert not (real[0] | real[1]) & train_split
    else:
        assert real[0] | real[1] <= train_split


@pytest.mark.parametrize("strategy", [selector.model_fields["strategy"].default for selector in SELECTORS])
def test_every_selector(tiny, shared_store, strategy):
    # With more candidates than are measured, where their latents are read: they are kept for all candidates then.
    keep_ratio = 0.5 if strategy == "ole" else 1.0
    settings = (f"selection.strategy={strategy}", f"keep_ratio={keep_ratio}", f"name={strategy}")
    records = run_loop(tiny(*settings), shared_store)
    assert [record.generation for record in records] == [0, 1, 2]
    for k in (1, 2):
        assert shared_store.open("select", records[k].stages["select"]).info["num_kept"] == BUDGET
        assert math.isfinite(records[k].metrics["fid"])
        if strategy in ("oracle_real", "oldest_first"):  # there are more real images than the budget
            assert records[k].metrics["real_share"] == 1.0


# Other models, samplers and feature networks


def test_an_unconditional_model_has_no_confidence(tiny, shared_store):
    settings = ("model.conditional=false", "metrics.feature_network=pixels", "generations=1", "name=unconditional")
    records = run_loop(tiny(*settings), shared_store)
    assert [record.metrics["fid"] > 0 for record in records] == [True, True]
    assert all(math.isnan(record.metrics["confidence"]) for record in records)
    assert "probe" not in records[0].stages
    table = shared_store.open("generate", records[1].stages["generate"]).read_table("images")
    assert np.isnan(to_numpy(table, CONFIDENCE)).all()
    assert set(to_numpy(table, "label").tolist()) == {-1}


def test_ancestral_sampling_with_guidance_in_the_space_of_latents(tiny, shared_store):
    settings = ("generation.sampler=ddpm", "generation.guidance_scale=1.5", "metrics.feature_network=latent")
    records = run_loop(tiny(*settings, "generations=1", "name=guided"), shared_store)
    assert all(math.isfinite(record.metrics["fid"]) for record in records)
    assert all(0 <= record.metrics["confidence"] <= 1 for record in records)
    plain = read_records(shared_store, "tiny")
    assert records[0].stages["train"] == plain[0].stages["train"]
    assert records[0].stages["generate"] != plain[0].stages["generate"]


def test_latents_as_features_need_a_conditional_model(tiny):
    with pytest.raises(UserError, match=r"metrics\.feature_network = latent.*model\.conditional"):
        tiny("model.conditional=false", "metrics.feature_network=latent")


# What is wrong with the data, found far from the command line


@pytest.fixture
def folder(tmp_path) -> Path:
    """Forty images of two classes."""
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "images" / f"class-{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def run_on(folder: Path, tmp_path: Path, values: dict, *settings: str) -> int:
    """Exit code of `autophagy run` on a folder of images."""
    data = {"source": f"folder:{folder}", "image_size": 8}
    recipe = tmp_path / "loop.yaml"
    recipe.write_text(yaml.safe_dump(values | {"data": data, "generations": 0, "metrics": {"num_samples": 10}}))
    arguments = ["run", str(recipe), "--store", str(tmp_path / "store"), "--tracking-uri", "none"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *(f"--set={setting}" for setting in settings)])
    return stopped.value.code


def the_line(capsys) -> str:
    """What was printed to standard error, which must be one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_damaged_image_is_one_line(local_ray, folder, tmp_path, tiny_values, capsys):
    damaged = folder / "class-1" / "07.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    assert run_on(folder, tmp_path, tiny_values) == 2
    line = the_line(capsys)
    assert line.startswith("error: data.source = ")
    assert "07.png" in line


def test_images_without_labels_are_one_line(local_ray, folder, tmp_path, tiny_values, capsys):
    for path in sorted(folder.rglob("*.png")):
        path.rename(folder / path.name)
    for i in range(2):
        (folder / f"class-{i}").rmdir()
    assert run_on(folder, tmp_path, tiny_values) == 2
    assert "labels" in the_line(capsys)
    # Neither a condition nor a classifier: that works.
    settings = ("model.conditional=false", "metrics.feature_network=pixels", "name=unlabelled")
    assert run_on(folder, tmp_path, tiny_values, *settings) == 0
