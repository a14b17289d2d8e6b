"""What the platform costs: the same loop through Autophagy and as a plain single-process torch script.

    python benchmarks/loop_overhead.py                                   # Fashion-MNIST recipe, 2 generations
    python benchmarks/loop_overhead.py --set training.initial_epochs=1   # a quick look

Both run in fresh processes, one after the other, and do the same work: read and split the images, train the feature
classifier, train the denoiser, fit the probe, score the real images; then for every generation select at random,
fine-tune, generate, score and measure. The plain script keeps everything in memory and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = ["generations=2", "selection.strategy=random"]
STAGES = ("real", "feature_network", "train", "probe", "score", "floor", "select", "generate", "evaluate")


def main() -> None:
    """Run both, print seconds and ratios per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="lsf_fashion_small")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--role", choices=("platform", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = [*SETTINGS, *arguments.settings]
    if arguments.role:
        seconds = {"platform": platform_loop, "plain": plain_loop}[arguments.role](arguments.recipe, settings)
        print(json.dumps(seconds))
        return
    measured = {role: measure(role, arguments.recipe, settings) for role in ("plain", "platform")}
    print(f"{'stage':<16} {'plain s':>9} {'platform s':>11} {'ratio':>7}")
    for stage in (*STAGES, "rest", "wall"):
        plain, platform = (measured[role].get(stage, 0.0) for role in ("plain", "platform"))
        ratio = f"{platform / plain:.2f}" if plain > 0.05 else "-"
        print(f"{stage:<16} {plain:>9.1f} {platform:>11.1f} {ratio:>7}")


def measure(role: str, recipe: str, settings: list[str]) -> dict[str, float]:
    """Seconds per stage of one side, in a process of its own; `rest` is imports, process starts and bookkeeping."""
    command = [sys.executable, __file__, "--role", role, "--recipe", recipe]
    command += [part for setting in settings for part in ("--set", setting)]
    start = time.perf_counter()
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    )
    seconds = json.loads(done.stdout.splitlines()[-1])
    seconds["wall"] = time.perf_counter() - start
    seconds["rest"] = seconds["wall"] - sum(seconds.get(stage, 0.0) for stage in STAGES)
    return seconds


