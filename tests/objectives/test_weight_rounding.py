"""AWQ and GPTQ on tiny layers, against formulas and brute force."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.awq import awq  # noqa: E402
from searchlib.objectives.fake_quantization import FakeQuantization  # noqa: E402
from searchlib.objectives.fake_quantize import fake_quantize, quantize  # noqa: E402
from searchlib.objectives.gptq import gptq  # noqa: E402
from searchlib.objectives.input_moments import InputMoments, measure_moments, output_error  # noqa: E402
from searchlib.spaces import BitPlan  # noqa: E402
from searchlib.spaces.bit_plan import Bits  # noqa: E402

BITS = [2, 3, 4]


def correlated(n=400, channels=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    spread = torch.exp(torch.randn(channels, generator=generator))
    return (torch.randn(n, channels, generator=generator) @ mixing) * spread


def weights(rows=8, channels=16, seed=1):
    return torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))


def moments_of(x):
    x = x.double()
    return InputMoments(x.T @ x / len(x), x.abs().mean(dim=0))


def loss(rows, rounded, x):
    return float(((rows - rounded).double() @ x.double().T).square().sum(dim=0).mean())


def test_the_change_of_outputs_is_a_quadratic_form_of_the_second_moment():
    x, rows = correlated(), weights()
    rounded = fake_quantize(rows, 3)
    assert float(output_error(rows, rounded, moments_of(x).second)) == pytest.approx(loss(rows, rounded, x))


def test_moments_are_those_of_all_that_went_in():
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 4), correlated()
    found = measure_moments({"0": layer}, lambda: [layer(part) for part in x.split(150)])["0"]
    expected = moments_of(x)
    assert torch.allclose(found.second, expected.second)
    assert torch.allclose(found.magnitude, expected.magnitude)
    with pytest.raises(InvalidSettings, match="is a convolution"):
        measure_moments({"0": nn.Conv2d(1, 1, 1)}, lambda: None)
    with pytest.raises(InvalidSettings, match="did not run"):
        measure_moments({"0": layer}, lambda: None)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [None, 8])
def test_both_change_outputs_less_than_the_nearest_levels(bits, group):
    x, rows = correlated(), weights()
    nearest = loss(rows, fake_quantize(rows, bits, group=group), x)
    for method in (awq, gptq):
        rounded = method({"0": moments_of(x)})("0", rows, Bits(bits, group))
        assert loss(rows, rounded, x) < 0.9 * nearest, method.__name__


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_gptq_without_correlations_is_the_nearest_level(bits, symmetric):
    rows = weights().double()
    alone = InputMoments(torch.eye(16, dtype=torch.float64) * 3, torch.ones(16))
    rounded = gptq({"0": alone}, symmetric=symmetric)("0", rows, Bits(bits))
    assert torch.allclose(rounded, fake_quantize(rows, bits, symmetric=symmetric), atol=1e-12)


def test_gptq_lies_between_brute_force_and_the_nearest_levels():
    x = correlated(channels=5)
    second = moments_of(x).second
    gains = []
    for seed in range(20):
        row = weights(1, 5, seed).double()
        codes = quantize(row, 2)
        levels = [float((code - codes.zero) * codes.scale) for code in range(4)]
        every = torch.tensor(list(itertools.product(levels, repeat=5)), dtype=torch.float64)
        apart = row - every
        best = float(((apart @ second) * apart).sum(dim=1).min())
        own = float(output_error(row, gptq({"0": moments_of(x)})("0", row, Bits(2)), second))
        nearest = float(output_error(row, fake_quantize(row, 2), second))
        assert best <= own * (1 + 1e-9)
        gains.append((nearest - own) / (nearest - best) if nearest > best else 1.0)
    assert sum(gains) / len(gains) > 0.3


def test_gptq_makes_up_for_the_first_column_as_least_squares_would():
    """The columns left after one is rounded are those that change the output least (optimal brain surgeon)."""
    x, row = correlated(channels=6), weights(1, 6).double()
    second = moments_of(x).second
    # With many bits only the first column's error counts: round it by hand, and solve for the rest.
    upper = torch.linalg.cholesky(torch.linalg.inv(second), upper=True)
    first = torch.round(row[0, 0])
    error = (row[0, 0] - first) / upper[0, 0]
    moved = row[0] - error * upper[0]
    apart = first - row[0, 0]
    rest = row[0, 1:] - torch.linalg.solve(second[1:, 1:], second[1:, 0]) * apart
    assert torch.allclose(moved[1:], rest)


def test_awq_scales_up_what_meets_large_inputs():
    rows = weights()
    x = correlated()
    x[:, 3] *= 100
    nearest, own = fake_quantize(rows, 3), awq({"0": moments_of(x)})("0", rows, Bits(3))
    error = lambda rounded: float((rows - rounded)[:, 3].abs().mean())  # noqa: E731
    assert error(own) < 0.3 * error(nearest)


def test_channels_that_are_always_zero_do_no_harm():
    x = correlated()
    x[:, 5] = 0
    for method in (awq, gptq):
        assert torch.isfinite(method({"0": moments_of(x)})("0", weights(), Bits(3))).all()


def test_a_model_is_rounded_by_them():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 8)).requires_grad_(False), correlated()
    layers = {"0": model[0]}
    moments = measure_moments(layers, lambda: model(x))
    exact, errors = model(x), {}
    for name, rounding in (("nearest", None), ("awq", awq(moments)), ("gptq", gptq(moments))):
        with FakeQuantization(model, layers, rounding=rounding) as quantized:
            quantized.set(BitPlan(weight={"0": 3}))
            errors[name] = float((model(x) - exact).square().mean())
    assert max(errors["awq"], errors["gptq"]) < errors["nearest"]


def test_awq_of_half_precision_weights_loses_no_more_than_that_of_the_same_numbers_in_single():
    x, w = correlated(channels=64).double(), weights(rows=32, channels=64).bfloat16()
    moments = {"layer": InputMoments(x.T @ x / len(x), x.abs().mean(dim=0))}
    own, single = (awq(moments)("layer", rows, Bits(8)) for rows in (w, w.float()))
    assert own.dtype == torch.bfloat16
    assert torch.equal(own, single.bfloat16())
