"""The typed experiment: defaults, settings, round trips, and what its digest depends on."""

from __future__ import annotations

import pytest
import yaml

from autophagy.common.errors import UserError
from autophagy.common.section import Section
from autophagy.config import Experiment, override, parse
from autophagy.config.settings import flatten
from autophagy.recipes import RECIPES, load_recipe
from autophagy.recipes.loops import variant

# The experiment file whose key names users' files rely on.
EXAMPLE = """
name: lsf_digits
seed: 0
generations: 4          # after generation 0
budget: 500             # images trained on in each generation >= 1
keep_ratio: 0.5
data: {source: digits, image_size: 8, num_real: null, labels: oracle}
model: {block_out_channels: [32, 64], layers_per_block: 1, attention: false, conditional: true}
training: {initial_epochs: 60, epochs: 3, init: previous, learning_rate: 1.0e-3, global_batch_size: 128,
           num_workers: 1, use_gpu: false}
generation: {sampler: ddim, num_inference_steps: 25, guidance_scale: null, num_actors: 1}
scenario: {kind: accumulate_subsample}
selection: {strategy: lsf, timestep: auto, per_class: false}
metrics: {feature_network: classifier, num_samples: 1000, k: 5}
"""
SMALLEST = {"data": {"source": "digits"}}
LSF = parse(yaml.safe_load(EXAMPLE))


def settings(experiment: Experiment, *texts: str) -> Experiment:
    """The experiment with settings applied, its name included."""
    return parse(override(experiment.model_dump(mode="json"), texts))


FAMILIES = {"scenario", "selection", "correction"}


def sections(section: Section, prefix: str = "") -> list[tuple[str, bool]]:
    """Dotted name of every field below a section, and whether it must be given."""
    found = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section) and name not in FAMILIES:
            found += sections(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field.is_required()))
    return found


class TestParse:
    def test_the_documented_file_means_what_it_says(self):
        written = flatten(yaml.safe_load(EXAMPLE))
        read = flatten(LSF.model_dump(mode="json"))
        assert {name: read[name] for name in written} == written

    def test_everything_but_the_source_has_a_default(self):
        assert parse(SMALLEST).generations == 4
        without_default = {n for n, required in sections(LSF) if required}
        assert without_default == {"data.source"}

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.__name__)
    def test_an_experiment_survives_a_yaml_file(self, recipe, tmp_path):
        experiment = recipe()
        assert experiment.name == recipe.__name__
        path = tmp_path / "saved.yaml"
        path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load_recipe(str(path)) == experiment

    def test_a_schedule_of_classes_survives_a_yaml_file(self, tmp_path):
        experiment = settings(LSF, "data.appear={7: 2, 9: 4}", "data.vanish.7=3", "selection.refresh=2")
        path = tmp_path / "saved.yaml"
        path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load_recipe(str(path)) == experiment
        assert (experiment.data.appear, experiment.data.vanish, experiment.refresh) == ({7: 2, 9: 4}, {7: 3}, 2)

    def test_classes_come_and_go(self):
        data = settings(LSF, "data.appear={7: 2, 9: 4}", "data.vanish={3: 3, 7: 4}").data
        assert [data.unseen(k) for k in range(5)] == [[7, 9], [7, 9], [9], [9], []]
        assert [data.absent(k) for k in range(5)] == [[7, 9], [7, 9], [9], [3, 9], [3, 7]]

    def test_a_file_without_a_name_gives_the_run_its_own(self, tmp_path):
        path = tmp_path / "my_loop.yml"
        path.write_text("data: {source: digits}\n")
        assert load_recipe(str(path)).name == "my_loop"

    def test_an_experiment_is_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            LSF.budget = 3

    @pytest.mark.parametrize(("budget", "keep_ratio", "candidates"), [(500, 0.5, 1000), (21, 0.7, 30), (10, 0.3, 34)])
    def test_candidates_are_the_budget_over_the_keep_ratio_rounded_up(self, budget, keep_ratio, candidates):
        assert settings(LSF, f"budget={budget}", f"keep_ratio={keep_ratio}").num_candidates == candidates

    def test_the_probe_is_the_selections_own_or_the_default(self):
        assert settings(LSF, "selection.timestep=[50, 100]", "selection.pool=mean").probe.timesteps == (50, 100)
        assert settings(LSF, "selection.timestep=7").probe.timesteps == (7,)
        for other in (LSF, settings(LSF, "selection.strategy=random")):
            assert (other.probe.timesteps, other.probe.pool) == ((), "flatten")


