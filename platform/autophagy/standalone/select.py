"""Choose rows of others' features."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from autophagy.common.errors import UserError
from autophagy.common.samples import (
    COLUMNS,
    CONFIDENCE,
    GENERATION,
    IS_REAL,
    LABEL,
    PIXELS,
    REAL,
    SAMPLE_ID,
    UNLABELLED,
)
from autophagy.config import override
from autophagy.selection import Candidates, Selector, make_selector
from autophagy.standalone.columns import VECTORS, read_columns

OUTPUTS = (".parquet", ".csv", ".npy")
_SYNTHETIC = 0  # origin generation of candidates that say nothing about it
_SHOWN_CLASSES = 20


def parse_selector(strategy: str, settings: Sequence[str]) -> Selector:
    """The selector of this name, with settings such as `per_class=true`.

    Raises:
        UserError: unknown strategy or field, or a value out of range.
    """
    return make_selector({**override({}, settings), "strategy": strategy})


def parse_keep(text: str) -> int | float:
    """How many to keep: a whole number >= 1 is one, anything else a share in (0, 1] (`1` is one row, `1.0` all).

    Raises:
        UserError: no number, or out of range.
    """
    whole = text.isascii() and text.isdigit()
    with suppress(ValueError):
        keep = int(text) if whole else float(text)
        if keep >= 1 if whole else 0 < keep <= 1:
            return keep
    raise UserError(f"--keep {text}: give a share in (0, 1] such as 0.2, or a whole number such as 1000")


def check_output(path: str, endings: Sequence[str], inputs: Sequence[str | None]) -> None:
    """Raise UserError unless a file can be written there, of one of these endings, that is none of the inputs."""
    place = Path(path).expanduser()
    if place.suffix.lower() not in endings:
        raise UserError(f"--out {path}: cannot tell what to write; give a name that ends in {', '.join(endings)}")
    if place.is_dir() or not place.parent.is_dir():
        raise UserError(f"--out {path}: is a folder, or in a folder that is not there; correct the path")
    if place.resolve() in [Path(given).expanduser().resolve() for given in inputs if given]:
        raise UserError(f"--out {path}: is read from; give another name")


@contextmanager
def writing(path: str) -> Iterator[Path]:
    """The place that an output is written to; a UserError of one line where it cannot be."""
    try:
        yield Path(path).expanduser()
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror or error}); give another place") from error


def read_candidates(path: str, needs: Collection[str], *, origin: int = _SYNTHETIC) -> Candidates:
    """Candidates from a file, with defaults for what it does not say.

    Args:
        path: See `read_columns`.
        needs: Columns to read beside sample_id, generation, is_real and label.
        origin: Origin generation of all rows, where the file has neither generation nor is_real.

    Raises:
        UserError: see `read_columns`; or two rows of the same sample_id.
    """
    wanted = {*needs, SAMPLE_ID, GENERATION, LABEL, IS_REAL}
    columns = read_columns(path, wanted)
    n = len(next(iter(columns.values())))
    is_real = columns.pop(IS_REAL, None)
    told: dict[str, Any] = {
        SAMPLE_ID: np.arange(n),
        GENERATION: np.full(n, origin) if is_real is None else np.where(is_real, REAL, _SYNTHETIC),
        LABEL: np.full(n, UNLABELLED),
        **{name: column for name, column in columns.items() if name in wanted},
    }
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted
        told |= {name: told[name].astype(COLUMNS[name].dtype) for name in told.keys() - {PIXELS}}
    if len(np.unique(told[SAMPLE_ID])) < n:
        raise UserError(f"{path}: sample_id repeats; give every row its own, or leave the column out")
    return Candidates(**told)


def with_reference(candidates: Candidates, reference: Candidates, needs: Collection[str]) -> Candidates:
    """The candidates beside the real set they are compared with.

    Raises:
        UserError: a vector that is needed has two widths.
    """
    for name in sorted(VECTORS & set(needs)):
        ours, theirs = getattr(candidates, name), getattr(reference, name)
        if ours is not None and (theirs is None or ours.shape[1] != theirs.shape[1]):
            width = 0 if theirs is None else theirs.shape[1]
            raise UserError(
                f"--reference: {name} of width {width}, not {ours.shape[1]} as the candidates; use one space"
            )
    return replace(candidates, reference=reference)


def num_unplaced(candidates: Candidates, needs: Collection[str]) -> int:
    """How many candidates lack a finite value that is needed; selectors put them last."""
    lacking = np.zeros(len(candidates), dtype=bool)
    for name in set(needs) & (VECTORS | {CONFIDENCE}):
        column = getattr(candidates, name)
        if column is not None:
            lacking |= ~np.isfinite(column.reshape(len(candidates), -1)).all(axis=1)
    return int(lacking.sum())


def kept_table(candidates: Candidates, selector: Selector, keep: int | float, seed: int) -> pa.Table:
    """Select, with `np.random.default_rng(seed)` as the only randomness.

    Args:
        candidates: n rows.
        selector: Ranks them.
        keep: A number (int) or a share of n (float), see `parse_keep`; at least one is kept.
        seed: Of the generator.

    Returns:
        A row for each that is kept, the most preferred first: index (its row in the input, from 0), sample_id,
        and score where the strategy gives one.

    Raises:
        UserError: the strategy needs what the candidates have not.
    """
    num_keep = keep if isinstance(keep, int) else max(1, round(keep * len(candidates)))
    kept = selector.select(candidates, num_keep, np.random.default_rng(seed))
    columns = {"index": kept, SAMPLE_ID: candidates.sample_id[kept]}
    scores = selector.scores(candidates)
    return pa.table(columns if scores is None else columns | {"score": scores[kept]})


def write_kept(table: pa.Table, path: str) -> None:
    """Write a `kept_table`: all of it to Parquet or CSV, the indices alone to `.npy`, int64 [num_kept].

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path) as place:
        suffix = place.suffix.lower()
        if suffix == ".parquet":
            pyarrow.parquet.write_table(table, place)
        elif suffix == ".csv":
            pyarrow.csv.write_csv(table, place)
        else:
            with place.open("wb") as stream:  # np.save would add .npy to a name in .NPY
                np.save(stream, table["index"].to_numpy())


def describe_kept(candidates: Candidates, kept: np.ndarray) -> str:
    """What is known of the rows kept, e.g. "200 of 1000, 12.0% real (10.0% of all), classes 0: 20, 1: 180"."""
    parts = [f"{len(kept)} of {len(candidates)}"]
    if candidates.is_real.any():
        share, of_all = candidates.is_real[kept].mean(), candidates.is_real.mean()
        parts.append(f"{share:.1%} real ({of_all:.1%} of all)")
    classes = np.unique(candidates.label[candidates.label >= 0])
    if len(classes):
        counts = np.array([(candidates.label[kept] == label).sum() for label in classes])
        each = ", ".join(f"{label}: {count}" for label, count in zip(classes, counts, strict=True))
        parts.append(f"classes {each}" if len(classes) <= _SHOWN_CLASSES else _spread(counts))
    return ", ".join(parts)


def _spread(counts: np.ndarray) -> str:
    return f"{len(counts)} classes of {counts.min()} to {counts.max()}"
