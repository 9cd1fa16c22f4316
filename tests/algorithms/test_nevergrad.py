import sys

import numpy as np
import pytest

from searchlib import Nevergrad, search
from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.spaces import Binary, Real, Subset

pytest.importorskip("nevergrad")


def test_cma_finds_the_bottom_of_a_bowl():
    space = Real(-1, 1, length=3)
    result = search(lambda x: sum((xi - 0.3) ** 2 for xi in x), Nevergrad("CMA"), space=space, budget=300, batch_size=8)
    assert result.value < 1e-3


def test_every_proposal_is_feasible_on_an_exact_subset():
    result = search(sum, Nevergrad("TwoPointsDE"), space=Subset(20, k=5), budget=100)
    assert Subset(20, k=5).contains(result.history.population).all()
    assert (np.sort(result.history.population, axis=1) == result.history.population).all()


def test_seeds_are_suggested_first():
    seed = (1, 0, 1, 0, 1, 0, 1, 0)
    result = search(sum, Nevergrad("OnePlusOne"), space=Binary(8), budget=3, seeds=[seed])
    assert tuple(int(gene) for gene in result.history.population[0]) == seed


def test_an_unknown_name_is_refused_with_similar_ones():
    with pytest.raises(InvalidSettings, match=r"'cma'.*'CMA'"):
        search(sum, Nevergrad("cma"), space=Binary(4), budget=3)


def test_without_nevergrad_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(MissingDependency, match=r"searchlib\[nevergrad\]"):
        search(sum, Nevergrad(), space=Binary(4), budget=3)
