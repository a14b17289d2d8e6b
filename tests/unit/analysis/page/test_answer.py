"""The first sentence of a report says what the paired tests carry, and no more."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from page.answer import against_random, answer_table, headline, readable

SEEDS = range(8)


def told(frame: pd.DataFrame) -> list[str]:
    return headline(frame, *against_random(frame))


def ends(arms: dict[str, list[float]]) -> dict:
    """Curves whose FID starts at 20 and ends at the given values, by arm and seed."""
    return {
        (arm, seed): {"fid": [20.0, value], "recall": [0.9, 0.5]}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    }


RANDOM = [100.0 + seed for seed in SEEDS]
BETTER = [value - 40 - seed for seed, value in enumerate(RANDOM)]
WORSE = [value + 40 + seed for seed, value in enumerate(RANDOM)]
NOISE = [value + (-1) ** seed * 30 for seed, value in enumerate(RANDOM)]


def test_a_decisive_difference_is_the_headline(frame_of):
    first, numbers, *rest = told(frame_of(ends({"random": RANDOM, "lsf": BETTER})))
    assert first == "lsf ends at a lower FID than random selection at the same cost."
    assert "lsf ends at 60 where random ends at 104" in numbers
    assert "8 seeds" in numbers
    assert rest == ["In random, FID grows from 20 to 104 in 1 generation."]


def test_several_arms_are_sorted_into_better_worse_and_not_decisive(frame_of):
    arms = {"random": RANDOM, "good": BETTER, "bad": WORSE, "noise": NOISE}
    sentences = " ".join(told(frame_of(ends(arms))))
    assert sentences.startswith("good ends at a lower FID")
    assert "Worse than random selection: bad." in sentences
    assert "Not decisive either way: noise." in sentences


def test_noise_and_single_seeds_are_not_decisive(frame_of):
    for values in (NOISE, BETTER[:1]):
        first, *rest = told(frame_of(ends({"random": RANDOM[: len(values)], "lsf": values})))
        assert first.startswith("Not decisive")
    assert "single seed, which decides nothing" in rest[0]


def test_worse_arms_alone_are_no_success(frame_of):
    first, *rest = told(frame_of(ends({"random": RANDOM, "lsf": WORSE})))
    assert first == "No arm ends at a lower FID than random selection at the same cost."
    assert "Worse than random selection: lsf." in rest


def test_without_a_baseline_the_reason_stands_there(frame_of):
    alone = told(frame_of(ends({"lsf": BETTER})))
    assert alone == [
        "In lsf, FID grows from 20 to 60 in 1 generation.",
        "There is one arm, and nothing to compare it with.",
    ]
    no_random = {"lsf": ["selection.strategy=lsf"], "greedy": ["selection.strategy=greedy"]}
    assert "No arm selects at random" in told(frame_of(ends({"lsf": BETTER, "greedy": WORSE}), no_random))[1]
    twice = {"random": ["selection.strategy=random"], "again": ["selection.strategy=random"]}
    two_baselines = told(frame_of(ends({"random": RANDOM, "again": RANDOM, "lsf": BETTER}), twice))
    assert "exactly one arm with random selection" in two_baselines[1]


def test_the_table_lists_arms_from_the_best_with_their_verdicts(frame_of):
    frame = frame_of(ends({"random": RANDOM, "bad": WORSE, "good": BETTER}))
    table = answer_table(frame, *against_random(frame))
    assert [row["arm"] for row in table["rows"]] == ["good", "random", "bad"]
    verdicts = [row["cells"][table["columns"].index("verdict") - 1]["value"] for row in table["rows"]]
    assert verdicts == ["better", "baseline", "worse"]
    assert [row["baseline"] for row in table["rows"]] == [False, True, False]
    assert "2 comparisons" in table["caption"]
    assert all(len(row["cells"]) == len(table["columns"]) - 1 for row in table["rows"])


def test_loops_that_were_stopped_or_left_out_are_marked(frame_of):
    curves = ends({"random": RANDOM, "lsf": BETTER})
    frame = frame_of(curves, states={("lsf", 0): "stopped", ("lsf", 1): "failed"}, asked=3)
    frame.loc[frame["state"] == "running", "state"] = "stopped"
    row = answer_table(frame, *against_random(frame))["rows"][0]
    assert row["mark"] == "7 stopped early"
    assert row["cells"][-1] == {"value": "7", "small": "1 left out", "verdict": ""}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1077.1, "1,077"),
        (53.386, "53.4"),
        (0.0824, "0.082"),
        (-99.7, "\N{MINUS SIGN}99.7"),
        (0, "0"),
        (math.nan, "\N{EN DASH}"),
    ],
)
def test_numbers_are_written_as_people_would(value, text):
    assert readable(value) == text
