"""Generation for real: an image depends on its model and its number, on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from autophagy.common.samples import CONFIDENCE, FEATURES, IMAGE, LABEL, LATENT, SAMPLE_ID, sample_ids
from autophagy.data.shares import classes_in_turn
from autophagy.data.tables import to_numpy
from autophagy.graph import plan_loop
from autophagy.loop import run_loop
from autophagy.store import Artifact, StageStore
from autophagy.store.manifests import MANIFEST, encode_manifest
from autophagy.store.storage import Storage

IMAGES = (SAMPLE_ID, LABEL, IMAGE)
EVERYTHING = (*IMAGES, FEATURES, CONFIDENCE)


def generate(experiment, store: StageStore) -> Artifact:
    """The samples of generation 0."""
    return plan_loop(experiment)[0]["generate"].ensure(store)


def rows(artifact: Artifact, count: int | None = None, columns: tuple[str, ...] = IMAGES) -> dict[str, list[bytes]]:
    """The first rows of a `generate` artifact, in order, by column."""
    table: pa.Table = artifact.read_table("images").sort_by(SAMPLE_ID).slice(0, count)
    return {name: [row.tobytes() for row in to_numpy(table, name)] for name in columns}


def size_of(artifact: Artifact) -> tuple[int, int]:
    """Images, and whole shards that were taken over from another request."""
    return artifact.info["num_images"], artifact.info["taken_over"]


@pytest.mark.parametrize("num_actors", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_any_number_of_actors_makes_the_same_bytes(tiny, store, num_actors):
    by_tasks = rows(generate(tiny(), store), columns=EVERYTHING)
    shutil.rmtree(f"{store.root}/stages/generate")
    by_actors = generate(tiny(f"generation.num_actors={num_actors}"), store)
    assert size_of(by_actors) == (64, 0)
    assert rows(by_actors, columns=EVERYTHING) == by_tasks


def test_ids_and_labels_of_the_samples(tiny, store):
    artifact = generate(tiny(), store)
    table = artifact.read_table("images").sort_by(SAMPLE_ID)
    assert to_numpy(table, SAMPLE_ID).tolist() == sample_ids(0, 0, 64).tolist()
    real = plan_loop(tiny())[0]["real"].ensure(store).read_table("images/train", columns=[LABEL])
    shares = np.bincount(to_numpy(real, LABEL), minlength=10)
    assert to_numpy(table, LABEL).tolist() == classes_in_turn(shares, 0, 64).tolist()
    assert to_numpy(table, IMAGE).shape == (64, 8, 8, 1)
    images = rows(artifact)[IMAGE]
    assert len(set(images)) == len(images)


def test_a_larger_request_takes_over_the_shards_of_a_smaller_one(tiny, store):
    """Two whole shards of 32 are there; 100 images are 3 shards and a cut one."""
    smaller = generate(tiny(), store)
    larger = generate(tiny("budget=100"), store)
    assert (size_of(smaller), size_of(larger)) == ((64, 0), (100, 2))
    assert rows(larger, 64, EVERYTHING) == rows(smaller, columns=EVERYTHING)
    # What was taken over is what would have been made.
    files, all_rows = larger.files(), rows(larger, columns=EVERYTHING)
    shutil.rmtree(f"{store.root}/stages/generate")
    again = generate(tiny("budget=100"), store)
    assert size_of(again) == (100, 0)
    assert rows(again, columns=EVERYTHING) == all_rows
    assert again.files() == files


def test_a_smaller_keep_ratio_extends_the_samples(tiny, store):
    larger = generate(tiny("keep_ratio=0.5"), store)
    assert size_of(larger) == (128, 2)
    assert rows(larger, 64, EVERYTHING) == rows(generate(tiny(), store), columns=EVERYTHING)


def test_a_smaller_request_takes_over_from_a_larger_one(tiny, store):
    """Of 70 images two shards are whole; the 6 others are the first of a shard that is drawn anew and cut."""
    larger = generate(tiny("budget=100"), store)
    smaller = generate(tiny("budget=70"), store)
    assert size_of(smaller) == (70, 2)
    assert rows(smaller) == rows(larger, 70)


def test_a_damaged_shard_is_not_taken_over(tiny, store):
    """One flipped bit in the second shard: the first is good, and from the second on all is made anew."""
    smaller = generate(tiny(), store)
    expected = rows(smaller, columns=EVERYTHING)
    path = Path(smaller.file("images/shard-000001.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    larger = generate(tiny("budget=100"), store)
    assert size_of(larger) == (100, 1)
    assert rows(larger, 64, EVERYTHING) == expected


def test_scores_do_not_depend_on_how_many_are_asked_for(tiny, store):
    """A shard is scored whole and cut afterwards."""
    made = [generate(tiny("metrics.num_samples=40", f"budget={budget}"), store) for budget in (40, 70, 100)]
    latents = [to_numpy(artifact.read_table("latents").sort_by(SAMPLE_ID), LATENT) for artifact in made]
    scores = [rows(artifact, 40, EVERYTHING) for artifact in made]
    for other in (1, 2):
        np.testing.assert_array_equal(latents[other], latents[0])
        assert scores[other] == scores[0]


def test_metrics_do_not_depend_on_candidates_that_are_not_measured(tiny, store):
    """Generation 0 is measured by its first samples: a smaller keep ratio must not change its numbers."""
    few = run_loop(tiny("generations=1", "name=few"), store)
    many = run_loop(tiny("generations=1", "name=many", "keep_ratio=0.5"), store)
    assert many[0].to_json()["metrics"] == few[0].to_json()["metrics"]
    assert many[0].stages["generate"] != few[0].stages["generate"]


# Nothing half counts as whole


def without(artifact: Artifact, *names: str) -> None:
    """A manifest, right in itself, that does not know some files: as if they had not been seen when it was written."""
    files = {name: about for name, about in artifact.manifest["files"].items() if name not in names}
    data = encode_manifest({**{k: v for k, v in artifact.manifest.items() if k != "checksum"}, "files": files})
    artifact.storage.put(f"{artifact.path.rpartition('/')[0]}/{MANIFEST}", data)


@pytest.mark.parametrize("missing", ["images/shard-000001.parquet", "latents/shard-000001.parquet"])
def test_a_hole_is_not_taken_over(tiny, store, missing):
    smaller = generate(tiny(), store)
    expected = rows(smaller, columns=EVERYTHING)
    assert missing in smaller.files()
    without(smaller, missing)
    larger = generate(tiny("budget=100"), store)
    assert size_of(larger) == (100, 1)
    assert missing in larger.files()
    assert rows(larger, 64, EVERYTHING) == expected


@pytest.mark.parametrize("part", ["images", "latents"])
def test_fewer_images_than_asked_for_are_not_measured(tiny, store, part):
    """The metrics of half the images are other numbers, and no error by themselves."""
    without(generate(tiny(), store), f"{part}/shard-000001.parquet")
    with pytest.raises(RuntimeError, match=rf"generate \w+-000000064: {part} has 32 images of 64"):
        plan_loop(tiny("metrics.k=4"))[0]["evaluate"].ensure(store)


@pytest.mark.parametrize("stage", ["generate", "score"])
def test_a_file_that_is_gone_before_it_is_published_publishes_nothing(tiny, store, monkeypatch, stage):
    """As after a collector, or where a list of files does not show all that other machines have written."""
    shutil.rmtree(f"{store.root}/stages/{stage}")
    entries = Storage.entries

    def forgetful(self: Storage, path: str, recursive: bool = False) -> list:
        found = entries(self, path, recursive)
        return [info for info in found if f"/stages/{stage}/" not in info.path or "shard-000" not in info.path][:9]

    monkeypatch.setattr(Storage, "entries", forgetful)
    with pytest.raises(RuntimeError, match=r"files were written to .*, and 0 are there"):
        plan_loop(tiny())[0][stage].ensure(store)
    assert not store.siblings(stage, "")
