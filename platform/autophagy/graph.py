"""The loop as a graph of stages: what depends on what, and which part of the configuration each stage reads."""

from __future__ import annotations

from typing import Any

from autophagy.common.samples import DENOISING_ERROR, LATENT
from autophagy.common.seeds import seed_for
from autophagy.config import Experiment
from autophagy.corrections import Neon, SelfCorrection, SelfTrained, Sims
from autophagy.data.config import CLUSTERED
from autophagy.data.sources.open import absolute, fingerprint
from autophagy.denoisers.config import Model
from autophagy.engine.job import Place
from autophagy.engine.stage import Stage, Stages
from autophagy.stages.correct import correct, fit_centres
from autophagy.stages.evaluate import evaluate
from autophagy.stages.extrapolate import extrapolate
from autophagy.stages.feature_network import fit_feature_network
from autophagy.stages.generate import generate
from autophagy.stages.labels import assign_labels
from autophagy.stages.probe import fit_probe
from autophagy.stages.real import ingest
from autophagy.stages.rescore import rescore
from autophagy.stages.score import score_real
from autophagy.stages.select import select
from autophagy.stages.train import train

SCORES_VERSION = 2  # of the columns of `score` and `generate`
METRICS_VERSION = 2  # of the numbers of `evaluate`


def plan_loop(experiment: Experiment) -> list[Stages]:
    """Every stage of a loop, by generation. Nothing is computed, and no artifact is read."""
    g = Graph(experiment)
    model = g.start()
    samples = [g.generate(0, model)]
    generations = [g.shared | {"generate": samples[0], "evaluate": g.evaluate(0, samples[0], samples)}]
    for k in range(1, experiment.generations + 1):
        stages = g.training_set(k, samples)
        stages |= g.model(k, stages, samples, model)
        model = stages.get("extrapolate", stages["train"])
        stages |= g.refresh(k, model)
        generated = g.generate(k, model, stages.get("auxiliary"))
        evaluated = g.evaluate(k, generated, samples, stages)
        generations.append(stages | {"generate": generated, "evaluate": evaluated})
        samples.append(generated)
    return generations


