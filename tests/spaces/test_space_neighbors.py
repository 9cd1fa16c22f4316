"""Lists and neighborhoods against itertools."""

import itertools
import math
import re

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import (
    Affine,
    Allocation,
    AttentionConfigs,
    Binary,
    Categorical,
    CheckpointCoefficients,
    EvalSubsets,
    ExemplarSets,
    ExpertMerges,
    ExpertSubsets,
    Grouped,
    Integer,
    Monotone,
    Multiset,
    OneOf,
    Permutation,
    Product,
    Real,
    Simplex,
    SolverSchedules,
    Subset,
)

BITS = (2, 4, 8)
TIGHT = Allocation(tuple("abcd"), BITS, costs=((BITS,) * 4,), budgets=(16.0,))
CHOICES = [(*pair, rest) for pair in itertools.combinations(range(4), 2) for rest in range(3)]

LISTS = [
    (Binary(3), itertools.product((0, 1), repeat=3)),
    (Subset(6, 3), itertools.combinations(range(6), 3)),
    (Subset(4, 0), [()]),
    (Categorical(("a", "b", "c"), 2), itertools.product(range(3), repeat=2)),
    (Integer(-1, 2, 2), itertools.product(range(-1, 3), repeat=2)),
    (Permutation(5), itertools.permutations(range(5))),
    (EvalSubsets(4, 3), itertools.combinations_with_replacement(range(4), 3)),
    (ExemplarSets(3, 2, capacity=5), itertools.combinations(range(5), 2)),
    (Grouped(Subset(4, 3), 2), [a + b for a, b in itertools.product(itertools.combinations(range(4), 3), repeat=2)]),
    (ExpertSubsets(4, 4, 3, 2),
     [a + b for a, b in itertools.product(itertools.combinations(range(4), 3), repeat=2)]),
    (Product(kept=Subset(4, 2), rest=Categorical(("x", "y", "z"))), CHOICES),
    (TIGHT, [row for row in itertools.product(range(3), repeat=4) if sum(BITS[i] for i in row) <= 16]),
    (Monotone(3, 0, 4, whole=True, gap=1), itertools.combinations(range(5), 3)),
    (Monotone(3, 2, 4, whole=True), itertools.combinations_with_replacement((2, 3, 4), 3)),
    (Multiset(Subset(3, 2), 2),
     [a + b for a, b in itertools.combinations_with_replacement(list(itertools.combinations(range(3), 2)), 2)]),
    (OneOf(a=Binary(1), b=Subset(3, 2)), [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 0, 2), (1, 1, 2)]),
    (Real(2, 2), [(2.0,)]),
]  # fmt: skip


@pytest.mark.parametrize(("space", "expected"), LISTS, ids=[repr(space)[:60] for space, _ in LISTS])
def test_enumerate_lists_every_candidate_once_in_lexical_order(space, expected):
    expected = sorted(expected)
    assert list(map(tuple, space.enumerate().tolist())) == expected
    assert space.size == len(expected) > 0


def test_what_is_too_large_to_list_is_refused_with_its_size():
    with pytest.raises(InvalidSettings, match=re.escape("10,518,300 candidates, more than limit=1,000,000")):
        Subset(32, 8).enumerate()
    with pytest.raises(InvalidSettings, match=re.escape("more than 10**100 candidates")):
        Binary(15_000).enumerate()
    assert len(Subset(32, 3).enumerate(limit=4960)) == math.comb(32, 3) == 4960
    with pytest.raises(InvalidSettings, match=re.escape("4,960 candidates, more than limit=4,959")):
        Subset(32, 3).enumerate(limit=4959)


def test_an_allocation_beyond_the_internal_list_is_enumerated_whole():
    space = Allocation(tuple("abcdefghij"), BITS, costs=((BITS,) * 10,), budgets=(44.0,))
    rows = space.enumerate()
    every = np.array(list(itertools.product(range(3), repeat=10)))
    assert len(rows) == space.size == (np.array(BITS)[every].sum(axis=1) <= 44).sum() > 4096
    assert len(set(row_keys(rows))) == len(rows)


@pytest.mark.parametrize(
    "space",
    [Real(0, 1), Simplex(3), Affine(3), CheckpointCoefficients(4), ExpertMerges(2, 3, 2, 1), Monotone(3, 0.0, 1.0),
     SolverSchedules(5, 80.0, (0.002, 0.003)), Multiset(Real(0, 1), 2), Product(a=Binary(2), b=Real(0, 1))],
    ids=repr,
)  # fmt: skip
def test_spaces_of_real_genes_say_that_they_have_neither_list_nor_neighbors(space):
    with pytest.raises(MissingOperator, match="cannot be enumerated"):
        space.enumerate()
    with pytest.raises(MissingOperator, match="mutate"):
        space.neighbors(space.sample(np.random.default_rng(0), 1)[0])


