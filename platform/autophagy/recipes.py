"""Published experiments and sweeps as functions; a variant calls another and edits it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autophagy.config import Experiment, load_yaml, override, parse
from autophagy.records import UserError
from autophagy.sweep_config import Sweep, override_sweep, parse_sweep


def lsf_digits() -> Experiment:
    """Latent Space Filtering on scikit-learn's 8x8 digits, accumulating data: minutes on a laptop."""
    return parse(
        {
            "name": "lsf_digits",
            "generations": 4,
            "budget": 500,
            "keep_ratio": 0.5,
            "data": {"source": "digits", "image_size": 8},
            "model": {"block_out_channels": [32, 64]},
            "training": {"initial_epochs": 60, "epochs": 3, "num_workers": 0},
            "generation": {"num_inference_steps": 25, "num_actors": 0},
            "scenario": {"kind": "accumulate_subsample"},
            "selection": {"strategy": "lsf", "per_class": True},  # see lsf_fashion_small
            "metrics": {"num_samples": 500},
        }
    )


def random_digits() -> Experiment:
    """The same budget and scenario as `lsf_digits`, chosen uniformly at random: what every strategy must beat."""
    return variant(lsf_digits(), "random_digits", "selection.strategy=random")


def replace_digits() -> Experiment:
    """The fully synthetic loop on digits: every generation is trained on nothing but the one before."""
    return variant(lsf_digits(), "replace_digits", "scenario.kind=replace", "selection.strategy=none", "keep_ratio=1.0")


def lsf_fashion_small() -> Experiment:
    """Latent Space Filtering on Fashion-MNIST at 16x16: 10,000 real images, then 1,000 in each generation."""
    return parse(
        {
            "name": "lsf_fashion_small",
            "generations": 5,
            "budget": 1000,
            "keep_ratio": 1.0,  # as in the paper: what there is to choose from is the growing pool
            "data": {"source": "fashion_mnist", "image_size": 16, "num_real": 10_000},
            "model": {"block_out_channels": [32, 64], "layers_per_block": 1},
            "training": {"initial_epochs": 15, "epochs": 3, "num_workers": 0},
            "generation": {"num_inference_steps": 50, "num_actors": 0},
            "scenario": {"kind": "accumulate_subsample"},
            # Confidence saturates: without quotas the highest thousand are of four classes out of ten, and the loop
            # forgets the others (docs/results).
            "selection": {"strategy": "lsf", "per_class": True},
            "metrics": {"num_samples": 2000},
        }
    )


def random_fashion_small() -> Experiment:
    """`lsf_fashion_small` with random selection at the same budget."""
    return variant(lsf_fashion_small(), "random_fashion_small", "selection.strategy=random")


def replace_fashion_small() -> Experiment:
    """The fully synthetic loop on the data and model of `lsf_fashion_small`."""
    return variant(
        lsf_fashion_small(),
        "replace_fashion_small",
        "scenario.kind=replace",
        "selection.strategy=none",
    )


def shuffled_fashion_small() -> Experiment:
    """`lsf_fashion_small` with a probe fitted on shuffled labels: the control that must not beat random."""
    return variant(lsf_fashion_small(), "shuffled_fashion_small", "data.labels=shuffled")


RECIPES: tuple[Callable[[], Experiment], ...] = (
    lsf_digits,
    random_digits,
    replace_digits,
    lsf_fashion_small,
    random_fashion_small,
    replace_fashion_small,
    shuffled_fashion_small,
)


def demo() -> Sweep:
    """Collapse, and what slows it down, on 8x8 digits."""
    return study(
        "demo",
        lsf_digits(),
        "How fast does a fully synthetic loop collapse, and what do real images and selection change?",
        {
            "loop": {
                "replace": {"scenario.kind": "replace", "selection.strategy": "none", "keep_ratio": 1.0},
                "random": {"selection.strategy": "random"},
                "lsf": {},
            }
        },
        seeds=[0],
    )


