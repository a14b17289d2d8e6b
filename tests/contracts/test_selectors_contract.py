"""What every selector promises. A new one joins by its constructor in SELECTIONS."""

import dataclasses
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from autophagy.common.errors import UserError
from autophagy.common.samples import COLUMNS, REAL, origin_generation, sample_ids
from autophagy.selection import SELECTORS, AnySelector, Candidates, make_selector

pytestmark = pytest.mark.filterwarnings("error")

SELECTIONS = [
    {"strategy": "none"},
    {"strategy": "random"},
    {"strategy": "lsf"},
    {"strategy": "lsf", "timestep": 200, "pool": "mean"},
    {"strategy": "lsf", "timestep": [0, 999], "per_class": True},
    {"strategy": "ole"},
    {"strategy": "ole", "drop": 1, "per_class": True},
    {"strategy": "greedy"},
    {"strategy": "greedy", "feature_space": "latent", "per_class": True, "protect_real": True},
    {"strategy": "threshold_decay"},
    {"strategy": "threshold_decay", "tau0": 2.0, "decay": 0.8, "per_class": True},
    {"strategy": "likelihood"},
    {"strategy": "likelihood", "prefer": "bottom", "protect_real": True},
    {"strategy": "trajectory_variance"},
    {"strategy": "trajectory_variance", "per_class": True},
    {"strategy": "density_ratio"},
    {"strategy": "density_ratio", "feature_space": "latent", "per_class": True},
    {"strategy": "center_match"},
    {"strategy": "center_match", "protect_real": True, "per_class": True},
    {"strategy": "cov_match"},
    {"strategy": "cov_match", "num_components": 2, "feature_space": "pixels", "protect_real": True},
    {"strategy": "kmeans"},
    {"strategy": "kmeans", "num_clusters": 5, "feature_space": "latent"},
    {"strategy": "anti_lsf"},
    {"strategy": "oldest_first"},
    {"strategy": "oracle_real"},
    {"strategy": "class_balanced_random"},
    {"strategy": "random", "per_class": True},
    {"strategy": "none", "protect_real": True},
    {"strategy": "random", "protect_real": True, "per_class": True},
    {"strategy": "anti_lsf", "protect_real": True, "per_class": True},
]
STRATEGIES = sorted({s["strategy"] for s in SELECTIONS})
# A smaller num_keep does not give the head of what a larger one gives.
NO_PREFIX = {"kmeans"}
# The choice depends on the order of the candidates, because some are drawn.
DRAWN = {"random", "greedy", "threshold_decay", "class_balanced_random", "oracle_real", "trajectory_variance"}
NEEDED = ("label", "features", "confidence", "latent", "pixels", "denoising_error", "trajectory_variance")


def named(selections):
    return [pytest.param(s, id=",".join(map(str, s.values()))) for s in selections]


every_selection = pytest.mark.parametrize("selection", named(SELECTIONS))
every_fixed_selection = pytest.mark.parametrize("selection", named(s for s in SELECTIONS if s["strategy"] not in DRAWN))


def pool(num_real=20, per_generation=20, generations=2, num_classes=4, seed=0, **columns):
    """Candidates of R and a few generations, every third confidence tied with another."""
    ids = [sample_ids(REAL, 0, num_real)] + [sample_ids(g, 0, per_generation) for g in range(generations)]
    ids = np.concatenate(ids)
    rng, n = np.random.default_rng(seed), ids.size
    defaults = {
        "sample_id": ids,
        "generation": origin_generation(ids),
        "label": rng.integers(num_classes, size=n),
        "features": rng.standard_normal((n, 3)).astype(np.float32),
        "confidence": np.round(rng.random(n), 1).astype(np.float32),
        "latent": rng.standard_normal((n, 5)).astype(np.float32),
        "pixels": rng.integers(256, size=(n, 12)).astype(np.uint8),
        "denoising_error": np.round(rng.random(n), 1).astype(np.float32),
        "trajectory_variance": np.where(origin_generation(ids) == REAL, np.nan, rng.random(n)).astype(np.float32),
    }
    return Candidates(**{**defaults, **columns})


