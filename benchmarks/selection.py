"""What the two entropy-paper selectors and the metrics beside them cost, against the loops that peers use.

    python benchmarks/selection.py                # minutes; 2 threads
    python benchmarks/selection.py --quick        # seconds, small sizes: to see that it runs
    python benchmarks/selection.py --markdown     # tables for docs/results

Points are clustered as features of images are: 50 clusters in 384 dimensions with a decaying spectrum, float32. Every
ratio is of two runs in this process on the same points, and both sides must give the same result. The loops are those
of published code, with all their distances in float64:

- greedy: one `cdist` from the new pick to the whole pool per pick.
- threshold_decay: one array of distances to all accepted points per visited candidate.
- generalization_score: one distance at a time, in two Python loops.
- knn_entropy: scikit-learn's brute-force neighbours.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from autophagy.metrics.entropy import knn_entropy
from autophagy.metrics.memorization import generalization_score
from autophagy.selection import Candidates, make_selector

WIDTH = 384
NUM_CLUSTERS = 50

Result = TypeVar("Result")


class Sizes(NamedTuple):
    """How large each part is; `keep` is always half of a pool."""

    greedy: int
    threshold_decay: int
    metrics: int
    loop_rows: int  # synthetic rows that the double loop goes through
    growth: tuple[int, ...]


FULL = Sizes(greedy=16384, threshold_decay=4096, metrics=16384, loop_rows=8, growth=(4096, 8192, 16384, 32768, 65536))
QUICK = Sizes(greedy=2048, threshold_decay=1024, metrics=2048, loop_rows=2, growth=(1024, 2048, 4096))


class Run(NamedTuple, Generic[Result]):
    """A result and what it cost."""

    result: Result
    seconds: float  # on the clock
    cpu_seconds: float  # of all threads


def main() -> None:
    """Print ratios, then costs and how they grow."""
    import torch
    from threadpoolctl import threadpool_limits

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        show(*ratios(sizes, arguments.seed), arguments.markdown)
        show(*growth(sizes, arguments.seed), arguments.markdown)


def clustered(num_points: int, seed: int) -> np.ndarray:
    """Points around 50 centres, float32 [n, 384]; both have a spectrum that falls as 1 / sqrt(rank)."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, WIDTH + 1) ** -0.5
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    centres = 2 * scale * rng.standard_normal((NUM_CLUSTERS, WIDTH))
    points = centres[rng.integers(NUM_CLUSTERS, size=num_points)] + scale * rng.standard_normal((num_points, WIDTH))
    return (points @ rotation).astype(np.float32)


