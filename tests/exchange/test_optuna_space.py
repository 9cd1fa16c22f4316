import numpy as np
import pytest

from searchlib import spaces

optuna = pytest.importorskip("optuna")
CategoricalDistribution = pytest.importorskip("optuna.distributions").CategoricalDistribution
FloatDistribution = pytest.importorskip("optuna.distributions").FloatDistribution
IntDistribution = pytest.importorskip("optuna.distributions").IntDistribution
OptunaSpace = pytest.importorskip("searchlib.exchange.optuna_space").OptunaSpace
part_of = pytest.importorskip("searchlib.exchange.optuna_space").part_of

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.1, 0.7, step=0.2),
    "width": IntDistribution(16, 512, log=True),
    "depth": IntDistribution(1, 9, step=4),
    "mixed": CategoricalDistribution([None, True, 1.5, "a", float("nan")]),
}


def test_every_proposal_is_what_its_distribution_allows_and_comes_back():
    made = OptunaSpace(DISTRIBUTIONS)
    rows = made.space.sample(np.random.default_rng(0), 200)
    met = set()
    for row in rows:
        parameters = made.parameters(row)
        assert list(parameters) == sorted(DISTRIBUTIONS)
        for name, value in parameters.items():
            assert DISTRIBUTIONS[name]._contains(DISTRIBUTIONS[name].to_internal_repr(value)), (name, value)
        assert (made.row(parameters, DISTRIBUTIONS) == row).all()
        met.add((round(parameters["dropout"], 9), parameters["depth"], repr(parameters["mixed"])))
    assert {drop for drop, _, _ in met} == {0.1, 0.3, 0.5, 0.7}
    assert {depth for _, depth, _ in met} == {1, 5, 9}
    assert {mixed for _, _, mixed in met} == {"None", "True", "1.5", "'a'", "nan"}


def test_scales_are_kept():
    assert part_of(DISTRIBUTIONS["rate"]) == spaces.Real(1e-5, 1e-1, log=True)
    assert part_of(DISTRIBUTIONS["width"]) == spaces.Integer(16, 512, log=True)
    assert part_of(DISTRIBUTIONS["depth"]) == spaces.Integer(0, 2)


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(1.0, 1.0), IntDistribution(0, 2**60), FloatDistribution(-1.7e308, 1.7e308),
     CategoricalDistribution(["only"])],
)  # fmt: skip
def test_what_cannot_vary_or_is_too_wide_has_no_space(distribution):
    assert part_of(distribution) is None


def test_a_trial_with_other_bounds_or_without_a_parameter_has_no_row():
    made = OptunaSpace({"x": FloatDistribution(0.0, 1.0)})
    assert made.row({"x": 0.5}, {"x": FloatDistribution(0.0, 1.0)}).tolist() == [0.5]
    assert made.row({"x": 0.5}, {"x": FloatDistribution(0.0, 2.0)}) is None
    assert made.row({}, {}) is None