def real_reference(**columns):
    return pool(num_real=30, generations=0, seed=9, **columns)


def without(candidates, names):
    """The candidates as they are where nobody reads these columns."""
    return replace(candidates, **{name: np.full(len(candidates), -1) if name == "label" else None for name in names})


def choose(selection, candidates, num_keep, seed=0):
    return make_selector(selection).select(candidates, num_keep, np.random.default_rng(seed))


def assert_is_a_choice(kept, num_keep, n):
    assert kept.dtype == np.int64
    assert kept.shape == (min(num_keep, n),)
    assert np.unique(kept).size == kept.size
    assert ((kept >= 0) & (kept < n)).all()


def assert_refuses(selection, candidates, message):
    with pytest.raises(UserError, match=message) as error:
        choose(selection, candidates, 10)
    assert "\n" not in str(error.value)


def test_candidates_have_the_columns_of_the_table():
    fields = {field.name for field in dataclasses.fields(Candidates)}
    assert fields == {*COLUMNS, "score", "reference"} - {"is_real"}
    for name, column in COLUMNS.items():
        assert getattr(pool(), name).dtype == column.dtype
        assert getattr(pool(), name).ndim == 1 + column.is_vector


def test_every_selector_is_enrolled():
    enrolled = {type(make_selector(s)) for s in SELECTIONS}
    assert enrolled == set(SELECTORS)


@every_selection
@pytest.mark.parametrize("num_keep", [0, 1, 7, 59, 60, 61, 1000])
def test_keeps_as_many_as_asked_each_once(selection, num_keep):
    candidates = pool()
    before = {name: column.copy() for name, column in vars(candidates).items() if column is not None}
    assert_is_a_choice(choose(selection, candidates, num_keep), num_keep, 60)
    for name, column in before.items():
        np.testing.assert_array_equal(getattr(candidates, name), column)


DEGENERATE = {
    "all equal": lambda column: np.ones_like(column),
    "all zero": lambda column: np.zeros_like(column),
    "three distinct": lambda column: column[np.arange(60) % 3],
    "neighbours in floating point": lambda column: np.nextafter(np.ones_like(column), column),
    "some missing": lambda column: np.where(np.arange(60) % 4 == 0, np.nan, column.T).T.astype(np.float32),
    "some infinite": lambda column: np.where(np.arange(60) % 4 == 0, np.inf, column.T).T.astype(np.float32),
    "huge": lambda column: column * np.float32(1e15),
    "all but one missing": lambda column: np.where(np.arange(60) == 33, column.T, np.nan).T.astype(np.float32),
    "all missing": lambda column: np.full_like(column, np.nan),
}


def degenerate(case):
    full = pool(reference=real_reference())
    columns = ("features", "latent", "confidence", "denoising_error", "trajectory_variance")
    return replace(full, **{name: DEGENERATE[case](getattr(full, name)) for name in columns})


@every_selection
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_columns_are_no_obstacle(selection, case):
    candidates = degenerate(case)
    if case == "all missing" and "confidence" in make_selector(selection).needs:
        assert_refuses(selection, candidates, "needs labels and a probe")
        return
    for num_keep in (1, 10, 60):
        kept = choose(selection, candidates, num_keep)
        assert_is_a_choice(kept, num_keep, 60)
        np.testing.assert_array_equal(kept, choose(selection, candidates, num_keep))


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - DRAWN))
@pytest.mark.parametrize("case", ["all equal", "all zero", "all missing"])
def test_ties_break_by_sample_id(strategy, case):
    if case == "all missing" and "confidence" in make_selector({"strategy": strategy}).needs:
        return
    reference = real_reference() if case == "all missing" else None
    candidates = replace(degenerate(case), label=np.zeros(60, np.int64), reference=reference)
    candidates = candidates.take(np.random.default_rng(1).permutation(60))
    kept = choose({"strategy": strategy}, candidates, 25)
    np.testing.assert_array_equal(candidates.sample_id[kept], np.sort(candidates.sample_id)[:25])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", ["some missing", "some infinite"])
