"""The loop as a graph of stages: what depends on what, and which part of the configuration each stage reads."""

from __future__ import annotations

from typing import Any

from autophagy.config import Experiment
from autophagy.curation import ingest, select
from autophagy.evaluation import evaluate
from autophagy.features import fit_feature_network, fit_probe, score_real
from autophagy.records import seed_for
from autophagy.sampling import generate
from autophagy.sources import absolute, fingerprint
from autophagy.stages import Stage
from autophagy.training import train

Generation = dict[str, Stage]  # stages of one generation by name, in the order they run


def plan_loop(experiment: Experiment) -> list[Generation]:
    """Every stage of a loop, by generation. Nothing is computed, and no artifact is read."""
    g = Graph(experiment)
    real = g.real()
    model = g.train(0, real)
    g.measure_with(real, model)
    samples = [g.generate(0, model)]
    generations = [g.shared | {"generate": samples[0], "evaluate": g.evaluate(0, samples)}]
    for k in range(1, experiment.generations + 1):
        selected = g.select(k, samples)
        model = g.train(k, real, selected, samples, model)
        samples.append(g.generate(k, model))
        evaluated = g.evaluate(k, samples, selected)
        generations.append({"select": selected, "train": model, "generate": samples[k], "evaluate": evaluated})
    return generations


class Graph:
    """Makes the stages of one experiment. `shared` holds what all generations use, made before the first."""

    def __init__(self, experiment: Experiment) -> None:
        self.e = experiment
        self.shared: Generation = {}
        self.on_gpu = {"use_gpu": experiment.training.use_gpu}
        self.streaming = {
            "use_gpu": experiment.generation.use_gpu,
            "num_actors": experiment.generation.num_actors,
        }

    def real(self) -> Stage:
        """The real images, split."""
        data = self.e.data
        # With num_real given the fresh images are simply all others, and the loops of all scenarios share the split.
        config = {
            # The fingerprint says what the data are, so that they may lie elsewhere tomorrow.
            "data": data.model_dump(mode="json", exclude={"labels"}) | {"source": data.source.partition(":")[0]},
            "fingerprint": fingerprint(data.source),
            "num_fresh": self.e.num_set_aside,
            "seed": self.e.seed,
        }
        self.shared["real"] = Stage("real", ingest, config, runtime={"source": absolute(data.source)})
        return self.shared["real"]

    def measure_with(self, real: Stage, model: Stage) -> None:
        """What scores and measures every generation, fitted once: feature network, probe, scores of the real images."""
        e, metrics = self.e, self.e.metrics
        network = {"kind": metrics.feature_network, "seed": e.seed}
        self.shared["feature_network"] = Stage(
            "feature_network", fit_feature_network, network, {"real": real}, self.on_gpu
        )
        self.shared["train"] = model
        if e.model.conditional:
            config: dict[str, Any] = {"probe": e.probe.keyed(), "labels": e.data.labels, "seed": e.seed}
            inputs = {"real": real, "encoder": model}
            self.shared["probe"] = Stage("probe", fit_probe, config, inputs, self.on_gpu)
        config = {
            "feature_network": metrics.feature_network,
            "num_latents": metrics.num_samples,
            "shard_size": 4 * e.generation.shard_size,
        }
        if e.num_fresh:  # they may be many, and most scenarios never look at them
            config["fresh"] = True
        self.shared["score"] = Stage("score", score_real, config, self._scoring(), self.streaming, remote=False)

    def _scoring(self) -> dict[str, Stage]:
        roles = {"real": "real", "network": "feature_network", "encoder": "train", "probe": "probe"}
        return {role: self.shared[name] for role, name in roles.items() if name in self.shared}

    def train(
        self,
        k: int,
        real: Stage,
        selected: Stage | None = None,
        samples: list[Stage] | None = None,
        previous: Stage | None = None,
    ) -> Stage:
        """The model of generation k; generation 0 trains on R, k >= 1 on what was selected."""
        training = self.e.training
        inputs = {"real": real}
        if selected:
            inputs |= {"select": selected} | self._sources(k, samples or [])
            init = {"previous": previous, "initial": self.shared["train"], "scratch": None}[training.init]
            inputs |= {"init": init} if init else {}
        runtime = {n: getattr(training, n) for n in ("num_workers", "use_gpu", "checkpoint_every", "resident_bytes")}
        config = {
            "model": self.e.model.keyed(),
            "image_size": self.e.data.image_size,
            "training": self._training(k),
            "budget": self.e.budget if selected else None,
            "seed": seed_for(self.e.seed, "train", k),
        }
        images = training.epochs * self.e.budget if k else training.initial_epochs * (self.e.data.num_real or 0)
        return Stage("train", train, config, inputs, runtime, generation=k, remote=False, work=images or None)

    def _training(self, k: int) -> dict[str, Any]:
        """The training settings that matter for generation k: those of other generations do not change its key."""
        settings = self.e.training.keyed()
        fine_tune = settings.pop("fine_tune_learning_rate")
        if k and fine_tune is not None:
            settings["learning_rate"] = fine_tune
        unused = ("epochs", "equal_steps", "init") if k == 0 else ("initial_epochs", "init")
        return {n: v for n, v in settings.items() if n not in unused}

    def _sources(self, k: int, samples: list[Stage]) -> dict[str, Stage]:
        """The samples that generation k may choose from."""
        return {f"samples/{j}": samples[j] for j in self.e.scenario.origins(k)}

    def generate(self, k: int, model: Stage) -> Stage:
        """The samples of generation k; only the last one's are not candidates of a next."""
        e = self.e
        candidates = e.num_candidates if k < e.generations else 0
        config = {
            "generation": e.generation.keyed(),
            "generation_index": k,
            "feature_network": e.metrics.feature_network,
            "num_latents": e.metrics.num_samples,
            "seed": seed_for(e.seed, "generate", k),
        }
        inputs = self._scoring() | {"model": model}
        count = max(candidates, e.metrics.num_samples)
        return Stage(
            "generate",
            generate,
            config,
            inputs,
            self.streaming,
            generation=k,
            remote=False,
            count=count,
            work=count * e.generation.num_inference_steps,
        )

    def select(self, k: int, samples: list[Stage]) -> Stage:
        """The training set of generation k >= 1."""
        e = self.e
        config = {
            "scenario": e.scenario.model_dump(mode="json"),
            "selection": e.selection.model_dump(mode="json"),
            "generation": k,
            "budget": e.budget,
            "num_candidates": e.num_candidates,
            "seed": e.seed,
        }
        inputs = {"real": self.shared["real"], "score": self.shared["score"]} | self._sources(k, samples)
        return Stage("select", select, config, inputs, generation=k)

    def evaluate(self, k: int, samples: list[Stage], selected: Stage | None = None) -> Stage:
        """The metrics of generation k."""
        e = self.e
        config = {"metrics": e.metrics.keyed(), "generation": k, "budget": e.budget, "seed": e.seed}
        inputs = self._scoring() | {
            "score": self.shared["score"],
            "generated": samples[k],
            "first": samples[0],
        }
        if selected:
            inputs |= {"select": selected} | self._sources(k, samples)
        return Stage("evaluate", evaluate, config, inputs, generation=k)