class Graph:
    """Makes the stages of one experiment. `shared` holds what all generations use, made before the first.

    `refitted` holds the last encoder and probe that replaced those of generation 0 in selection, and `rescored` what
    has been scored by them.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.e = experiment
        self.shared: Stages = {}
        self.refitted: Stages = {}
        self.rescored: Stages = {}
        self.on_gpu = {"use_gpu": experiment.training.use_gpu}
        self.streaming = {
            "use_gpu": experiment.generation.use_gpu,
            "num_actors": experiment.generation.num_actors,
        }

    def start(self) -> Stage:
        """What all generations use, fitted once, and what measures them; returns the model of generation 0."""
        e, metrics = self.e, self.e.metrics
        real = self._real()
        network = {"kind": metrics.feature_network, "seed": e.seed}
        self._share(Stage("feature_network", fit_feature_network, network, {"real": real}, self.on_gpu))
        if e.data.labels in CLUSTERED:
            # Clusters come from a denoiser that saw no label: an unconditional loop's own generation 0.
            unlabelled = e.model.model_copy(update={"conditional": False})
            name = "train_unlabelled" if e.model.conditional else "train"
            self._share(self._train(0, {"real": real}, unlabelled), name)
        self._label(real)
        if "train" not in self.shared:
            self._share(self._train(0, {"real": real} | self._conditions()))
        self._measure()
        if isinstance(e.correction, SelfCorrection):
            config = {"num_centres": e.correction.num_centres, "seed": e.seed}
            self._share(Stage("centres", fit_centres, config, {"real": real} | self._labels()))
        return self.shared["train"]

    def _share(self, stage: Stage, name: str = "") -> Stage:
        self.shared[name or stage.name] = stage
        return stage

    def _real(self) -> Stage:
        """The real images, split."""
        data = self.e.data
        told = {"labels", "num_clusters", "cluster_timestep", "appear", "vanish"}
        # With num_real given the fresh images are simply all others, and the loops of all scenarios share the split.
        config = {
            # The fingerprint says what the data are, so that they may lie elsewhere tomorrow.
            "data": data.model_dump(mode="json", exclude=told) | {"source": data.source.partition(":")[0]},
            "fingerprint": fingerprint(data.source),
            "num_fresh": self.e.num_set_aside,
            "seed": self.e.seed,
        }
        return self._share(Stage("real", ingest, config, runtime={"source": absolute(data.source)}))

    def _label(self, real: Stage) -> None:
        """Labels that stand in for those of the data."""
        data = self.e.data
        config: dict[str, Any] = {"source": data.labels, "seed": self.e.seed}
        if data.labels == "predicted":
            inputs = {"real": real, "network": self.shared["feature_network"]}
        elif data.labels in CLUSTERED:
            config |= {"num_clusters": data.num_clusters, "timestep": data.cluster_timestep}
            inputs = {"real": real, "encoder": self.shared.get("train_unlabelled") or self.shared["train"]}
        else:
            return
        self._share(Stage("labels", assign_labels, config, inputs, self.on_gpu))

    def _labels(self) -> Stages:
        return {"labels": self.shared["labels"]} if "labels" in self.shared else {}

    def _conditions(self) -> Stages:
        """The labels that a model is trained on."""
        return self._labels() if self.e.model.conditional else {}

    def _measure(self) -> None:
        """What scores every image, and the scores of the real ones."""
        e = self.e
        if e.labelled:
            self._share(self._probe(0, self.shared["train"]))
        config = self._scores() | {"shard_size": 4 * e.generation.shard_size}
        if e.num_fresh:  # they may be many, and most scenarios never look at them
            config["fresh"] = True
        self._share(
            Stage("score", score_real, config, self._scoring(), self.streaming, version=SCORES_VERSION, place="here")
        )

    def _probe(self, k: int, encoder: Stage) -> Stage:
        """The probe on latents of the model of generation k, fitted on the real images there are by then."""
        told = "shuffled" if self.e.data.labels == "shuffled" else "oracle"
        config = {"probe": self.e.probe.keyed(), "labels": told, "seed": self.e.seed} | self._unseen(k)
        inputs = {"real": self.shared["real"], "encoder": encoder} | self._labels()
        return Stage("probe", fit_probe, config, inputs, self.on_gpu, generation=k or None)

    def _unseen(self, k: int) -> dict[str, Any]:
        """Classes that no image of generation k may be of; without a schedule nothing, so that keys stay."""
        unseen = self.e.data.unseen(k)
        return {"unseen": unseen} if unseen else {}

    def _scores(self) -> dict[str, Any]:
        """What is to be known of every image; what is dear only where the selection reads it."""
        e = self.e
        config: dict[str, Any] = {"feature_network": e.metrics.feature_network, "num_latents": e.metrics.num_samples}
        if not e.model.conditional and e.labelled:
            config["assign_labels"] = "classifier" if e.data.labels == "predicted" else "probe"
        if LATENT in e.selection.needs:
            config["all_latents"] = True
        if DENOISING_ERROR in e.selection.needs:
            config["error_seed"] = seed_for(e.seed, "denoising-error")
        return config

    def _scoring(self) -> Stages:
        roles = {"real": "real", "network": "feature_network", "encoder": "train", "probe": "probe", "labels": "labels"}
        return {role: self.shared[name] for role, name in roles.items() if name in self.shared}

    def training_set(self, k: int, samples: list[Stage]) -> Stages:
        """What generation k >= 1 is trained on."""
        e = self.e
        pool = {
            "scenario": e.scenario.model_dump(mode="json"),
            "generation": k,
            "num_candidates": e.num_candidates,
            "seed": e.seed,
        } | self._unseen(k)
        sources = self._sources(k, samples)
        inputs = {"real": self.shared["real"]} | self._labels() | sources
        stages: Stages = {}
        if self.refitted:
            stages["rescore"] = self._rescore(k, pool, inputs)
        # How often the probe is refitted shows in the inputs: until it is, loops have their stages in common.
        config = pool | {"selection": e.selection.model_dump(mode="json", exclude={"refresh"}), "budget": e.budget}
        inputs = inputs | {"score": self.shared["score"]} | self.rescored
        stages["select"] = Stage("select", select, config, inputs, generation=k)
        if isinstance(e.correction, SelfCorrection):
            config = self._scores() | {"strength": e.correction.strength}
            inputs = self._scoring() | {"select": stages["select"], "centres": self.shared["centres"]} | sources
            stages["correct"] = Stage("correct", correct, config, inputs, self.on_gpu, generation=k)
        return stages

    def _rescore(self, k: int, pool: dict[str, Any], inputs: Stages) -> Stage:
        """The candidates of generation k that the refitted probe has not scored for an earlier one."""
        config = pool | {"shard_size": 4 * self.e.generation.shard_size, "latents": LATENT in self.e.selection.needs}
        inputs = inputs | self.refitted | self.rescored
        stage = Stage("rescore", rescore, config, inputs, self.streaming, generation=k, place="here")
        self.rescored[f"rescore/{k}"] = stage
        return stage

    def refresh(self, k: int, model: Stage) -> Stages:
        """The probe that scores candidates from now on, where it is time to refit it on the model of generation k."""
        if not self.e.refresh or k % self.e.refresh or k == self.e.generations:
            return {}
        self.refitted, self.rescored = {"encoder": model, "probe": self._probe(k, model)}, {}
        return {"probe": self.refitted["probe"]}

    def model(self, k: int, stages: Stages, samples: list[Stage], previous: Stage) -> Stages:
        """The model of generation k >= 1 from its training set, and what a correction makes of it."""
        init = {"previous": previous, "initial": self.shared["train"], "scratch": None}[self.e.training.init]
        inputs = {"real": self.shared["real"]} | self._conditions() | self._trained_on(k, stages, samples)
        made = {"train": self._train(k, inputs | ({"init": init} if init else {}))}
        correction = self.e.correction
        if isinstance(correction, SelfTrained):
            count = correction.num_samples or self.e.budget
            config = self._generation(k, "auxiliary") | {"num_latents": 0}
            made["auxiliary_samples"] = Stage(
                "generate",
                generate,
                config,
                self._scoring() | {"model": made["train"]},
                self.streaming,
                version=SCORES_VERSION,
                generation=k,
                place="here",
                count=count,
                work=count * self.e.generation.num_inference_steps,
            )
            inputs = {"real": self.shared["real"], "training_set": made["auxiliary_samples"], "init": made["train"]}
            made["auxiliary"] = self._train(k, inputs | self._conditions(), auxiliary=correction)
        if isinstance(correction, Neon):
            inputs = {"model": made["train"], "auxiliary": made["auxiliary"]}
            made["extrapolate"] = Stage("extrapolate", extrapolate, {"weight": correction.weight}, inputs, generation=k)
        return made

    def _train(self, k: int, inputs: Stages, model: Model | None = None, auxiliary: SelfTrained | None = None) -> Stage:
        """Training generation k on whatever the inputs say; generation 0 trains on R."""
        training, budget, epochs = self.e.training, self.e.budget, self.e.training.epochs
        settings = self._training(k)
        if auxiliary:
            budget, epochs = auxiliary.num_samples or budget, auxiliary.epochs or epochs
            settings["epochs"] = epochs
        runtime = {n: getattr(training, n) for n in ("num_workers", "use_gpu", "checkpoint_every", "resident_bytes")}
        config = {
            "model": (model or self.e.model).keyed(),
            "image_size": self.e.data.image_size,
            "training": settings,
            "budget": budget if k else None,
            "seed": seed_for(self.e.seed, "train auxiliary" if auxiliary else "train", k),
        }
        if not k and not model:  # one that is to find the labels sees all images
            config |= self._unseen(0)
        images = epochs * budget if k else training.initial_epochs * (self.e.data.num_real or 0)
        place: Place = "here" if training.num_workers else "free"
        return Stage("train", train, config, inputs, runtime, generation=k, place=place, work=images or None)

    def _training(self, k: int) -> dict[str, Any]:
        """The training settings that matter for generation k: those of other generations do not change its key."""
        settings = self.e.training.keyed()
        fine_tune = settings.pop("fine_tune_learning_rate")
        if k and fine_tune is not None:
            settings["learning_rate"] = fine_tune
        unused = ("epochs", "equal_steps", "init") if k == 0 else ("initial_epochs", "init")
        return {n: v for n, v in settings.items() if n not in unused}

    def _sources(self, k: int, samples: list[Stage]) -> Stages:
        """The samples that generation k may choose from."""
        return {f"samples/{j}": samples[j] for j in self.e.scenario.origins(k)}

    def _trained_on(self, k: int, stages: Stages, samples: list[Stage]) -> Stages:
        if "correct" in stages:
            return {"training_set": stages["correct"]}
        return {"select": stages["select"]} | self._sources(k, samples)

    def _generation(self, k: int, purpose: str) -> dict[str, Any]:
        absent = self.e.data.absent(k)
        config = {
            "generation": self.e.generation.keyed(),
            "generation_index": k,
            "seed": seed_for(self.e.seed, purpose, k),
        }
        return self._scores() | config | ({"absent": absent} if absent else {})

    def generate(self, k: int, model: Stage, auxiliary: Stage | None = None) -> Stage:
        """The samples of generation k; only the last one's are not candidates of a next."""
        e = self.e
        candidates = e.num_candidates if k < e.generations else 0
        config, inputs = self._generation(k, "generate"), self._scoring() | {"model": model}
        if isinstance(e.correction, Sims) and auxiliary:
            config["extrapolation"] = e.correction.weight
            inputs["auxiliary"] = auxiliary
        count = max(candidates, e.metrics.num_samples)
        return Stage(
            "generate",
            generate,
            config,
            inputs,
            self.streaming,
            version=SCORES_VERSION,
            generation=k,
            place="here",
            count=count,
            work=count * e.generation.num_inference_steps,
        )

    def evaluate(self, k: int, generated: Stage, samples: list[Stage], stages: Stages | None = None) -> Stage:
        """The metrics of generation k, made of the earlier `samples`."""
        e = self.e
        config = {"metrics": e.metrics.keyed(), "generation": k, "budget": e.budget, "seed": e.seed}
        if e.data.appear:
            config["new_classes"] = sorted(e.data.appear)
        inputs = self._scoring() | {"score": self.shared["score"], "generated": generated}
        inputs["first"] = samples[0]
        if stages:
            inputs |= {"select": stages["select"]} | self._trained_on(k, stages, samples)
        return Stage("evaluate", evaluate, config, inputs, version=METRICS_VERSION, generation=k)
