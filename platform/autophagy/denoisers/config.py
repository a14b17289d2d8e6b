"""The sections `training` and `generation` of an experiment; `model` is in `base`, and a file for each architecture."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from autophagy.common.section import RUNTIME, Section, since


class _Computed(Section):
    """What a denoiser computes, somewhere and in some precision."""

    # auto: bfloat16 (autocast; weights stay float32) on a GPU; float32 on a CPU, also on one that has bfloat16.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    use_gpu: Annotated[bool, RUNTIME] = False

    def settled(self) -> Self:
        """The same with what `auto` stands for: it changes numbers, and may not hang on the machine that is at hand."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": "bfloat16" if self.use_gpu else "float32"})


class Training(_Computed):
    """How a generation is trained. Every generation after 0 takes the same number of optimisation steps."""

    initial_epochs: Annotated[int, Field(ge=1)] = 60  # generation 0, over the real set
    epochs: Annotated[int, Field(ge=1)] = 3  # later generations, over `budget` images
    equal_steps: bool = True  # epochs count over `budget` images even where the training set is larger (accumulate)
    init: Literal["previous", "scratch", "initial"] = "previous"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3  # of AdamW
    fine_tune_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None  # generations >= 1; null: the same
    global_batch_size: Annotated[int, Field(ge=1)] = 128
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999  # of the weights that generate
    condition_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of labels replaced by the null condition
    num_workers: Annotated[int, Field(ge=0), RUNTIME] = 1  # Ray Train workers; 0: in the loop's own process
    checkpoint_every: Annotated[int, Field(ge=1), RUNTIME] = 500  # optimisation steps
    resident_bytes: Annotated[int, Field(ge=0), RUNTIME] = 4 << 30  # training sets up to this stay on the device


class Generation(_Computed):
    """How a trained model is sampled."""

    sampler: Literal["ddim", "ddpm"] = "ddim"
    num_inference_steps: Annotated[int, Field(ge=1, le=10_000)] = 25
    guidance_scale: Annotated[float, Field(ge=0)] | None = None  # null: none; 1: none, at twice the cost
    shard_size: Annotated[int, Field(ge=1, le=4096)] = 128  # images per unit of work; part of the numbers
    class_shares: Annotated[Literal["real", "balanced"], since("real")] = "real"  # of the samples: those of R, or equal
    num_actors: Annotated[int, Field(ge=0), RUNTIME] = 1  # sampler actors; 0: tasks in pooled worker processes
