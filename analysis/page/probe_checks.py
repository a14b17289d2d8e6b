"""Can the probe be trusted, and the confidence that is made of it? Checks of `page.diagnostics`."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from page.findings import Finding, at_end, at_start, highest

PROBE_GAP = 0.10  # train minus held-out accuracy: above, the probe knows its training images rather than classes
PROBE_WEAK = 2.0  # held-out accuracy, in multiples of chance: below, confidence carries next to no class
UNIFORM = 0.05  # 90th minus 10th percentile of confidence: below, it ranks by noise
SATURATED = 0.999  # median confidence: above, half of the images differ in the fourth digit only
LEAK = 2.0  # held-out accuracy of a probe that was told wrong labels, in multiples of chance
CEILING = 0.02  # confidence of generated images above that of held-out real ones
CONTROL = 1.1  # last FID with shuffled labels over that with true ones: at most this, labels made no difference


def probe_overfitting(frame: pd.DataFrame) -> Iterator[Finding]:
    """A probe that knows its training images by heart, or that has learnt next to nothing."""
    probes = _probes(frame)
    probes = probes[probes["data.labels"] != "shuffled"]
    if probes.empty:
        return
    gap = probes["probe_accuracy_train"] - probes["probe_accuracy_held_out"]
    worst = highest(probes, gap)
    numbers = (
        f"{worst['probe_accuracy_train']:.3f} on its training images, {worst['probe_accuracy_held_out']:.3f} held out"
    )
    if gap.max() > PROBE_GAP:
        sentence = f"Accuracy is {numbers} ({worst['run']}); a gap above {PROBE_GAP:g} means images learnt by heart."
        remedy = "Give more real images, a pooled latent (selection.pool=mean), or another timestep."
        yield Finding("warning", "The probe overfits", sentence, remedy)
    else:
        yield Finding("ok", "The probe generalises", f"At worst, accuracy is {numbers}.")
    chance = 1 / probes["num_classes"]
    weak = probes[probes["probe_accuracy_held_out"] < PROBE_WEAK * chance]
    if not weak.empty:
        row = highest(weak, -weak["probe_accuracy_held_out"])
        sentence = (
            f"Held-out accuracy is {row['probe_accuracy_held_out']:.3f} where guessing gives "
            f"{1 / row['num_classes']:.3f} ({row['run']})."
        )
        yield Finding("warning", "The probe has learnt little", sentence, "Train generation 0 longer; try timesteps.")


def uninformative_confidence(frame: pd.DataFrame) -> Iterator[Finding]:
    """Confidence that is uniformly high or low, so that choosing by it is choosing by noise."""
    title = "Confidence tells images apart"
    first = at_start(frame).dropna(subset=["confidence_p10", "confidence_p50", "confidence_p90"])
    first = first[first["data.labels"] != "shuffled"]
    if first.empty:
        return
    spread = first["confidence_p90"] - first["confidence_p10"]
    row = highest(first, -spread)
    where = f"from {row['confidence_p10']:.3f} to {row['confidence_p90']:.3f} (10th to 90th percentile, generation 0)"
    if spread.min() < UNIFORM:
        level = "high" if row["confidence_p50"] > 0.5 else "low"
        remedy = "Choose another timestep, or a stronger penalty by fewer latents (selection.pool=mean)."
        yield Finding("warning", f"Confidence is uniformly {level}", f"It runs {where} in {row['run']}.", remedy)
        return
    median = first["confidence_p50"].median()
    if median > SATURATED:
        sentence = f"The median is {median:.5f} at generation 0: half of the images differ in the fourth digit only."
        remedy = "Keep per-class quotas (selection.per_class=true), or choose a noisier timestep."
        yield Finding("note", "Confidence saturates", sentence, remedy)
    else:
        yield Finding("ok", title, f"It runs at least {where}.")


def label_leakage(frame: pd.DataFrame) -> Iterator[Finding]:
    """Labels that reach the score by a way that is not the image: the control with shuffled labels does too well."""
    control = frame[frame["data.labels"] == "shuffled"]
    if control.empty:
        sentence = "No loop has shuffled labels, so that only the ceiling of held-out confidence speaks on leakage."
        yield Finding("note", "No control with shuffled labels", sentence, "Add a loop with data.labels=shuffled.")
        return
    probes = _probes(control)
    times = probes["probe_accuracy_held_out"] * probes["num_classes"]
    if times.max() > LEAK:
        sentence = f"A probe that was told wrong labels is right {times.max():.1f} times as often as chance."
        remedy = "Look for the label in what is encoded: the encoder must see the null condition."
        yield Finding("warning", "Labels leak", sentence, remedy)
    by_seed = ["selection.strategy", "scenario.kind", "keep_ratio", "budget", "data.source", "seed"]
    ends = at_end(frame)
    told = ends[ends["data.labels"] == "oracle"].set_index(by_seed)["fid"].groupby(level=by_seed).mean()
    wrong = ends[ends["data.labels"] == "shuffled"].set_index(by_seed)["fid"].groupby(level=by_seed).mean()
    ratio = (wrong / told).dropna()
    if ratio.empty:
        return
    sentence = (
        f"With shuffled labels the last FID is {ratio.mean():.2f} times that with true ones ({len(ratio)} seeds)."
    )
    if ratio.mean() <= CONTROL:
        remedy = "What the score adds is not the class: look at the share of real images in the training sets."
        yield Finding("warning", "Shuffled labels do as well", sentence, remedy)
    else:
        yield Finding("ok", "Labels matter, and do not leak", sentence)


def above_ceiling(frame: pd.DataFrame) -> Iterator[Finding]:
    """Generated images that are surer of their label than held-out real ones."""
    known = frame.dropna(subset=["confidence", "confidence_real"])
    known = known[known["data.labels"] != "shuffled"]
    if known.empty:
        return
    above = known["confidence"] - known["confidence_real"]
    first, later = above[known["generation"] == 0], above[known["generation"] > 0]
    if first.max() > CEILING:
        row = highest(known, above.where(known["generation"] == 0))
        sentence = (
            f"Generation 0 has confidence {row['confidence']:.3f}, held-out real images {row['confidence_real']:.3f}."
        )
        remedy = "Before any selection this hints at leakage: check that the encoder sees no label."
        yield Finding("warning", "Generated images are surer than real ones", sentence, remedy)
    elif later.max() > CEILING:
        row, arms = highest(known, above), known.loc[above > CEILING, "arm"].unique()
        sentence = (
            f"Up to {row['confidence']:.3f} at generation {row['generation']} of {row['arm']}, where held-out real "
            f"images have {row['confidence_real']:.3f}; in {len(arms)} of {known['arm'].nunique()} arms."
        )
        remedy = "Selection pushes up what it selects by: judge these arms by FID and recall, not by confidence."
        yield Finding("note", "Confidence rises above real images", sentence, remedy)
    else:
        row = highest(known, above)
        ceiling = f"held-out real images have {row['confidence_real']:.3f}"
        sentence = f"It comes nearest in {row['arm']}, with {row['confidence']:.3f} where {ceiling}."
        yield Finding("ok", "Confidence stays below its ceiling", sentence)


def _probes(frame: pd.DataFrame) -> pd.DataFrame:
    """Generation 0 of the loops that have a probe."""
    wanted = ["probe_accuracy_train", "probe_accuracy_held_out"]
    return at_start(frame).dropna(subset=wanted) if set(wanted) <= set(frame) else frame.iloc[:0]
