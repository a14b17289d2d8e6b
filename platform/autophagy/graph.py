"""The loop as a graph of stages: select, train, generate, evaluate for each generation, and what reads what."""

from __future__ import annotations

from dataclasses import dataclass, field

from autophagy.config import Experiment
from autophagy.corrections import Neon, SelfCorrection, SelfTrained
from autophagy.data.config import CLUSTERED
from autophagy.engine.stage import Stage, Stages
from autophagy.stages import (
    centres,
    correct,
    evaluate,
    extrapolate,
    feature_network,
    floor,
    generate,
    labels,
    probe,
    real,
    rescore,
    score,
    select,
    train,
)
from autophagy.stages.payloads import RESCORED, SAMPLES
from autophagy.stages.scorer import scored_by


def plan_loop(e: Experiment) -> list[Stages]:
    """Every stage of a loop, by generation. Nothing is computed, and no artifact is read."""
    e = e.settled()
    shared = plan_shared(e)
    model, refit = shared["train"], Refit()
    made: list[Stage] = []  # samples by generation
    plan: list[Stages] = []
    for k in range(e.generations + 1):
        stages = dict(shared) if k == 0 else {}
        if k > 0:
            stages |= plan_selection(e, k, shared, made, refit)
            stages |= plan_training(e, k, shared, made, stages, model)
            model = stages.get("extrapolate", stages["train"])
            stages |= plan_refit(e, k, shared, model, refit)
        inputs = scored_by(shared) | {"model": model}
        away = {"auxiliary": stages["auxiliary"]} if "auxiliary" in stages and "extrapolate" not in stages else {}
        stages["generate"] = generate.stage(e, k, inputs | away)
        made.append(stages["generate"])
        measured = pick(shared, "score", "floor") | {"generated": made[k], "first": made[0]}
        chosen = {"select": stages["select"]} | trained_on(e, k, stages, made) if k > 0 else {}
        stages["evaluate"] = evaluate.stage(e, k, scored_by(shared) | measured | chosen)
        plan.append(stages)
    return plan


def plan_shared(e: Experiment) -> Stages:
    """What all generations use, fitted once, the model of generation 0, and what measures them all."""
    shared: Stages = {"real": real.stage(e)}
    shared["feature_network"] = feature_network.stage(e, shared["real"])
    if e.data.labels in CLUSTERED:
        # Clusters come from a denoiser that saw no label: an unconditional loop's own generation 0.
        name = "train_unlabelled" if e.model.conditional else "train"
        unlabelled = e.model.model_copy(update={"conditional": False})
        shared[name] = train.stage(e, 0, {"real": shared["real"]}, model=unlabelled)
    encoder = shared.get("train_unlabelled", shared.get("train"))
    if told := labels.stage(e, shared["real"], shared["feature_network"], encoder):
        shared["labels"] = told
    if "train" not in shared:
        shared["train"] = train.stage(e, 0, {"real": shared["real"]} | conditions(e, shared))
    if e.labelled:
        shared["probe"] = probe.stage(e, 0, pick(shared, "real", "labels") | {"encoder": shared["train"]})
    shared["score"] = score.stage(e, shared)
    shared["floor"] = floor.stage(e, pick(shared, "real", "score"))
    if isinstance(e.correction, SelfCorrection):
        shared["centres"] = centres.stage(e, pick(shared, "real", "labels"), e.correction)
    return shared


@dataclass
class Refit:
    """The encoder and probe that replaced those of generation 0 in selection, and what they have scored since."""

    fitted: Stages = field(default_factory=dict)
    scored: Stages = field(default_factory=dict)


def plan_selection(e: Experiment, k: int, shared: Stages, made: list[Stage], refit: Refit) -> Stages:
    """What generation k >= 1 is trained on."""
    stages: Stages = {}
    inputs = pick(shared, "real", "labels") | candidates(e, k, made)
    if refit.fitted:
        stages["rescore"] = rescore.stage(e, k, inputs | refit.fitted | refit.scored)
        refit.scored[f"{RESCORED}{k}"] = stages["rescore"]
    stages["select"] = select.stage(e, k, inputs | {"score": shared["score"]} | refit.scored)
    if isinstance(e.correction, SelfCorrection):
        inputs = scored_by(shared) | {"select": stages["select"], "centres": shared["centres"]}
        stages["correct"] = correct.stage(e, k, inputs | candidates(e, k, made), e.correction)
    return stages


def plan_training(e: Experiment, k: int, shared: Stages, made: list[Stage], stages: Stages, previous: Stage) -> Stages:
    """The model of generation k >= 1 from its training set, and what a correction makes of it."""
    start = {"previous": previous, "initial": shared["train"], "scratch": None}[e.training.init]
    known = pick(shared, "real") | conditions(e, shared)
    inputs = known | trained_on(e, k, stages, made) | ({"init": start} if start else {})
    trained = {"train": train.stage(e, k, inputs)}
    if isinstance(e.correction, SelfTrained):
        own = scored_by(shared) | {"model": trained["train"]}
        trained["auxiliary_samples"] = generate.auxiliary_stage(e, k, own, e.correction)
        inputs = known | {"training_set": trained["auxiliary_samples"], "init": trained["train"]}
        trained["auxiliary"] = train.stage(e, k, inputs, auxiliary=e.correction)
    if isinstance(e.correction, Neon):
        inputs = {"model": trained["train"], "auxiliary": trained["auxiliary"]}
        trained["extrapolate"] = extrapolate.stage(k, inputs, e.correction)
    return trained


def plan_refit(e: Experiment, k: int, shared: Stages, model: Stage, refit: Refit) -> Stages:
    """The probe that scores candidates from now on, where it is time to fit it on the model of generation k."""
    if not e.refresh or k % e.refresh or k == e.generations:
        return {}
    fitted = probe.stage(e, k, pick(shared, "real", "labels") | {"encoder": model})
    refit.fitted, refit.scored = {"encoder": model, "probe": fitted}, {}
    return {"probe": fitted}


def pick(shared: Stages, *names: str) -> Stages:
    """Those of the stages that there are."""
    return {name: shared[name] for name in names if name in shared}


def conditions(e: Experiment, shared: Stages) -> Stages:
    """The labels that a model is trained on, where others than the data's are told."""
    return pick(shared, "labels") if e.model.conditional else {}


def candidates(e: Experiment, k: int, made: list[Stage]) -> Stages:
    """The samples that generation k may choose from."""
    return {f"{SAMPLES}{j}": made[j] for j in e.scenario.origins(k)}


def trained_on(e: Experiment, k: int, stages: Stages, made: list[Stage]) -> Stages:
    """What says which images generation k is trained on: the corrected ones, or those selected of the samples."""
    if "correct" in stages:
        return {"training_set": stages["correct"]}
    return {"select": stages["select"]} | candidates(e, k, made)
