"""The weights of a policy."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import PolicyParameters


def module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def test_rows_are_laid_out_as_torch_lays_out_parameters():
    import torch

    net = module()
    space = PolicyParameters.from_module(net)
    row = space.encode([net.state_dict()])[0]
    np.testing.assert_array_equal(row, torch.nn.utils.parameters_to_vector(net.parameters()).detach().numpy())


def test_a_decoded_row_loads_into_the_module_and_computes_what_it_should():
    import torch

    net = module()
    space = PolicyParameters.from_module(net)
    row = space.sample(np.random.default_rng(0), 1)[0]
    net.load_state_dict({name: torch.from_numpy(array) for name, array in space.decode(row).items()})
    inputs = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    weights = space.decode(row)
    hidden = np.tanh(inputs @ weights["0.weight"].T + weights["0.bias"])
    expected = hidden @ weights["2.weight"].T + weights["2.bias"]
    np.testing.assert_allclose(net(torch.from_numpy(inputs)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_samples_have_the_spread_of_their_tensor():
    space = PolicyParameters((("wide", (100, 50)), ("narrow", (5000,))), spread=(2.0, 0.01))
    rows = space.sample(np.random.default_rng(0), 20)
    assert rows[:, :5000].std() == pytest.approx(2.0, rel=0.02)
    assert rows[:, 5000:].std() == pytest.approx(0.01, rel=0.02)
    assert space.to_latent(rows).std(axis=1) == pytest.approx(1.0, rel=0.05)


def test_a_number_of_weights_is_a_flat_policy():
    space = PolicyParameters(6)
    assert space.decode(space.encode([np.arange(6)])[0])["weights"].tolist() == [0, 1, 2, 3, 4, 5]
    assert space == PolicyParameters((("weights", (6,)),))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"w": np.zeros((2, 2))}, "lacks"),
        ({"w": np.zeros((2, 2)), "b": np.zeros(3)}, r"'b'\] must be numbers of shape \(2,\)"),
        ({"w": np.full((2, 2), np.nan), "b": np.zeros(2)}, "finite"),
        (np.zeros(5), r"shape \(6,\)"),
        ("weights", "must be numbers"),
    ],
)
def test_values_of_another_policy_are_refused_by_name(value, said):
    space = PolicyParameters((("w", (2, 2)), ("b", (2,))))
    with pytest.raises(InvalidCandidate, match=said):
        space.encode([value])


@pytest.mark.parametrize("shapes", [(), (("a", (2,)), ("a", (3,))), (("a", (0,)),), 0, "weights", 3.5])
def test_shapes_that_are_none_are_refused(shapes):
    with pytest.raises(InvalidSettings):
        PolicyParameters(shapes)


@pytest.mark.parametrize("spread", [0, -1.0, float("inf"), 1e18, 1e-46, (1.0,), (1.0, 0.0)])
def test_a_spread_that_is_none_is_refused(spread):
    with pytest.raises(InvalidSettings):
        PolicyParameters((("a", (2,)), ("b", (3,))), spread)
