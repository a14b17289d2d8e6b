"""A denoiser that an installed package brings runs a whole loop, and shares with the U-Net what is no denoiser's."""

from __future__ import annotations

import pytest

from autophagy.common.errors import UserError
from autophagy.graph import plan_loop
from autophagy.loop import run_loop


def test_a_loop_of_a_denoiser_from_outside(tiny, store):
    mlp = tiny("model.kind=mlp", "model.width=32", "name=mlp")
    assert mlp.model_dump(mode="json")["model"]["kind"] == "mlp"
    records = run_loop(mlp, store)
    assert [record.generation for record in records] == [0, 1, 2]
    assert all(record.metrics["fid"] > 0 for record in records)
    plans = [plan_loop(experiment)[0] for experiment in (tiny(), mlp)]
    shared = {name for name in plans[0] if plans[0][name].key == plans[1][name].key}
    assert shared == {"real", "feature_network"}


def test_a_denoiser_that_nobody_brings_is_one_line(tiny):
    with pytest.raises(UserError, match=r"model\.kind = 'transformer': unknown; choose one of unet"):
        tiny("model.kind=transformer")


def test_another_kind_starts_from_its_own_defaults(tiny):
    assert tiny("model.kind=mlp").model.width == 64
    assert tiny("model.kind=unet").model == tiny().model
