"""The self-consuming loop: select, train, generate, evaluate, record; generation after generation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from autophagy.common.errors import UserError
from autophagy.common.records import GenerationRecord
from autophagy.common.versions import warn_of_others
from autophagy.config import Experiment
from autophagy.config.settings import flatten
from autophagy.engine.watcher import Watcher
from autophagy.preflight import check_real, checked_plan
from autophagy.runs.claims import claim_run, withdraw_run
from autophagy.runs.draw import ensure_pictures
from autophagy.runs.folder import keep_records
from autophagy.stages.payloads import read_metrics
from autophagy.store import Artifact, StageStore
from autophagy.tracking.lineage import code_tags
from autophagy.tracking.tags import SEED
from autophagy.tracking.tracker import NullTracker, RunInfo, Tracker


def run_loop(
    experiment: Experiment,
    store: StageStore,
    tracker: Tracker | None = None,
    watcher: Watcher | None = None,
) -> list[GenerationRecord]:
    """Run a loop to its end; what the store holds already is not computed again.

    Args:
        experiment: The loop. The same experiment gives the same records, whatever interrupted it.
        store: Where stages are kept, and the run folder `runs/<name>` with records and pictures.
        tracker: Where records go besides.
        watcher: Told about every stage and generation.

    Returns:
        One record per generation, generation 0 included.

    Raises:
        UserError: before any compute, if the experiment cannot run.
    """
    tracker, watcher = tracker or NullTracker(), watcher or Watcher()
    generations = checked_plan(experiment)
    claim_run(experiment, store, generations)
    try:
        real = generations[0]["real"].ensure(store, watcher)
        check_real(experiment, real)
    except UserError:
        withdraw_run(experiment, store)  # once mended, it is another experiment
        raise
    tracker.start(run_info(experiment, real))

    records: list[GenerationRecord] = []
    warned = False
    try:
        for k, stages in enumerate(generations):
            artifacts = {name: stage.ensure(store, watcher) for name, stage in stages.items()}
            warned = warned or warn_of_others(experiment.name, [found.manifest for found in artifacts.values()])
            records.append(record(k, artifacts))
            keep_records(store, experiment.name, records)
            tracker.log(records)
            watcher.generation(records[-1])
        samples = [stages["generate"].ensure(store) for stages in generations]
        pictures = ensure_pictures(store, experiment.name, real, samples, records)
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


def run_info(experiment: Experiment, real: Artifact) -> RunInfo:
    """What a tracker is told about this loop."""
    sizes = real.info["sizes"]
    return RunInfo(
        name=experiment.name,
        digest=experiment.digest,
        params=flatten(experiment.settled().model_dump(mode="json")),
        tags={SEED: str(experiment.seed), **code_tags()},
        dataset={
            "source": experiment.data.source,
            "digest": real.key,
            "num_real": sizes["train"],
            "num_held_out": sizes["held_out"],
        },
    )
