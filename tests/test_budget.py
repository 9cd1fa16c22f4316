import math

import pytest

from searchlib import Budget
from searchlib.errors import InvalidSettings


@pytest.mark.parametrize(
    "settings",
    [{}, {"evaluations": 0}, {"evaluations": 1.5}, {"evaluations": True}, {"cells": -3}, {"seconds": 0.0},
     {"cost": math.nan}, {"target": math.nan}, {"seconds": "long"}],
    ids=repr,
)  # fmt: skip
def test_a_budget_that_cannot_be_meant_is_refused(settings):
    with pytest.raises(InvalidSettings) as caught:
        Budget(**settings)
    for value in settings.values():
        assert repr(value) in str(caught.value)


def test_a_number_means_evaluations():
    assert Budget.of(7) == Budget(evaluations=7)
    assert Budget.of(Budget(seconds=2.0)) == Budget(seconds=2.0)


def test_the_repr_rebuilds_the_budget():
    budget = Budget(evaluations=3, target=-0.5)
    assert eval(repr(budget)) == budget
