"""Run one tiny loop of every kind, a grid and a search into a new store, to be compared by `compare_stores.py`.

    python tests/golden/run_loops.py STORE

With PYTHONPATH=CHECKOUT/platform it runs the code of that checkout, here and in Ray's workers; the loops are those of
`loops.py` beside this file, whatever code runs them. The store must be new: what is in it is not computed again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

# Before torch is loaded: sums depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from loops import StageStore, run_loops, run_sweeps
from PIL import Image
from sklearn.datasets import load_digits

import autophagy

NUM_IMAGES = 320  # of the sources that are files


def code() -> str:
    """Where the package is imported from, in the process that calls this."""
    return str(Path(autophagy.__file__).parent)


def write_images(folder: Path) -> None:
    """Digits as an image folder, as NPZ and as Parquet."""
    digits = load_digits()
    images = (digits.images[:NUM_IMAGES] * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target[:NUM_IMAGES]
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "images" / str(label) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    np.savez(folder / "images.npz", image=images, label=labels)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    pq.write_table(pa.table({"image": column, "label": labels}), folder / "images.parquet")


def run_all(store: StageStore) -> None:
    """Everything, one after the other."""
    for experiment in run_loops():
        start = time.perf_counter()
        autophagy.run_loop(experiment, store)
        print(f"{time.perf_counter() - start:6.1f} s  {experiment.name}", flush=True)
    for sweep in run_sweeps():
        start = time.perf_counter()
        autophagy.run_sweep(sweep, store)
        print(f"{time.perf_counter() - start:6.1f} s  {sweep.name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a folder that is not there yet")
    path = parser.parse_args().store.absolute()
    if path.exists():
        sys.exit(f"{path}: is there already; give a new folder")
    # Two training workers fit on any machine.
    ray.init(num_cpus=4, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    here, there = code(), ray.get(ray.remote(code).remote())
    print(f"code: {here}, in workers: {there}", flush=True)
    if here != there:
        sys.exit("Ray's workers import another package than this process")
    store = StageStore(path)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        os.chdir(folder)
        run_all(store)
        os.chdir("/")
    ray.shutdown()


if __name__ == "__main__":
    main()
