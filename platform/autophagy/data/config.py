"""The section `data` of an experiment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autophagy.common.section import Section, since

CLUSTERED = ("ssc_omp", "kmeans")  # label sources that look at no label
Class = Annotated[int, Field(ge=0)]  # label
Schedule = dict[Class, Annotated[int, Field(ge=1)]]  # class -> generation


class Data(Section):
    """Real images."""

    source: str  # digits | fashion_mnist | idx:DIR | folder:DIR | npz:FILE | parquet:URI | hf:NAME
    image_size: Annotated[int, Field(ge=4, le=1024)] = 32  # pixels, square
    num_real: Annotated[int, Field(ge=2)] | None = None  # size of the fixed real set R; null: all that is left
    num_held_out: Annotated[int, Field(ge=2)] | None = None  # real reference of every metric; null: a quarter
    # Where labels come from. oracle: the data. ssc_omp, kmeans: clusters of latents of a denoiser trained without
    # labels. predicted: the feature classifier. shuffled: the data, but the probe is told wrong ones (a control).
    labels: Literal["oracle", "ssc_omp", "kmeans", "predicted", "shuffled"] = "oracle"
    num_clusters: Annotated[int, Field(ge=2, le=10_000)] | None = None  # null: as many as the data have classes
    cluster_timestep: Annotated[int, Field(ge=0)] = 100  # of the latents that are clustered
    # Dynamic classes: class -> generation. Samples are asked for only of classes with appear <= generation < vanish.
    # Before `appear` no real image of the class is to be had either; what there is stays a candidate after `vanish`.
    appear: Annotated[Schedule, since({})] = Field(default_factory=dict)
    vanish: Annotated[Schedule, since({})] = Field(default_factory=dict)

    def unseen(self, generation: int) -> list[int]:
        """Classes that have not appeared by a generation, sorted."""
        return sorted(c for c, first in self.appear.items() if first > generation)

    def absent(self, generation: int) -> list[int]:
        """Classes that the samples of a generation are not asked for, sorted: not yet there, or gone."""
        return sorted({*self.unseen(generation), *(c for c, end in self.vanish.items() if end <= generation)})