def within(space, row, moves):
    """All candidates of a space that differ from a row by so much, in any order."""
    rows = space.enumerate()
    apart = space.distance(np.repeat(row[None], len(rows), axis=0), rows)
    return {key for key, gap in zip(row_keys(rows), apart, strict=True) if gap == moves}


@pytest.mark.parametrize(
    ("space", "distance", "count"),
    [
        (Binary(7), 1, 7),
        (Subset(9, 4), 1, 4 * 5),
        (Categorical(("a", "b", "c"), 4), 1, 4 * 2),
        (Permutation(5), 2, math.comb(5, 2)),
        (ExemplarSets(7, 3), 1, 3 * 4),
        (ExpertSubsets(4, 5, 2, 2), 1, 2 * 2 * 3),
        (Grouped(Subset(5, 2), 3), 1, 3 * 2 * 3),
        (Product(a=Subset(5, 2), b=Binary(3)), 1, 2 * 3 + 3),
        (Allocation(tuple("abcd"), BITS), 1, 4 * 2),
        (EvalSubsets(4, 3), 1, None),
        (Multiset(Subset(4, 2), 1), 1, 4),
    ],
    ids=lambda item: repr(item)[:60],
)
def test_neighbors_are_the_candidates_at_the_smallest_distance(space, distance, count):
    for row in space.sample(np.random.default_rng(1), 5):
        near = space.neighbors(row)
        assert count is None or len(near) == count
        assert len(near) > 0
        assert set(row_keys(near)) == within(space, space.canonical(row[None])[0], distance)


def test_integers_move_by_one_and_stop_at_their_bounds():
    assert Integer(0, 9, 2).neighbors([0, 5]).tolist() == [[1, 5], [0, 4], [0, 6]]


def test_an_order_of_levels_moves_one_of_them_by_one_without_meeting_the_next():
    space = Monotone(3, 0, 5, whole=True, gap=1)
    assert {tuple(row) for row in space.neighbors([0, 1, 4]).tolist()} == {(0, 2, 4), (0, 1, 3), (0, 1, 5)}


def test_exchanges_are_where_a_budget_forbids_one_of_two_switches():
    row = np.array([1, 1, 1, 1])  # four times four bits fill the budget of 16
    near = {tuple(new) for new in TIGHT.neighbors(row).tolist()}
    cheaper = {tuple(np.where(np.arange(4) == part, 0, 1)) for part in range(4)}
    assert cheaper <= near
    two = {new for new in itertools.product(range(3), repeat=4) if sum(np.array(new) != 1) == 2}
    paid = {new for new in two if 2 in new and sum(BITS[i] for i in new) <= 16}
    assert near == cheaper | paid
    roomy = Allocation(tuple("abcd"), BITS, costs=((BITS,) * 4,), budgets=(18.0,))
    assert (2, 0, 1, 1) in {tuple(new) for new in roomy.neighbors(row).tolist()}


def test_with_one_option_per_group_all_of_its_parts_switch_together():
    rules = ((0, 0.25), (8, 0), (0, 1))
    space = AttentionConfigs(2, 4, rules, lengths=(64,), density=1.0, max_rules_per_layer=1)
    near = space.neighbors([0, 0, 0, 0, 1, 1, 1, 1])
    assert {tuple(row) for row in near.tolist()} == {
        (1, 1, 1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 1, 1, 1, 1), (0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 2, 2, 2, 2),
    }  # fmt: skip


def test_an_unwritten_exemplar_is_nobodys_neighbor():
    space = ExemplarSets(4, 2, capacity=100)
    assert space.neighbors([0, 99]).tolist() == [[1, 99], [2, 99], [3, 99], [0, 1], [0, 2], [0, 3]]


def test_neighbors_of_another_branch_are_its_middle():
    space = OneOf(a=Subset(3, 2), b=Integer(0, 4), c=Real(0, 1))
    near = space.neighbors([0, 0, 1]).tolist()
    assert near == [[0, 1, 2], [0, 0, 2], [1, 2, 0], [2, 0.5, 0]]


def test_a_row_that_does_not_belong_has_no_neighbors():
    with pytest.raises(InvalidCandidate, match=re.escape("row[0] = [1, 1] does not lie in Subset(n=4, k=2)")):
        Subset(4, 2).neighbors([1, 1])


def test_a_finite_space_without_hooks_is_listed_by_drawing(monkeypatch):
    monkeypatch.delattr(Permutation, "_every_row")
    rows = Permutation(5).enumerate()
    assert list(map(tuple, rows.tolist())) == list(itertools.permutations(range(5)))


def test_a_space_whose_operators_do_not_reach_all_says_what_to_override(monkeypatch):
    monkeypatch.delattr(Binary, "_every_row")
    monkeypatch.setattr(Binary, "sample", lambda self, rng, n: np.zeros((n, self.n), bool))
    monkeypatch.setattr(Binary, "mutate", lambda self, rng, rows: rows.copy())
    with pytest.raises(MissingOperator, match=r"reach 1 of its 8 candidates; override _every_row"):
        Binary(3).enumerate()
