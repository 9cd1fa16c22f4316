"""Rounding to b bits and back, against a plain formula, torch and torchao."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from searchlib.objectives.fake_quantize import fake_quantize, fake_quantize_within, quantize  # noqa: E402

BITS = [2, 3, 4, 6, 8]


def numbers(seed=0, shape=(5, 24), spread=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


def plain(row, bits, symmetric=False):
    """The definition, number by number, in Python's own arithmetic."""
    values = [float(x) for x in row]
    if symmetric:
        levels = 2 ** (bits - 1) - 1
        scale = max(abs(x) for x in values) / levels or 1.0
        return [max(-levels, min(levels, round(x / scale))) * scale for x in values]
    levels = 2**bits - 1
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (high - low) / levels or 1.0
    zero = round(-low / scale)
    return [(max(0, min(levels, round(x / scale) + zero)) - zero) * scale for x in values]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_it_is_the_definition(bits, symmetric):
    x = numbers()
    expected = [plain(row, bits, symmetric) for row in x]
    assert torch.allclose(fake_quantize(x, bits, symmetric=symmetric), torch.tensor(expected).double(), atol=1e-12)


@pytest.mark.parametrize("group", [8, 10, 24, 100])
def test_groups_are_rows_of_their_own_and_the_last_may_be_shorter(group):
    x = numbers()
    pieces = [[v for start in range(0, 24, group) for v in plain(row[start : start + group], 3)] for row in x]
    assert torch.allclose(fake_quantize(x, 3, group=group), torch.tensor(pieces).double(), atol=1e-12)


def test_a_row_by_hand():
    # max - min = 3 is 3 steps of 1, and the code of 0 is 1; 0.5 lies between two levels and goes to the even one.
    codes = quantize(torch.tensor([[-1.0, 0.0, 0.5, 0.6, 2.0]]), 2)
    assert codes.codes.flatten().tolist() == [0, 1, 1, 2, 3]
    assert (codes.scale.item(), codes.zero.item()) == (1.0, 1.0)
    assert fake_quantize(torch.tensor([[-1.0, 0.0, 0.5, 0.6, 2.0]]), 2).tolist() == [[-1, 0, 0, 1, 2]]
    # Symmetric with 2 bits: the levels are -2, 0, 2.
    assert fake_quantize(torch.tensor([[-1.5, 0.9, 1.1, 2.0]]), 2, symmetric=True).tolist() == [[-2, 0, 2, 2]]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_torch_agrees(bits, symmetric):
    x = numbers().float()
    codes = quantize(x, bits, symmetric=symmetric)
    low, high = (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    theirs = torch.fake_quantize_per_channel_affine(
        x, codes.scale.flatten(), codes.zero.flatten().int(), 0, low, high
    )  # fmt: skip
    assert torch.allclose(fake_quantize(x, bits, symmetric=symmetric), theirs, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 8])
def test_torchao_agrees(bits, group):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    x = numbers().float()
    block = (1, group or 24)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale, zero = primitives.choose_qparams_affine(
        x, primitives.MappingType.ASYMMETRIC, block, torch.int8, low, high, eps=1e-12
    )
    theirs = primitives.quantize_affine(x, block, scale, zero, torch.int8, low, high)
    theirs = primitives.dequantize_affine(theirs, block, scale, zero, torch.int8, low, high)
    assert torch.allclose(fake_quantize(x, bits, group=group), theirs, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_is_at_most_half_a_scale(bits, shift, symmetric):
    x = numbers(shape=(40, 64)) + shift
    scale = quantize(x, bits, symmetric=symmetric).scale[:, 0]
    error = (fake_quantize(x, bits, symmetric=symmetric) - x).abs()
    assert float((error / scale).max()) <= 0.5 + 1e-9
    assert float(error.max()) > 0


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_quantized_already_stays(bits, symmetric):
    once = fake_quantize(numbers(), bits, symmetric=symmetric)
    assert torch.allclose(fake_quantize(once, bits, symmetric=symmetric), once, atol=1e-12)


def test_zero_stays_zero_and_equal_numbers_stay_equal():
    x = torch.tensor([[0.0, 0.3, 0.3, -0.7], [0.0, 5.0, 5.0, 9.0]])
    rounded = fake_quantize(x, 3)
    assert (rounded[:, 0] == 0).all()
    assert (rounded[:, 1] == rounded[:, 2]).all()


def test_more_bits_are_closer():
    x = numbers(shape=(64, 256))
    ratios = [10 * math.log10(float((x**2).mean() / ((fake_quantize(x, b) - x) ** 2).mean())) for b in range(2, 13)]
    gains = np.diff(ratios)
    assert (gains > 4).all()
    assert abs(gains[-3:].mean() - 6.02) < 0.2  # 6 decibels for every bit


def test_a_dead_channel_does_not_touch_the_others():
    x = numbers(shape=(4, 32))
    dead = x.clone()
    dead[1] = 0
    rounded = fake_quantize(dead, 4)
    assert (rounded[1] == 0).all()
    assert torch.equal(rounded[[0, 2, 3]], fake_quantize(x, 4)[[0, 2, 3]])


def test_tiny_numbers_keep_their_relative_precision():
    x = numbers(shape=(4, 32))
    assert torch.allclose(fake_quantize(x * 2.0**-40, 4), fake_quantize(x, 4) * 2.0**-40, rtol=1e-12, atol=0)


def test_half_precision_is_rounded_in_single():
    x = numbers(shape=(8, 64)).to(torch.bfloat16)
    assert torch.equal(fake_quantize(x, 8), fake_quantize(x.float(), 8).to(torch.bfloat16))


def test_full_precision_is_the_tensor_itself():
    x = numbers()
    assert fake_quantize(x, 16) is x
    assert fake_quantize_within(x, 16, -1, 1) is x


def test_a_static_range_cuts():
    x = torch.linspace(-4, 4, 81)
    rounded = fake_quantize_within(x, 4, -1.0, 2.0)
    assert (float(rounded.min()), float(rounded.max())) == (-1.0, pytest.approx(2.0))
    inside = (x >= -1) & (x <= 2)
    assert float((rounded - x)[inside].abs().max()) <= 0.1 + 1e-6
    own = numbers().float()
    dynamic = fake_quantize(own.flatten(), 4)
    static = fake_quantize_within(own, 4, float(own.min()), float(own.max()))
    assert torch.allclose(static.flatten(), dynamic, atol=1e-6)


@pytest.mark.parametrize("group", [None, 4, 5])
def test_nothing_stays_nothing(group):
    # An expert to which no token was routed.
    for shape in ((0, 8), (2, 0, 8)):
        assert fake_quantize(torch.zeros(shape), 4, group=group).shape == shape