def select(points: np.ndarray, seed: int, selection: Mapping[str, object]) -> np.ndarray:
    """What the platform's selector keeps of these points: half of them, int64 rows in order of preference."""
    n = len(points)
    nothing = np.full(n, np.nan, dtype=np.float32)
    candidates = Candidates(np.arange(n), np.zeros(n, np.int32), np.full(n, -1), points, nothing)
    return make_selector(selection).select(candidates, n // 2, np.random.default_rng(seed))


def loop_greedy(points: np.ndarray, seed: int) -> np.ndarray:
    """Farthest points, half of them, with all distances to every pick."""
    from scipy.spatial.distance import cdist

    points = points.astype(np.float64)
    pick = int(np.random.default_rng(seed).integers(len(points)))
    nearest = np.full(len(points), np.inf)
    kept = [pick]
    while len(kept) < len(points) // 2:
        nearest = np.minimum(nearest, cdist(points, points[[pick]], "sqeuclidean")[:, 0])
        nearest[pick] = -1
        pick = int(nearest.argmax())
        kept.append(pick)
    return np.array(kept)


def loop_threshold_decay(points: np.ndarray, seed: int, tau0: float | None, decay: float = 0.95) -> np.ndarray:
    """Threshold decay, half of the points, with all distances to what is accepted for every visit."""
    from scipy.spatial.distance import pdist

    points = points.astype(np.float64)
    left = np.random.default_rng(seed).permutation(len(points)).tolist()
    tau = float(np.quantile(pdist(points[left[:2000]]), 0.9)) if tau0 is None else tau0
    accepted: list[int] = []
    while True:
        passed_over = []
        for row in left:
            if (np.linalg.norm(points[accepted] - points[row], axis=1) > tau).all():
                accepted.append(row)
                if len(accepted) == len(points) // 2:
                    return np.array(accepted)
            else:
                passed_over.append(row)
        left = passed_over
        tau *= decay


def loop_generalization_score(synthetic: np.ndarray, training: np.ndarray) -> float:
    """Mean distance to the nearest training row, pair by pair."""
    synthetic, training = synthetic.astype(np.float64), training.astype(np.float64)
    nearest = [min(float(np.linalg.norm(image - other)) for other in training) for image in synthetic]
    return float(np.mean(nearest))


def sklearn_entropy(points: np.ndarray) -> float:
    """Kozachenko-Leonenko entropy with k = 1 from scikit-learn's neighbours."""
    from scipy.special import digamma
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors(points)
    n, width = points.shape
    log_ball = width / 2 * math.log(math.pi) - math.lgamma(width / 2 + 1)
    return float(digamma(n) - digamma(1) + log_ball + width * np.log(distances[:, 1]).mean())


def timed(function: Callable[[], Result], repeats: int = 1) -> Run[Result]:
    """The fastest of some runs, and its result."""
    runs = []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = function()
        runs.append(Run(result, time.perf_counter() - start, time.process_time() - cpu_start))
    return min(runs, key=lambda run: run.seconds)


def ratios(sizes: Sizes, seed: int) -> tuple[str, list[str], list[list[str]]]:
    """Platform and loops side by side; every pair must agree."""
    select(clustered(512, seed), seed, {"strategy": "greedy"})  # imports and threads
    rows = [
        compare_greedy(clustered(sizes.greedy, seed), seed),
        *compare_threshold_decay(clustered(sizes.threshold_decay, seed), seed),
        compare_generalization_score(clustered(sizes.metrics, seed), sizes.loop_rows),
        compare_knn_entropy(clustered(sizes.metrics, seed)),
    ]
    title = "Against the loops of published code (platform: best of 3 runs; loop: 1 run; ratios of clock and CPU time)"
    header = ["what", "size", "loop s", "platform s", "ratio", "CPU ratio", "target at full size", "same result"]
    return title, header, rows


def compare_greedy(points: np.ndarray, seed: int) -> list[str]:
    platform = timed(lambda: select(points, seed, {"strategy": "greedy"}), repeats=3)
    loop = timed(lambda: loop_greedy(points, seed))
    np.testing.assert_array_equal(platform.result, loop.result)
    return ratio_row("greedy", halves(points), loop, platform, ">= 10", "every index")


def compare_threshold_decay(points: np.ndarray, seed: int) -> list[list[str]]:
    """With a number for tau0, as published code has it, and with a quantile of the distances."""
    from scipy.spatial.distance import pdist

    number = float(np.quantile(pdist(points[:1000].astype(np.float64)), 0.9))
    return [
        compare_one_threshold_decay(points, seed, number, ">= 100"),
        compare_one_threshold_decay(points, seed, None, "-"),
    ]


def compare_one_threshold_decay(points: np.ndarray, seed: int, tau0: float | None, target: str) -> list[str]:
    selection = {"strategy": "threshold_decay", "tau0": "auto" if tau0 is None else tau0}
    platform = timed(lambda: select(points, seed, selection), repeats=3)
    loop = timed(lambda: loop_threshold_decay(points, seed, tau0))
    np.testing.assert_array_equal(platform.result, loop.result)
    name = "threshold_decay, tau0 " + ("auto" if tau0 is None else f"{tau0:.2f}")
    return ratio_row(name, halves(points), loop, platform, target, "every index")


def compare_generalization_score(points: np.ndarray, num_rows: int) -> list[str]:
    """The double loop goes through some synthetic rows only, and all training rows."""
    synthetic, training = np.split(points, 2)
    platform = timed(lambda: generalization_score(synthetic, training), repeats=3)
    loop = timed(lambda: loop_generalization_score(synthetic[:num_rows], training))
    np.testing.assert_allclose(generalization_score(synthetic[:num_rows], training), loop.result, rtol=1e-12)
    factor = len(synthetic) / num_rows
    whole = Run(loop.result, loop.seconds * factor, loop.cpu_seconds * factor)
    size = f"{len(synthetic):,} to {len(training):,}"
    same = f"to 1e-12, on {num_rows} rows; loop time x {factor:,.0f}"
    return ratio_row("generalization_score", size, whole, platform, ">= 200", same)


def compare_knn_entropy(points: np.ndarray) -> list[str]:
    platform = timed(lambda: knn_entropy(points, k=1), repeats=3)
    loop = timed(lambda: sklearn_entropy(points))
    np.testing.assert_allclose(platform.result, loop.result, rtol=1e-6)
    return ratio_row("knn_entropy", f"{len(points):,}", loop, platform, "-", "to 1e-6")


def ratio_row(what: str, size: str, loop: Run[Result], platform: Run[Result], target: str, same: str) -> list[str]:
    clock, cpu = loop.seconds / platform.seconds, loop.cpu_seconds / platform.cpu_seconds
    return [what, size, f"{loop.seconds:.1f}", f"{platform.seconds:.3f}", f"{clock:.1f}", f"{cpu:.1f}", target, same]


def halves(points: np.ndarray) -> str:
    return f"{len(points):,} -> {len(points) // 2:,}"


def growth(sizes: Sizes, seed: int) -> tuple[str, list[str], list[list[str]]]:
    """Seconds at each size, and the exponent that fits them best."""
    pools = [clustered(n, seed) for n in sizes.growth]
    others = [clustered(n, seed + 1) for n in sizes.growth]
    measured: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "greedy, n -> n / 2": lambda pool, _: select(pool, seed, {"strategy": "greedy"}),
        "threshold_decay, n -> n / 2": lambda pool, _: select(pool, seed, {"strategy": "threshold_decay"}),
        "generalization_score, n to n": generalization_score,
        "knn_entropy, n": lambda pool, _: knn_entropy(pool, k=1),
    }
    rows = []
    for what, function in measured.items():
        runs = [timed(partial(function, pool, other)) for pool, other in zip(pools, others, strict=True)]
        rows.append([what, *(f"{run.seconds:.2f}" for run in runs)])
        for of in ("seconds", "cpu_seconds"):
            cost = [getattr(run, of) for run in runs]
            rows[-1].append(f"{np.polyfit(np.log(sizes.growth), np.log(cost), 1)[0]:.2f}")
    title = "Seconds at n points, and the exponent of the growth (of clock and CPU time; least squares)"
    return title, ["what", *(f"n = {n:,}" for n in sizes.growth), "exponent", "CPU exponent"], rows


def show(title: str, header: list[str], rows: list[list[str]], markdown: bool) -> None:
    """Print a table."""
    print(f"\n{title}\n")
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if markdown:
        table.insert(1, ["---"] * len(header))
        lines = ["| " + " | ".join(row) + " |" for row in table]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
