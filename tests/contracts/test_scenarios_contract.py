"""What every scenario promises. A new one joins by its constructor in SCENARIO_CONFIGS."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from autophagy.common.errors import UserError
from autophagy.common.samples import REAL, origin_generation, sample_ids, sample_index
from autophagy.scenarios import SCENARIOS, AnyScenario, Pool, make_scenario, num_candidates

NUM_REAL, BUDGET, KEEP_RATIO, GENERATIONS = 25, 30, 0.75, 4
C = 40  # ceil(30 / 0.75)

SCENARIO_CONFIGS = [
    {"kind": "replace"},
    {"kind": "augment"},
    {"kind": "fresh_mix"},
    {"kind": "fresh_mix", "real_fraction": 0.9},
    {"kind": "constant_mix"},
    {"kind": "constant_mix", "real_fraction": 0.9},  # more than there is of R
    {"kind": "accumulate"},
    {"kind": "accumulate_subsample"},
]
every_scenario = pytest.mark.parametrize("config", SCENARIO_CONFIGS, ids=lambda c: "-".join(map(str, c.values())))


def pool_at(generation, num_fresh=0):
    truth = sample_ids(REAL, 0, NUM_REAL + num_fresh)
    return Pool(truth[:NUM_REAL], truth[NUM_REAL:], tuple(sample_ids(g, 0, C) for g in range(generation)))


def candidates_of(config, generation, seed=0):
    scenario = make_scenario(config)
    pool = pool_at(generation, scenario.num_fresh(GENERATIONS, C))
    return scenario.candidates(pool, np.random.default_rng([seed, generation])), pool


def test_every_scenario_is_enrolled():
    assert {type(make_scenario(c)) for c in SCENARIO_CONFIGS} == set(SCENARIOS)


@every_scenario
@pytest.mark.parametrize("generation", range(1, GENERATIONS + 1))
def test_candidates_come_from_the_pool_sorted_and_once(config, generation):
    ids, pool = candidates_of(config, generation)
    assert ids.dtype == np.int64
    assert (np.diff(ids) > 0).all()
    assert np.isin(ids, np.concatenate([pool.real, pool.fresh, *pool.synthetic])).all()


@every_scenario
@pytest.mark.parametrize("generation", range(1, GENERATIONS + 1))
def test_origins_and_real_images_agree_with_the_candidates(config, generation):
    scenario = make_scenario(config)
    ids, pool = candidates_of(config, generation)
    origin = origin_generation(ids)
    assert tuple(np.unique(origin[origin != REAL])) == scenario.origins(generation)
    assert np.isin(pool.real, ids).any() == (scenario.kind not in {"replace", "fresh_mix"})
    assert np.isin(pool.fresh, ids).any() == (scenario.num_fresh(generation, C) > 0)


@pytest.mark.parametrize(
    ("config", "num_real", "num_synthetic"),
    [
        ({"kind": "replace"}, 0, lambda k: C),
        ({"kind": "augment"}, NUM_REAL, lambda k: C),
        ({"kind": "fresh_mix"}, 12, lambda k: 28),
        ({"kind": "fresh_mix", "real_fraction": 0.9}, 36, lambda k: 4),
        ({"kind": "constant_mix"}, 12, lambda k: 28),
        ({"kind": "constant_mix", "real_fraction": 0.9}, NUM_REAL, lambda k: C - NUM_REAL),
        ({"kind": "accumulate"}, NUM_REAL, lambda k: k * C),
        ({"kind": "accumulate_subsample"}, NUM_REAL, lambda k: k * C),
    ],
)
@pytest.mark.parametrize("generation", [1, 3])
def test_sizes_and_real_share(config, num_real, num_synthetic, generation):
    ids, _ = candidates_of(config, generation)
    real = origin_generation(ids) == REAL
    assert (real.sum(), (~real).sum()) == (num_real, num_synthetic(generation))


@every_scenario
def test_num_keep(config):
    scenario = make_scenario(config)
    if config["kind"] == "accumulate":
        assert scenario.num_keep(100, BUDGET) == 100
    else:
        assert scenario.num_keep(100, BUDGET) == BUDGET
        assert scenario.num_keep(10, BUDGET) == 10


@every_scenario
def test_replaced_images_are_the_first_of_the_last_generation(config):
    ids, _ = candidates_of(config, 3)
    index = sample_index(ids[origin_generation(ids) == 2])
    np.testing.assert_array_equal(index, np.arange(index.size))


@every_scenario
def test_one_seed_one_set(config):
    np.testing.assert_array_equal(candidates_of(config, 2)[0], candidates_of(config, 2)[0])


@every_scenario
def test_generation_0_has_no_candidates(config):
    with pytest.raises(ValueError, match="generation 0"):
        make_scenario(config).candidates(pool_at(0), np.random.default_rng(0))


@pytest.mark.parametrize("real_fraction", [0.1, 0.3, 0.9])
def test_fresh_images_are_used_once(real_fraction):
    config = {"kind": "fresh_mix", "real_fraction": real_fraction}
    fresh = []
    for k in range(1, GENERATIONS + 1):
        ids = candidates_of(config, k)[0]
        fresh.append(ids[origin_generation(ids) == REAL])
    used = np.concatenate(fresh)
    assert np.unique(used).size == used.size == make_scenario(config).num_fresh(GENERATIONS, C)
    assert (sample_index(used) >= NUM_REAL).all()


def test_too_few_fresh_images_are_refused():
    with pytest.raises(ValueError, match="generation 2 needs 24 fresh images, not 23"):
        make_scenario({"kind": "fresh_mix"}).candidates(pool_at(2, num_fresh=23), np.random.default_rng(0))


def test_constant_mix_draws_anew_from_all_of_r():
    draws = [candidates_of({"kind": "constant_mix"}, 1, seed)[0][:12] for seed in range(30)]
    assert np.unique(draws).size == NUM_REAL
    assert len({tuple(d) for d in draws}) == 30


@every_scenario
def test_config_round_trip(config):
    scenario = make_scenario(config)
    assert make_scenario(scenario.model_dump(mode="json")) == scenario
    assert TypeAdapter(AnyScenario).validate_python(config) == scenario


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "acumulate"}, r"scenario\.kind = 'acumulate'.*did you mean accumulate.*replace"),
        (
            {"kind": "fresh_mix", "real_fraction": 1.0},
            r"scenario\.real_fraction = 1\.0: should be less than 1",
        ),
        (
            {"kind": "constant_mix", "real_fraction": 0},
            r"scenario\.real_fraction = 0: should be greater than 0",
        ),
        ({"kind": "replace", "real_fraction": 0.3}, r"scenario\.real_fraction = 0\.3.*no such field"),
    ],
)
def test_bad_config_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as error:
        make_scenario(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("budget", "keep_ratio", "expected"),
    [
        (30, 0.75, 40),
        (500, 1.0, 500),
        (7, 0.1, 70),
        (3, 0.3, 10),
        (21, 0.7, 30),
        (145, 0.29, 500),
        (100, 1 / 3, 300),
        (10, 0.6, 17),
        (1, 0.999, 2),
    ],
)
def test_num_candidates(budget, keep_ratio, expected):
    assert num_candidates(budget, keep_ratio) == expected


@pytest.mark.parametrize(("budget", "keep_ratio"), [(0, 0.5), (10, 0.0), (10, 1.1), (10, float("nan"))])
def test_num_candidates_refuses(budget, keep_ratio):
    with pytest.raises(ValueError, match="keep_ratio"):
        num_candidates(budget, keep_ratio)
