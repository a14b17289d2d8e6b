"""Paired tests: known answers on frames made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autophagy.common.errors import UserError
from comparisons import paired


def arms(differences, base=100.0, generations=2):
    """Loops of `random` and of arms whose last FID lies `differences[arm][seed]` higher; alike before."""
    seeds = range(max(len(own) for own in differences.values()))
    curves = {("random", seed): {"fid": [10.0] * generations + [base + 7 * seed]} for seed in seeds}
    for arm, own in differences.items():
        for seed, difference in enumerate(own):
            curves[arm, seed] = {"fid": [10.0] * generations + [base + 7 * seed + difference]}
    return curves


def test_three_pairs_are_tested_by_student_with_known_p(frame_of):
    (row,) = paired.paired_tests(frame_of(arms({"lsf": [-1.0, -2.0, -3.0]}))).to_dict("records")
    # t = -2 / (1 / sqrt(3)) with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    t = 2 * math.sqrt(3)
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert (row["difference"], row["pairs"], row["dropped"], row["early"]) == (-2.0, 3, 0, 0)
    half = 4.302652729911275 / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((-2 - half, -2 + half))
    assert (row["test"], row["verdict"], row["baseline"]) == (paired.STUDENT, "not decisive", "random")


def test_six_pairs_of_one_sign_are_decided_by_sign_flips(frame_of):
    (row,) = paired.paired_tests(frame_of(arms({"lsf": [-1.0, -2.0, -50.0, -4.0, -1.5, -9.0]}))).to_dict("records")
    assert row["p"] == pytest.approx(2 / 2**6)
    assert (row["test"], row["verdict"]) == (paired.SIGN_FLIP, "better")


def test_what_sign_flips_cannot_reach_after_holm_is_left_to_student(frame_of):
    six = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    table = paired.paired_tests(frame_of(arms({"a": six, "b": [-d for d in six], "c": [1.0, -1.0] * 3})))
    assert set(table["test"]) == {paired.STUDENT}
    assert table.set_index("arm")["verdict"].to_dict() == {"a": "better", "b": "worse", "c": "not decisive"}
    np.testing.assert_allclose(table["p_holm"], paired.holm(table["p"]))
    assert (table["p_holm"] >= table["p"]).all()


def test_one_pair_decides_nothing(frame_of):
    (row,) = paired.paired_tests(frame_of(arms({"lsf": [-99.0]}))).to_dict("records")
    assert (row["pairs"], row["verdict"]) == (1, "not decisive")
    assert math.isnan(row["p"])
    assert paired.draw_differences(paired.paired_tests(frame_of(arms({"lsf": [-99.0]})))).startswith(b"\x89PNG")


def test_the_direction_of_the_metric_decides_what_better_is(frame_of):
    curves = {
        (arm, seed): {"recall": [0.9, value + seed / 100], "real_share": [1.0, value + seed / 90]}
        for arm, value in (("random", 0.5), ("lsf", 0.2))
        for seed in range(6)
    }
    curves["lsf", 0]["real_share"] = [1.0, 0.21]
    table = paired.paired_tests(frame_of(curves), ["recall", "real_share"]).set_index("metric")
    assert table["verdict"].to_dict() == {"recall": "worse", "real_share": "no direction"}


def test_seeds_without_a_partner_are_dropped_and_stopped_loops_are_not(frame_of):
    curves = arms({"lsf": [-1.0, -2.0, -3.0, -4.0]})
    del curves["random", 3]
    curves["lsf", 0] = {"fid": [10.0, 40.0]}
    frame = frame_of(curves, states={("lsf", 0): "stopped", ("lsf", 1): "failed"}, asked=2)
    (row,) = paired.paired_tests(frame).to_dict("records")
    assert (row["pairs"], row["dropped"], row["early"]) == (2, 2, 1)
    # Seed 0 is compared at generation 1, where random has 10; seed 2 at generation 2.
    assert row["difference"] == pytest.approx((30.0 - 3.0) / 2)


def test_the_area_is_that_of_the_curve(frame_of):
    curves = arms({"lsf": [-4.0, -8.0]})
    table = paired.paired_tests(frame_of(curves), measure="area")
    assert table["difference"].tolist() == [pytest.approx(-6.0 / 4)]  # a triangle over the last of two generations


def test_every_arm_has_the_baseline_that_is_like_it(frame_of):
    settings = {
        f"{strategy}-{ratio}": [f"selection.strategy={strategy}", f"keep_ratio={ratio}"]
        for strategy in ("random", "lsf")
        for ratio in (0.5, 1.0)
    }
    settings["shuffled-0.5"] = [*settings["lsf-0.5"], "data.labels=shuffled"]
    settings["neon-1.0"] = ["selection.strategy=random", "keep_ratio=1.0", "correction.kind=neon"]
    frame = frame_of({(arm, 0): {"fid": [1.0, 2.0]} for arm in settings}, settings)
    table = paired.paired_tests(frame).set_index("arm")
    assert table["baseline"].to_dict() == {
        "lsf-0.5": "random-0.5",
        "lsf-1.0": "random-1.0",
        "neon-1.0": "random-1.0",
        "shuffled-0.5": "random-0.5",
    }
    assert table["differs"].to_dict() == dict.fromkeys(table.index, "") | {"shuffled-0.5": "data.labels"}
    given = paired.paired_tests(frame, baseline="lsf-0.5")
    assert set(given["baseline"]) == {"lsf-0.5"}
    assert len(given) == 5
    with pytest.raises(UserError, match="baseline = lfs: no such arm; there are: "):
        paired.paired_tests(frame, baseline="lfs")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["budget=32"], "budget = 32 in arm 'lsf' and 64 in 'random'"),
        (["training.epochs=2"], r"training\.epochs = 2"),
        (["training.global_batch_size=16"], r"training\.global_batch_size = 16"),
        (["training.equal_steps=false"], r"training\.equal_steps = False"),
    ],
)
def test_loops_that_do_not_cost_the_same_are_not_compared(frame_of, settings, told):
    chosen = {"lsf": ["selection.strategy=lsf", *settings], "random": ["selection.strategy=random"]}
    with pytest.raises(UserError, match=told) as raised:
        paired.paired_tests(frame_of(arms({"lsf": [1.0, 2.0]}), chosen))
    assert "\n" not in str(raised.value)


def test_steps_that_follow_the_scenario_are_not_compared_across_scenarios(frame_of):
    chosen = {
        "lsf": ["selection.strategy=lsf", "training.equal_steps=false", "scenario.kind=accumulate"],
        "random": ["selection.strategy=random", "training.equal_steps=false"],
    }
    with pytest.raises(UserError, match=r"training\.equal_steps"):
        paired.paired_tests(frame_of(arms({"lsf": [1.0, 2.0]}), chosen))


@given(st.lists(st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=8))
def test_sign_flips_are_exact(differences):
    """Against counting by hand."""
    values = np.array(differences)
    n = len(values)
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    means = (signs * values).mean(axis=1)
    tolerance = 1e-9 * np.abs(values).max()
    more, less = (means >= values.mean() - tolerance).mean(), (means <= values.mean() + tolerance).mean()
    assert paired.sign_flip(values) == pytest.approx(min(1.0, 2 * min(more, less)))
    assert paired.sign_flip(values) >= 2 / 2**n


def test_holm_by_hand():
    np.testing.assert_allclose(paired.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(paired.holm([p[i] for i in order]), paired.holm(p)[order])


def test_the_false_alarm_rate_is_what_it_is_said_to_be():
    """Differences without an effect: of five arms, any is called decided in at most 5% of the sweeps."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        families = [paired._p(rng.standard_normal(3), 5)[0] for _ in range(5)]
        alarms += bool((paired.holm(families) <= paired.LEVEL).any())
    assert alarms / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