class TestOverride:
    def test_sets_nested_values_read_as_yaml_and_leaves_the_original_alone(self):
        values = LSF.model_dump(mode="json")
        before = yaml.safe_dump(values)
        changed = parse(
            override(values, ["training.epochs=7", "model.block_out_channels=[8, 16]", "training.learning_rate=1e-4"])
        )
        assert changed.training.epochs == 7
        assert changed.model.block_out_channels == (8, 16)
        assert changed.training.learning_rate == pytest.approx(1e-4)
        assert yaml.safe_dump(values) == before

    def test_another_strategy_starts_its_section_anew(self):
        base = settings(LSF, "selection.timestep=50", "selection.per_class=true")
        assert settings(base, "selection.strategy=random").selection.model_dump() == {
            "strategy": "random",
            "per_class": False,
            "protect_real": False,
        }
        same = settings(base, "selection.strategy=lsf")
        assert (same.selection.timestep, same.selection.per_class) == (50, True)

    def test_another_kind_starts_its_section_anew(self):
        base = settings(LSF, "scenario.kind=fresh_mix", "scenario.real_fraction=0.6")
        assert settings(base, "scenario.kind=constant_mix").scenario.real_fraction == 0.3
        assert settings(base, "scenario.kind=fresh_mix").scenario.real_fraction == 0.6

    def test_the_order_of_settings_does_not_matter(self):
        one = ["selection.strategy=anti_lsf", "selection.timestep=50", "scenario.kind=fresh_mix", "keep_ratio=0.25"]
        one.append("scenario.real_fraction=0.1")
        first, last = settings(LSF, *one), settings(LSF, *reversed(one))
        assert first == last
        assert (first.selection.timestep, first.scenario.real_fraction, first.keep_ratio) == (50, 0.1, 0.25)

    def test_of_two_settings_of_one_field_the_later_counts(self):
        assert settings(LSF, "seed=1", "seed=2").seed == 2

    def test_a_section_can_be_set_whole(self):
        assert settings(LSF, "selection={strategy: random, per_class: true}").selection.per_class

    def test_a_variant_has_its_own_name_whatever_it_looks_like(self):
        assert variant(LSF, "2024").name == "2024"
        assert variant(LSF, "null", "seed=3").seed == 3


class TestDigest:
    @pytest.mark.parametrize(
        "setting",
        [
            "name=other",
            "generations=9",
            "training.num_workers=4",
            "training.use_gpu=true",
            "training.checkpoint_every=7",
            "training.resident_bytes=0",
            "generation.num_actors=3",
            "generation.use_gpu=true",
        ],
    )
    def test_where_how_and_how_far_to_compute_does_not_matter(self, setting):
        base = settings(LSF, "training.precision=float32", "generation.precision=float32")
        changed = settings(base, setting)
        assert changed != base
        assert changed.digest == base.digest

    def test_everything_else_does(self):
        fields = [name for name, _ in sections(LSF)]
        ignored = {"name", "generations", "training.num_workers", "training.use_gpu", "training.checkpoint_every"}
        ignored |= {"model.kind", "training.resident_bytes", "generation.num_actors", "generation.use_gpu"}
        other = {
            "seed": "1",
            "budget": "501",
            "keep_ratio": "0.75",
            "data.source": "fashion_mnist",
            "data.image_size": "16",
            "data.num_real": "700",
            "data.num_held_out": "300",
            "data.labels": "shuffled",
            "data.num_clusters": "5",
            "data.cluster_timestep": "50",
            "data.appear": "{7: 2}",
            "data.vanish": "{7: 2}",
            "model.block_out_channels": "[32, 32]",
            "model.layers_per_block": "2",
            "model.attention": "true",
            "model.conditional": "false",
            "model.num_train_timesteps": "999",
            "model.beta_schedule": "scaled_linear",
            "training.initial_epochs": "61",
            "training.epochs": "4",
            "training.equal_steps": "false",
            "training.init": "scratch",
            "training.learning_rate": "0.002",
            "training.fine_tune_learning_rate": "0.0005",
            "training.global_batch_size": "64",
            "training.ema_decay": "0.9",
            "training.condition_dropout": "0.2",
            "training.precision": "bfloat16",
            "generation.sampler": "ddpm",
            "generation.num_inference_steps": "26",
            "generation.guidance_scale": "2.0",
            "generation.shard_size": "64",
            "generation.class_shares": "balanced",
            "generation.precision": "bfloat16",
            "scenario": "{kind: replace}",
            "selection": "{strategy: none}",
            "correction": "{kind: sims}",
            "metrics.feature_network": "pixels",
            "metrics.num_samples": "999",
            "metrics.k": "4",
        }
        assert set(other) == set(fields) - ignored, "a new field: say here whether it changes numbers"
        base = settings(LSF, "selection.strategy=random", "data.labels=kmeans")
        digests = {name: settings(base, f"{name}={value}").digest for name, value in other.items()}
        assert len({base.digest, *digests.values()}) == len(other) + 1

    def test_selection_and_scenario_fields_matter(self):
        one = ("selection.timestep=50", "selection.pool=max", "selection.refresh=2", "scenario.kind=replace")
        assert len({e.digest for e in [LSF, *(settings(LSF, s) for s in one)]}) == 5

    def test_more_generations_are_another_experiment_where_they_need_more_fresh_images_from_the_split(self):
        fresh = settings(LSF, "scenario.kind=fresh_mix")
        assert settings(fresh, "generations=5").digest != fresh.digest
        fixed = settings(fresh, "data.num_real=500")
        assert settings(fixed, "generations=5").digest == fixed.digest


def test_flatten_names_values_by_their_path_and_keeps_lists_whole():
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": "[1, 2]", "e": None}


def test_a_recipe_is_found_by_its_name_and_a_near_miss_is_named():
    assert load_recipe("lsf_digits", ["seed=4"]).seed == 4
    with pytest.raises(UserError, match="did you mean lsf_digits"):
        load_recipe("lfs_digits")
