"""The simulation of many loops: limits that are known without it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def queueing():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import queueing

        yield queueing
        sys.modules.pop("queueing")


def test_a_loop_alone_takes_what_its_visits_take(queueing):
    cycle = [queueing.Visit(5.0), queueing.Visit(3.0, "server"), queueing.Visit(2.0, "server")]
    steady = queueing.simulate(1, cycle, {"server": queueing.Station(1)}, seed=0)
    assert steady.cycle == pytest.approx(10, rel=0.01)
    assert steady.utilisation["server"] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("servers", "expected"), [(1, 40.0), (2, 20.0), (8, 10.0)])
def test_many_loops_take_what_a_full_station_takes_for_all_of_them(queueing, servers, expected):
    cycle = [queueing.Visit(9.0), queueing.Visit(1.0, "server")]
    steady = queueing.simulate(40, cycle, {"server": queueing.Station(servers)}, seed=0)
    assert steady.cycle == pytest.approx(expected, rel=0.03)
    assert steady.utilisation["server"] == pytest.approx(40 / expected / servers, rel=0.03)


def test_a_slower_station_hides_a_faster_one(queueing):
    cycle = [queueing.Visit(1.0, "slow"), queueing.Visit(0.5, "fast"), queueing.Visit(1.0)]
    steady = queueing.simulate(20, cycle, {name: queueing.Station(1) for name in ("slow", "fast")}, seed=0)
    assert steady.cycle == pytest.approx(20, rel=0.03)
    assert steady.utilisation["slow"] == pytest.approx(1, rel=0.03)
    assert steady.utilisation["fast"] == pytest.approx(0.5, rel=0.03)


def test_standing_load_takes_its_share_and_at_last_all(queueing):
    cycle = [queueing.Visit(1.0, "server")]
    half = queueing.simulate(10, cycle, {"server": queueing.Station(1, 0.5)}, seed=0)
    assert half.cycle == pytest.approx(20, rel=0.03)
    assert half.utilisation["server"] == pytest.approx(1, rel=0.01)
    assert queueing.simulate(10, cycle, {"server": queueing.Station(1, 1.0)}, seed=0).cycle == math.inf


def test_what_varies_keeps_its_mean(queueing):
    steady = queueing.simulate(50, [queueing.Visit(10.0, varies=True)], {}, seed=0)
    assert steady.cycle == pytest.approx(10, rel=0.05)


def test_loops_that_queue_by_chance_wait_less_than_when_all_is_full(queueing):
    cycle = [queueing.Visit(20.0, varies=True), queueing.Visit(1.0, "server")]
    station = queueing.Station(1)
    steady = queueing.simulate(15, cycle, {"server": station}, seed=0)
    assert queueing.offered(15, cycle, "server", station) == pytest.approx(15 / 21)
    assert 21 < steady.cycle < 25
    assert steady.utilisation["server"] == pytest.approx(15 / steady.cycle, rel=0.05)
