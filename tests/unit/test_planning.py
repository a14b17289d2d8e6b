"""The dry run of loops and sweeps: what is shared, what is done, what the rest will cost."""

from __future__ import annotations

import pytest

from autophagy.config.expand import loops
from autophagy.config.sweep import parse_sweep
from autophagy.engine.costs import device_seconds, num_bytes, scaled, seconds
from autophagy.graph import plan_loop
from autophagy.planning import plan_sweep, plan_table


@pytest.fixture
def plans(tiny_values):
    """Two keep ratios of `tiny`; the first is `tiny` itself."""
    sweep = parse_sweep({"base": tiny_values, "axes": {"keep_ratio": [1.0, 0.5]}})
    return [plan_loop(loop.experiment) for loop in loops(sweep)]


def row(lines: list[str], name: str) -> list[str]:
    (found,) = [line.split() for line in lines if line.split()[0] == name]
    return found[1:]


def test_without_a_store_nothing_is_known_but_what_is_shared(plans):
    lines = list(plan_sweep(plans, None))
    assert row(lines, "train") == ["6", "5", "0", "5", "unknown", "0"]
    assert row(lines, "real")[:4] == ["2", "1", "0", "1"]
    unshared = sum(len(stages) for plan in plans for stages in plan)
    distinct = len({stage.key for plan in plans for stages in plan for stage in stages.values()})
    assert lines[-2] == f"2 loops: {distinct} distinct stages instead of {unshared}, 0 done, {distinct} to do"
    assert f"{distinct} stages are of a kind this store has no history of" in lines[-1]


def test_what_is_done_costs_nothing_and_the_rest_what_the_store_remembers(plans, store):
    lines = list(plan_sweep(plans, store))
    unshared, distinct, done, todo, each, total = row(lines, "train")
    assert (unshared, distinct, done, todo) == ("6", "5", "3", "2")
    assert float(each) > 0
    assert float(total) == pytest.approx(2 * float(each), abs=0.6)
    assert row(lines, "probe")[3:] == ["0", "0"], "done: no cost"
    assert "device-hours" in lines[-1]
    assert "history" not in lines[-1]


def test_costs_are_scaled_by_the_work(plans, store):
    generate = plans[1][1]["generate"]  # twice as many images as any that the store has
    history = store.history("generate")
    for cost in (seconds, device_seconds, num_bytes):
        known = sorted(cost(manifest) for manifest in history)
        assert known[0] > 0
        assert 2 * known[0] <= scaled(history, generate.work, cost) <= 2 * known[-1]


def test_device_seconds_leave_waiting_out(store):
    for manifest in store.history("generate"):
        assert 0 < device_seconds(manifest) < seconds(manifest)  # the stream takes a while to start


def test_a_loop_has_a_line_for_every_stage(plans, store):
    lines = list(plan_table(plans[0], store))
    assert len(lines) == sum(map(len, plans[0])) + 2
    assert lines[-1].startswith(f"{len(lines) - 2} stages done, 0 to do, about 0 s")
