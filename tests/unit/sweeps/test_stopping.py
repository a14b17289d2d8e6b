"""The rules that end hopeless loops: what they see, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autophagy.config.sweep import Stopping
from autophagy.sweeps.stopping import falling, why_stop


def history(fid=None, entropy=None, confidence=None) -> list[dict[str, float]]:
    columns = {"fid": fid, "entropy_synthetic": entropy, "confidence": confidence}
    given = {name: values for name, values in columns.items() if values is not None}
    return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]


class TestFalling:
    @pytest.mark.parametrize("n", [2, 3, 5, 8])
    def test_a_steady_fall_is_one_order_in_n_factorial(self, n):
        assert falling(range(n, 0, -1)) == pytest.approx(1 / math.factorial(n))
        assert falling(range(n)) == 1.0

    def test_ties_count_as_a_rise(self):
        assert falling([3, 3, 1]) == falling([3, 4, 1]) > falling([4, 3, 1])

    def test_missing_values_are_no_fall(self):
        assert falling([3, math.nan, 1]) == falling([3]) == 1.0


class TestWhyStop:
    def test_collapse_is_named_with_its_numbers(self):
        rule = Stopping(collapse_factor=3)
        assert why_stop(rule, 9, history(fid=[10, 30])) is None
        assert why_stop(rule, 9, history(fid=[10, 31])) == "collapsed: FID 31 is over 3 times 10 of generation 0"

    def test_nothing_is_stopped_at_its_end_or_without_rules(self):
        assert why_stop(Stopping(collapse_factor=3), 1, history(fid=[10, 31])) is None
        assert why_stop(Stopping(), 9, history(fid=[10, 1000])) is None

    def test_an_undefined_fid_stops_nothing(self):
        assert why_stop(Stopping(collapse_factor=3), 9, history(fid=[10, math.nan])) is None
        assert why_stop(Stopping(collapse_factor=3), 9, history(entropy=[1, 2])) is None

    def test_a_warning_takes_both_signs(self):
        rule, fall = Stopping(false_alarm_rate=0.05), [9, 8, 7, 6, 5]
        assert why_stop(rule, 5, history(entropy=fall, confidence=fall)).startswith("early warning: ")
        assert why_stop(rule, 5, history(entropy=fall, confidence=fall[::-1])) is None

    @pytest.mark.parametrize("rate", [0.05, pytest.param(0.3, marks=pytest.mark.slow)])
    def test_false_alarms_are_as_rare_as_stated(self, rate):
        """2,000 loops without a trend, of 8 generations, entropy and confidence the same series: the worst case."""
        rng, rule, generations = np.random.default_rng(0), Stopping(false_alarm_rate=rate), 8
        alarms = 0
        for _ in range(2000):
            values = rng.standard_normal(generations + 1)
            loop = history(entropy=values, confidence=values)
            alarms += any(why_stop(rule, generations, loop[:k]) for k in range(1, generations + 2))
        assert 0 < alarms / 2000 <= rate
