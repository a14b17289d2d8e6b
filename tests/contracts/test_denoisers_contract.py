"""What every denoiser must do, whoever wrote it: add a constructor to DENOISERS.

Those of installed packages are in it, with their default fields: once yours is installed in the environment of a
checkout, `pytest tests/contracts/test_denoisers_contract.py -k KIND` tries it.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch
from mlp_denoiser import Mlp

from autophagy.denoisers import MODELS, OUTSIDE, UNet, make_model
from autophagy.denoisers.base import Denoiser, Model, Shape
from autophagy.denoisers.weights import new_denoiser, trained_denoiser

DENOISERS: list[Model] = [
    UNet(block_out_channels=(8, 16)),
    UNet(block_out_channels=(8, 16), conditional=False),
    UNet(block_out_channels=(8, 8, 16), layers_per_block=2, attention=True, num_train_timesteps=100),
    Mlp(conditional=False, width=16),
    *(make_model({"kind": entry.name}) for entry in entry_points(group=OUTSIDE)),
]
SHAPES = [Shape(8, 1, 10), Shape(8, 3, 2)]


def pytest_generate_tests(metafunc):
    """Every test for every denoiser and, where it takes one, every shape."""
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", DENOISERS, ids=lambda model: f"{model.kind}-{model.keyed()}")
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def test_every_denoiser_is_enrolled():
    assert {type(model) for model in DENOISERS} >= {*MODELS, Mlp}, "add a constructor to DENOISERS"


@pytest.fixture
def denoiser(model, shape) -> Denoiser:
    """Untrained, but for its last layer, which diffusers starts with zeros in places."""
    made = new_denoiser(model, shape, seed=3)
    made.network.eval()
    return made


def inputs(denoiser: Denoiser, count: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Noisy images, timesteps and conditions of a batch, the null condition among them."""
    generator = torch.Generator().manual_seed(0)
    size, channels = denoiser.shape.image_size, denoiser.shape.channels
    x = torch.randn((count, channels, size, size), generator=generator)
    t = torch.randint(denoiser.model.num_train_timesteps, (count,), generator=generator)
    condition = None if denoiser.null is None else torch.arange(count) % (denoiser.null + 1)
    return x, t, condition


@torch.no_grad()
def test_what_is_predicted_has_the_shape_of_images(denoiser):
    x, t, condition = inputs(denoiser)
    predicted = denoiser.predict(x, t, condition)
    assert predicted.shape == x.shape
    assert predicted.dtype == torch.float32
    assert predicted.isfinite().all()


@torch.no_grad()
def test_there_is_a_null_condition_where_there_are_conditions(denoiser, model, shape):
    assert denoiser.null == (shape.num_classes if model.conditional else None)
    x, t, _ = inputs(denoiser)
    if denoiser.null is None:
        denoiser.predict(x, t, None)
    else:
        null = torch.full_like(t, denoiser.null)
        assert not torch.equal(denoiser.predict(x, t, null), denoiser.predict(x, t, torch.zeros_like(t)))


@torch.no_grad()
def test_no_image_depends_on_the_others_in_its_batch(denoiser):
    x, t, condition = inputs(denoiser)
    alone = denoiser.predict(x[2:3], t[2:3], None if condition is None else condition[2:3])
    torch.testing.assert_close(denoiser.predict(x, t, condition)[2:3], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(denoiser.encode(x, t)[2:3], denoiser.encode(x[2:3], t[2:3]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_bottleneck_has_positions_and_looks_at_image_and_timestep(denoiser):
    x, t, _ = inputs(denoiser)
    hidden = denoiser.encode(x, t)
    assert hidden.ndim == 4
    assert len(hidden) == len(x)
    assert not torch.equal(hidden, denoiser.encode(-x, t))
    assert not torch.equal(hidden, denoiser.encode(x, (t + 1) % denoiser.model.num_train_timesteps))


def test_all_weights_can_learn(denoiser):
    x, t, condition = inputs(denoiser)
    denoiser.predict(x, t, condition).square().mean().backward()
    assert all(weight.grad is not None for weight in denoiser.network.parameters())


@torch.no_grad()
def test_weights_saved_and_loaded_are_the_same_denoiser(denoiser, model, shape):
    from safetensors.torch import save

    x, t, condition = inputs(denoiser)
    again = trained_denoiser(model, shape, save(denoiser.network.state_dict()))
    assert torch.equal(again.predict(x, t, condition), denoiser.predict(x, t, condition))
    assert torch.equal(again.encode(x, t), denoiser.encode(x, t))
    assert again.null == denoiser.null


@torch.no_grad()
def test_first_weights_depend_on_the_seed_alone(model, shape):
    torch.manual_seed(99)
    one, same, other = (dict(new_denoiser(model, shape, seed).network.state_dict()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_configuration_survives_being_written(model, shape):
    assert make_model(model.model_dump(mode="json")) == model
    assert make_model(model.keyed()) == model
    assert make_model(model) is model
    assert model.problem(shape.image_size) is None
