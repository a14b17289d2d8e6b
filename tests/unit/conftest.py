"""Frames made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from autophagy.common.records import GenerationRecord
from autophagy.config import override, parse
from autophagy.runs.frames import RecordedLoop, loops_frame


@pytest.fixture(scope="session")
def frame_of(tiny_values) -> Callable[..., pd.DataFrame]:
    """A frame from curves: {(arm, seed): {metric: values by generation}}.

    `settings` gives the fields of an arm, `states` the state of a loop, `asked` the generations that all were to reach.
    """

    def build(
        curves: Mapping[tuple[str, int], Mapping[str, Sequence[float]]],
        settings: Mapping[str, Sequence[str]] | None = None,
        states: Mapping[tuple[str, int], str] | None = None,
        asked: int | None = None,
        seconds: float = 10.0,
    ) -> pd.DataFrame:
        longest = max(len(values) for metrics in curves.values() for values in metrics.values()) - 1
        loops = []
        for (arm, seed), metrics in curves.items():
            chosen = (settings or {}).get(arm, [f"selection.strategy={'random' if arm == 'random' else 'lsf'}"])
            generations = longest if asked is None else asked
            name = f"{arm}-seed{seed}"
            values = override(tiny_values, [f"seed={seed}", f"generations={generations}", *chosen]) | {"name": name}
            count = len(next(iter(metrics.values())))
            rows = [{key: values[k] for key, values in metrics.items()} for k in range(count)]
            records = [GenerationRecord(k, row, {}, {"train": seconds}) for k, row in enumerate(rows)]
            state = (states or {}).get((arm, seed))
            loops.append(RecordedLoop(name, parse(values), records, "made_up", arm, {"strategy": arm}, state))
        return loops_frame(loops)

    return build
