"""The softmax probe that gives confidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from autophagy.common.seeds import rng_for, seed_for
from autophagy.engine.job import Job, device_of
from autophagy.features.config import Probe as ProbeConfig
from autophagy.features.probe import FIXED_PENALTY, TIMESTEPS, LinearProbe, Probe, Split, fit_best_penalty, fit_linear
from autophagy.stages.payloads import PROBE_FILE, load_encoder, read_images, real_ids

PROBE_COMPARISON = 3000  # real images that timesteps and penalties are compared on


def fit_probe(job: Job) -> dict[str, Any]:
    """Builder of a `probe` stage (LSF). Inputs: `real`, and `encoder`, the denoiser of generation 0 or a later one.

    R stands for the real images there are: none of `unseen` classes, in which the probe therefore has no confidence.
    Timestep and L2 strength are compared on at most PROBE_COMPARISON images of R, by accuracy on a fifth of them; the
    probe is then fitted on all of R.
    """
    config, seed = ProbeConfig(**job.config["probe"]), job.config["seed"]
    encoder = load_encoder(job.inputs["encoder"], config.pool, seed_for(seed, "probe-noise"), device_of(job))
    ids, held_out_ids = (real_ids(job.inputs, split, job.config.get("unseen", ())) for split in ("train", "held_out"))
    images, label = read_images(job.inputs, ids)
    held_out, held_out_label = read_images(job.inputs, held_out_ids)
    rng = rng_for(seed, "probe")
    told = rng.permutation(label) if job.config["labels"] == "shuffled" else label
    rows = rng.permutation(len(images))[:PROBE_COMPARISON]
    fit, validation = np.split(rows, [len(rows) * 4 // 5])

    def split_at(timestep: int) -> Split:
        h = encoder.encode(images[rows], ids[rows], timestep)
        return Split(h[: len(fit)], told[fit], h[len(fit) :], told[validation])

    grid = sorted({t * encoder.model.num_train_timesteps // 1000 for t in TIMESTEPS})
    compared: dict[int, float] = {}
    if not config.timesteps:
        compared = {t: fit_linear(split_at(t), t, FIXED_PENALTY)[1] for t in grid}
    chosen = config.timesteps or (max(compared, key=lambda t: compared[t]),)

    parts: list[LinearProbe] = []
    train_latents, held_out_latents, penalties = [], [], []
    for t in chosen:
        penalty = fit_best_penalty(split_at(t), t)[2]
        train_latents.append(encoder.encode(images, ids, t))
        held_out_latents.append(encoder.encode(held_out, held_out_ids, t))
        whole = Split(train_latents[-1], told, held_out_latents[-1], held_out_label)
        parts.append(fit_linear(whole, t, penalty)[0])
        penalties.append(penalty)
    probe = Probe(tuple(parts), config.pool, encoder.seed)
    data, info = probe.to_bytes()
    job.attempt.write_bytes(PROBE_FILE, data)
    right = probe.probabilities(held_out_latents).argmax(1) == held_out_label
    right_train = probe.probabilities(train_latents).argmax(1) == told
    return info | {
        "accuracy_held_out": float(right.mean()),
        "accuracy_train": float(right_train.mean()),
        "confidence_held_out": float(probe.confidence(held_out_latents, held_out_label).mean()),
        "validation_accuracy_by_timestep": {str(t): a for t, a in compared.items()},
        "penalties": penalties,
    }
