"""The recipes of single loops."""

from __future__ import annotations

from collections.abc import Callable

from autophagy.config import Experiment, override, parse


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


def variant(base: Experiment, name: str, *settings: str) -> Experiment:
    """`base` under another name with settings such as `training.epochs=5` applied."""
    return parse(override(base.model_dump(mode="json"), settings) | {"name": name})
