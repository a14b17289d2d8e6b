"""Generation: sharded, seeded sampling, scored in the same stream. Images go from sampler to Parquet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from autophagy.config import Generation, Model
from autophagy.data import tensor_column
from autophagy.denoiser import autocast, load_denoiser, null_condition, per_sample_noise, to_uint8
from autophagy.features import device_of
from autophagy.records import (
    GENERATION,
    IMAGE,
    IS_REAL,
    LABEL,
    SAMPLE_ID,
    TRAJECTORY_VARIANCE,
    UNLABELLED,
    sample_ids,
    sample_index,
    seed_for,
)
from autophagy.scoring import Scorer
from autophagy.stages import Job, once, stream
from autophagy.store import NUM_FILES

if TYPE_CHECKING:
    from diffusers import UNet2DModel

LAST_STEPS = 10  # of sampling, whose predictions of x_0 are compared


@dataclass(frozen=True)
class Denoisers:
    """What predicts the noise: one denoiser, or two of which the second is moved away from (SIMS, 2408.16333)."""

    denoiser: UNet2DModel
    auxiliary: UNet2DModel | None = None
    weight: float = 0.0  # w in (1 + w) eps - w eps_aux

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.denoiser.parameters()).device

    def noise(self, x: Tensor, steps: Tensor, condition: Tensor | None) -> Tensor:
        """Predicted noise [B, C, H, W] in noisy images x at timesteps [B]."""
        noise = self.denoiser(x, steps, condition).sample
        if self.auxiliary is None:
            return noise
        return (1 + self.weight) * noise - self.weight * self.auxiliary(x, steps, condition).sample


@torch.no_grad()
def sample_images(
    denoisers: Denoisers, model: Model, generation: Generation, labels: np.ndarray, seeds: list[int]
) -> tuple[Tensor, Tensor]:
    """Sample by DDIM (2010.02502) or ancestral DDPM (2006.11239), with guidance (2207.12598) if asked for.

    Args:
        labels: int64 [B], the class asked for; UNLABELLED for an unconditional denoiser.
        seeds: one per image; image i depends on labels[i] and seeds[i], whatever else is in the batch.

    Returns:
        Images uint8 [B, H, W, C], and the variance of the predictions of x_0 over the last LAST_STEPS steps, mean
        over pixels, float32 [B]: what arXiv 2406.09358 tells hallucinated images by.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    denoiser, device = denoisers.denoiser, denoisers.device
    kind = DDIMScheduler if generation.sampler == "ddim" else DDPMScheduler
    scheduler = kind(num_train_timesteps=model.num_train_timesteps, beta_schedule=model.beta_schedule)
    scheduler.set_timesteps(generation.num_inference_steps)
    size, channels = denoiser.config.sample_size, denoiser.config.in_channels
    x = per_sample_noise(seeds, (channels, size, size)).to(device)
    # Ancestral steps draw noise too: a generator per image, on the CPU, so that no batch and no device matters.
    draws = [torch.Generator().manual_seed(seed_for(seed, "ancestral-noise")) for seed in seeds]
    null = null_condition(denoiser)
    condition = None if null is None else torch.from_numpy(labels).to(device)
    free_condition = None if null is None else torch.full((len(x),), null, device=device)
    extra = {} if generation.sampler == "ddim" else {"generator": draws}
    last: deque[Tensor] = deque(maxlen=LAST_STEPS)
    with autocast(generation.precision, device):
        for t in scheduler.timesteps:
            steps = t.expand(len(x)).to(device)
            noise = denoisers.noise(x, steps, condition)
            if generation.guidance_scale is not None:
                free = denoisers.noise(x, steps, free_condition)
                noise = free + generation.guidance_scale * (noise - free)
            step = scheduler.step(noise.float(), t, x, **extra)
            x = step.prev_sample
            last.append(step.pred_original_sample)
    variance = torch.stack(list(last)).var(dim=0, correction=0).mean(dim=(1, 2, 3))
    return to_uint8(x), variance