def test_what_has_no_score_or_no_place_comes_last(strategy, case):
    columns = {"features", "latent", "confidence", "denoising_error"} & make_selector({"strategy": strategy}).needs
    if not columns or (case == "some infinite" and not columns & {"features", "latent"}):
        return
    kept = choose({"strategy": strategy}, degenerate(case), 60)
    assert sorted(kept[45:]) == list(range(0, 60, 4))


@every_selection
def test_nothing_to_choose_from(selection):
    assert choose(selection, pool(num_real=0, per_generation=0), 5).shape == (0,)


@every_selection
@pytest.mark.parametrize("origin", ["real", "synthetic"])
def test_a_single_candidate(selection, origin):
    candidates = pool(reference=real_reference()).take(np.array([0 if origin == "real" else 59]))
    assert choose(selection, candidates, 1).tolist() == [0]


@every_selection
def test_negative_num_keep_is_refused(selection):
    with pytest.raises(ValueError, match="num_keep"):
        choose(selection, pool(), -1)


@every_selection
def test_one_seed_one_choice(selection):
    first, second = choose(selection, pool(), 30), choose(selection, pool(), 30)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("selection", named(s for s in SELECTIONS if s["strategy"] not in NO_PREFIX))
def test_a_smaller_choice_is_the_head_of_a_larger_one(selection):
    candidates = pool()
    everything = choose(selection, candidates, 60)
    for num_keep in (1, 2, 3, 12, 13, 14, 15, 16, 19, 20, 21, 40, 59):
        np.testing.assert_array_equal(choose(selection, candidates, num_keep), everything[:num_keep])


@every_fixed_selection
@pytest.mark.parametrize("case", [None, "three distinct", "some missing"])
def test_order_of_the_candidates_does_not_matter(selection, case):
    candidates = degenerate(case) if case else pool()
    shuffled = candidates.take(np.random.default_rng(1).permutation(60))
    kept = candidates.sample_id[choose(selection, candidates, 25)]
    np.testing.assert_array_equal(kept, shuffled.sample_id[choose(selection, shuffled, 25)])


@every_selection
def test_all_real(selection):
    assert_is_a_choice(choose(selection, pool(num_real=20, generations=0), 8), 8, 20)


@every_selection
def test_all_synthetic(selection):
    candidates = pool(num_real=0)
    if make_selector(selection).compares_with_real:
        assert_refuses(selection, candidates, "compares with real images, and there are none")
        for reference in (real_reference(), real_reference(num_classes=1)):  # the latter lacks most classes
            assert_is_a_choice(choose(selection, replace(candidates, reference=reference), 8), 8, 40)
    else:
        assert_is_a_choice(choose(selection, candidates, 8), 8, 40)


@every_selection
def test_reads_what_it_needs_and_nothing_else(selection):
    selector, full = make_selector(selection), pool(reference=real_reference())
    unread = set(NEEDED) - selector.needs - ({"label"} if selector.per_class else set())
    bare = replace(without(full, unread), reference=without(full.reference, unread))
    if not selector.compares_with_real:
        bare = replace(bare, reference=None)
    np.testing.assert_array_equal(choose(selection, full, 30), choose(selection, bare, 30))
    for name in set(NEEDED) - unread:
        assert_refuses(selection, without(full, [name]), "needs (labels|" + name + ")")
    if selector.compares_with_real:
        for name in set(NEEDED) - unread - {"label"}:
            no_column = replace(full, reference=without(full.reference, [name]))
            assert_refuses(selection, no_column, f"needs {name}.*reference")


