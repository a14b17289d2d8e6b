"""Write tests/golden/keys.json: the stage keys of many loops, to see that a change of the code changes none.

    python tests/golden/write_keys.py              write it anew, and say what was added, what changed and what is gone
    python tests/golden/write_keys.py --new-data   the same with data as they are here, where those of the file differ
    python tests/golden/write_keys.py --show NAME  what the keys of one loop are made of

Nothing is computed. A loop has one line: the digest of the experiment, and of each stage the beginning of the digest of
its keys in all generations. Loops on data that are not on this machine, or are of another version, keep the line they
have. A few loops have all keys, so that a difference can be read; for the others print what is hashed with `--show`, by
the code before (with PYTHONPATH=CHECKOUT/platform) and by the code after, and compare.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loops import digest, make_files, plan_loop, planned

if TYPE_CHECKING:
    from loops import Experiment

KEYS = Path(__file__).with_name("keys.json")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
OF_MACHINE = ("digits", "fashion_mnist")  # sources that other machines may have otherwise, or not at all
EXPERIMENT = "experiment"  # in the line of a loop, beside the names of its stages
WHOLE = [  # loops with all keys in the file
    "tiny",
    "tiny scenario.kind=constant_mix correction.kind=sims data.labels=ssc_omp",
    "tiny selection={strategy: lsf, refresh: 1} correction.kind=neon generations=4",
    "tiny data.appear={7: 1, 9: 2} scenario.kind=accumulate correction.kind=self_correction generations=3",
    "tiny model.conditional=false data.labels=kmeans selection.strategy=likelihood",
]


class Difference(NamedTuple):
    """What two mappings do not have in common."""

    added: list[Any]
    changed: list[Any]
    gone: list[Any]


def compare(before: Mapping[Any, Hashable], after: Mapping[Any, Hashable]) -> Difference:
    """The names of what is new, of another value, and no more."""
    return Difference(
        [name for name in after if name not in before],
        [name for name in after if name in before and after[name] != before[name]],
        [name for name in before if name not in after],
    )


def keys_of(experiment: Experiment) -> list[dict[str, str]]:
    """Key of every stage by its name, of each generation."""
    return [{name: stage.key for name, stage in stages.items()} for stages in plan_loop(experiment)]


def line_of(experiment: Experiment) -> str:
    """All keys of a loop, and its own digest, in one line."""
    keys: dict[str, dict[int, str]] = defaultdict(dict)
    for k, stages in enumerate(keys_of(experiment)):
        for name, key in stages.items():
            keys[name][k] = key
    return " ".join([experiment.digest, *(f"{name}={digest(own)[:8]}" for name, own in keys.items())])


def entries(line: str) -> dict[str, str]:
    """The digests in the line of a loop, by the name of the stage; that of the experiment by EXPERIMENT."""
    experiment, *stages = line.split()
    return {EXPERIMENT: experiment} | dict(stage.split("=") for stage in stages)


def data_here() -> dict[str, str]:
    """What the keys of loops on data of this machine depend on; a source that is not here is left out."""
    here = {"digits": f"scikit-learn {version('scikit-learn')}"}
    if files := sorted(FASHION_MNIST.glob("*-ubyte.gz")):
        contents = b"".join(file.name.encode() + file.read_bytes() for file in files)
        here["fashion_mnist"] = hashlib.blake2b(contents, digest_size=16).hexdigest()
    return here


def source_of(experiment: Experiment) -> str:
    """The data that a loop needs of this machine; `files` of our own are everywhere."""
    source = experiment.data.source
    return source if source in OF_MACHINE else "files"


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


def golden(experiments: Mapping[str, Experiment], before: Mapping[str, Any], new_data: bool = False) -> dict[str, Any]:
    """The content of the file, as this code has it; of loops whose data are not here as it was before."""
    here = data_here()
    data = before["data"] | here if new_data else here | before["data"]
    lines = {}
    for name, experiment in experiments.items():
        source = source_of(experiment)
        if source not in OF_MACHINE or (source in here and here[source] == data[source]):
            lines[name] = line_of(experiment)
        elif name in before["loops"]:
            lines[name] = before["loops"][name]
    whole = {name: keys_of(experiments[name]) for name in WHOLE if name in experiments}
    return {"data": data, "loops": lines, "keys": whole}


def summary(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """How many loops, and how many of their entries, are new, have changed, and are gone: of lines by loop."""
    old, new = (
        {(loop, name): found for loop, line in lines.items() for name, found in entries(line).items()}
        for lines in (before, after)
    )
    loops, parts = compare(before, after), compare(old, new)
    # A loop with a stage more is found again: it is none that has changed.
    changed = {loop for loop, _ in (*parts.changed, *parts.gone)} & after.keys()
    told = []
    for what, found in parts._asdict().items():
        stages = Counter(name for _, name in found)
        told.append(
            f"{len(found)} {what}" + (f" ({', '.join(f'{n} {s}' for s, n in stages.items())})" if found else "")
        )
    return [
        f"loops: {len(loops.added)} added, {len(changed)} changed, {len(loops.gone)} gone",
        f"their stages and experiments: {', '.join(told)}",
    ]


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
    parser.add_argument("--new-data", action="store_true", help="of data in another version, take that of this machine")
    parser.add_argument("--show", metavar="NAME", help="print what the keys of one loop are made of")
    asked = parser.parse_args()
    with folder_of_files():
        if asked.show:
            print(json.dumps(show(asked.show), indent=1))
            return
        before = json.loads(KEYS.read_text())
        experiments = planned()
        content = golden(experiments, before, asked.new_data)
    KEYS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{KEYS}: {len(content['loops'])} loops", *summary(before["loops"], content["loops"]), sep="\n")
    for source, needed in content["data"].items():
        if (found := data_here().get(source)) != needed:
            print(f"not looked at: loops on {source}, golden as of {needed}, here {found}; see --new-data")
    if left_out := experiments.keys() - content["loops"].keys():
        print("left out, new and without their data here:", *sorted(left_out), sep="\n  ")


if __name__ == "__main__":
    main()
