"""What a check of some loops has to say, and how checks look at a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Severity = Literal["warning", "note", "ok"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for, and what was found."""

    severity: Severity
    title: str
    sentence: str  # with the numbers
    remedy: str = ""  # what to do; "" where there is nothing to do


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Warnings, then notes, then what is well."""
    order: dict[Severity, int] = {"warning": 0, "note": 1, "ok": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def highest(frame: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The row with the highest value, NaN aside."""
    return frame.iloc[int(np.nanargmax(values.to_numpy(float)))]


def at_start(frame: pd.DataFrame) -> pd.DataFrame:
    """Generation 0 of every loop."""
    return frame[frame["generation"] == 0]


def at_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The last finished generation of every loop."""
    return frame.loc[frame.groupby("run")["generation"].idxmax()]


def and_more(count: int, shown: int) -> str:
    """How many are left out of a sentence, if any are."""
    return f" and {count - shown} more" if count > shown else ""
