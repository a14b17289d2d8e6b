"""Can these loops be trusted? The failure signatures of Latent Space Filtering (arXiv 2511.12742), looked for by rule.

Every check looks at the tidy frame of `autophagy.runs.frames` and says what it found in numbers, and what to do. Checks
that find nothing wrong say so: a report lists what was looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from page.findings import Finding, Severity, and_more, at_end, at_start, gravest_first, highest
from page.probe_checks import above_ceiling, label_leakage, probe_overfitting, uninformative_confidence

FOLLOWS = 0.5  # Spearman correlation of OLE with FID over the generations of a loop: below, OLE does not follow
DEGRADED = 1.5  # last over first FID: below, there is no decline that OLE could follow
FID_SAMPLES = 10  # images per feature dimension: below, the bias of FID in n is a good part of it
FID_FLOOR = 0.5  # FID of real against real, as a share of generation 0's: above, low FIDs are mostly bias
NETWORK_WEAK = 0.70  # held-out accuracy of the feature network: below, distances of its features mean little
NETWORK_FAIR = 0.85
LEAST_SEEDS = 3  # below, no interval over seeds and no paired test can decide anything
BY_LATENT = ("lsf", "anti_lsf", "ole")  # strategies that choose by the latents that OLE and confidence are made of


def diagnose(frame: pd.DataFrame, comparison: pd.DataFrame | None = None) -> list[Finding]:
    """Every check over a set of loops, the gravest findings first.

    Args:
        frame: A row per loop and generation, of `autophagy.runs.frames`, with what `store_facts.with_store_facts` adds.
        comparison: The paired tests against random, of `paired.paired_tests`; None if nothing can be compared.
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


def incomplete(frame: pd.DataFrame) -> Iterator[Finding]:
    """Loops that failed, were stopped on purpose, or are not at their end yet."""
    last = at_end(frame)
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
        sentence = f"{len(own)} of {len(last)} loops: {'; '.join(told[:3])}{and_more(len(told), 3)}."
        yield Finding(severity, title, sentence, remedy)
    if ended.empty:
        yield Finding("ok", "All loops are finished", f"{len(last)} of {len(last)} reached their last generation.")


def few_seeds(frame: pd.DataFrame) -> Iterator[Finding]:
    """Too few repetitions to tell a strategy from luck."""
    seeds = frame.groupby("arm")["seed"].nunique()
    if seeds.min() >= LEAST_SEEDS:
        yield Finding("ok", "Repetitions", f"Every arm was run with at least {seeds.min()} seeds.")
        return
    few = seeds[seeds < LEAST_SEEDS]
    sentence = f"{len(few)} of {len(seeds)} arms have fewer than {LEAST_SEEDS} seeds (as few as {few.min()})."
    yield Finding("note", "Few repetitions", sentence, "Run more seeds before believing an order of the arms.")


def as_good_as_random(frame: pd.DataFrame, comparison: pd.DataFrame | None) -> Iterator[Finding]:
    """Latent Space Filtering that does no better than random selection at the same budget."""
    arms = set(frame.loc[frame["selection.strategy"].eq("lsf") & frame["data.labels"].ne("shuffled"), "arm"])
    if comparison is None or not arms:
        return
    tested = comparison[comparison["metric"].eq("fid") & comparison["arm"].isin(arms)]
    for verdict, own in tested.groupby("verdict"):
        told = [f"{row.arm} {row.mean:.3g} against {row.baseline_mean:.3g}" for row in own.itertuples()]
        numbers = f"Last FID: {', '.join(told[:3])}{and_more(len(told), 3)}"
        pairs = int(own["pairs"].max())
        if verdict == "better":
            yield Finding("ok", "Filtering beats random selection", f"{numbers}; decisive in paired tests.")
        elif verdict == "worse":
            remedy = "Look at the probe below, and at recall: a filter without class quotas forgets classes."
            yield Finding("warning", "Filtering is worse than random selection", f"{numbers}.", remedy)
        else:
            few = pairs < LEAST_SEEDS
            sentence = f"{numbers}; not decisive with {pairs} pair{'' if pairs == 1 else 's'} of loops."
            remedy = "Run more seeds." if few else "Look at the probe and at the real share; run more seeds."
            yield Finding("note" if few else "warning", "Random selection is as good so far", sentence, remedy)


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
    first = at_start(frame).dropna(subset=["feature_width", "num_reference", "fid"])
    if first.empty:
        return
    first = first.assign(images=first[["metrics.num_samples", "num_reference"]].min(axis=1))
    row = highest(first, -first["images"] / first["feature_width"])
    numbers = f"{row['images']:.0f} images, {row['feature_width']:.0f} features"
    floors = (first["real_vs_real_fid"] / first["fid"]).fillna(0.0)
    floor = float(floors.max())
    remedy = "Raise metrics.num_samples and data.num_held_out, or go by KID, which has no such bias."
    if row["images"] <= row["feature_width"]:
        sentence = f"{numbers}: the covariance has not full rank, and FID is mostly bias."
        yield Finding("warning", "Too few images for FID", sentence, remedy)
    elif floor > FID_FLOOR:
        row = highest(first, floors)
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
    accuracy = _metric(at_start(frame), "feature_network_accuracy_held_out")
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


def _metric(frame: pd.DataFrame, name: str) -> pd.Series:
    """What is known of a metric that only some loops have."""
    return frame[name].dropna() if name in frame else pd.Series(dtype=float)
