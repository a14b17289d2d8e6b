"""Write tests/golden/keys.json: the stage keys of many loops, to see that a change of the code changes none.

    python tests/golden/write_keys.py              write it anew: after a change that is to change keys, or a new loop
    python tests/golden/write_keys.py --show NAME  what the keys of one loop are made of

Nothing is computed. A loop has one line: the digest of its stage keys by generation, and that of the experiment. A few
have all keys, so that a difference can be read; for the others print what is hashed with `--show`, by the code before
(with PYTHONPATH=CHECKOUT/platform) and by the code after, and compare.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loops import digest, make_files, plan_loop, planned

if TYPE_CHECKING:
    from loops import Experiment

KEYS = Path(__file__).with_name("keys.json")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
WHOLE = [  # loops with all keys in the file
    "tiny",
    "tiny scenario.kind=constant_mix correction.kind=sims data.labels=ssc_omp",
    "tiny selection={strategy: lsf, refresh: 1} correction.kind=neon generations=4",
    "tiny data.appear={7: 1, 9: 2} scenario.kind=accumulate correction.kind=self_correction generations=3",
    "tiny model.conditional=false data.labels=kmeans selection.strategy=likelihood",
]


def keys_of(experiment: Experiment) -> list[dict[str, str]]:
    """Key of every stage by its name, of each generation."""
    return [{name: stage.key for name, stage in stages.items()} for stages in plan_loop(experiment)]


def line_of(experiment: Experiment) -> str:
    """All keys of a loop, and its own digest, in one line."""
    return f"{digest(keys_of(experiment))} {experiment.digest}"


def data_here() -> dict[str, str]:
    """What the keys of loops on data of this machine depend on; a source that is not here is left out."""
    here = {"digits": f"scikit-learn {version('scikit-learn')}"}
    if files := sorted(FASHION_MNIST.glob("*-ubyte.gz")):
        contents = b"".join(file.name.encode() + file.read_bytes() for file in files)
        here["fashion_mnist"] = hashlib.blake2b(contents, digest_size=16).hexdigest()
    return here


@contextmanager
def folder_of_files() -> Iterator[None]:
    """Be in a new folder with the files that some loops read."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def golden() -> dict[str, Any]:
    """The content of the file, as this code has it."""
    experiments = planned()
    return {
        "data": data_here(),
        "loops": {name: line_of(experiment) for name, experiment in experiments.items()},
        "keys": {name: keys_of(experiments[name]) for name in WHOLE},
    }


def show(name: str) -> Mapping[str, Any]:
    """What is hashed for every stage of a loop, by generation, name and key."""
    plan = plan_loop(planned()[name])
    return {
        f"{generation} {stage_name}": {"key": stage.key, **stage.spec}
        for generation, stages in enumerate(plan)
        for stage_name, stage in stages.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", metavar="NAME", help="print what the keys of one loop are made of")
    asked = parser.parse_args().show
    with folder_of_files():
        if asked:
            print(json.dumps(show(asked), indent=1))
            return
        content = golden()
        count = sum(len(stages) for experiment in planned().values() for stages in plan_loop(experiment))
    KEYS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{KEYS}: {len(content['loops'])} loops, {count} keys")


if __name__ == "__main__":
    main()
