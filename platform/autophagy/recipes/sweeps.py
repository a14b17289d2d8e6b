"""The recipes of sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autophagy.config import Experiment
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.recipes.loops import lsf_digits, lsf_fashion_small, random_digits, variant


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
