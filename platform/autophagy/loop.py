"""The self-consuming loop: select, train, generate, evaluate, record; generation after generation."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
import yaml

from autophagy.cluster import in_worker
from autophagy.config import CLUSTERED, Experiment, flatten
from autophagy.data import split_sizes, to_numpy
from autophagy.evaluation import read_metrics
from autophagy.features import check_available
from autophagy.graph import Generation, plan_loop
from autophagy.lineage import code_tags
from autophagy.progress import Progress, Silent
from autophagy.records import IMAGE, SAMPLE_ID, GenerationRecord, RunInfo, Tracker, UserError, sample_ids
from autophagy.run_files import EXPERIMENT, decode_records, read_back, read_experiment
from autophagy.store import Artifact, StageStore
from autophagy.tracking import NullTracker
from autophagy.versions import warn_of_others

RECORDS, STAGES = "records.jsonl", "stages.json"
CURVES, SAMPLES, DRAWN = "collapse_curves.png", "samples.png", "pictures.txt"
GRID_COLUMNS = 16


def run_loop(
    experiment: Experiment,
    store: StageStore,
    tracker: Tracker | None = None,
    progress: Progress | None = None,
) -> list[GenerationRecord]:
    """Run a loop to its end; what the store holds already is not computed again.

    Args:
        experiment: The loop. The same experiment gives the same records, whatever interrupted it.
        store: Where stages are kept, and the run folder `runs/<name>` with records and pictures.
        tracker: Where records go besides.
        progress: Told about every stage and generation.

    Returns:
        One record per generation, generation 0 included.

    Raises:
        UserError: before any compute, if the experiment cannot run.
    """
    tracker, progress = tracker or NullTracker(), progress or Silent()
    generations = checked_plan(experiment)
    claim_run(experiment, store, generations)
    try:
        real = progress.follow(generations[0]["real"], store)
        check_real(experiment, real)
    except UserError:
        withdraw_run(experiment, store)  # once mended, it is another experiment
        raise
    tracker.start(run_info(experiment, real))

    records: list[GenerationRecord] = []
    warned = False
    try:
        for k, stages in enumerate(generations):
            artifacts = {name: progress.follow(stage, store) for name, stage in stages.items()}
            warned = warned or warn_of_others(experiment.name, [found.manifest for found in artifacts.values()])
            records.append(record(k, artifacts))
            keep_records(experiment.name, store, records)
            tracker.log(records)
            progress.generation(records[-1])
        pictures = draw(experiment, store, generations, records)
    except BaseException:
        tracker.finish(records, (), complete=False)
        raise
    with tempfile.TemporaryDirectory() as folder:
        for name, png in pictures.items():
            Path(folder, name).write_bytes(png)
        tracker.finish(records, [Path(folder, name) for name in pictures], complete=True)
    return records


def record(generation: int, artifacts: Mapping[str, Artifact]) -> GenerationRecord:
    """The line of `records.jsonl` that the stages of a generation amount to."""
    metrics = read_metrics(artifacts["evaluate"])
    metrics["generation"] = float(generation)
    metrics |= {
        f"{name}_{key}": float(artifacts[name].info[key])
        for name in ("feature_network", "probe")  # a probe was fitted in generation 0, and wherever it is refitted
        for key in ("accuracy_held_out", "accuracy_train")
        if name in artifacts and key in artifacts[name].info
    }
    return GenerationRecord(
        generation,
        metrics,
        {name: artifact.key for name, artifact in artifacts.items()},
        {name: float(artifact.manifest["seconds"]) for name, artifact in artifacts.items()},
    )


def checked_plan(experiment: Experiment) -> list[Generation]:
    """The stages of a loop by generation; a UserError if its data, a package or a device is missing. Needs no store."""
    check_available(experiment.metrics.feature_network)
    if "RAY_ADDRESS" not in os.environ and not in_worker():
        check_machine(experiment)
    return plan_loop(experiment)


def check_machine(experiment: Experiment) -> None:
    """Raise a UserError for what this machine alone does not have: Ray would wait for it for ever."""
    remedy = "or set RAY_ADDRESS to a cluster that has"
    for section in ("training", "generation"):
        if getattr(experiment, section).use_gpu and not torch.cuda.is_available():
            raise UserError(f"{section}.use_gpu = true: there is no CUDA device here; set it to false, {remedy} one")
    cpus = os.cpu_count() or 1
    for field, count in (
        ("training.num_workers", experiment.training.num_workers),
        ("generation.num_actors", experiment.generation.num_actors),
    ):
        if count > cpus:
            raise UserError(f"{field} = {count}: there are {cpus} CPUs here; use at most that many, {remedy} more")


def check_run(experiment: Experiment, store: StageStore) -> None:
    """Raise a UserError if the run folder belongs to another experiment; one with more generations is no other."""
    saved = read_experiment(store, experiment.name)
    if saved is not None and saved.digest != experiment.digest:
        raise UserError(
            f"name = {experiment.name}: its run folder holds another experiment; "
            f"give this one its own name (--name), or remove {store.run_path(experiment.name)}"
        )


def check_real(experiment: Experiment, real: Artifact) -> None:
    """Raise a UserError if the real images lack labels or classes that are needed, or too few are fresh."""
    data, num_classes = experiment.data, real.info["num_classes"]
    if not num_classes and experiment.labelled:
        if data.labels not in CLUSTERED:
            raise UserError(
                f"data.labels = {data.labels}: data.source has no labels; set it to ssc_omp or kmeans, or "
                "model.conditional to false"
            )
        if data.num_clusters is None:
            raise UserError("data.num_clusters = null: data.source has no classes to take the number of; set it")
    check_schedule(experiment, max(num_classes, data.num_clusters or 0))
    needed, sizes = experiment.num_fresh, real.info["sizes"]
    if sizes["fresh"] < needed:
        split_sizes(sum(sizes.values()), sizes["train"], sizes["held_out"], needed)


def check_schedule(experiment: Experiment, num_classes: int) -> None:
    """Raise a UserError if a class of the schedule is none of the data's, or a generation has too few of them."""
    data = experiment.data
    if not (data.appear or data.vanish):
        return
    for name, schedule in (("appear", data.appear), ("vanish", data.vanish)):
        for label, generation in schedule.items():
            if label >= num_classes:
                raise UserError(
                    f"data.{name}.{label} = {generation}: the classes are 0 to {num_classes - 1}; name one of them"
                )
    for k in range(experiment.generations + 1):
        left, needed = num_classes - len(data.absent(k)), 1 if k else 2  # a probe tells classes apart
        if left < needed:
            raise UserError(
                f"data.appear, data.vanish: leave {left} of {num_classes} classes in generation {k}, which needs "
                f"{needed}; let one appear earlier or vanish later"
            )


