"""The precision is a part of an experiment: settled by what it says, not by the machine, and kept to."""

from __future__ import annotations

import pytest
import torch
import yaml

from autophagy.common.errors import UserError
from autophagy.config import parse
from autophagy.denoisers.config import Generation, Training
from autophagy.denoisers.precision import autocast
from autophagy.graph import plan_loop
from autophagy.runs.claims import check_run, claim_run
from autophagy.runs.folder import RunFolder
from autophagy.store import StageStore

SECTIONS = ["training", "generation"]


@pytest.mark.parametrize("section", [Training, Generation])
def test_auto_is_bfloat16_on_a_gpu_and_float32_on_any_cpu(section):
    assert section().precision == "auto"
    assert section().settled().precision == "float32"
    assert section(use_gpu=True).settled().precision == "bfloat16"
    for asked in ("float32", "bfloat16"):
        for use_gpu in (False, True):
            assert section(precision=asked, use_gpu=use_gpu).settled().precision == asked


@pytest.mark.parametrize("section", SECTIONS)
def test_keys_have_what_auto_stands_for(tiny, section):
    def named(*settings: str) -> tuple[str, list]:
        e = tiny(*(f"{section}.{setting}" for setting in settings))
        return e.digest, [stage.key for stages in plan_loop(e) for stage in stages.values()]

    assert named("precision=auto") == named("precision=float32")
    assert named("precision=auto", "use_gpu=true") == named("precision=bfloat16")
    assert named("precision=auto")[0] != named("precision=bfloat16")[0]
    assert named("precision=float32", "use_gpu=true") == named("precision=float32")


def test_the_run_folder_says_it(tiny, tmp_path):
    store, e = StageStore(tmp_path / "store"), tiny("training.precision=auto", "generation.precision=auto")
    claim_run(e, store, plan_loop(e))
    saved = yaml.safe_load(RunFolder(store, e.name).read("experiment.yaml"))
    assert [saved[section]["precision"] for section in SECTIONS] == ["float32", "float32"]
    check_run(e, store)
    check_run(parse(saved), store)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_is_what_is_computed_in(precision, dtype):
    a = torch.ones(2, 2)
    with autocast(precision, torch.device("cpu")):
        assert (a @ a).dtype is dtype


def test_a_gpu_without_bfloat16_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(UserError, match="precision = bfloat16: the GPU of this node, Tesla T4, has none; set it to"):
        autocast("bfloat16", torch.device("cuda"))