def fashion_small() -> Sweep:
    """Latent Space Filtering against random selection and a probe that learnt nothing, on Fashion-MNIST."""
    return study(
        "fashion_small",
        lsf_fashion_small(),
        "Does Latent Space Filtering slow collapse beyond random selection of the same pool?",
        {
            "loop": {
                "replace": {"scenario.kind": "replace", "selection.strategy": "none"},
                "random": {"selection.strategy": "random"},
                "lsf": {},
                "shuffled": {"data.labels": "shuffled"},
            }
        },
    )


def selectors_digits() -> Sweep:
    """Every selection strategy at the same budget on digits: random and the controls first, then what is published."""
    quotas = {"selection.per_class": True}
    plain = ("random", "class_balanced_random", "oldest_first", "oracle_real")
    published = ("greedy", "threshold_decay", "trajectory_variance", "density_ratio", "center_match", "cov_match")
    return study(
        "selectors_digits",
        random_digits(),
        "Which selection strategies beat random at the same budget, and which only by keeping older or real images?",
        {
            "selector": {
                **{name: {"selection.strategy": name} for name in plain},
                "anti_lsf": {"selection.strategy": "anti_lsf", **quotas},
                "lsf": {"selection.strategy": "lsf", **quotas},
                "lsf_without_quotas": {"selection.strategy": "lsf"},
                "ole": {"selection.strategy": "ole", **quotas},
                "likelihood_top": {"selection.strategy": "likelihood"},
                "likelihood_bottom": {"selection.strategy": "likelihood", "selection.prefer": "bottom"},
                **{name: {"selection.strategy": name} for name in (*published, "kmeans")},
                **{name: {"correction.kind": name} for name in ("self_correction", "sims", "neon")},
            }
        },
    )


def strategy_by_keep_ratio() -> Sweep:
    """Strategies by keep ratio in two scenarios on digits: where does choosing pay?"""
    return study(
        "strategy_by_keep_ratio",
        random_digits(),
        "Does the best strategy depend on the scenario and on how many candidates there are to choose from?",
        {
            "selection.strategy": ["random", "lsf", "greedy", "threshold_decay"],
            "keep_ratio": [1.0, 0.5, 0.25],
            "scenario.kind": ["replace", "accumulate_subsample"],
        },
    )


def timestep_sensitivity() -> Sweep:
    """The timestep and the pooling of the latents that Latent Space Filtering reads, on digits."""
    return study(
        "timestep_sensitivity",
        lsf_digits(),
        "How much does Latent Space Filtering depend on the timestep and the pooling of its latents?",
        {"selection.timestep": [25, 100, 200, 400, 800], "selection.pool": ["flatten", "mean"]},
        controls=RANDOM,
    )


def label_source_ablation() -> Sweep:
    """Where the labels of Latent Space Filtering come from, on digits."""
    return study(
        "label_source_ablation",
        lsf_digits(),
        "How good must labels be for Latent Space Filtering?",
        {"data.labels": ["oracle", "predicted", "ssc_omp", "kmeans", "shuffled"]},
        controls=RANDOM,
    )


def architecture_robustness() -> Sweep:
    """Latent Space Filtering with denoisers of other widths and with attention, on digits."""
    return study(
        "architecture_robustness",
        lsf_digits(),
        "Does Latent Space Filtering hold for other denoisers than the one it was published with?",
        {
            "model.block_out_channels": [[16, 32], [32, 64], [64, 128]],
            "model.attention": [False, True],
            "selection": {"random": {"selection.strategy": "random"}, "lsf": {}},
        },
    )


