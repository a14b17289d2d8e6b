"""Peak memory of the loop's own process against the number of images generated: it must not grow.

    python benchmarks/driver_memory.py

Runs a tiny loop twice in fresh processes, with 1,000 and with 20,000 images a generation at 2 sampling steps.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile

SETTINGS = [
    "generations=1",
    "budget=1000",
    "keep_ratio={share}",
    "data.num_real=500",
    "model.block_out_channels=[8, 8]",
    "training.initial_epochs=1",
    "training.epochs=1",
    "training.num_workers=0",
    "generation.num_inference_steps=2",
    "metrics.num_samples=500",
]


def main() -> None:
    """Print the peak resident memory of the loop's process for both sizes, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    candidates = parser.parse_args().candidates
    if candidates:
        print(peak_megabytes(candidates))
        return
    peaks = {}
    for count in (1_000, 20_000):
        done = subprocess.run(
            [sys.executable, __file__, "--candidates", str(count)], check=True, capture_output=True, text=True
        )
        peaks[count] = float(done.stdout.splitlines()[-1])
        print(f"{count:>6} images a generation: {peaks[count]:.0f} MB at the peak")
    print(f"ratio {peaks[20_000] / peaks[1_000]:.2f}")


def peak_megabytes(candidates: int) -> float:
    """Peak resident memory of this process after a loop with `candidates` images per generation."""
    from autophagy.loop import run_loop
    from autophagy.recipes import load_experiment
    from autophagy.store import StageStore

    settings = [s.format(share=1000 / candidates) for s in SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        run_loop(load_experiment("lsf_digits", settings), StageStore(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
