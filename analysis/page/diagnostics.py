"""Can these loops be trusted? The failure signatures of Latent Space Filtering (arXiv 2511.12742), looked for by rule.

Every check looks at the tidy frame of `autophagy.frames` and says what it found in numbers, and what to do. Checks that
find nothing wrong say so: a report lists what was looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from autophagy.common.samples import FEATURES
from autophagy.runs.folder import read_records
from autophagy.runs.frames import read_loops
from autophagy.runs.outcomes import Outcome, read_outcomes
from autophagy.store import Artifact, StageStore

Severity = Literal["warning", "note", "ok"]

PROBE_GAP = 0.10  # train minus held-out accuracy: above, the probe knows its training images rather than classes
PROBE_WEAK = 2.0  # held-out accuracy, in multiples of chance: below, confidence carries next to no class
UNIFORM = 0.05  # 90th minus 10th percentile of confidence: below, it ranks by noise
SATURATED = 0.999  # median confidence: above, half of the images differ in the fourth digit only
LEAK = 2.0  # held-out accuracy of a probe that was told wrong labels, in multiples of chance
CEILING = 0.02  # confidence of generated images above that of held-out real ones
CONTROL = 1.1  # last FID with shuffled labels over that with true ones: at most this, labels made no difference
FOLLOWS = 0.5  # Spearman correlation of OLE with FID over the generations of a loop: below, OLE does not follow
DEGRADED = 1.5  # last over first FID: below, there is no decline that OLE could follow
FID_SAMPLES = 10  # images per feature dimension: below, the bias of FID in n is a good part of it
FID_FLOOR = 0.5  # FID of real against real, as a share of generation 0's: above, low FIDs are mostly bias
NETWORK_WEAK = 0.70  # held-out accuracy of the feature network: below, distances of its features mean little
NETWORK_FAIR = 0.85
FEW_SEEDS = 3  # below, no interval over seeds and no paired test can decide anything
BY_LATENT = ("lsf", "anti_lsf", "ole")  # strategies that choose by the latents that OLE and confidence are made of


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for, and what was found."""

    severity: Severity
    title: str
    sentence: str  # with the numbers
    remedy: str = ""  # what to do; "" where there is nothing to do