def claim_run(experiment: Experiment, store: StageStore, generations: Sequence[Generation]) -> None:
    """Take the run folder before anything is computed, and the stages, for garbage collection to spare them.

    Raises:
        UserError: the folder is another experiment's, perhaps since this very moment.
    """
    values = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
    content = f"# digest {experiment.digest}\n{values}".encode()
    if not store.create_run_file(experiment.name, EXPERIMENT, content):
        check_run(experiment, store)
        store.write_run_file(experiment.name, EXPERIMENT, content)  # it may have more generations now
    check_run(experiment, store)
    claim_stages(experiment.name, [generations], store)


def claim_stages(name: str, loops: Iterable[Sequence[Generation]], store: StageStore) -> None:
    """Write `stages.json` of a run or a sweep: garbage collection spares these stages, finished or not."""
    in_use = {(stage.name, stage.key) for loop in loops for stages in loop for stage in stages.values()}
    store.write_run_file(name, STAGES, json.dumps(sorted(in_use)).encode())


def withdraw_run(experiment: Experiment, store: StageStore) -> None:
    """Give the run folder of an experiment back that cannot run, if nothing was recorded in it."""
    if not store.read_run_file(experiment.name, RECORDS):
        store.remove_run_files(experiment.name, (EXPERIMENT, STAGES))


