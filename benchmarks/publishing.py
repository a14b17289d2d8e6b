"""What it costs to publish a stage, beside another checkout: seconds on a disk, requests to S3.

    python benchmarks/publishing.py --against ../another/checkout

Both build the same stages, in turn, on the same disk and the same S3 server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import AWS, s3_server, s3_uri
from server_costs import Requests

HERE = Path(__file__).parents[1]
ROUNDS, STAGES = 5, 40
FILES = {"images.parquet": 2 << 20, "latents.parquet": 1 << 20, "weights.safetensors": 1 << 20, "info.json": 200}


def build_stages(uri: str, count: int) -> list[float]:
    """Seconds that each of `count` stages of 4 MB took, written as Parquet files are: straight into the attempt."""
    from autophagy.store import Attempt, StageStore

    payload = {name: os.urandom(size) for name, size in FILES.items()}

    def builder(attempt: Attempt) -> None:
        for name, data in payload.items():
            with attempt.fs.open_output_stream(f"{attempt.path}/{name}", compression=None) as stream:
                stream.write(data)

    store, seconds = StageStore(uri), []
    for number in range(count):
        start = time.perf_counter()
        store.build("train", f"{uuid.uuid4().hex}-{number}", {}, builder)
        seconds.append(time.perf_counter() - start)
    return seconds


def measured(checkout: Path, uri: str, count: int) -> list[float]:
    """What `build_stages` gives in a process with the package of a checkout."""
    command = [sys.executable, __file__, "--build", uri, "--count", str(count)]
    environment = {**os.environ, **AWS, "PYTHONPATH": str(checkout / "platform")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def row(name: str, seconds: Sequence[float], requests: float) -> str:
    """A line of the table."""
    low, *_, high = statistics.quantiles(seconds, n=10)
    middle = statistics.median(seconds)
    return f"| {name} | {1e3 * low:.1f} | {1e3 * middle:.1f} | {1e3 * high:.1f} | {requests:g} |"


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one by default")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=STAGES, help="stages in each of the rounds")
    options = parser.parse_args()
    if options.build:
        print(json.dumps(build_stages(options.build, options.count)))
        return
    checkouts = {"this": HERE} | ({"against": options.against} if options.against else {})
    print("| checkout | ms a stage, 10 % | median | 90 % | requests to S3 a stage |\n|---|---|---|---|---|")
    with TemporaryDirectory(dir=options.folder) as folder, s3_server(Path(folder)) as (port, log):
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        for number in range(ROUNDS):
            for name, checkout in checkouts.items():
                times[name] += measured(checkout, f"{folder}/{name}-{number}", options.count)
        for name, checkout in checkouts.items():
            measured(checkout, s3_uri(port), 1)
            requests = Requests(log)
            measured(checkout, s3_uri(port), 11)
            eleven = sum(requests.since().values())
            measured(checkout, s3_uri(port), 1)
            one = sum(requests.since().values())
            print(row(name, times[name], (eleven - one) / 10))


if __name__ == "__main__":
    main()