def platform_loop(recipe: str, settings: list[str]) -> dict[str, float]:
    """The loop through Autophagy in a fresh store; seconds as its records give them."""
    from autophagy.loop import run_loop
    from autophagy.recipes import load_experiment
    from autophagy.store import StageStore

    with tempfile.TemporaryDirectory() as folder:
        records = run_loop(load_experiment(recipe, settings), StageStore(folder))
    total: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def plain_loop(recipe: str, settings: list[str]) -> dict[str, float]:
    """The same loop as one would write it in a notebook."""
    import numpy as np
    import torch
    from torch import nn

    from autophagy.data.pixels import load_images
    from autophagy.data.splits import split
    from autophagy.denoisers.base import Denoiser, Shape
    from autophagy.denoisers.diffusion import Diffusion
    from autophagy.denoisers.guidance import guide
    from autophagy.denoisers.latents import Encoder
    from autophagy.denoisers.pixels import to_unit
    from autophagy.denoisers.precision import autocast
    from autophagy.denoisers.sampling import sample_images
    from autophagy.features.networks import CLASSIFIER_BATCH, CLASSIFIER_STEPS, Classifier
    from autophagy.features.probe import FIXED_PENALTY, PENALTIES, TIMESTEPS, Probe, Split, fit_linear
    from autophagy.metrics.measured import Measured, measure, real_vs_real
    from autophagy.recipes import load_experiment
    from autophagy.stages.probe import COMPARISON

    e = load_experiment(recipe, settings).settled()
    cpu = torch.device("cpu")
    spent: dict[str, float] = {}
    rng = np.random.default_rng(e.seed)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start

    with timed("real"):
        real = load_images(e.data.source, e.data.image_size)
        parts = split(len(real.image), e.data.num_real, e.data.num_held_out, 0, e.seed)
        images, labels = real.image[parts.train], real.label[parts.train]
        held_out, held_out_labels = real.image[parts.held_out], real.label[parts.held_out]
    num_classes, channels = int(labels.max()) + 1, images.shape[3]
    shape, diffusion = Shape(e.data.image_size, channels, num_classes), Diffusion(e.model, cpu)

    with timed("feature_network"):
        classifier = Classifier(channels, num_classes)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
        for _ in range(CLASSIFIER_STEPS):
            rows = rng.integers(len(images), size=CLASSIFIER_BATCH)
            logits = classifier(to_unit(torch.from_numpy(images[rows])))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def train(start: nn.Module, x: np.ndarray, y: np.ndarray, steps: int) -> Denoiser:
        network, average = copy.deepcopy(start).train(), copy.deepcopy(start).eval()
        optimizer = torch.optim.AdamW(network.parameters(), lr=e.training.learning_rate, weight_decay=0.0)
        size = e.training.global_batch_size
        for step in range(steps):
            rows = rng.integers(len(x), size=size)
            t, noise = torch.randint(e.model.num_train_timesteps, (size,)), torch.randn(size, channels, *x.shape[1:3])
            condition = torch.where(torch.rand(size) < 0.1, num_classes, torch.from_numpy(y[rows]))
            with autocast(e.training.precision, cpu):
                noisy = diffusion.noised(to_unit(torch.from_numpy(x[rows])), noise, t)
                predicted = e.model.predict(network, noisy, t, condition)
            loss = nn.functional.mse_loss(predicted.float(), noise)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            decay = min(e.training.ema_decay, (2 + step) / (11 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        return Denoiser(e.model, average, shape)

    with timed("train"):
        steps = e.training.initial_epochs * -(-len(images) // e.training.global_batch_size)
        denoiser = train(e.model.build(shape), images, labels, steps)
    encoder = Encoder(denoiser)

    def encode(x: np.ndarray, t: int) -> np.ndarray:
        return encoder.encode(x, np.arange(len(x)), t, pool="flatten", seed=e.seed)

    with timed("probe"):
        rows = rng.permutation(len(images))[:COMPARISON]
        fit = len(rows) * 4 // 5

        def split_at(t: int) -> Split:
            h = encode(images[rows], t)
            return Split(h[:fit], labels[rows[:fit]], h[fit:], labels[rows[fit:]])

        timestep = max(TIMESTEPS, key=lambda t: fit_linear(split_at(t), t, FIXED_PENALTY)[1])
        compared = split_at(timestep)
        penalty = max(PENALTIES, key=lambda c: fit_linear(compared, timestep, c)[1])
        whole = Split(encode(images, timestep), labels, encode(held_out, timestep), held_out_labels)
        probe = Probe((fit_linear(whole, timestep, penalty)[0],), "flatten", e.seed)

    def score(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with torch.no_grad():
            features = torch.cat([classifier.body(to_unit(b)) for b in torch.from_numpy(x).split(256)]).numpy()
        h = encode(x, timestep)
        return features, probe.confidence([h], y), h

    with timed("score"):
        real_features, *_ = score(images, labels)
        reference, reference_confidence, _ = score(held_out, held_out_labels)

    n = e.metrics.num_samples
    with timed("floor"):
        real_vs_real(real_features[:n], reference[:n], e.metrics.k, 0)

    pool, pool_labels, pool_features = [images], [labels], [real_features]
    chosen, origin = real_features, np.full(len(images), -1, np.int32)
    for k in range(e.generations + 1):
        if k:
            with timed("select"):
                x, y, f = np.concatenate(pool), np.concatenate(pool_labels), np.concatenate(pool_features)
                origins = np.repeat(np.arange(-1, k), [len(p) for p in pool]).astype(np.int32)
                kept = rng.permutation(len(x))[: e.budget]
                chosen, origin = f[kept], origins[kept]
            with timed("train"):
                steps = e.training.epochs * -(-e.budget // e.training.global_batch_size)
                denoiser = train(denoiser.network, x[kept], y[kept], steps)
        with timed("generate"):
            count = max(n, e.num_candidates if k < e.generations else 0)
            asked = np.arange(count) % num_classes
            shards = [
                slice(s, min(s + e.generation.shard_size, count)) for s in range(0, count, e.generation.shard_size)
            ]
            predict = guide(denoiser, e.generation.guidance_scale, None, 0.0)
            ids = np.arange(count)
            sampled = [sample_images(denoiser, predict, e.generation, asked[s], ids[s], k) for s in shards]
            made = np.concatenate([images for images, _ in sampled])
            features, confidence, h = score(made, asked)
        with timed("evaluate"):
            with torch.no_grad():
                predicted = classifier.head(torch.from_numpy(features[:n])).argmax(1).numpy()
            measure(
                Measured(
                    generation=k,
                    reference=reference[:n],
                    synthetic=features[:n],
                    synthetic_label=asked[:n],
                    synthetic_predicted=predicted,
                    synthetic_confidence=confidence[:n],
                    synthetic_latent=h[:n],
                    synthetic_probe_label=probe.probabilities([h[:n]]).argmax(axis=1),
                    training=chosen,
                    training_generation=origin,
                    reference_label=held_out_labels[:n],
                    reference_confidence=reference_confidence[:n],
                    num_candidates=sum(map(len, pool)) if k else 0,
                    num_kept=len(chosen),
                    k=e.metrics.k,
                )
            )
        pool, pool_labels, pool_features = [*pool, made], [*pool_labels, asked], [*pool_features, features]
    return spent


if __name__ == "__main__":
    main()
