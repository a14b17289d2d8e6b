"""`probe`: the softmax probe that gives confidence (LSF, arXiv 2511.12742)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np

from autophagy.common.section import Section, since
from autophagy.common.seeds import rng_for, seed_for
from autophagy.config import Experiment
from autophagy.engine.job import Info, Job, Resources
from autophagy.engine.stage import Stage
from autophagy.selection import ProbeSettings
from autophagy.stages.payloads import PROBE, load_denoiser, read_images, real_ids

VERSION = 2
COMPARISON = 3000  # real images that timesteps and penalties are compared on


class Config(Section):
    """What a `probe` stage is keyed by."""

    probe: ProbeSettings
    labels: Literal["oracle", "shuffled"]
    seed: int
    unseen: Annotated[tuple[int, ...], since(())] = ()  # classes that no image is of yet


def stage(e: Experiment, k: int, inputs: Mapping[str, Stage]) -> Stage:
    """The probe on latents of the model of generation k, fitted on the real images there are by then."""
    config = Config(
        probe=e.probe,
        labels="shuffled" if e.data.labels == "shuffled" else "oracle",
        seed=e.seed,
        unseen=tuple(e.data.unseen(k)),
    )
    resources = Resources(use_gpu=e.training.use_gpu)
    return Stage("probe", build, config, inputs, resources, VERSION, generation=k or None)


def build(job: Job[Config]) -> Info:
    """Fit a probe. Inputs: `real`, perhaps `labels`; and `encoder`, the denoiser of generation 0 or a later one.

    R stands for the real images there are: none of `unseen` classes, in which the probe therefore has no confidence.
    Timestep and L2 strength are compared on at most COMPARISON images of R, by accuracy on a fifth of them; the
    probe is then fitted on all of R.
    """
    from autophagy.denoisers.latents import Encoder
    from autophagy.features.probe import FIXED_PENALTY, TIMESTEPS, Probe, Split, fit_best_penalty, fit_linear

    config, seed = job.config, job.config.seed
    encoder = Encoder(load_denoiser(job.inputs["encoder"], job.resources.use_gpu))
    pool, noise = config.probe.pool, seed_for(seed, "probe-noise")
    ids, held_out_ids = (real_ids(job.inputs, split, config.unseen) for split in ("train", "held_out"))
    images, label = read_images(job.inputs, ids)
    held_out, held_out_label = read_images(job.inputs, held_out_ids)
    rng = rng_for(seed, "probe")
    told = rng.permutation(label) if config.labels == "shuffled" else label
    rows = rng.permutation(len(images))[:COMPARISON]
    fit, validation = np.split(rows, [len(rows) * 4 // 5])

    def split_at(timestep: int) -> Split:
        h = encoder.encode(images[rows], ids[rows], timestep, pool=pool, seed=noise)
        return Split(h[: len(fit)], told[fit], h[len(fit) :], told[validation])

    grid = sorted({t * encoder.diffusion.num_train_timesteps // 1000 for t in TIMESTEPS})
    compared: dict[int, float] = {}
    if not config.probe.timesteps:
        compared = {t: fit_linear(split_at(t), t, FIXED_PENALTY)[1] for t in grid}
    chosen = config.probe.timesteps or (max(compared, key=lambda t: compared[t]),)

    parts, train_latents, held_out_latents, penalties = [], [], [], []
    for t in chosen:
        penalty = fit_best_penalty(split_at(t), t)[2]
        train_latents.append(encoder.encode(images, ids, t, pool=pool, seed=noise))
        held_out_latents.append(encoder.encode(held_out, held_out_ids, t, pool=pool, seed=noise))
        whole = Split(train_latents[-1], told, held_out_latents[-1], held_out_label)
        parts.append(fit_linear(whole, t, penalty)[0])
        penalties.append(penalty)
    probe = Probe(tuple(parts), pool, noise)
    data, info = probe.to_bytes()
    job.attempt.write_bytes(PROBE, data)
    right = probe.probabilities(held_out_latents).argmax(1) == held_out_label
    right_train = probe.probabilities(train_latents).argmax(1) == told
    return info | {
        "accuracy_held_out": float(right.mean()),
        "accuracy_train": float(right_train.mean()),
        "confidence_held_out": float(probe.confidence(held_out_latents, held_out_label).mean()),
        "validation_accuracy_by_timestep": {str(t): a for t, a in compared.items()},
        "penalties": penalties,
    }
