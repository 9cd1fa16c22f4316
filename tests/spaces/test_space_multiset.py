import itertools
import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys, space_from_json
from searchlib.spaces import Binary, Categorical, Integer, Multiset, Product, Real, Subset

WORDS = Multiset(Categorical(("crop", "flip", "blur")), 2)
PAIRS = Multiset(Subset(4, 2), 3)


def test_size_is_the_number_of_multisets():
    assert WORDS.size == len(list(itertools.combinations_with_replacement(range(3), 2))) == 6
    assert PAIRS.size == math.comb(6 + 3 - 1, 3)
    assert Multiset(Subset(3, 3), 4).size == 1
    assert Multiset(Real(0, 1), 2).size == math.inf


def test_all_orders_of_the_slots_are_one_candidate():
    rows = PAIRS.sample(np.random.default_rng(0), 200)
    slots = rows.reshape(200, 3, 2)
    for order in itertools.permutations(range(3)):
        shuffled = slots[:, order].reshape(200, 6)
        assert PAIRS.contains(shuffled).all()
        assert np.array_equal(PAIRS.canonical(shuffled), rows)
        assert not PAIRS.distance(shuffled, rows).any()
        assert np.array_equal(PAIRS.features(shuffled), PAIRS.features(rows))
    assert (slots[:, :-1, 0] <= slots[:, 1:, 0]).all()


def test_a_slot_is_sorted_within_before_slots_are_sorted():
    assert PAIRS.canonical(np.array([[3, 0, 2, 1, 1, 0]])).tolist() == [[0, 1, 0, 3, 1, 2]]


def test_samples_are_uniform_over_multisets_and_not_over_tuples():
    rows = PAIRS.sample(np.random.default_rng(0), 12_000)
    counts = np.unique(row_keys(rows), return_counts=True)[1]
    assert len(counts) == PAIRS.size
    assert stats.chisquare(counts).pvalue > 0.001
    alike = (rows[:, :2] == rows[:, 4:]).all(axis=1).mean()
    assert alike == pytest.approx(6 / PAIRS.size, abs=0.01)  # drawn one by one it would be 6 / 6**3


def test_a_mutation_always_changes_the_multiset():
    space = Multiset(Binary(1), 2)
    rows = space.sample(np.random.default_rng(0), 3000)
    changed = space.mutate(np.random.default_rng(1), rows)
    assert (changed != rows).any(axis=1).all()


def test_crossover_of_what_both_parents_hold_keeps_it():
    space = Multiset(Integer(0, 99), 4)
    first, second = space.encode([(7, 7, 7, 1), (5, 5, 5, 5)]), space.encode([(7, 7, 7, 90), (5, 5, 5, 5)])
    for seed in range(20):
        child = space.crossover(np.random.default_rng(seed), first, second)
        assert np.isin([7, 5], child).all()
        assert child[1].tolist() == [5, 5, 5, 5]


def test_parts_may_have_several_genes_of_any_kind():
    space = Multiset(Product(kept=Subset(4, 2), rate=Real(0, 1)), 2)
    value = ({"kept": (1, 2), "rate": 0.5}, {"kept": (0, 3), "rate": 0.25})
    row = space.encode([value])[0]
    assert row.tolist() == [0, 3, 0.25, 1, 2, 0.5]
    assert space.decode(row) == value[::-1]


def test_json_rebuilds_the_space():
    assert space_from_json(json.loads(json.dumps(PAIRS.to_json()))) == PAIRS


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InvalidSettings, match="part must be a space"):
        Multiset(3, 2)
    with pytest.raises(InvalidSettings, match="slots"):
        Multiset(Binary(2), 0)
    with pytest.raises(InvalidCandidate, match=re.escape("values[0] = ('crop',) does not lie in Multiset(")):
        WORDS.encode([("crop",)])