@dataclass(frozen=True)
class Sampler:
    """Expands a shard row {start} to its images. The unit of work, of retry and of randomness."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard in, its rows of sample_id, label, image and trajectory variance out."""
        job, start = self.job, int(batch["start"][0])
        denoisers = once(f"denoisers {job.key}", lambda: load_denoisers(job))
        generation = Generation(**job.config["generation"])
        info = job.inputs["model"].info
        model, num_classes = Model(**info["model"]), info["shape"][2]
        index = np.arange(start, start + generation.shard_size)
        # Round robin: every prefix of the samples has balanced classes.
        classes = np.setdiff1d(np.arange(num_classes), job.config.get("absent", ()))
        labels = classes[index % len(classes)] if model.conditional else np.full_like(index, UNLABELLED)
        seeds = [seed_for(job.config["seed"], "image", int(i)) for i in index]
        images, variance = sample_images(denoisers, model, generation, labels, seeds)
        ids = sample_ids(job.config["generation_index"], start, len(index))
        return {SAMPLE_ID: ids, LABEL: labels, IMAGE: images.cpu().numpy(), TRAJECTORY_VARIANCE: variance.cpu().numpy()}


def load_denoisers(job: Job) -> Denoisers:
    """The denoisers of a `generate` stage, ready to sample from."""
    auxiliary = job.inputs.get("auxiliary")
    return Denoisers(
        load_denoiser(job.inputs["model"], device_of(job)),
        load_denoiser(auxiliary, device_of(job)) if auxiliary else None,
        job.config.get("extrapolation", 0.0),
    )


@dataclass(frozen=True)
class ScoreAndWrite:
    """Scores the images of one shard and writes them; only a number goes on to the driver."""

    job: Job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One shard's sample_id, label and image in, the number of files written out."""
        job = self.job
        ids, label = batch[SAMPLE_ID], batch[LABEL]
        scores = once(f"scorer {job.key}", lambda: Scorer(job)).score(batch[IMAGE], ids, label)
        columns = {
            SAMPLE_ID: pa.array(ids),
            GENERATION: pa.array(np.full(len(ids), job.config["generation_index"], np.int32)),
            IS_REAL: pa.array(np.zeros(len(ids), bool)),
            IMAGE: tensor_column(batch[IMAGE]),
            TRAJECTORY_VARIANCE: pa.array(batch[TRAJECTORY_VARIANCE]),
            **scores.columns(),
        }
        start = int(sample_index(ids[:1])[0])
        shard = start // job.config["generation"]["shard_size"]
        # The last shard is made and scored whole, and cut here: no number may depend on how many were asked for.
        count = int(job.count or 0)
        job.attempt.write_table(image_file(shard), pa.table(columns).slice(0, count - start))
        latents = scores.write_latents(job.attempt, latent_file(shard), ids, num_latents(job) - start)
        return {"files": np.array([1 + latents])}


def image_file(shard: int) -> str:
    """Payload file of a shard's images and scores."""
    return f"images/shard-{shard:06d}.parquet"


def latent_file(shard: int) -> str:
    """Payload file of a shard's latents: heavy, so for measured samples only, unless a selector reads them."""
    return f"latents/shard-{shard:06d}.parquet"


def num_latents(job: Job) -> int:
    """How many of the first images latents are written of."""
    count = int(job.count or 0)
    return count if job.config.get("all_latents") else min(count, job.config["num_latents"])


def generate(job: Job) -> dict[str, Any]:
    """Builder of a `generate` stage: images with latents, confidence and features, written once as they stream by.

    Inputs: `model` of this generation, `auxiliary` if it is moved away from, and of generation 0 `encoder`, `probe` and
    `network`. What another request of the same model has made is taken over.
    """
    count, size = int(job.count or 0), job.config["generation"]["shard_size"]
    taken, copied = _take_over(job, count, size)
    shards = [{"start": start} for start in range(taken * size, count, size)]
    written = [int(row["files"]) for row in stream(job, shards, Sampler, ScoreAndWrite)]
    if len(written) != len(shards):
        raise RuntimeError(f"generate: {len(written)} of {len(shards)} shards came back")
    return {"num_images": count, "taken_over": taken, NUM_FILES: copied + sum(written)}


def _take_over(job: Job, count: int, size: int) -> tuple[int, int]:
    """Copy the whole shards that another request of the same model has made: how many leading ones, and files."""
    base = job.key.rsplit("-", 1)[0]
    others = job.store.siblings("generate", base + "-")
    artifact = job.store.open("generate", max(others)) if others else None
    if artifact is None:
        return 0, 0
    whole, copied = min(count, artifact.info["num_images"]) // size, 0
    for shard in range(whole):
        names = [image_file(shard)]
        if "probe" in job.inputs and shard * size < num_latents(job):
            names.append(latent_file(shard))
        if not all(map(artifact.is_whole, names)):
            return shard, copied  # damaged since it was made: from here on all is made anew
        for name in names:
            job.attempt.write_bytes(name, artifact.read_bytes(name))
        copied += len(names)
    return whole, copied
