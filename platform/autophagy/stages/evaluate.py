"""The `evaluate` stage: every metric of one generation, from cached features and never from pixels again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from autophagy.common.samples import CONFIDENCE, FEATURES, LABEL, LATENT, SAMPLE_ID, origin_generation
from autophagy.common.seeds import rng_for
from autophagy.data.tables import to_numpy
from autophagy.engine.job import Job
from autophagy.features.networks import predict_classes
from autophagy.metrics import Measured, knn_entropy, measure, real_vs_real, total_variance
from autophagy.stages.payloads import METRICS_FILE, read_probe, read_scores, real_ids
from autophagy.store import Artifact


def evaluate(job: Job) -> None:
    """Builder of an `evaluate` stage.

    Inputs: `score` and `real`, `network`, `probe` if there is one, this generation's `generated` and generation 0's
    `first`, and for generations >= 1 `select` and the samples it chose from, or the corrected `training_set`.

    The reference is the world as it is, with the classes that appear later and those that have vanished: recall and
    coverage miss a class before it appears, rise as it is learnt, and fall again once nobody asks for it. The probe
    and its encoder are those of generation 0 whatever selects, so that confidence is comparable along a curve.
    """
    config, seed = job.config, job.config["seed"]
    k, num_samples = config["metrics"]["k"], config["metrics"]["num_samples"]
    sizes = job.inputs["real"].info["sizes"]
    reference = _first(job.inputs["score"], "held_out", min(num_samples, sizes["held_out"]))
    synthetic = _first(job.inputs["generated"], "images", num_samples)
    kept, num_candidates = _kept(job)
    training_scores = _training_scores(job, kept)
    training = to_numpy(training_scores, FEATURES)
    latent, probe_label = _latents(job, num_samples)
    values = measure(
        Measured(
            generation=config["generation"],
            reference=reference[FEATURES],
            synthetic=synthetic[FEATURES],
            synthetic_label=synthetic[LABEL],
            synthetic_predicted=predict_classes(job.inputs["network"], synthetic[FEATURES]),
            synthetic_confidence=synthetic[CONFIDENCE],
            synthetic_latent=latent,
            synthetic_probe_label=probe_label,
            training=training,
            training_generation=origin_generation(kept),
            training_label=to_numpy(training_scores, LABEL),
            new_classes=job.config.get("new_classes", ()),
            reference_label=_held_out_classes(job, len(reference[FEATURES])),
            reference_confidence=reference[CONFIDENCE],
            num_candidates=num_candidates,
            num_kept=len(kept),
            k=k,
            seed=seed,
        )
    )
    if len(training) > config["budget"]:
        # Nearest-neighbour entropy depends on the number of points: always that of a budget's worth.
        rows = rng_for(seed, "entropy-rows").permutation(len(training))[: config["budget"]]
        values["entropy"] = knn_entropy(training[rows])
    first = _first(job.inputs["first"], "images", num_samples)
    values["total_variance"] = values["feature_variance"] / max(total_variance(first[FEATURES]), 1e-12)
    real = _first(job.inputs["score"], "train", min(num_samples, sizes["train"]))
    values |= real_vs_real(real[FEATURES], reference[FEATURES], k, seed)
    job.attempt.write_json(METRICS_FILE, {n: None if np.isnan(v) else float(v) for n, v in values.items()})


def _first(artifact: Artifact, part: str, count: int) -> dict[str, np.ndarray]:
    """Scores of the first `count` images of a part, by column."""
    table = _first_rows(artifact, part, [LABEL, FEATURES, CONFIDENCE], count)
    return {name: to_numpy(table, name) for name in (LABEL, FEATURES, CONFIDENCE)}


def _first_rows(artifact: Artifact, part: str, columns: list[str], count: int) -> pa.Table:
    """Columns of the first `count` images of a part.

    Raises:
        RuntimeError: it has fewer: a metric of fewer images is another number.
    """
    table = artifact.read_table(part, columns=[SAMPLE_ID, *columns]).sort_by(SAMPLE_ID).slice(0, count)
    if table.num_rows < count:
        what = f"{artifact.stage} {artifact.key}: {part}"
        raise RuntimeError(f"{what} has {table.num_rows} images of {count}; `autophagy store verify` looks for damage")
    return table


def _kept(job: Job) -> tuple[np.ndarray, int]:
    """Ids of the training set D_k, sorted, and the number of candidates it was chosen from.

    That is 0 in generation 0, which is trained on R itself, of the classes there are then.
    """
    if "select" not in job.inputs:
        return real_ids(job.inputs, "train", job.config.get("new_classes", ())), 0
    selected = job.inputs["select"]
    kept = to_numpy(selected.read_table("kept.parquet", columns=[SAMPLE_ID]), SAMPLE_ID)
    return np.sort(kept), selected.info["num_candidates"]


def _training_scores(job: Job, kept: np.ndarray) -> pa.Table:
    """Labels and features of the training set, sorted by sample id."""
    if "training_set" not in job.inputs:
        return read_scores(job, kept, [SAMPLE_ID, LABEL, FEATURES])
    return job.inputs["training_set"].read_table("images", columns=[SAMPLE_ID, LABEL, FEATURES]).sort_by(SAMPLE_ID)


def _held_out_classes(job: Job, count: int) -> np.ndarray:
    """Classes of the reference as the data know them, whatever the loop was told."""
    return to_numpy(_first_rows(job.inputs["real"], "images/held_out", [LABEL], count), LABEL)


def _latents(job: Job, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latents float32 [n, L] of the measured samples and the class the probe sees, int64 [n]; None without a probe."""
    if "probe" not in job.inputs:
        return None, None
    # A selector that reads latents has those of all candidates written.
    latent = to_numpy(_first_rows(job.inputs["generated"], "latents", [LATENT], count), LATENT).astype(np.float32)
    return latent, read_probe(job.inputs["probe"]).parts[0].probabilities(latent).argmax(axis=1)
