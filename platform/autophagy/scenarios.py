"""Which samples may be trained on in generation k: six scenarios, as ids, for real loops and theory alike.

R is the fixed real set, S_j the images of generation j that may be chosen later, C their number, C_k the
candidates of generation k. Names and definitions follow arXiv 2307.01850 (replace, augment, mixtures with
fresh or fixed real data), 2404.01413 (accumulate) and 2410.16713 (accumulate_subsample).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny

from autophagy.common.section import Section, make_choice


@dataclass(frozen=True, eq=False)
class Pool:
    """Ids of every sample there is when generation k = len(synthetic) chooses what to train on."""

    real: np.ndarray  # int64 [N_real], the fixed real set R
    fresh: np.ndarray  # int64 [N_fresh], real images outside R, to be used at most once
    synthetic: tuple[np.ndarray, ...]  # int64 [C] each: S_0 .. S_{k-1}, in sample order


class Scenario(Section, ABC):
    """Says what the candidates of a generation are. Its fields are its configuration; `kind` names it."""

    kind: str

    def candidates(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Ids of the candidates of generation k = len(pool.synthetic), int64, sorted, no duplicates.

        Raises:
            ValueError: k = 0 (generation 0 trains on R), or not enough fresh images.
        """
        if not pool.synthetic:
            raise ValueError("generation 0 trains on the real set: there is nothing to choose from")
        return np.sort(np.concatenate(self._parts(pool, rng)))

    @abstractmethod
    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        """Disjoint arrays of ids that make up the candidates."""

    def num_keep(self, num_candidates: int, budget: int) -> int:
        """How many of `num_candidates` candidates are trained on with a budget of `budget` images."""
        return min(budget, num_candidates)

    def origins(self, generation: int) -> tuple[int, ...]:
        """Generations whose samples may be candidates of `generation` >= 1, oldest first."""
        return (generation - 1,)

    def num_fresh(self, generations: int, num_candidates: int) -> int:
        """Fresh real images used by generations 1 .. `generations` with `num_candidates` candidates each."""
        return 0


class Replace(Scenario):
    """C_k = S_{k-1}: the fully synthetic loop."""

    kind: Literal["replace"] = "replace"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return [pool.synthetic[-1]]


class Augment(Scenario):
    """C_k = R + S_{k-1}."""

    kind: Literal["augment"] = "augment"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return [pool.real, pool.synthetic[-1]]


class _Mix(Scenario):
    """C candidates, a share of them real: what the two mixtures have in common."""

    real_fraction: float = Field(default=0.3, gt=0, lt=1)  # share of real images among the candidates

    def num_real(self, num_candidates: int) -> int:
        """Real images among `num_candidates` candidates."""
        return round(self.real_fraction * num_candidates)


class FreshMix(_Mix):
    """C_k = real images never used before, and the first of S_{k-1}, C in all."""

    kind: Literal["fresh_mix"] = "fresh_mix"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        synthetic = pool.synthetic[-1]
        count, generation = self.num_real(synthetic.size), len(pool.synthetic)
        if generation * count > pool.fresh.size:
            raise ValueError(f"generation {generation} needs {generation * count} fresh images, not {pool.fresh.size}")
        fresh = pool.fresh[(generation - 1) * count : generation * count]
        return [fresh, synthetic[: synthetic.size - count]]

    def num_fresh(self, generations: int, num_candidates: int) -> int:
        return generations * self.num_real(num_candidates)


class ConstantMix(_Mix):
    """C_k = images drawn from R (all of R if the share is larger), and the first of S_{k-1}, C in all."""

    kind: Literal["constant_mix"] = "constant_mix"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        synthetic = pool.synthetic[-1]
        count = min(self.num_real(synthetic.size), pool.real.size)
        real = rng.choice(pool.real, size=count, replace=False)
        return [real, synthetic[: synthetic.size - count]]


class AccumulateSubsample(Scenario):
    """C_k = R + S_0 + ... + S_{k-1}, of which the budget is kept."""

    kind: Literal["accumulate_subsample"] = "accumulate_subsample"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return [pool.real, *pool.synthetic]

    def origins(self, generation: int) -> tuple[int, ...]:
        return tuple(range(generation))


class Accumulate(Scenario):
    """C_k = R + S_0 + ... + S_{k-1}, trained on whole: the cost of a generation grows with k."""

    kind: Literal["accumulate"] = "accumulate"

    def _parts(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return [pool.real, *pool.synthetic]

    def num_keep(self, num_candidates: int, budget: int) -> int:
        return num_candidates

    def origins(self, generation: int) -> tuple[int, ...]:
        return tuple(range(generation))


SCENARIOS: tuple[type[Scenario], ...] = (Replace, Augment, FreshMix, ConstantMix, Accumulate, AccumulateSubsample)


def make_scenario(config: Mapping[str, Any] | Scenario) -> Scenario:
    """The scenario that `{"kind": name, field: value, ...}` describes.

    Raises:
        UserError: unknown kind, unknown field, or a value out of range; one line.
    """
    return make_choice(SCENARIOS, "scenario", "kind", config)


AnyScenario = Annotated[SerializeAsAny[Scenario], BeforeValidator(make_scenario)]


def num_candidates(budget: int, keep_ratio: float) -> int:
    """C = ceil(budget / keep_ratio): images each generation makes for the next to choose from.

    Raises:
        ValueError: `budget` < 1, or `keep_ratio` outside (0, 1].
    """
    if budget < 1 or not 0 < keep_ratio <= 1:
        raise ValueError(f"budget must be >= 1 and keep_ratio in (0, 1], got {budget} and {keep_ratio}")
    quotient = budget / keep_ratio
    nearest = round(quotient)
    # 21 / 0.7 is 30.000000000000004 in floating point, and must be 30.
    return nearest if math.isclose(quotient, nearest, rel_tol=1e-12, abs_tol=1e-9) else math.ceil(quotient)
