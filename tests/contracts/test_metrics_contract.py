"""What every metric of features must obey. A new one is added to METRICS below, and passes by being listed."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from autophagy import metrics
from autophagy.metrics import distribution, neighbours
from autophagy.metrics.distribution import frechet_distance, kernel_distance
from autophagy.metrics.entropy import duplicate_share, knn_entropy
from autophagy.metrics.manifold import density_coverage, precision_recall
from autophagy.metrics.memorization import generalization_score, memorization_ratio
from autophagy.metrics.rows import TooFewRows
from autophagy.metrics.structure import effective_rank, ole_score, spectrum, total_variance, vendi_score

K = 5  # neighbours


class Case(NamedTuple):
    """A metric of a real and a synthetic set, signed so that it is the larger, the worse the synthetic set is."""

    loss: Callable[..., float]
    enough: int  # fewest rows that each set needs
    moves: bool = True  # adding the same vector to every row of both sets changes nothing
    sums_blocks: bool = False  # the block size may change the last digits


def few_subsets(real, synthetic):
    """Subsets with fewer pairs than the sets, as for large sets."""
    return kernel_distance(real, synthetic, num_subsets=20, subset_size=30)[0]


# From real to synthetic, and of the synthetic set alone.
METRICS = {
    "frechet_distance": Case(frechet_distance, 2),
    "kernel_distance": Case(lambda r, s: kernel_distance(r, s)[0], 2, moves=False, sums_blocks=True),
    "kernel_distance, few subsets": Case(few_subsets, 2, moves=False),
    "generalization_score": Case(lambda r, s: generalization_score(s, r), 1),
    "precision": Case(lambda r, s: -precision_recall(r, s, K)[0], K + 1),
    "recall": Case(lambda r, s: -precision_recall(r, s, K)[1], K + 1),
    "density": Case(lambda r, s: -density_coverage(r, s, K)[0], K + 1),
    "coverage": Case(lambda r, s: -density_coverage(r, s, K)[1], K + 1),
    "memorization_ratio": Case(lambda r, s: -memorization_ratio(s, r), 2),
    "knn_entropy": Case(lambda r, s: -knn_entropy(s, K), K + 1),
    "duplicate_share": Case(lambda r, s: duplicate_share(s), 1),
    "total_variance": Case(lambda r, s: -total_variance(s), 2),
    "spectrum": Case(lambda r, s: -float(spectrum(s)[-1]), 2),
    "effective_rank": Case(lambda r, s: -effective_rank(s), 2),
    "vendi_score": Case(lambda r, s: -vendi_score(s), 1, moves=False),
    "ole_score": Case(lambda r, s: ole_score(s, np.arange(len(s)) < len(s) / 2), 1, moves=False),
}
SPREAD = ("knn_entropy", "duplicate_share", "total_variance", "spectrum", "effective_rank", "vendi_score")
DISTANCES = [name for name in METRICS if name not in (*SPREAD, "memorization_ratio", "ole_score")]
# Functions of features that are not enrolled.
EXCEPTIONS = {
    "manifold_scores": "what precision_recall and density_coverage give one half of each",
    "real_vs_real": "a table of metrics that are enrolled",
    "nearest_distances": "distances, of which metrics are made",
    "balanced_unit_rows": "rows, of which ole_score is made",
}
each = pytest.mark.parametrize("case", METRICS.values(), ids=METRICS)


@pytest.fixture
def sets():
    """A real set; one that differs a little and one that differs much."""
    rng = np.random.default_rng(3)
    real, other = rng.normal(size=(2, 240, 6)).astype(np.float32)
    return real, 0.5 + other, 6 + 2 * other


def called_by(loss):
    """Names of the functions that a case measures with: itself, or those that a function of this file calls."""
    return loss.__code__.co_names if loss.__module__ == __name__ else (loss.__name__,)


def test_every_metric_of_features_is_enrolled_or_an_exception():
    functions = {name: f for name in metrics.__all__ if inspect.isfunction(f := getattr(metrics, name))}
    annotations = {name: [str(a) for a in inspect.get_annotations(f).values()] for name, f in functions.items()}
    of_features = {name for name, found in annotations.items() if any("Rows" in a for a in found)}
    enrolled = {name for case in METRICS.values() for name in called_by(case.loss)}
    assert of_features - enrolled == set(EXCEPTIONS), "add a case to METRICS, or a reason to EXCEPTIONS"


@pytest.mark.parametrize("name", DISTANCES)
def test_identical_then_near_then_far(name, sets):
    real, near, far = sets
    values = [METRICS[name].loss(real, other) for other in (real, near, far)]
    assert all(type(value) is float for value in values)
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("name", SPREAD)
def test_all_different_then_few_different_then_all_the_same(name, sets):
    real = sets[0]
    few = real.copy()
    few[40:] = real[np.arange(200) % 3]
    few[:, 3:] *= 0.1
    values = [METRICS[name].loss(real, other) for other in (real, few, np.tile(real[:1], (240, 1)))]
    assert all(type(value) is float for value in values)
    assert values[0] < values[1] < values[2]


def test_copies_are_seen_wherever_the_rest_lies(sets):
    real, near, far = sets
    assert memorization_ratio(real, real) == 1
    assert memorization_ratio(near, real) < 0.1
    assert memorization_ratio(np.vstack([near, real[:80]]), real) == pytest.approx(0.25, abs=0.05)
    assert memorization_ratio(far, real) == 0


def test_classes_share_nothing_then_little_then_all(sets):
    first, second = sets[0][:120].copy(), sets[1][:120].copy()
    first[:, 3:] = second[:, :3] = 0
    mixed = np.vstack([first, second + 0.3 * first])
    values = [METRICS["ole_score"].loss(None, z) for z in (np.vstack([first, second]), mixed, sets[0])]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[0] < values[1] < values[2]


@each
def test_rows_are_a_set(case, sets):
    real, near, _ = sets
    rng = np.random.default_rng(4)
    order = np.concatenate([rng.permutation(120), 120 + rng.permutation(120)])  # two classes, each in any order
    tolerance = 0.5 if case.loss is few_subsets else 1e-9  # it draws other rows
    shuffled = case.loss(rng.permutation(real), near[order])
    assert shuffled == pytest.approx(case.loss(real, near), rel=tolerance)


@each
def test_a_tensor_is_measured_like_an_array(case, sets):
    real, near, _ = sets
    assert case.loss(torch.from_numpy(real), torch.from_numpy(near)) == case.loss(real, near)
    transposed = torch.from_numpy(near.T.copy()).T.requires_grad_()
    assert case.loss(torch.from_numpy(real), transposed) == case.loss(real, near)


@each
def test_float32_is_computed_in_float64(case, sets):
    real, near, _ = sets
    assert case.loss(real, near) == case.loss(real.astype(np.float64), near.astype(np.float64))


@pytest.mark.parametrize(
    "case", [c for c in METRICS.values() if c.moves], ids=[n for n, c in METRICS.items() if c.moves]
)
def test_digits_are_kept_far_from_the_origin(case):
    real, synthetic = np.random.default_rng(5).integers(-8, 8, size=(2, 150, 6)).astype(np.float32)
    expected = case.loss(real, synthetic)
    assert case.loss(real + 2**18, synthetic + 2**18) == pytest.approx(expected, rel=1e-9)


@each
def test_inputs_stay_as_they_are(case, sets):
    real, near = sets[0].astype(np.float64), sets[1].astype(np.float64)
    before = real.copy(), near.copy()
    case.loss(real, near)
    np.testing.assert_array_equal(real, before[0])
    np.testing.assert_array_equal(near, before[1])


@each
@pytest.mark.parametrize("num_elements", [1, 1000])
def test_block_size_does_not_matter(case, sets, monkeypatch, num_elements):
    real, near, _ = sets
    expected = case.loss(real, near)
    for module in (neighbours, distribution):
        monkeypatch.setattr(module, "_BLOCK_ELEMENTS", num_elements)
    assert case.loss(real, near) == (pytest.approx(expected, rel=1e-12) if case.sums_blocks else expected)


@each
def test_number_of_threads_does_not_matter(case, sets):
    real, near, _ = sets
    threads = torch.get_num_threads()
    values = []
    for number in (1, 2):
        torch.set_num_threads(number)
        values.append(case.loss(real, near))
    torch.set_num_threads(threads)
    assert values[0] == pytest.approx(values[1], rel=1e-9)


@each
def test_precision_of_products_does_not_matter(case, sets):
    real, near, _ = sets
    expected = case.loss(real, near)
    torch.set_float32_matmul_precision("medium")
    coarse = case.loss(real, near)
    torch.set_float32_matmul_precision("highest")
    assert coarse == expected


@each
def test_constant_features_give_a_number(case, sets):
    real = sets[0]
    if case is METRICS["memorization_ratio"]:
        assert case.loss(real, np.ones_like(real)) <= 0
    else:
        assert math.isfinite(case.loss(real, np.ones_like(real)))
        assert math.isfinite(case.loss(np.ones_like(real), np.ones_like(real)))


@each
def test_too_few_rows_are_refused(case, sets):
    real, near, _ = sets
    assert math.isfinite(case.loss(real[: case.enough], near[: case.enough]))
    with pytest.raises(TooFewRows):
        case.loss(real[: case.enough - 1], near[: case.enough - 1])


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(case, sets, value):
    real, near, _ = sets
    broken = near.copy()
    broken[3, 2] = value
    with pytest.raises(ValueError, match="finite"):
        case.loss(real, broken)


@each
def test_what_is_no_matrix_is_refused(case, sets):
    real, near, _ = sets
    for other in (near[0], near[:, :0]):
        with pytest.raises(ValueError, match="need an array"):
            case.loss(real, other)


@pytest.mark.parametrize("name", [*DISTANCES, "memorization_ratio"])
def test_sets_of_different_widths_are_refused(name, sets):
    real, near, _ = sets
    with pytest.raises(ValueError, match="same width"):
        METRICS[name].loss(real, near[:, :3])


# Devices


class Far(Tensor):
    """A tensor that counts as one on another device."""


class Elsewhere(TorchFunctionMode):
    """Refuses what a GPU would refuse: to mix Far tensors with others, and to read them without fetching them first.

    It calls its device `meta`, which every torch knows.
    """

    DEVICE = torch.device("meta")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs))
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        far = any(isinstance(t, Far) for t in tensors)
        is_made = any(isinstance(t, torch.device) and t == self.DEVICE for t in leaves)
        with torch._C.DisableTorchFunctionSubclass():
            if far and func in (Tensor.device.__get__, Tensor.is_cpu.__get__):
                return self.DEVICE if func == Tensor.device.__get__ else False
            near = any(t.ndim and not isinstance(t, Far) for t in tensors)  # numbers and indices may come from anywhere
            assert not (far and near) or func in (Tensor.__getitem__, Tensor.__setitem__), f"two devices in {func}"
            assert not far or func not in (Tensor.numpy, Tensor.__array__), "read on the host"
            args, kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), (args, kwargs or {}))
            args, kwargs = tree_map_only(Far, lambda t: t.as_subclass(Tensor), (args, kwargs))
            result = func(*args, **kwargs)
            is_far = (far or is_made) and func is not Tensor.cpu
            return tree_map_only(Tensor, lambda t: t.as_subclass(Far), result) if is_far else result


@each
def test_a_metric_stays_on_the_device_of_its_features(case, sets):
    real, near, _ = sets
    real[:20] = real[20]  # copies go the longer way
    expected = case.loss(real, near)
    with Elsewhere() as elsewhere:
        far = [torch.from_numpy(x).to(elsewhere.DEVICE) for x in (real, near)]
        assert far[0].device == elsewhere.DEVICE
        assert case.loss(*far) == pytest.approx(expected, rel=1e-12)


def test_elsewhere_refuses_what_a_device_would():
    with Elsewhere() as elsewhere:
        far = torch.ones(3).to(elsewhere.DEVICE)
        assert (far + torch.ones((), device="cpu")).sum().item() == 6
        np.testing.assert_array_equal(far.cpu().numpy(), 1)
        with pytest.raises(AssertionError, match="two devices"):
            far + torch.ones(3)
        with pytest.raises(AssertionError, match="on the host"):
            np.asarray(far)


@pytest.mark.gpu
@each
def test_cuda_and_cpu_agree(case, sets):
    real, near, _ = sets
    cuda = [torch.from_numpy(x).cuda() for x in (real, near)]
    assert case.loss(*cuda) == pytest.approx(case.loss(real, near), rel=1e-9)
