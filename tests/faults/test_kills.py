"""A thousand kills: builders that compete for the same stages, and a collector beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import PAYLOAD, build, check, collect, leftovers, read

from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore
from autophagy.store import store as store_module
from autophagy.store.upkeep import ls, verify

SOURCE = Path(store_module.__file__).parents[2]
HERE = Path(__file__).parent
# One process with everything imported, from which the others are forked: a process costs milliseconds.
KILLER = """
import os, random, signal, sys, time
from faulty import build, collect
from autophagy.store import StageStore
uri, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)

def work(number):
    store, order = StageStore(uri), random.Random(number)
    while True:
        if number % 5 == 4:
            collect(store, delete=True, older_than=0.0)
        else:
            build(store, f"k{order.randrange(3000)}")

def start(number):
    child = os.fork()
    if not child:
        try:
            work(number)
        finally:
            os._exit(7)
    return child

running = [start(number) for number in range(5)]
for number in range(5, kills + 5):
    time.sleep(rng.uniform(0, 0.08))
    victim = running.pop(rng.randrange(5))
    os.kill(victim, signal.SIGKILL)
    _, status = os.waitpid(victim, 0)
    assert os.WIFSIGNALED(status), f"a process ended by itself: {status}"
    running.append(start(number))
for child in running:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_processes_killed_at_any_moment_leave_whole_stages(tmp_path, kills):
    store = StageStore(tmp_path / "store")
    RunFolder(store, "run").write(
        "stages.json", str([["train", f"k{i}"] for i in range(3000)]).replace("'", '"').encode()
    )
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{HERE}"}
    command = [sys.executable, "-c", KILLER, store.uri, str(kills), "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    check(store)
    assert not any(problems for _, problems in verify(store))
    keys = [info.key for info in ls(store)]
    assert len(keys) > kills / 2
    for key in keys[:50]:
        assert read(build(store, key)) == PAYLOAD
    collect(store, delete=True, older_than=0)
    check(store)
    assert {name for name in leftovers(store) if not name.startswith("tmp/")} == set()
