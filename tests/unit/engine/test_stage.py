"""A stage as a value: its key, its order, its memory. Nothing here needs Ray."""

from __future__ import annotations

import sys

import pytest

from autophagy.common.section import Section
from autophagy.engine import stage as stages
from autophagy.engine.costs import scaled, seconds
from autophagy.engine.job import Job, Resources, once
from autophagy.engine.stage import Stage
from autophagy.engine.watcher import Watcher
from autophagy.store import StageStore
from autophagy.store.upkeep import ls


class Config(Section):
    lr: float = 0.1
    epochs: int = 3


def build(job: Job[Config]) -> dict[str, int]:
    """A builder: writes what it was given."""
    job.attempt.write_json(
        "seen.json", {"config": job.config.keyed(), "inputs": sorted(job.inputs), "count": job.count}
    )
    return {"answer": 42}


def stage(name: str = "train", config: Section = Config(), **fields: object) -> Stage:  # noqa: B008 (frozen)
    return Stage(name, build, config, place="driver", **fields)


@pytest.fixture
def store(tmp_path, monkeypatch) -> StageStore:
    """A store; builders run right here."""
    monkeypatch.setattr(stages, "start_ray", lambda: None)
    return StageStore(tmp_path / "store")


class TestKey:
    def test_is_made_of_name_version_config_and_inputs(self):
        real = stage("real")
        keys = [
            stage(),
            stage("probe"),
            stage(config=Config(lr=0.2)),
            stage(version=2),
            stage(inputs={"real": real}),
            stage(inputs={"init": real}),
            stage(inputs={"real": stage("real", Config(lr=0.2))}),
            stage(count=5),
        ]
        assert len({s.key for s in keys}) == len(keys)
        assert stage().key == stage().key

    def test_leaves_out_runtime_and_what_is_for_people(self):
        assert stage(resources=Resources(num_workers=4), generation=3, work=8.0).key == stage().key

    def test_order_of_config_does_not_matter(self):
        class Turned(Section):
            epochs: int = 3
            lr: float = 0.1

        assert stage(config=Turned()).key == stage().key

    def test_a_count_is_its_end_and_counts_sort_as_text(self):
        small, large = stage(count=99), stage(count=1000)
        assert small.key == f"{stage().key}-000000099"
        assert small.key < large.key


class TestEnsure:
    def test_builds_the_inputs_first_and_everything_once(self, store):
        real = stage("real")
        train = stage(inputs={"real": real}, count=7)
        artifact = train.ensure(store)
        assert artifact.read_json("seen.json") == {"config": {"lr": 0.1, "epochs": 3}, "inputs": ["real"], "count": 7}
        assert artifact.info["answer"] == 42
        assert artifact.manifest["spec"]["inputs"] == {"real": real.key}
        assert store.is_done("real", real.key)
        assert stage(inputs={"real": real}, count=7).ensure(store) == artifact
        assert len(ls(store)) == 2

    def test_what_is_done_needs_neither_its_inputs_nor_ray(self, store, monkeypatch):
        real = stage("real")
        train = stage(inputs={"real": real})
        artifact = train.ensure(store)
        store.storage.remove(store.storage.at("stages", "real"))
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "ray", None)
        assert stage(inputs={"real": stage("real")}).ensure(store) == artifact
        assert not store.is_done("real", real.key)

    def test_an_input_that_is_gone_is_built_again(self, store):
        stage("real").ensure(store)
        store.storage.remove(store.storage.at("stages", "real"))
        real = stage("real")
        stage(inputs={"real": real}).ensure(store)
        assert store.is_done("real", real.key)

    def test_is_looked_for_once_in_each_store(self, store, tmp_path, monkeypatch):
        real = stage("real")
        first = real.ensure(store)
        with monkeypatch.context() as patch:
            patch.setattr(StageStore, "open", None)
            assert real.ensure(store) is first
        assert real.ensure(StageStore(tmp_path / "another")).storage != first.storage

    def test_a_builder_that_fails_publishes_nothing(self, store):
        def fail(job: Job) -> None:
            raise OSError("disk full")

        broken = Stage("train", fail, Config(), place="driver")
        with pytest.raises(OSError, match="disk full"):
            broken.ensure(store)
        assert not store.is_done("train", broken.key)

    def test_a_watcher_is_told_of_what_is_built_and_nothing_of_what_is_done(self, store):
        told: list[tuple[str, float | None]] = []

        class Told(Watcher):
            def building(self, what, expected):
                told.append((what, expected()))
                return super().building(what, expected)

        real = stage("real")
        stage("feature_network", inputs={"real": real}, work=50).ensure(store, Told())
        stage("feature_network", Config(lr=0.2), inputs={"real": real}, work=100, generation=3).ensure(store, Told())
        (took,) = (
            manifest["seconds"] for manifest in store.history("feature_network") if manifest["info"]["work"] == 50
        )
        assert told == [
            ("real", None),
            ("feature network", None),
            ("feature network of generation 3", pytest.approx(2 * took)),
        ]

    @pytest.mark.parametrize(
        ("place", "is_worker", "pooled"),
        [
            ("pooled", False, True),
            ("pooled", True, True),
            ("driver", False, False),
            ("driver", True, False),
            ("either", False, False),
            ("either", True, True),
        ],
    )
    def test_is_built_in_its_place(self, store, monkeypatch, place, is_worker, pooled):
        called: list[int] = []

        def run_in_worker(function, *arguments, num_gpus):
            called.append(num_gpus)
            return function(*arguments)

        monkeypatch.setattr(stages, "in_worker", lambda: is_worker)
        monkeypatch.setattr(stages, "run_in_worker", run_in_worker)
        artifact = Stage("train", build, Config(), resources=Resources(use_gpu=True), place=place).ensure(store)
        assert called == [1] * pooled
        assert artifact.info["answer"] == 42


class TestExpectedSeconds:
    """What building takes, from manifests of finished stages of the same kind."""

    @staticmethod
    def past(*rows: tuple[float, float | None]) -> list[dict]:
        return [{"seconds": spent, "info": {"work": work}} for spent, work in rows]

    def test_is_unknown_without_stages_alike(self):
        assert scaled([], None, seconds) is None
        assert scaled(self.past((3.0, 10)), None, seconds) is None
        assert scaled(self.past((3.0, None)), 10, seconds) is None

    def test_is_the_median_where_the_work_is_not_known(self):
        assert scaled(self.past((1, None), (9, None), (2, None), (100, 5)), None, seconds) == 2

    def test_is_scaled_from_the_stages_of_most_similar_work(self):
        past = self.past((1.0, 1), (10.0, 100), (14.0, 100), (1000.0, 10_000))
        assert scaled(past, 200, seconds) == 24
        assert scaled(past, 100, seconds) == 12

    def test_a_finished_stage_remembers_its_work(self, store):
        stage(work=50).ensure(store)
        (manifest,) = store.history("train")
        assert manifest["info"]["work"] == 50
        assert scaled([manifest], 100, seconds) == pytest.approx(2 * manifest["seconds"])


def test_once_keeps_the_last_few():
    made: list[str] = []

    def make(name: str) -> str:
        return once(f"test {name}", lambda: made.append(name) or name)

    assert [make(n) for n in "aab"] == ["a", "a", "b"]
    assert made == ["a", "b"]
    for name in "cade":  # a is used again, so that b is the oldest
        make(name)
    assert made == ["a", "b", "c", "d", "e"]
    make("a")
    assert made == ["a", "b", "c", "d", "e"]
    make("b")
    assert made[-1] == "b"
