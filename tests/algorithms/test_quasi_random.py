import numpy as np
import pytest
from scipy.stats import qmc

from searchlib import Problem, QuasiRandom, RandomSearch, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import (
    Affine,
    Allocation,
    Binary,
    Categorical,
    EvalSubsets,
    ExpertMerges,
    Grouped,
    Integer,
    Permutation,
    Product,
    Real,
    Simplex,
    Subset,
)
from searchlib.testing import check_algorithm

SPACES = [
    Binary(12),
    Subset(10, k=4),
    Subset(5, k=0),
    Categorical(("a", "b", "c"), length=5),
    Integer(0, 20, length=3),
    Real(-1.0, 1.0, length=3),
    Simplex(4),
    Affine(4),
    Permutation(6),
    Product(mask=Binary(6), rate=Real(0.0, 1.0)),
    Grouped(Subset(6, k=3), groups=3),
    EvalSubsets(30, keep=5),
    ExpertMerges(layers=4, experts=6, keep=3, groups=2),
    Allocation(("q", "k", "v"), (2, 4, 8), costs=(((2, 4, 8),) * 3,), budgets=(12.0,)),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_contract_holds(space):
    check_algorithm(QuasiRandom(), space)


def asked(algorithm, space, n, seed):
    run, rows = algorithm.start(Problem(space), np.random.default_rng(seed)), []
    while sum(map(len, rows)) < n:
        rows.append(run.ask(min(50, n - sum(map(len, rows)))).population)
    return np.concatenate(rows)


@pytest.mark.parametrize("space", [Real(0.0, 1.0, length=4), Real(1e-3, 1.0, length=2, log=True)], ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_the_discrepancy_is_far_below_that_of_random_search(space, seed):
    def discrepancy(algorithm):
        unit = (space.to_latent(asked(algorithm, space, 256, seed)) + 2) / 4
        return qmc.discrepancy(np.clip(unit, 0, 1))

    assert discrepancy(QuasiRandom()) < 0.2 * discrepancy(RandomSearch())


def test_categories_and_bits_are_balanced():
    space = Product(mode=Categorical(("a", "b", "c", "d")), mask=Binary(3), steps=Integer(0, 9))
    rows = asked(QuasiRandom(), space, 256, 0)
    modes = np.bincount(rows[:, 0], minlength=4)
    steps = np.bincount(rows[:, 4], minlength=10)
    assert len(rows) == 256
    # Without repetitions of 320 candidates no column can be perfect, but independent draws would be off by 7 and 5.
    assert np.abs(modes - 64).max() <= 12
    assert np.abs(rows[:, 1:4].mean(axis=0) - 0.5).max() < 0.06
    assert np.abs(steps - 25.6).max() < 8


def test_no_candidate_is_proposed_twice_and_a_small_space_is_exhausted():
    result = search(sum, QuasiRandom(), space=Subset(8, k=3), budget=1000, direction="maximize")
    assert len(set(row_keys(result.history.population))) == len(result.history) == 56
    assert result.best == (5, 6, 7)


def test_seeds_come_first():
    seeds = [(1, 1, 0, 0, 0, 0), (0, 0, 1, 1, 0, 0)]
    result = search(sum, QuasiRandom(), space=Binary(6), budget=12, seeds=seeds)
    assert result.history.population[:2].astype(int).tolist() == [list(seed) for seed in seeds]


def test_another_seed_scrambles_differently():
    space = Real(0.0, 1.0, length=2)
    first, second = (asked(QuasiRandom(), space, 64, seed) for seed in (0, 1))
    assert not np.isclose(first, second).any(axis=1).any()


def test_several_objectives_are_fine():
    run = QuasiRandom().start(Problem(Binary(5), objectives=2), np.random.default_rng(0))
    assert len(run.ask(7)) == 7


def test_more_coordinates_than_there_are_direction_numbers_are_refused():
    with pytest.raises(MissingOperator, match=r"21201.*30000"):
        search(sum, QuasiRandom(), space=Binary(30000), budget=5)


def test_an_archive_of_nothing_is_refused():
    with pytest.raises(InvalidSettings, match=r"archive.*0"):
        QuasiRandom(archive=0)