def diagnose(frame: pd.DataFrame, comparison: pd.DataFrame | None = None) -> list[Finding]:
    """Every check over a set of loops, the gravest findings first.

    Args:
        frame: A row per loop and generation, of `autophagy.frames`, with the columns of `with_store_facts`.
        comparison: The paired tests against random, of `compare.paired_tests`; None if nothing can be compared.
    """
    frame = frame.reset_index(drop=True)
    checks = (
        incomplete(frame),
        few_seeds(frame),
        as_good_as_random(frame, comparison),
        probe_overfitting(frame),
        uninformative_confidence(frame),
        label_leakage(frame),
        above_ceiling(frame),
        ole_not_following(frame),
        too_few_samples(frame),
        weak_features(frame),
    )
    return gravest_first(finding for check in checks for finding in check)


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Warnings, then notes, then what is well."""
    order: dict[Severity, int] = {"warning": 0, "note": 1, "ok": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def with_store_facts(frame: pd.DataFrame, store: StageStore) -> pd.DataFrame:
    """The frame with what only the stages know: `feature_width`, `num_classes`, `num_reference` (NaN if they are gone).

    Every stage is opened once, however many loops share it.
    """
    facts: dict[str, dict[str, float]] = {}
    known: dict[tuple[str, str], Artifact | None] = {}
    for run in frame["run"].unique():
        stages = read_records(run, store)[0].stages
        opened = []
        for name in ("real", "score"):
            place = (name, stages[name])
            if place not in known:
                known[place] = store.open(*place)
            opened.append(known[place])
        facts[run] = _facts(*opened)
    return frame.join(pd.DataFrame.from_dict(facts, orient="index"), on="run")


def _facts(real: Artifact | None, score: Artifact | None) -> dict[str, float]:
    facts = dict.fromkeys(("feature_width", "num_classes", "num_reference"), float("nan"))
    if real:
        facts |= {"num_classes": real.info["num_classes"], "num_reference": real.info["sizes"]["held_out"]}
    if score:
        column = parquet.read_schema(score.parquet_files("held_out")[0], filesystem=score.fs).field(FEATURES).type
        facts["feature_width"] = column.shape[0] if isinstance(column, pa.FixedShapeTensorType) else column.list_size
    return facts


def without_rows(store: StageStore, sweeps: Iterable[str], frame: pd.DataFrame) -> list[Finding]:
    """Loops of sweeps that have not finished a single generation, and so have no row in any table or curve."""
    absent: dict[str, str] = {}
    for sweep in sweeps:
        outcomes = read_outcomes(store, sweep)
        table = read_loops(store, sweep)
        for run in [loop.run for loop in table.loops] if table else []:
            if run not in set(frame["run"]):
                absent[run] = outcomes.get(run, Outcome()).why or "not started"
    if not absent:
        return []
    told = "; ".join(f"{run}: {why}" for run, why in list(absent.items())[:3])
    sentence = f"{len(absent)} of the planned loops are in no table and no curve ({told}{_more(len(absent), 3)})."
    return [Finding("warning", "Loops without a result", sentence, "Run the same sweep again: it goes on with these.")]


def incomplete(frame: pd.DataFrame) -> Iterator[Finding]:
    """Loops that failed, were stopped on purpose, or are not at their end yet."""
    last = _last(frame)
    remedies: dict[str, tuple[Severity, str, str]] = {
        "failed": ("warning", "Loops that failed", "Mend the cause and run the same command again; it goes on."),
        "running": ("warning", "Loops that are not finished", "Run the same command again; it goes on."),
        "stopped": ("note", "Loops that were stopped early", "Read their last value as of that generation."),
    }
    ended = last[last["state"] != "done"]
    for state, (severity, title, remedy) in remedies.items():
        own = ended[ended["state"] == state]
        if own.empty:
            continue
        told = [
            f"{row['arm']}, seed {row['seed']}, at generation {row['generation']}" + (row["why"] and f": {row['why']}")
            for row in own.to_dict("records")
        ]
        sentence = f"{len(own)} of {len(last)} loops: {'; '.join(told[:3])}{_more(len(told), 3)}."
        yield Finding(severity, title, sentence, remedy)
    if ended.empty:
        yield Finding("ok", "All loops are finished", f"{len(last)} of {len(last)} reached their last generation.")


def few_seeds(frame: pd.DataFrame) -> Iterator[Finding]:
    """Too few repetitions to tell a strategy from luck."""
    seeds = frame.groupby("arm")["seed"].nunique()
    if seeds.min() >= FEW_SEEDS:
        yield Finding("ok", "Repetitions", f"Every arm was run with at least {seeds.min()} seeds.")
        return
    few = seeds[seeds < FEW_SEEDS]
    sentence = f"{len(few)} of {len(seeds)} arms have fewer than {FEW_SEEDS} seeds (as few as {few.min()})."
    yield Finding("note", "Few repetitions", sentence, "Run more seeds before believing an order of the arms.")


def as_good_as_random(frame: pd.DataFrame, comparison: pd.DataFrame | None) -> Iterator[Finding]:
    """Latent Space Filtering that does no better than random selection at the same budget."""
    arms = set(frame.loc[frame["selection.strategy"].eq("lsf") & frame["data.labels"].ne("shuffled"), "arm"])
    if comparison is None or not arms:
        return
    tested = comparison[comparison["metric"].eq("fid") & comparison["arm"].isin(arms)]
    for verdict, own in tested.groupby("verdict"):
        told = [f"{row.arm} {row.mean:.3g} against {row.baseline_mean:.3g}" for row in own.itertuples()]
        numbers = f"Last FID: {', '.join(told[:3])}{_more(len(told), 3)}"
        pairs = int(own["pairs"].max())
        if verdict == "better":
            yield Finding("ok", "Filtering beats random selection", f"{numbers}; decisive in paired tests.")
        elif verdict == "worse":
            remedy = "Look at the probe below, and at recall: a filter without class quotas forgets classes."
            yield Finding("warning", "Filtering is worse than random selection", f"{numbers}.", remedy)
        else:
            few = pairs < FEW_SEEDS
            sentence = f"{numbers}; not decisive with {pairs} pair{'' if pairs == 1 else 's'} of loops."
            remedy = "Run more seeds." if few else "Look at the probe and at the real share; run more seeds."
            yield Finding("note" if few else "warning", "Random selection is as good so far", sentence, remedy)


def probe_overfitting(frame: pd.DataFrame) -> Iterator[Finding]:
    """A probe that knows its training images by heart, or that has learnt next to nothing."""
    probes = _probes(frame)
    probes = probes[probes["data.labels"] != "shuffled"]
    if probes.empty:
        return
    gap = probes["probe_accuracy_train"] - probes["probe_accuracy_held_out"]
    worst = _highest(probes, gap)
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
        row = _highest(weak, -weak["probe_accuracy_held_out"])
        sentence = (
            f"Held-out accuracy is {row['probe_accuracy_held_out']:.3f} where guessing gives "
            f"{1 / row['num_classes']:.3f} ({row['run']})."
        )
        yield Finding("warning", "The probe has learnt little", sentence, "Train generation 0 longer; try timesteps.")


def uninformative_confidence(frame: pd.DataFrame) -> Iterator[Finding]:
    """Confidence that is uniformly high or low, so that choosing by it is choosing by noise."""
    title = "Confidence tells images apart"
    first = _first(frame).dropna(subset=["confidence_p10", "confidence_p50", "confidence_p90"])
    first = first[first["data.labels"] != "shuffled"]
    if first.empty:
        return
    spread = first["confidence_p90"] - first["confidence_p10"]
    row = _highest(first, -spread)
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
    ends = _last(frame)
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
        row = _highest(known, above.where(known["generation"] == 0))
        sentence = (
            f"Generation 0 has confidence {row['confidence']:.3f}, held-out real images {row['confidence_real']:.3f}."
        )
        remedy = "Before any selection this hints at leakage: check that the encoder sees no label."
        yield Finding("warning", "Generated images are surer than real ones", sentence, remedy)
    elif later.max() > CEILING:
        row, arms = _highest(known, above), known.loc[above > CEILING, "arm"].unique()
        sentence = (
            f"Up to {row['confidence']:.3f} at generation {row['generation']} of {row['arm']}, where held-out real "
            f"images have {row['confidence_real']:.3f}; in {len(arms)} of {known['arm'].nunique()} arms."
        )
        remedy = "Selection pushes up what it selects by: judge these arms by FID and recall, not by confidence."
        yield Finding("note", "Confidence rises above real images", sentence, remedy)
    else:
        row = _highest(known, above)
        ceiling = f"held-out real images have {row['confidence_real']:.3f}"
        sentence = f"It comes nearest in {row['arm']}, with {row['confidence']:.3f} where {ceiling}."
        yield Finding("ok", "Confidence stays below its ceiling", sentence)


def ole_not_following(frame: pd.DataFrame) -> Iterator[Finding]:
    """OLE that does not rise while the samples get worse: measured at the wrong timestep.

    Looked at in loops that do not choose by latents; those that do push OLE down whatever becomes of the images.
    """
    chosen = frame["selection.strategy"].isin(BY_LATENT) | frame["data.labels"].eq("shuffled")
    correlations = {}
    for run, loop in frame[~chosen].dropna(subset=["ole", "fid"]).groupby("run"):
        loop = loop.sort_values("generation")
        if len(loop) > 2 and loop["fid"].iloc[-1] > DEGRADED * loop["fid"].iloc[0]:
            correlations[run] = loop["ole"].corr(loop["fid"], method="spearman")
    if not correlations:
        return
    found = pd.Series(correlations)
    sentence = (
        f"Over {len(found)} loops that degrade, its rank correlation with FID is {found.median():.2f} in the median."
    )
    if found.median() < FOLLOWS:
        remedy = "Measure it at other timesteps (--timesteps) and set selection.timestep to one where it rises."
        yield Finding("warning", "OLE does not follow the generations", sentence, remedy)
    else:
        yield Finding("ok", "OLE follows the generations", sentence)


def too_few_samples(frame: pd.DataFrame) -> Iterator[Finding]:
    """Fewer images than FID needs: its bias in n hides what is to be compared."""
    first = _first(frame).dropna(subset=["feature_width", "num_reference", "fid"])
    if first.empty:
        return
    first = first.assign(images=first[["metrics.num_samples", "num_reference"]].min(axis=1))
    row = _highest(first, -first["images"] / first["feature_width"])
    numbers = f"{row['images']:.0f} images, {row['feature_width']:.0f} features"
    floors = (first["real_vs_real_fid"] / first["fid"]).fillna(0.0)
    floor = float(floors.max())
    remedy = "Raise metrics.num_samples and data.num_held_out, or go by KID, which has no such bias."
    if row["images"] <= row["feature_width"]:
        sentence = f"{numbers}: the covariance has not full rank, and FID is mostly bias."
        yield Finding("warning", "Too few images for FID", sentence, remedy)
    elif floor > FID_FLOOR:
        row = _highest(first, floors)
        sentence = (
            f"{numbers}; real images score {row['real_vs_real_fid']:.3g} against real ones where generation 0 scores "
            f"{row['fid']:.3g}: differences of that size are noise."
        )
        yield Finding("note", "FID is near its floor", sentence, remedy)
    elif row["images"] < FID_SAMPLES * row["feature_width"]:
        sentence = f"{numbers}: compare only FIDs of equal numbers of images, as here."
        yield Finding("note", "Few images for FID", sentence, remedy)
    else:
        yield Finding("ok", "Enough images for FID", f"{numbers}; real against real is {floor:.0%} of generation 0's.")


def weak_features(frame: pd.DataFrame) -> Iterator[Finding]:
    """A feature network that cannot tell the classes of its own data apart."""
    accuracy = _metric(_first(frame), "feature_network_accuracy_held_out")
    if accuracy.empty:
        return
    sentence = f"Its held-out accuracy is {accuracy.min():.3f} (the lowest of {len(accuracy)} loops)."
    remedy = "Read distances as rough, or set metrics.feature_network to inception or dinov2."
    if accuracy.min() < NETWORK_WEAK:
        yield Finding("warning", "The feature network is weak", sentence, remedy)
    elif accuracy.min() < NETWORK_FAIR:
        yield Finding("note", "The feature network is middling", sentence, remedy)
    else:
        yield Finding("ok", "The feature network knows its classes", sentence)


def _probes(frame: pd.DataFrame) -> pd.DataFrame:
    """Generation 0 of the loops that have a probe."""
    wanted = ["probe_accuracy_train", "probe_accuracy_held_out"]
    return _first(frame).dropna(subset=wanted) if set(wanted) <= set(frame) else frame.iloc[:0]


def _metric(frame: pd.DataFrame, name: str) -> pd.Series:
    """What is known of a metric that only some loops have."""
    return frame[name].dropna() if name in frame else pd.Series(dtype=float)


def _highest(frame: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The row with the highest value, NaN aside."""
    return frame.iloc[int(np.nanargmax(values.to_numpy(float)))]


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["generation"] == 0]


def _last(frame: pd.DataFrame) -> pd.DataFrame:
    """The last finished generation of every loop."""
    return frame.loc[frame.groupby("run")["generation"].idxmax()]


def _more(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""
