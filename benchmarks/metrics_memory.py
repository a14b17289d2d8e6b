"""Seconds of each metric and the memory it needs beside its data: at most 2 GB for 65,536 x 384 features.

    python benchmarks/metrics_memory.py [--n 16384] [--threads 2] [--device cuda]

Each metric runs in a fresh process on two random sets, float32 [n, 384], and prints a row of a Markdown table. Memory
is the peak above what the process, or the device, held when the data was there and the libraries were loaded.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

WIDTH = 384
SMALL = 64  # rows of the warm-up


def main() -> None:
    """Print the table; with --metric, one row of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=65_536, help="rows of each set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--metric", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.metric:
        wall, cpu, megabytes = cost(args.metric, args.n, args.threads, args.device)
        print(f"| `{args.metric}` | {wall:.1f} | {cpu:.1f} | {megabytes:.0f} |", flush=True)
        return
    print(
        f"{args.n} x {WIDTH} float32 ({args.n * WIDTH * 4 / 1e6:.0f} MB a set), {args.device}, {args.threads} threads\n"
    )
    print("| metric | seconds | CPU seconds | MB beside the data |\n|---|---|---|---|", flush=True)
    for name in metrics():
        rest = ["--n", str(args.n), "--threads", str(args.threads), "--device", args.device, "--metric", name]
        subprocess.run([sys.executable, __file__, *rest], check=True)


def metrics() -> dict[str, Callable[..., object]]:
    """What is measured: functions of two sets."""
    from autophagy.metrics import distribution, entropy, manifold, memorization, structure

    return {
        "frechet_distance": distribution.frechet_distance,
        "kernel_distance": distribution.kernel_distance,
        "manifold_scores": manifold.manifold_scores,
        "knn_entropy": lambda x, y: entropy.knn_entropy(x),
        "duplicate_share": lambda x, y: entropy.duplicate_share(x),
        "generalization_score": memorization.generalization_score,
        "memorization_ratio": memorization.memorization_ratio,
        "total_variance": lambda x, y: structure.total_variance(x),
        "vendi_score": lambda x, y: structure.vendi_score(x),
        "spectrum": lambda x, y: structure.spectrum(x),
        "effective_rank": lambda x, y: structure.effective_rank(x),
        "ole_score": lambda x, y: structure.ole_score(x, np.arange(len(x)) % 10),
    }


def cost(name: str, n: int, threads: int, device: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of one metric in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is loaded
    import torch

    metric = metrics()[name]
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((n, WIDTH), dtype=np.float32)).to(device) for _ in range(2))
    metric(x[:SMALL], y[:SMALL])
    before = peak(device)
    start, start_cpu = time.perf_counter(), time.process_time()
    metric(x, y)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return wall, cpu, (peak(device) - before) / 1e6


def peak(device: str) -> float:
    """Most bytes that this process has held so far, on the device that it computes on."""
    import torch

    if device != "cpu":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
