"""The U-Net: which one a configuration means, what it predicts, where it attends, and its bottleneck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autophagy.common.errors import UserError
from autophagy.denoisers import Model, UNet, make_model
from autophagy.denoisers.base import Shape


class TestConfiguration:
    def test_a_kind_left_out_is_a_unet_and_stays_left_out(self):
        fields = {"block_out_channels": (8,), "attention": True}
        model = make_model(fields)
        assert model == make_model({"kind": "unet"} | fields) == UNet(**fields)
        assert "kind" not in model.model_dump()
        assert "kind" not in model.keyed()
        assert make_model({}) == UNet()

    @pytest.mark.parametrize(
        ("config", "line"),
        [
            ({"kind": "unett"}, r"model\.kind = 'unett': unknown \(did you mean unet\?\); choose one of unet"),
            ({"kind": 3}, r"model\.kind = 3: unknown; choose one of unet"),
            ({"width": 8}, r"model\.width = 8: kind unet has no such field"),
            ({"block_out_channels": [6]}, r"model\.block_out_channels\.0 = 6: should be a multiple of 4"),
            ("unet", r"model = 'unet': write a mapping with model\.kind, one of unet"),
        ],
    )
    def test_what_is_no_model_is_one_line(self, config, line):
        with pytest.raises(UserError, match=line) as error:
            make_model(config)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(("levels", "size", "fits"), [(1, 7, True), (2, 7, False), (3, 28, True), (4, 28, False)])
    def test_images_must_be_halved_at_every_level_but_the_last(self, levels, size, fits):
        problem = UNet(block_out_channels=(8,) * levels).problem(size)
        assert (problem is None) == fits
        if problem:
            halvings, multiple = levels - 1, 2 ** (levels - 1)
            assert problem.startswith(f"data.image_size = {size} cannot be halved {halvings} times; ")
            assert f"multiple of {multiple} or fewer model.block_out_channels" in problem


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "model",
    [
        UNet(block_out_channels=(8, 16)),
        UNet(block_out_channels=(8,)),
        UNet(block_out_channels=(12, 20), layers_per_block=2),  # not divisible by 8
        UNet(block_out_channels=(8, 16), attention=True),
        UNet(block_out_channels=(8, 4), attention=True),  # narrower than an attention head
        UNet(block_out_channels=(8, 8, 16), attention=True, conditional=False),
    ],
    ids=["two levels", "one level", "odd widths", "attention", "narrow attention", "unconditional"],
)
def test_predicts_noise_of_the_images_shape(built, model, channels):
    denoiser = built(model, Shape(8, channels, 3))
    x, t = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 50])
    condition = torch.tensor([0, 3]) if model.conditional else None
    with torch.no_grad():
        predicted = denoiser.predict(x, t, condition)
    assert predicted.shape == x.shape
    assert torch.isfinite(predicted).all()
    assert denoiser.null == (3 if model.conditional else None)
    has_attention = any(name.endswith("to_q") for name, _ in denoiser.network.named_modules())
    assert has_attention == model.attention


def test_attention_is_at_the_lowest_resolution_only(built):
    network = built(attention=True).network
    down = [hasattr(block, "attentions") for block in network.down_blocks]
    up = [hasattr(block, "attentions") for block in network.up_blocks]
    assert (down, up) == ([False, True], [True, False])


@torch.no_grad()
def test_one_more_condition_than_classes_and_each_matters(denoiser):
    x, t = torch.zeros(4, 1, 8, 8), torch.full((4,), 10)
    predicted = denoiser.predict(x, t, torch.arange(4)).flatten(1)
    with pytest.raises(IndexError):
        denoiser.predict(x[:1], t[:1], torch.tensor([4]))
    assert (torch.cdist(predicted, predicted) + torch.eye(4) > 1e-4).all()


@pytest.mark.parametrize(
    "fields",
    [{}, {"attention": True, "layers_per_block": 2}, {"block_out_channels": (12, 20), "conditional": False}],
    ids=["plain", "attention", "unconditional"],
)
@torch.no_grad()
def test_the_bottleneck_is_the_mid_block_of_a_forward_pass(built, fields):
    denoiser, seen = built(**fields), []
    model: Model = denoiser.model
    handle = denoiser.network.mid_block.register_forward_hook(lambda *call: seen.append(call[2]))
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.full((3,), 42)
    denoiser.predict(x, t, None if denoiser.null is None else torch.full((3,), denoiser.null))
    handle.remove()
    hidden: Tensor = denoiser.encode(x, t)
    assert torch.allclose(hidden, seen[0], atol=1e-6)
    size = 8 // 2 ** (len(model.block_out_channels) - 1)
    assert hidden.shape == (3, model.block_out_channels[-1], size, size)
