"""Generation for real: an image depends on its model and its number, on nothing else."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pytest

from autophagy.data import to_numpy
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.records import CONFIDENCE, FEATURES, IMAGE, LABEL, SAMPLE_ID, sample_ids
from autophagy.store import Artifact, StageStore


def generate(experiment, store: StageStore) -> Artifact:
    """The samples of generation 0."""
    return plan_loop(experiment)[0]["generate"].ensure(store)


def rows(artifact: Artifact, count: int | None = None) -> dict[str, list]:
    """The first rows of a `generate` artifact, in order, by column; images as bytes."""
    table: pa.Table = artifact.read_table("images").sort_by(SAMPLE_ID).slice(0, count)
    columns = {name: to_numpy(table, name) for name in (SAMPLE_ID, LABEL, IMAGE, FEATURES, CONFIDENCE)}
    return {name: [row.tobytes() for row in column] for name, column in columns.items()}


@pytest.mark.parametrize("num_actors", [1, 2])
def test_any_number_of_actors_makes_the_same_bytes(tiny, store, num_actors):
    by_tasks = rows(generate(tiny(), store))
    shutil.rmtree(f"{store.root}/stages/generate")
    by_actors = generate(tiny(f"generation.num_actors={num_actors}"), store)
    assert by_actors.info == {"num_images": 64, "taken_over": 0}
    assert rows(by_actors) == by_tasks


def test_ids_and_labels_of_the_samples(tiny, store):
    artifact = generate(tiny(), store)
    table = artifact.read_table("images").sort_by(SAMPLE_ID)
    assert to_numpy(table, SAMPLE_ID).tolist() == sample_ids(0, 0, 64).tolist()
    assert to_numpy(table, LABEL).tolist() == [i % 10 for i in range(64)]
    assert to_numpy(table, IMAGE).shape == (64, 8, 8, 1)
    images = rows(artifact)[IMAGE]
    assert len(set(images)) == len(images)


def test_a_larger_request_takes_over_the_shards_of_a_smaller_one(tiny, store):
    """Two whole shards of 32 are there; 100 images are 3 shards and a cut one."""
    smaller = generate(tiny(), store)
    larger = generate(tiny("budget=100"), store)
    assert (smaller.info["num_images"], larger.info) == (64, {"num_images": 100, "taken_over": 2})
    assert rows(larger, 64) == rows(smaller)
    # What was taken over is what would have been made.
    shutil.rmtree(f"{store.root}/stages/generate")
    again = generate(tiny("budget=100"), store)
    assert again.info["taken_over"] == 0
    assert rows(again) == rows(larger)
    assert sorted(again.files()) == sorted(larger.files())


def test_a_smaller_keep_ratio_extends_the_samples(tiny, store):
    larger = generate(tiny("keep_ratio=0.5"), store)
    assert larger.info == {"num_images": 128, "taken_over": 2}
    assert rows(larger, 64) == rows(generate(tiny(), store))


def test_a_smaller_request_takes_over_from_a_larger_one(tiny, store):
    """Of 70 images two shards are whole; the 6 others are the first of a shard that is drawn anew and cut."""
    larger = generate(tiny("budget=100"), store)
    smaller = generate(tiny("budget=70"), store)
    assert smaller.info == {"num_images": 70, "taken_over": 2}
    assert rows(smaller) == rows(larger, 70)


def test_measured_latents_do_not_depend_on_how_many_are_asked_for(tiny, store):
    settings = ("metrics.num_samples=40",)  # ends inside the second shard
    latents = [
        generate(tiny(*settings, f"budget={budget}"), store).read_table("latents").sort_by(SAMPLE_ID)
        for budget in (40, 70, 100)
    ]
    assert [table.num_rows for table in latents] == [40, 40, 40]
    assert latents[0].equals(latents[1])
    assert latents[0].equals(latents[2])


def test_metrics_do_not_depend_on_candidates_that_are_not_measured(tiny, store):
    """Generation 0 is measured by its first samples: a smaller keep ratio must not change its numbers."""
    few = run_loop(tiny("generations=1", "name=few"), store)
    many = run_loop(tiny("generations=1", "name=many", "keep_ratio=0.5"), store)
    assert many[0].to_json()["metrics"] == few[0].to_json()["metrics"]
    assert many[0].stages["generate"] != few[0].stages["generate"]
