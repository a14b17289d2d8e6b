"""The graph of stages: keys are a pure function of the configuration, and depend on no more of it than they must."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autophagy.config import Experiment
from autophagy.data.sources.open import absolute
from autophagy.graph import plan_loop
from autophagy.recipes import load_recipe
from autophagy.recipes.loops import variant
from autophagy.stages.scorer import scored_by

BASE = variant(load_recipe("lsf_digits"), "base", "generations=2")
SHARED = ["real", "feature_network", "train", "probe", "score", "floor"]

Keys = dict[tuple[int, str], str]


def keys(*settings: str, base: Experiment = BASE) -> Keys:
    """Key of every stage, by generation and name."""
    plan = plan_loop(variant(base, "other", *settings))
    return {(k, name): stage.key for k, stages in enumerate(plan) for name, stage in stages.items()}


def changed(*settings: str, base: Experiment = BASE) -> set[tuple[int, str]]:
    """Stages, of those that both have, whose keys these settings change."""
    before, after = keys(base=base), keys(*settings, base=base)
    return {stage for stage in before.keys() & after.keys() if before[stage] != after[stage]}


BEFORE = keys()
ALL = set(BEFORE)
LATER = {stage for stage in ALL if stage[0] > 0}


def test_the_stages_of_every_generation():
    names = [list(stages) for stages in plan_loop(BASE)]
    later = ["select", "train", "generate", "evaluate"]
    assert names == [[*SHARED, "generate", "evaluate"], later, later]


def test_generation_0_alone_is_a_loop():
    assert [list(stages) for stages in plan_loop(variant(BASE, "none", "generations=0"))] == [
        [*SHARED, "generate", "evaluate"]
    ]


def test_a_loop_without_labels_has_no_probe():
    plan = plan_loop(variant(BASE, "free", "model.conditional=false", "selection.strategy=random"))
    assert "probe" not in plan[0]
    assert all("probe" not in stage.inputs for stages in plan for stage in stages.values())


def test_keys_are_the_same_in_another_process_with_another_hash_seed():
    code = "from test_graph import keys\nfor (k, name), key in sorted(keys().items()):\n    print(k, name, key)"
    folders = [Path(__file__).parent, Path(__file__).parents[2] / "platform"]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [f"{k} {name} {key}" for (k, name), key in sorted(BEFORE.items())]


def test_every_stage_has_a_key_of_its_own():
    assert len(set(BEFORE.values())) == len(BEFORE)
    count = BASE.num_candidates
    assert BEFORE[0, "generate"].endswith(f"-{count:09d}")
    assert len(BEFORE[0, "train"]) == 32


@pytest.mark.parametrize(
    "setting",
    [
        "name=another",
        "training.num_workers=3",
        "training.use_gpu=true",
        "training.checkpoint_every=7",
        "training.resident_bytes=0",
        "generation.num_actors=5",
        "generation.use_gpu=true",
    ],
)
def test_where_and_how_to_compute_changes_no_key(setting):
    """In a precision that is given: `auto` is another one on GPUs."""
    base = variant(BASE, "exact", "training.precision=float32", "generation.precision=float32")
    assert changed(setting, base=base) == set()


@pytest.mark.parametrize("setting", ["seed=1", "data.num_real=600", "data.image_size=16"])
def test_other_data_or_another_seed_changes_every_key(setting):
    assert changed(setting) == ALL


@pytest.mark.parametrize(
    "settings",
    [
        ("scenario.kind=replace",),
        ("scenario.kind=accumulate",),
        ("scenario.kind=replace", "selection.strategy=none"),
        ("selection.strategy=anti_lsf",),
        ("selection.per_class=false",),
        ("training.epochs=4",),
        ("training.init=scratch",),
        ("training.equal_steps=false", "scenario.kind=accumulate"),
    ],
)
def test_loops_that_differ_in_what_comes_after_share_generation_0(settings):
    different = changed(*settings)
    assert different
    assert different <= LATER


def test_a_learning_rate_changes_training_and_what_follows():
    assert changed("training.learning_rate=0.002") == ALL - {(0, "real"), (0, "feature_network")}
    assert changed("training.epochs=4") == LATER - {(1, "select")}


def test_a_metric_changes_evaluation_only():
    assert changed("metrics.k=4") == {(0, "floor"), *((k, "evaluate") for k in range(3))}


def test_another_sampler_keeps_the_first_model():
    assert changed("generation.sampler=ddpm") == LATER | {(0, "generate"), (0, "evaluate")}


def test_the_timestep_of_the_probe_changes_what_it_scores_and_no_training_of_generation_0():
    different = changed("selection.timestep=50")
    assert different >= {(0, "probe"), (0, "score"), (0, "generate")} | LATER
    assert not different & {(0, "real"), (0, "feature_network"), (0, "train")}


def test_a_keep_ratio_changes_how_many_are_generated_and_trains_generation_0_once():
    before, after = keys(), keys("keep_ratio=0.25")
    assert after[0, "train"] == before[0, "train"]
    base, count = after[0, "generate"].split("-")
    assert (base, int(count)) == (before[0, "generate"].split("-")[0], 4 * BASE.budget)


def test_more_generations_leave_earlier_ones_as_they_are():
    # The last generation makes only what is measured: going on, it has to make the candidates of the next.
    assert changed("generations=5") == {(2, "generate"), (2, "evaluate")}
    assert changed("generations=1") == {(1, "generate"), (1, "evaluate")}
    shorter, longer = keys()[2, "generate"], keys("generations=3")[2, "generate"]
    assert shorter.split("-")[0] == longer.split("-")[0]
    assert changed(
        "generations=5", "metrics.num_samples=1000", base=variant(BASE, "x", "metrics.num_samples=1000")
    ) == (set())


def test_fresh_images_are_set_aside_by_the_split_unless_the_real_set_has_a_size():
    assert (0, "real") in changed("scenario.kind=fresh_mix")
    fixed = variant(BASE, "fixed", "data.num_real=500")
    assert (0, "real") not in changed("scenario.kind=fresh_mix", base=fixed)
    assert (0, "train") not in changed("scenario.kind=fresh_mix", base=fixed)


def test_what_a_generation_starts_from():
    plans = {
        init: plan_loop(variant(BASE, init, f"training.init={init}")) for init in ("previous", "scratch", "initial")
    }
    trained = {init: [stages["train"] for stages in plan] for init, plan in plans.items()}
    assert trained["previous"][2].inputs["init"] is trained["previous"][1]
    assert trained["initial"][2].inputs["init"] is trained["initial"][0]
    assert all("init" not in train.inputs for train in trained["scratch"])
    assert all("init" not in stages[0].inputs for stages in trained.values())
    assert trained["previous"][1].key == trained["initial"][1].key != trained["scratch"][1].key
    assert len({stages[2].key for stages in trained.values()}) == 3


def test_samples_that_a_scenario_cannot_choose_are_no_input():
    def sources(kind: str) -> list[str]:
        select = plan_loop(variant(BASE, kind, f"scenario.kind={kind}"))[2]["select"]
        return sorted(role for role in select.inputs if role.startswith("samples/"))

    assert sources("replace") == sources("augment") == ["samples/1"]
    assert sources("accumulate") == sources("accumulate_subsample") == ["samples/0", "samples/1"]


@pytest.mark.parametrize(
    "settings",
    [
        ["data.labels=ssc_omp", "correction.kind=self_correction"],
        ["data.labels=predicted", "correction.kind=neon", "training.init=previous", "selection.refresh=1"],
        ["data.labels=kmeans", "correction.kind=sims", "model.conditional=false"],
    ],
    ids=" ".join,
)
def test_what_a_stage_reads_is_named_where_it_is_built(settings):
    for stages in plan_loop(variant(BASE, "all", *settings, "generations=3")):
        for stage in stages.values():
            told = str(stage.build.__doc__)
            told += str(scored_by.__doc__) if "`scored_by`" in told else ""
            roles = {re.sub(r"/\d+$", "/j", role) for role in stage.inputs}
            assert {role for role in roles if f"`{role}`" not in told} == set(), stage.name


def test_real_images_are_named_by_their_content_and_found_where_they_lie(tmp_path, monkeypatch):
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "real.npz", image=images)
    monkeypatch.chdir(tmp_path / "here")

    def real(source: str):
        return plan_loop(variant(BASE, "own", f"data.source={source}"))[0]["real"]

    here, there = real("npz:real.npz"), real(f"npz:{tmp_path}/there/real.npz")
    assert here.key == there.key
    assert here.config.source == f"npz:{tmp_path}/here/real.npz"
    assert there.config.source == f"npz:{tmp_path}/there/real.npz"
    np.savez(tmp_path / "there" / "real.npz", image=images + 1)
    assert real(f"npz:{tmp_path}/there/real.npz").key != here.key


def test_a_class_that_appears_later_changes_all_that_learns_or_samples():
    assert changed("data.appear={7: 2}") == ALL - {(0, "real"), (0, "feature_network")}
    plan = plan_loop(variant(BASE, "later", "data.appear={7: 2}"))
    assert [stages["generate"].config.absent for stages in plan] == [(7,), (7,), ()]
    assert [stages["select"].config.unseen for stages in plan[1:]] == [(7,), ()]
    unlabelled = plan_loop(variant(BASE, "later", "data.appear={7: 2}", "data.labels=kmeans"))[0]["train_unlabelled"]
    assert unlabelled.config.unseen == ()


def test_a_class_that_vanishes_changes_nothing_before():
    assert changed("data.vanish={7: 2}") == {(2, "generate"), (2, "evaluate")}
    assert changed("data.vanish={7: 3}") == set()


def test_a_probe_is_refitted_every_so_many_generations_and_never_after_the_last():
    plan = plan_loop(variant(BASE, "long", "selection.refresh=2", "generations=6"))
    assert [k for k, stages in enumerate(plan) if "probe" in stages] == [0, 2, 4]
    assert [k for k, stages in enumerate(plan) if "rescore" in stages] == [3, 4, 5, 6]
    roles = [sorted(r for r in stages["select"].inputs if r.startswith("rescore/")) for stages in plan[1:]]
    assert roles == [[], [], ["rescore/3"], ["rescore/3", "rescore/4"], ["rescore/5"], ["rescore/5", "rescore/6"]]
    for k, fitted in ((3, 2), (4, 2), (5, 4), (6, 4)):
        inputs = plan[k]["rescore"].inputs
        assert (inputs["probe"], inputs["encoder"]) == (plan[fitted]["probe"], plan[fitted]["train"])
        assert plan[fitted]["probe"].inputs["encoder"] is plan[fitted]["train"]
    # What is measured stays with the probe of generation 0.
    assert all(stages[name].inputs["probe"] is plan[0]["probe"] for stages in plan for name in ("generate", "evaluate"))


def test_loops_share_all_stages_until_the_first_refit():
    long = variant(BASE, "long", "generations=6")
    assert changed("selection.refresh=6", base=long) == set()
    assert {k for k, _ in changed("selection.refresh=4", base=long)} == {5, 6}
    often = variant(long, "often", "selection.refresh=2")
    assert {k for k, _ in changed("selection.refresh=3", base=often)} == {3, 4, 5, 6}
    assert changed("generations=9", base=often) == {(6, "generate"), (6, "evaluate")}


def test_a_refitted_probe_looks_into_the_model_that_samples_and_at_the_classes_there_are():
    settings = ("selection.refresh=1", "correction.kind=neon", "generations=3", "data.appear={7: 2, 8: 3}")
    plan = plan_loop(variant(BASE, "neon", *settings))
    assert plan[1]["probe"].inputs["encoder"] is plan[1]["extrapolate"]
    assert [plan[k]["probe"].config.unseen for k in range(3)] == [(7, 8), (7, 8), (8,)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("digits", "digits"),
        ("fashion_mnist", "fashion_mnist"),
        ("folder:images", "folder:{here}/images"),
        ("idx:./mnist/", "idx:{here}/mnist"),
        ("folder:/images", "folder:/images"),
        ("folder:~/images", "folder:{home}/images"),
        ("parquet:s3://bucket/real.parquet", "parquet:s3://bucket/real.parquet"),
        ("hf:ylecun/mnist@abc:train", "hf:ylecun/mnist@abc:train"),
        ("hf:./mnist:test", "hf:{here}/mnist:test"),
    ],
)
def test_local_paths_are_made_absolute(source, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute(source) == expected.format(here=tmp_path, home=Path.home())
