"""A loop that was run, opened again: its records, and the images, scores and latents that its stages keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from autophagy.common.samples import IMAGE, LABEL, LATENT, REAL, SAMPLE_ID
from autophagy.data.tables import to_numpy
from autophagy.runs.folder import read_records
from autophagy.stages.payloads import IMAGES, LATENTS, real_images
from autophagy.store import Artifact, StageStore


class StoredLoop:
    """A run in a store: its records, and its stages, opened when they are asked for."""

    def __init__(self, name: str, store: StageStore) -> None:
        self.name, self.store = name, store
        self.records = read_records(store, name)
        self._opened: dict[tuple[str, int], Artifact | None] = {}

    @property
    def generations(self) -> range:
        """The generations that are finished."""
        return range(len(self.records))

    def stage(self, name: str, generation: int = 0) -> Artifact | None:
        """A stage of a generation; None if the loop has none of this name, or the store has lost it."""
        place = (name, generation)
        if place not in self._opened:
            key = self.records[generation].stages.get(name)
            self._opened[place] = self.store.open(name, key) if key else None
        return self._opened[place]

    def needed(self, name: str, generation: int = 0) -> Artifact:
        """A stage that must be there.

        Raises:
            FileNotFoundError: it is not.
        """
        found = self.stage(name, generation)
        if found is None:
            raise FileNotFoundError(f"{self.name}: the store has no {name} stage of generation {generation}")
        return found

    def scores(self, generation: int, columns: Sequence[str], count: int) -> pa.Table:
        """Columns of the first `count` samples of a generation, of held-out real images for REAL."""
        artifact = self.needed("score") if generation == REAL else self.needed("generate", generation)
        part = "held_out" if generation == REAL else IMAGES
        return _first_rows(artifact, part, columns, count)

    def latents(self, generation: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Latents float32 [n, L] of the first samples, n <= count, and their labels int64 [n].

        Raises:
            FileNotFoundError: the loop has no probe, and so no latents.
        """
        real = generation == REAL
        artifact = self.needed("score") if real else self.needed("generate", generation)
        table = _first_rows(artifact, f"{LATENTS}/held_out" if real else LATENTS, [LATENT], count)
        label = to_numpy(self.scores(generation, [LABEL], table.num_rows), LABEL)
        return to_numpy(table, LATENT).astype(np.float32), label

    def images(self, generation: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first images uint8 [n, H, W, C], their labels and ids int64 [n]; of the real training set for REAL."""
        if generation == REAL:
            return real_images({"real": self.needed("real")}, "train", count=count)
        table = _first_rows(self.needed("generate", generation), IMAGES, [LABEL, IMAGE], count)
        return to_numpy(table, IMAGE), to_numpy(table, LABEL), to_numpy(table, SAMPLE_ID)


def _first_rows(artifact: Artifact, part: str, columns: Sequence[str], count: int) -> pa.Table:
    """The rows with the lowest sample ids; all of them if there are fewer."""
    table = artifact.read_table(part, columns=[SAMPLE_ID, *columns])
    return table.take(pc.sort_indices(table[SAMPLE_ID])[:count])
