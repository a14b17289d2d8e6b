"""Sample ids, digests, seeds, and records as lines of JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from autophagy.common.records import GenerationRecord
from autophagy.common.samples import REAL, origin_generation, sample_ids, sample_index
from autophagy.common.seeds import digest, rng_for, seed_for


@pytest.mark.parametrize("generation", [REAL, 0, 1, 9999])
def test_a_sample_id_holds_its_generation_and_its_index(generation):
    ids = sample_ids(generation, 2**39, 5)
    assert ids.dtype == np.int64
    assert origin_generation(ids).tolist() == [generation] * 5
    assert origin_generation(ids).dtype == np.int32
    assert sample_index(ids).tolist() == [2**39 + i for i in range(5)]


def test_sample_ids_never_meet_and_sort_by_generation_then_index():
    ids = np.concatenate([sample_ids(g, 0, 1000) for g in (REAL, 0, 1, 2)])
    assert (np.diff(ids) > 0).all()
    assert sample_ids(3, 7, 0).size == 0


def test_a_digest_depends_on_content_and_not_on_order_or_type_of_mapping():
    assert digest({"b": [1, 2], "a": None}) == digest(dict([("a", None), ("b", (1, 2))]))
    assert len(digest({})) == 32
    assert len({digest(v) for v in (1, "1", 1.5, [1], {"a": 1}, {"a": 2}, None, True)}) == 8


def test_what_is_no_json_has_no_digest():
    with pytest.raises(ValueError):
        digest({"x": math.nan})
    with pytest.raises(TypeError):
        digest({"x": {1, 2}})


def test_seeds_are_distinct_by_seed_purpose_and_ids_and_fit_63_bits():
    seeds = [seed_for(s, p, *i) for s in (0, 1) for p in ("train", "generate") for i in ((), (0,), (1,), (0, 1))]
    assert len(set(seeds)) == len(seeds) == 16
    many = [seed_for(0, "image", i) for i in range(2000)]
    assert len(set(many)) == 2000
    assert all(0 <= seed < 2**63 for seed in many)
    # Bits are used evenly: the mean of uniform numbers is near the middle.
    assert np.mean(np.array(many) / 2**63) == pytest.approx(0.5, abs=0.03)


def test_seeds_stay_the_same_for_ever():
    # Finished stages in stores everywhere were computed with these numbers.
    assert seed_for(0, "train", 1) == 5962903108649640705
    assert digest({"stage": "train"}) == "f1520973b32b4d4ccc2951ac521172d6"


def test_generators_repeat_and_do_not_share_a_stream():
    first, again, other = (rng_for(3, purpose).random(5) for purpose in ("a", "a", "b"))
    assert (first == again).all()
    assert not np.isclose(first, other).any()


def test_a_record_is_one_line_of_strict_json_and_comes_back():
    record = GenerationRecord(
        2, {"fid": 1.25, "ole": float("nan"), "k": np.float32(0.5)}, {"train": "abc"}, {"train": 1.23456}
    )
    line = json.dumps(record.to_json(), allow_nan=False)
    back = GenerationRecord.from_json(json.loads(line))
    assert json.loads(line) == {
        "generation": 2,
        "metrics": {"fid": 1.25, "ole": None, "k": 0.5},
        "stages": {"train": "abc"},
        "seconds": {"train": 1.235},
    }
    assert math.isnan(back.metrics["ole"])
    assert back.to_json() == record.to_json()