def keep_ratio_fine() -> Sweep:
    """Keep ratios in small steps on digits."""
    return study(
        "keep_ratio_fine",
        lsf_digits(),
        "How many candidates should there be for every image that is kept?",
        {
            "selection": {
                "random": {"selection.strategy": "random"},
                "lsf": {},
                "greedy": {"selection.strategy": "greedy"},
            },
            "keep_ratio": [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        },
    )


def long_loop_probe_refresh() -> Sweep:
    """A probe of generation 0 against refitted ones over 20 generations on digits."""
    return study(
        "long_loop_probe_refresh",
        variant(lsf_digits(), "lsf_digits_long", "generations=20"),
        "Does Latent Space Filtering go blind over many generations, and does refitting its probe help?",
        {"probe": {"fixed": {}, **{f"every_{k}": {"selection.refresh": k} for k in (10, 5, 1)}}},
        controls=RANDOM,
    )


def dynamic_classes() -> Sweep:
    """Classes that appear or vanish while the loop runs, on digits: two come, one goes."""
    schedule = ("generations=8", "data.appear={8: 2, 9: 4}", "data.vanish={3: 4}")
    quotas = {"selection.strategy": "lsf", "selection.per_class": True}
    return study(
        "dynamic_classes",
        variant(random_digits(), "random_digits_dynamic", *schedule),
        "Which strategies let a new class in, and which hold on to one that is gone?",
        {
            "selection": {
                "random": {},
                "class_balanced_random": {"selection.strategy": "class_balanced_random"},
                "lsf": quotas,
                "lsf_without_quotas": {"selection.strategy": "lsf"},
                "lsf_without_quotas_refreshed": {"selection.strategy": "lsf", "selection.refresh": 2},
                "greedy": {"selection.strategy": "greedy"},
            }
        },
    )


RANDOM = {"random": {"selection.strategy": "random"}}
SWEEPS: tuple[Callable[[], Sweep], ...] = (
    demo,
    fashion_small,
    selectors_digits,
    strategy_by_keep_ratio,
    timestep_sensitivity,
    label_source_ablation,
    architecture_robustness,
    keep_ratio_fine,
    long_loop_probe_refresh,
    dynamic_classes,
)


def study(
    name: str,
    base: Experiment,
    question: str,
    axes: Mapping[str, Any],
    seeds: Sequence[int] = (0, 1, 2),
    controls: Mapping[str, Any] | None = None,
) -> Sweep:
    """A sweep over `axes` that answers a question."""
    values = {"name": name, "question": question, "base": base.model_dump(mode="json"), "axes": axes, "seeds": seeds}
    return parse_sweep(values | {"controls": controls or {}})


def variant(base: Experiment, name: str, *settings: str) -> Experiment:
    """`base` under another name with settings such as `training.epochs=5` applied."""
    return parse(override(base.model_dump(mode="json"), settings) | {"name": name})


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment | Sweep:
    """The experiment or sweep of a recipe or a YAML file, with overrides such as `keep_ratio=0.5` applied.

    A file with `axes` is a sweep; its `base` is a mapping of fields, a recipe or another file.

    Raises:
        UserError: no such recipe or file, or a field that is unknown or out of range.
    """
    values = _values(name_or_path)
    if "axes" not in values:
        return parse(override(values, overrides))
    if isinstance(values.get("base"), str):
        values["base"] = _values(values["base"])
    return parse_sweep(override_sweep(values, overrides))


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """As `load_recipe`, where it must be one loop."""
    chosen = load_recipe(name_or_path, overrides)
    if isinstance(chosen, Sweep):
        raise UserError(f"{name_or_path}: is a sweep, not one loop; use `autophagy sweep {name_or_path}`")
    return chosen


def load_sweep(name_or_path: str, overrides: Sequence[str] = ()) -> Sweep:
    """As `load_recipe`, where it must be a sweep."""
    chosen = load_recipe(name_or_path, overrides)
    if isinstance(chosen, Experiment):
        raise UserError(f"{name_or_path}: is one loop, not a sweep; use `autophagy run {name_or_path}`")
    return chosen


def _values(name_or_path: str) -> dict[str, Any]:
    """What a recipe or a file says."""
    by_name = {recipe.__name__: recipe for recipe in (*RECIPES, *SWEEPS)}
    if name_or_path in by_name:
        return by_name[name_or_path]().model_dump(mode="json")
    if name_or_path.endswith((".yaml", ".yml")) or Path(name_or_path).is_file():
        return {"name": Path(name_or_path).stem} | load_yaml(Path(name_or_path))
    near = difflib.get_close_matches(name_or_path, by_name, n=1)
    hint = f"did you mean {near[0]}?" if near else f"recipes: {', '.join(by_name)}"
    raise UserError(f"{name_or_path}: no such recipe, and no YAML file; {hint}")