def is_finished(experiment: Experiment, generations: Sequence[Generation], store: StageStore) -> bool:
    """Whether a loop has run to its end by just these stages, pictures included."""
    records = read_records(experiment.name, store)[: len(generations)]
    planned = [{name: stage.key for name, stage in stages.items()} for stages in generations]
    drawn = store.read_run_file(experiment.name, DRAWN)
    return [dict(r.stages) for r in records] == planned and drawn == drawing_mark(records)


def drawing_mark(records: Sequence[GenerationRecord]) -> bytes:
    """What pictures are drawn from."""
    return "\n".join(r.stages["evaluate"] for r in records).encode()


def keep_records(name: str, store: StageStore, records: Sequence[GenerationRecord]) -> None:
    """Write `records.jsonl`, unless it holds these records already and perhaps more."""
    lines = [json.dumps(r.to_json()).encode() + b"\n" for r in records]
    saved = read_back(store, name, RECORDS, _whole_lines) or []
    if saved[: len(lines)] != lines:
        store.write_run_file(name, RECORDS, b"".join(lines))


def read_records(name: str, store: StageStore) -> list[GenerationRecord]:
    """The records of a run so far, oldest first."""
    return read_back(store, name, RECORDS, decode_records) or []


def _whole_lines(data: bytes) -> list[bytes]:
    """The lines of a `records.jsonl` as they are, if all of them can be read."""
    decode_records(data)
    return data.splitlines(keepends=True)


def draw(
    experiment: Experiment,
    store: StageStore,
    generations: Sequence[Generation],
    records: Sequence[GenerationRecord],
) -> dict[str, bytes]:
    """Write the pictures of a run into its folder, and return them; those that are up to date stay as they are."""
    name, mark = experiment.name, drawing_mark(records)
    saved = {p: store.read_run_file(name, p) for p in (CURVES, SAMPLES)}
    if store.read_run_file(name, DRAWN) == mark and all(saved.values()):
        return {p: data for p, data in saved.items() if data}
    from autophagy.pictures import collapse_curves, sample_grid

    real = generations[0]["real"].ensure(store)
    rows = [("real", first_images(real, "images/train", real.info["first_index"]["train"]))]
    for k, stages in enumerate(generations):
        first_id = int(sample_ids(k, 0, 1)[0])
        rows.append((f"generation {k}", first_images(stages["generate"].ensure(store), "images", first_id)))
    pictures = {
        CURVES: collapse_curves({name: [list(records)]}),
        SAMPLES: sample_grid(rows, columns=GRID_COLUMNS),
    }
    for picture, png in pictures.items():
        store.write_run_file(name, picture, png)
    store.write_run_file(name, DRAWN, mark)
    return pictures


def first_images(artifact: Artifact, part: str, first_id: int) -> np.ndarray:
    """The first images of a part, uint8 [16, H, W, C]: all that a sample grid shows."""
    wanted = pc.field(SAMPLE_ID) < first_id + GRID_COLUMNS
    table = artifact.read_table(part, columns=[SAMPLE_ID, IMAGE], filter=wanted)
    return to_numpy(table.sort_by(SAMPLE_ID), IMAGE)


def run_info(experiment: Experiment, real: Artifact) -> RunInfo:
    """What a tracker is told about this loop."""
    sizes = real.info["sizes"]
    return RunInfo(
        name=experiment.name,
        digest=experiment.digest,
        params=flatten(experiment.model_dump(mode="json")),
        tags={"autophagy.seed": str(experiment.seed), **code_tags()},
        dataset={
            "source": experiment.data.source,
            "digest": real.key,
            "num_real": sizes["train"],
            "num_held_out": sizes["held_out"],
        },
    )