@pytest.mark.parametrize("space", ["features", "latent", "pixels"])
@pytest.mark.parametrize(
    "strategy", sorted(s for s in STRATEGIES if hasattr(make_selector({"strategy": s}), "feature_space"))
)
def test_points_lie_in_the_chosen_space(strategy, space):
    selector = make_selector({"strategy": strategy, "feature_space": space})
    assert selector.needs == {space}
    same_points = pool(**{name: pool().latent for name in ("features", "pixels")})
    np.testing.assert_array_equal(
        selector.select(same_points, 30, np.random.default_rng(0)),
        choose({"strategy": strategy, "feature_space": "latent"}, pool(), 30),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_per_class_gives_equal_quotas_and_takes_turns(strategy):
    # Class 2 has only 3 and class 3 none: what they leave goes to the others, the odd one to the lower label.
    label = np.repeat([0, 1, 2, 4], [30, 17, 3, 10])
    kept = choose({"strategy": strategy, "per_class": True}, pool(label=label), 30)
    assert Counter(label[kept].tolist()) == {0: 9, 1: 9, 2: 3, 4: 9}
    assert label[kept][:13].tolist() == [0, 1, 2, 4] * 3 + [0]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_keep", [1, 20, 21, 45])
def test_protect_real_keeps_real_images_first(strategy, num_keep):
    candidates = pool()
    kept = choose({"strategy": strategy, "protect_real": True}, candidates, num_keep)
    assert candidates.is_real[kept].tolist() == [True] * min(num_keep, 20) + [False] * (num_keep - 20)


def test_protected_real_images_count_towards_the_quota_of_their_class():
    label = np.concatenate([np.zeros(20), np.tile([0, 1], 20)]).astype(np.int64)  # every real image is a 0
    kept = choose({"strategy": "random", "protect_real": True, "per_class": True}, pool(label=label), 36)
    assert Counter(label[kept].tolist()) == {0: 20, 1: 16}


@every_selection
def test_scores_are_of_the_whole_set_and_agree_with_the_order(selection):
    selector, candidates = make_selector(selection), pool()
    scores = selector.scores(candidates)
    if scores is None:
        return
    assert scores.shape == (60,)
    kept = choose(selection, candidates, 60)
    group = candidates.label * selector.per_class + 10 * candidates.is_real * selector.protect_real
    for value in np.unique(group):
        own = scores[kept[group[kept] == value]]
        assert (np.diff(own[~np.isnan(own)]) <= 0).all()
    np.testing.assert_array_equal(choose(selection, replace(candidates, score=scores), 60), kept)


@every_selection
def test_config_round_trip(selection):
    selector = make_selector(selection)
    assert make_selector(selector.model_dump(mode="json")) == selector
    assert TypeAdapter(AnySelector).validate_python(selection) == selector
    with pytest.raises(ValidationError):
        selector.per_class = not selector.per_class


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"strategy": "ranom"}, r"selection\.strategy = 'ranom'.*did you mean random.*anti_lsf"),
        ({}, r"selection\.strategy = None.*choose one of none, random"),
        ({"strategy": ["lsf"]}, r"selection\.strategy = \['lsf'\]"),
        ("lsf", r"selection = 'lsf'.*mapping"),
        ({"strategy": "lsf", "timestep": 1000}, r"selection\.timestep = 1000.*less than or equal to 999"),
        ({"strategy": "lsf", "timestep": [10, -1]}, r"selection\.timestep.*greater than or equal to 0"),
        ({"strategy": "lsf", "timestep": []}, r"selection\.timestep = \[\].*at least 1 item"),
        ({"strategy": "lsf", "timestep": "autp"}, r"selection\.timestep = 'autp'.*'auto'"),
        ({"strategy": "lsf", "pool": "sum"}, r"selection\.pool = 'sum'.*'flatten', 'mean' or 'max'"),
        ({"strategy": "lsf", "perclass": True}, r"selection\.perclass.*did you mean per_class"),
        ({"strategy": "random", "timestep": 10}, r"selection\.timestep = 10.*random has no such field"),
        ({"strategy": "class_balanced_random", "per_class": False}, r"selection\.per_class = False"),
        ({"strategy": "ole", "drop": 0}, r"selection\.drop = 0.*greater than 0"),
        ({"strategy": "likelihood", "prefer": "high"}, r"selection\.prefer = 'high'.*'top' or 'bottom'"),
        ({"strategy": "kmeans", "num_clusters": 0}, r"selection\.num_clusters = 0.*greater than or equal to 1"),
        ({"strategy": "cov_match", "feature_space": "inception"}, r"selection\.feature_space.*'latent' or 'pixels'"),
    ],
)
def test_bad_config_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as error:
        make_selector(config)
    assert "\n" not in str(error.value)
