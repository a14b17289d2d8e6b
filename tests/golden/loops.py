"""The loops whose stage keys are golden, and those that are run to compare two stores; by names that say what they are.

What tests/golden takes from the package, it takes from here: where a module moves, these imports are all there is to
edit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autophagy import load_recipe
from autophagy.common.seeds import digest
from autophagy.config import Experiment, override, parse
from autophagy.config.expand import loops
from autophagy.config.sweep import Sweep, parse_sweep
from autophagy.graph import plan_loop
from autophagy.recipes import RECIPES, SWEEPS
from autophagy.selection import SELECTORS
from autophagy.store import StageStore

__all__ = ["StageStore", "digest", "make_files", "plan_loop", "planned", "run_loops", "run_sweeps"]

# A loop of seconds: that of tests/conftest.py, copied, since it may change there and golden keys may not.
TINY: dict[str, Any] = {
    "name": "tiny",
    "generations": 2,
    "budget": 64,
    "data": {"source": "digits", "image_size": 8, "num_real": 200, "num_held_out": 100},
    "model": {"block_out_channels": [8, 16]},
    "training": {
        "initial_epochs": 2,
        "epochs": 1,
        "global_batch_size": 33,
        "precision": "float32",
        "num_workers": 0,
    },
    "generation": {"num_inference_steps": 3, "shard_size": 32, "precision": "float32", "num_actors": 0},
    "scenario": {"kind": "accumulate_subsample"},
    "selection": {"strategy": "random"},
    "metrics": {"num_samples": 64},
}
# Planned on files of our own: the keys of digits depend on the version of scikit-learn.
FILES = "data.source=folder:images"

SCENARIOS = [
    "scenario.kind=replace",
    "scenario.kind=augment",
    "scenario.kind=fresh_mix",
    "scenario.kind=constant_mix",
    "scenario.kind=accumulate",
    "scenario.kind=accumulate_subsample",
]
CORRECTIONS = ["", "correction.kind=self_correction", "correction.kind=sims", "correction.kind=neon"]
CLUSTERED = ["data.labels=ssc_omp", "data.labels=kmeans"]
LABELS = ["", *CLUSTERED, "data.labels=predicted", "data.labels=shuffled"]
NETWORKS = [f"metrics.feature_network={kind}" for kind in ("classifier", "latent", "pixels", "inception", "dinov2")]
INITS = [f"training.init={init}" for init in ("previous", "scratch", "initial")]
UNCONDITIONAL = "model.conditional=false"
REFRESHED = ["selection={strategy: lsf, refresh: 1}", "selection={strategy: lsf, refresh: 2, per_class: true}"]
SCHEDULES = ["data.appear={7: 1, 9: 2}", "data.vanish={3: 2}"]
# Other values of every field, by itself; the test says when one is missing.
FIELDS: dict[str, Sequence[str]] = {
    "seed": ["1"],
    "generations": ["0", "1", "5"],
    "budget": ["65"],
    "keep_ratio": ["0.7", "0.5"],
    "data.source": ["digits", "fashion_mnist", "idx:idx", "npz:images.npz", "parquet:images.parquet", "hf:./hf:test"],
    "data.image_size": ["16"],
    "data.num_real": ["null", "150"],
    "data.num_held_out": ["null", "50"],
    "data.cluster_timestep": ["50"],  # means something with clusters only: see _combined
    "model.block_out_channels": ["[8]", "[8, 16, 16]"],
    "model.layers_per_block": ["2"],
    "model.attention": ["true"],
    "model.conditional": ["false"],
    "model.num_train_timesteps": ["500"],
    "model.beta_schedule": ["scaled_linear", "squaredcos_cap_v2"],
    "training.initial_epochs": ["3"],
    "training.epochs": ["2"],
    "training.equal_steps": ["false"],
    "training.init": ["scratch", "initial"],
    "training.learning_rate": ["0.002"],
    "training.fine_tune_learning_rate": ["0.0005"],
    "training.global_batch_size": ["32"],
    "training.ema_decay": ["0.0", "0.99"],
    "training.condition_dropout": ["0.0", "0.2"],
    "training.precision": ["auto", "bfloat16"],
    "generation.sampler": ["ddpm"],
    "generation.num_inference_steps": ["4"],
    "generation.guidance_scale": ["0.0", "1.0", "2.5"],
    "generation.shard_size": ["16"],
    "generation.class_shares": ["balanced"],
    "generation.precision": ["auto", "bfloat16"],
    "metrics.num_samples": ["100"],
    "metrics.k": ["3"],
}
# Where and how to compute, which may change no key.
RUNTIME = [
    "name=another",
    "training.num_workers=2",
    "training.use_gpu=true",
    "training.checkpoint_every=7",
    "training.resident_bytes=0",
    "generation.num_actors=3",
    "generation.use_gpu=true",
]
# Other values of the fields that selectors have.
SELECTED: dict[str, Sequence[str]] = {
    "per_class": ["true"],
    "protect_real": ["true"],
    "timestep": ["100", "[50, 200]"],
    "pool": ["mean", "max"],
    "refresh": ["1", "2"],
    "drop": ["0.25"],
    "feature_space": ["latent", "pixels"],
    "num_clusters": ["8"],
    "num_components": ["4"],
    "prefer": ["bottom"],
    "tau0": ["1.5"],
    "decay": ["0.8"],
}
CORRECTED = [
    "correction={kind: self_correction, strength: 0.5}",
    "correction={kind: self_correction, num_centres: 4}",
    *[
        f"correction={{kind: {kind}, {field}}}"
        for kind in ("sims", "neon")
        for field in ("weight: 0.5", "num_samples: 40", "epochs: 2")
    ],
]
MIXED = [f"scenario={{kind: {kind}, real_fraction: 0.6}}" for kind in ("fresh_mix", "constant_mix")]


def planned() -> dict[str, Experiment]:
    """Every loop whose keys are golden. Sources that are files lie in the current folder, see `make_files`."""
    made = {f"recipe {recipe.__name__}": recipe() for recipe in RECIPES}
    settings = ["keep_ratio=0.25", "seed=3", "selection.timestep=100", "training.epochs=5"]
    made[f"recipe lsf_digits {' '.join(settings)}"] = load_recipe("lsf_digits", settings)
    for sweep in [*(load_recipe(sweep.__name__) for sweep in SWEEPS), _search(FILES)]:
        made |= {f"sweep {loop.run}": loop.experiment for loop in loops(sweep)}
    for chosen in _chosen():
        name = " ".join(["tiny", *chosen])
        try:
            made[name] = _tiny(FILES, *chosen)
        except Exception as error:
            error.add_note(f"golden loop: {name}")
            raise
    return made


def make_files(folder: Path) -> None:
    """Files behind the sources of `planned`: planning reads their bytes and nothing else, so that any will do."""
    names = ("images/0/a.png", "images/1/b.png", "idx/train-images-idx3-ubyte", "idx/train-labels-idx1-ubyte")
    for name in (*names, "images.npz", "images.parquet", "hf/test.arrow"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def _tiny(*settings: str) -> Experiment:
    return parse(override(TINY, settings))


def _product(*axes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """One setting of every axis, in all combinations; an empty one is left out."""
    return (tuple(filter(None, point)) for point in itertools.product(*axes))


def _chosen() -> Iterator[tuple[str, ...]]:
    """The settings of all loops made from TINY."""
    yield ()
    yield from ((f"{field}={value}",) for field, values in FIELDS.items() for value in values)
    yield from ((setting,) for setting in (*RUNTIME, *SCHEDULES, *MIXED, *CORRECTED))
    yield from _selections()
    yield from _combined()


def _selections() -> Iterator[tuple[str, ...]]:
    """Every selector as it is, with every field changed, and for a model without labels."""
    for selector in SELECTORS:
        strategy = selector.model_fields["strategy"].default
        yield "generations=3", f"selection.strategy={strategy}"
        yield UNCONDITIONAL, "data.labels=kmeans", f"selection.strategy={strategy}"
        for field in selector.model_fields:
            if (strategy, field) != ("class_balanced_random", "per_class"):  # which is true, always
                for value in SELECTED.get(field, ()):
                    yield "generations=3", f"selection={{strategy: {strategy}, {field}: {value}}}"
    yield (
        "selection={strategy: lsf, per_class: true, protect_real: true, timestep: [25, 400], pool: mean, refresh: 1}",
    )
    yield ("selection={strategy: greedy, per_class: true, protect_real: true, feature_space: latent}",)


def _combined() -> Iterator[tuple[str, ...]]:
    """What depends on several sections at once."""
    yield from _product(SCENARIOS, CORRECTIONS, LABELS)
    yield from _product([UNCONDITIONAL], LABELS, CORRECTIONS)
    yield from _product(SCENARIOS, ["data.num_real=null"], ["keep_ratio=0.5"], ["", "generations=4"])
    yield from _product(INITS, CORRECTIONS, ["", "training.fine_tune_learning_rate=0.0005"], ["generations=3"])
    yield from _product(["scenario.kind=accumulate"], ["training.equal_steps=false"], CORRECTIONS)
    yield from _product(CLUSTERED, ["data.num_clusters=12", "data.cluster_timestep=50"], ["", UNCONDITIONAL])
    yield from _product(NETWORKS, ["", "data.labels=kmeans"], ["", *REFRESHED])
    yield from _product([UNCONDITIONAL], ["data.labels=kmeans"], NETWORKS)
    yield from _product(REFRESHED, CORRECTIONS, ["", "scenario.kind=replace"], ["generations=4"])
    yield from _product(REFRESHED, LABELS, ["", SCHEDULES[0]], ["generations=5"])
    yield from _product(REFRESHED, [UNCONDITIONAL], [*CLUSTERED, "data.labels=predicted"])
    yield from _product(SCHEDULES, SCENARIOS[:2] + SCENARIOS[3:], CORRECTIONS, ["generations=3"])
    yield from _product([SCHEDULES[1]], ["scenario.kind=fresh_mix"])
    yield from _product(SCHEDULES[:1], SCHEDULES[1:], LABELS)
    yield from _product(["generation.guidance_scale=2.0"], ["", "generation.sampler=ddpm"], CORRECTIONS)
    yield from _product(["", *RUNTIME[1:]], ["correction.kind=sims"], REFRESHED[:1], ["generations=4"])


def _search(*settings: str) -> Sweep:
    """A search: its points are found as it runs, its controls are planned."""
    return parse_sweep(
        {
            "name": "tiny_search",
            "base": override(TINY, ["metrics.feature_network=pixels", *settings]),
            "axes": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "keep_ratio": [1.0, 0.5]},
            "controls": {"random": {}, "lsf": {"selection.strategy": "lsf"}},
            "seeds": [0],
            "search": {"num_loops": 5},
            "max_concurrent": 1,  # with more, what is tried next depends on which ends first
        }
    )


# Run, not only planned. A loop that differs from another only in where it is computed has a seed of its own, and so
# stages of its own; for pixels as features no network has to be fitted.
ALONE = "metrics.feature_network=pixels"
RUNS: Mapping[str, Sequence[str]] = {
    **{setting.partition("=")[2]: [setting] for setting in SCENARIOS},
    "all_of_a_growing_pool": ["scenario.kind=accumulate", "training.equal_steps=false"],
    "half_fresh": ["scenario={kind: fresh_mix, real_fraction: 0.5}", "data.num_real=null", "data.num_held_out=null"],
    "self_correction": ["correction={kind: self_correction, strength: 0.5, num_centres: 4}"],
    "sims": ["correction.kind=sims"],
    "sims_of_few": ["correction={kind: sims, weight: 0.5, num_samples: 40, epochs: 2}"],
    "neon": ["correction.kind=neon", "training.fine_tune_learning_rate=0.0005"],
    **{setting.partition("=")[2]: [setting, "selection.strategy=lsf"] for setting in LABELS[1:]},
    "twelve_clusters": ["data.labels=kmeans", "data.num_clusters=12", "data.cluster_timestep=50"],
    "unconditional": [UNCONDITIONAL],
    "unconditional_ssc_omp": [UNCONDITIONAL, "data.labels=ssc_omp", "selection.strategy=lsf"],
    "unconditional_predicted": [UNCONDITIONAL, "data.labels=predicted", "selection={strategy: ole, per_class: true}"],
    "refreshed": [REFRESHED[0]],
    "refreshed_latents": ["selection={strategy: ole, refresh: 1}", "generations=3"],
    "refreshed_neon": [REFRESHED[0], "correction.kind=neon", "scenario.kind=replace"],
    "dynamic_classes": [*SCHEDULES, "generations=3"],
    "latent": ["metrics.feature_network=latent"],
    "guided": ["generation.sampler=ddpm", "generation.guidance_scale=2.0"],
    "guided_sims": ["generation.guidance_scale=2.0", "correction.kind=sims"],
    "keep_half": ["keep_ratio=0.5", "selection.strategy=greedy"],
    "scratch": ["training.init=scratch"],
    "initial": ["training.init=initial"],
    "attention": [ALONE, "model.attention=true", "model.layers_per_block=2"],
    "bfloat16": [ALONE, "training.precision=bfloat16", "generation.precision=bfloat16"],
    "quotas": ["selection={strategy: lsf, per_class: true, protect_real: true, timestep: [50, 200], pool: mean}"],
    "greedy_latent": ["selection={strategy: greedy, feature_space: latent, per_class: true}"],
    "worst_likelihood": ["selection={strategy: likelihood, prefer: bottom}"],
    **{
        f"by_{s.model_fields['strategy'].default}": [f"selection.strategy={s.model_fields['strategy'].default}"]
        for s in SELECTORS
    },
    "workers": [ALONE, "seed=2", "training.num_workers=2", "training.checkpoint_every=3", "generations=1"],
    "one_worker": [ALONE, "seed=3", "training.num_workers=1", "generations=0"],
    "actors": [ALONE, "seed=4", "generation.num_actors=1", "generations=1"],
    "checkpointed": [ALONE, "seed=5", "training.checkpoint_every=2", "training.resident_bytes=0"],
    "from_folder": [ALONE, "data.source=folder:images", "generations=0"],
    "from_npz": [ALONE, "data.source=npz:images.npz", "generations=0"],
    "from_parquet": [ALONE, "data.source=parquet:images.parquet", "generations=0"],
}


def run_loops() -> list[Experiment]:
    """One tiny loop of every kind. The files of some lie in the current folder."""
    return [_tiny(*settings, f"name={name}") for name, settings in RUNS.items()]


def run_sweeps() -> list[Sweep]:
    """A grid of two arms and two seeds, and a search."""
    base = override(TINY, [ALONE])
    grid = {"name": "grid", "base": base, "axes": {"selection.strategy": ["random", "lsf"]}, "seeds": [0, 1]}
    return [parse_sweep(grid), _search()]
