import importlib
import math

import numpy as np
import pytest

from searchlib import spaces

optuna = pytest.importorskip("optuna")
OptunaParameters = pytest.importorskip("searchlib.exchange").OptunaParameters

SPACES = [
    spaces.Product(rate=spaces.Real(1e-3, 1.0, log=True), steps=spaces.Integer(5, 50), on=spaces.Binary(2)),
    spaces.OneOf(prune=spaces.Subset(8, k=2), quantize=spaces.Integer(2, 8)),
    spaces.Grouped(spaces.Categorical(("euler", None, 2)), groups=3),
    spaces.Multiset(spaces.Integer(1, 9, log=True), slots=3),
    spaces.Product(kind=spaces.Fixed.at(spaces.Categorical(("euler", "heun")), "heun"), steps=spaces.Integer(5, 7)),
    spaces.Permutation(5),
    spaces.Simplex(3),
    spaces.Affine(3),
    spaces.Monotone(4, 0.0, 1.0),
    spaces.EvalSubsets(200, keep=4),
    spaces.ExpertSubsets(layers=4, experts=8, keep=2, groups=2),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_every_value_lies_in_its_distribution(space):
    check(space, 50)


def test_any_space_has_parameters():
    every = importlib.import_module("tests.spaces.every_space").SPACES
    assert len(every) > 100
    for space in every:
        check(space, 4)


def check(space, n):
    rows = space.canonical(space.sample(np.random.default_rng(0), n))
    parameters = OptunaParameters(space, rows)
    for row in rows:
        named = parameters.of(row)
        assert bool(named) == (0 < space.dimension <= 1000)
        for name, (value, distribution) in named.items():
            inside = distribution.to_internal_repr(value)
            assert distribution._contains(inside), (space, name, value, distribution)
            assert distribution.to_external_repr(inside) == value


def test_parameters_carry_bounds_scales_and_names():
    space = SPACES[0]
    rows = space.encode([{"rate": 0.5, "steps": 7, "on": (0, 1)}])
    assert {name: parameter.value for name, parameter in OptunaParameters(space, rows).of(rows[0]).items()} == {
        "rate": 0.5, "steps": 7, "on[0]": 0, "on[1]": 1,
    }  # fmt: skip
    declared = {name: parameter.distribution for name, parameter in OptunaParameters(space, rows).of(rows[0]).items()}
    assert declared["rate"] == optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
    assert declared["steps"] == optuna.distributions.IntDistribution(5, 50)
    assert declared["on[1]"] == optuna.distributions.CategoricalDistribution((0, 1))


def test_only_the_chosen_branch_has_parameters():
    space = SPACES[1]
    rows = space.encode([("prune", (7, 3)), ("quantize", 4)])
    parameters = OptunaParameters(space, rows)
    assert {name: one.value for name, one in parameters.of(rows[0]).items()} == {
        "branch": "prune", "prune[0]": 3, "prune[1]": 7,
    }  # fmt: skip
    assert {name: one.value for name, one in parameters.of(rows[1]).items()} == {"branch": "quantize", "quantize": 4}


def test_options_of_parts_are_named():
    costs = (((4.0, 8.0), (4.0, 8.0)),)
    space = spaces.Allocation(("first", "last"), (4, 8), costs=costs, budgets=(12.0,))
    rows = space.encode([(4, 8)])
    named = OptunaParameters(space, rows).of(rows[0])
    assert {name: one.value for name, one in named.items()} == {"first": 4, "last": 8}
    assert named["last"].distribution == optuna.distributions.CategoricalDistribution((4, 8))


def test_many_items_are_a_range_and_not_a_list():
    space = spaces.Subset(5000, k=2)
    rows = space.encode([(4999, 3)])
    value, distribution = OptunaParameters(space, rows).of(rows[0])["item[1]"]
    assert (value, distribution) == (4999, optuna.distributions.IntDistribution(0, 4999))


def test_more_genes_than_anybody_looks_at_are_no_parameters():
    space = spaces.Binary(1001)
    rows = space.sample(np.random.default_rng(0), 1)
    assert OptunaParameters(space, rows).of(rows[0]) == {}
    assert len(OptunaParameters(spaces.Binary(1000), rows[:, 1:]).of(rows[0, 1:])) == 1000


def test_a_row_that_is_known_by_its_seed_only_has_no_parameters():
    assert OptunaParameters(spaces.Binary(3), [None]).of(None) == {}


def test_a_gene_without_declared_bounds_spans_what_was_met():
    space = spaces.Affine(2)
    rows = space.canonical(np.array([[0.25, 0.75], [2.0, -1.0]]))
    bounds = [OptunaParameters(space, rows).of(row)["gene[0]"].distribution for row in rows]
    assert [(one.low, one.high) for one in bounds] == [(0.25, 2.0)] * 2
    assert all(map(math.isfinite, (bounds[0].low, bounds[0].high)))
