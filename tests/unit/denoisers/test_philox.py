"""Random numbers: the known answers, and that each hangs on what it is for and on nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from autophagy.denoisers.philox import normals, philox, uniforms

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)  # its digits, as counter and key
# Counter, key and words of philox4x32 with 10 rounds: the known answers of Random123, the authors' own library.
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, ONES << 32 | ONES, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, 0x299F31D0 << 32 | 0xA4093822, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
IDS = torch.tensor([0, 1, 1 << 40, (1 << 40) + 1, (1 << 62) + 3])


def words(counter: tuple[int, ...], key: int) -> tuple[int, ...]:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    return tuple(int(word) for word in philox((a, b, c, d), key))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_known_answers(counter, key, expected):
    assert words(counter, key) == expected


def test_every_bit_of_counter_and_key_matters():
    """About half of the 128 bits change with any of the 192."""
    counter, key, expected = KNOWN[2]

    def changed(counter: tuple[int, ...], key: int) -> int:
        return sum((a ^ b).bit_count() for a, b in zip(words(counter, key), expected, strict=True))

    flips = [changed(counter, key ^ 1 << bit) for bit in range(64)]
    for word in range(4):
        for bit in range(32):
            flips.append(changed(tuple(w ^ (i == word) << bit for i, w in enumerate(counter)), key))
    assert min(flips) > 32
    assert max(flips) < 96


@pytest.mark.parametrize(
    "draw", [lambda ids, step, n: uniforms(5, ids, step, n), lambda *a: normals(5, *a[:2], (a[2],))]
)
class TestBoth:
    def test_a_row_hangs_on_its_id_and_step_alone(self, draw):
        drawn = draw(IDS, 7, 10)
        assert drawn.shape == (5, 10)
        assert torch.equal(draw(IDS[[3, 0]], 7, 10), drawn[[3, 0]])
        assert torch.equal(draw(IDS[[2, 4]], torch.tensor([7, 7]), 10), drawn[[2, 4]])
        steps = draw(IDS[[1, 1, 1]], torch.tensor([6, 7, 2**32 - 1]), 10)
        assert torch.equal(steps[1], drawn[1])
        assert len(torch.cat([drawn, steps[[0, 2]]]).unique()) == 70

    def test_the_first_numbers_do_not_hang_on_how_many_there_are(self, draw):
        for count in (1, 2, 3, 4, 5, 9):
            assert torch.equal(draw(IDS, 0, count), draw(IDS, 0, 12)[:, :count])

    def test_the_global_generator_is_left_alone(self, draw):
        before = torch.get_rng_state()
        draw(IDS, 0, 3)
        assert torch.equal(torch.get_rng_state(), before)


def test_keys_beyond_32_bits_are_told_apart():
    """torch's own generator looks at the low half of a seed."""
    assert not torch.isclose(normals(5, IDS, 0, (4,)), normals(5 + 2**32, IDS, 0, (4,))).any()


def test_no_two_of_many_images_share_their_noise():
    assert len(normals(1, torch.arange(200_000), 0, (4,)).unique(dim=0)) == 200_000


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    u = uniforms(3, torch.arange(1000), 1, 1000)
    assert u.dtype == torch.float64
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 150  # chi-square of 99 degrees of freedom: 99.9 % below


def test_normal_numbers_are_standard_normal_and_independent():
    z = normals(3, torch.arange(500), 1, (2, 10, 50))
    assert (z.dtype, z.shape) == (torch.float32, (500, 2, 10, 50))
    z = z.double().flatten(1)
    n = z.numel()
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(n))
    assert float(z.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert float((z**4).mean()) == pytest.approx(3, abs=4 * math.sqrt(96 / n))
    below = [float((z < limit).double().mean()) for limit in (-2, -1, 0.5)]
    assert below == pytest.approx([0.02275, 0.15866, 0.69146], abs=2e-3)
    for other in (z.roll(1, 1), z.roll(2, 1), z.roll(1, 0), z**2):  # neighbours of a pair, a block, another image
        assert abs(float((z * (other - other.mean())).mean())) < 5 / math.sqrt(n)
