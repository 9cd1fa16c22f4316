from __future__ import annotations

import itertools
import json
import re
from math import comb

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import ItemSpace, StagedSpace, row_keys, space_from_json
from searchlib.spaces import (
    Binary,
    Categorical,
    ExpertMerges,
    ExpertSubsets,
    Grouped,
    Integer,
    Permutation,
    Product,
    Real,
    Subset,
)

PARTS = [
    Binary(5),
    Subset(7, 3),
    Permutation(4),
    Integer(1, 1000, 2, log=True),
    Real(0, 1, 2),
    Product(kept=Subset(4, 2), rate=Real(0, 1)),
    Grouped(Categorical(("a", "b", "c")), 2),
]


def test_a_small_space_is_what_enumeration_finds():
    space = Grouped(Subset(4, 2), groups=2)
    values = list(itertools.product(itertools.combinations(range(4), 2), repeat=2))
    rows = space.encode(values)
    assert [space.decode(row) for row in rows] == values
    assert len(set(row_keys(rows))) == space.size == len(values) == 36
    everything = np.array(list(itertools.product(range(-1, 5), repeat=4)))
    pairs = list(itertools.permutations(range(4), 2))
    inside = {(*a, *b) for a, b in itertools.product(pairs, repeat=2)}
    assert space.contains(everything).tolist() == [tuple(row) in inside for row in everything.tolist()]
    canonical = space.canonical(np.array(sorted(inside)))
    assert set(map(tuple, canonical.tolist())) == set(map(tuple, rows.tolist()))
    drawn = space.sample(np.random.default_rng(0), 2000)
    assert set(row_keys(space.canonical(drawn))) == set(row_keys(rows))


def test_grouped_subsets_are_the_expert_subsets():
    space, experts = Grouped(Subset(8, 3), groups=4), ExpertSubsets(layers=4, experts=8, keep=3, groups=4)
    rows, others = (space.sample(np.random.default_rng(seed), 50) for seed in (0, 1))
    anything = np.random.default_rng(2).normal(3, 3, (50, space.latent_dimension))
    assert space.size == experts.size
    assert np.array_equal(space.features(rows), experts.features(rows))
    assert np.array_equal(space.distance(rows, others), experts.distance(rows, others))
    assert np.array_equal(space.from_latent(anything), experts.from_latent(anything))
    assert np.array_equal(space.to_latent(rows), experts.to_latent(rows))
    assert [space.decode(row) for row in rows] == [experts.decode(row) for row in rows]


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_every_operator_is_that_of_the_part_group_by_group(part):
    space, rng = Grouped(part, groups=3), np.random.default_rng(0)
    rows, others = space.sample(rng, 20), space.sample(rng, 20)
    numbers = 3 * rng.standard_normal(rows.shape)
    latent = rng.standard_normal((20, space.latent_dimension))

    def groups(array):
        return np.split(array, 3, axis=1)

    def side_by_side(operator, array):
        return np.hstack([operator(group) for group in groups(array)])

    assert space.dtype == part.dtype
    for name, array in [("canonical", rows), ("features", rows), ("to_latent", rows)]:
        assert np.array_equal(getattr(space, name)(array), side_by_side(getattr(part, name), array))
    assert np.array_equal(space.repair(numbers), side_by_side(part.repair, numbers))
    assert np.array_equal(space.from_latent(latent), side_by_side(part.from_latent, latent))
    broken = np.where(np.arange(20)[:, None] % 2, rows, numbers)
    alike = np.all([part.contains(group) for group in groups(broken)], axis=0)
    assert np.array_equal(space.contains(broken), alike)
    assert alike[1::2].all()
    apart = [part.distance(a, b) for a, b in zip(groups(rows), groups(others), strict=True)]
    assert space.distance(rows, others) == pytest.approx(np.sum(apart, axis=0))
    values = [space.decode(row) for row in rows]
    assert values == [tuple(part.decode(group) for group in np.split(row, 3)) for row in rows]
    parts = [part.encode([value[group] for value in values]) for group in range(3)]
    assert np.array_equal(space.encode(values), np.hstack(parts))


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_a_single_group_is_the_part(part):
    space = Grouped(part, groups=1)
    rows, others = part.sample(np.random.default_rng(0), 30), part.sample(np.random.default_rng(1), 30)
    assert np.array_equal(space.sample(np.random.default_rng(0), 30), rows)
    crossed = space.crossover(np.random.default_rng(2), rows, others)
    assert np.array_equal(crossed, part.crossover(np.random.default_rng(2), rows, others))
    mutated = space.mutate(np.random.default_rng(2), rows)
    assert np.array_equal(mutated, part.mutate(np.random.default_rng(2), rows))


def test_groups_are_sampled_independently():
    rows = Grouped(Binary(1), groups=2).sample(np.random.default_rng(0), 40_000)
    cells = np.bincount(2 * rows[:, 0] + rows[:, 1], minlength=4)
    assert cells / 40_000 == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize("groups", [2, 5, 24])
def test_each_group_mutates_with_probability_one_over_their_number_and_one_always_does(groups):
    space, n = Grouped(Subset(9, 4), groups), 20_000
    parents = space.sample(np.random.default_rng(0), n)
    children = space.mutate(np.random.default_rng(1), parents)
    changed = (children != parents).reshape(n, groups, 4).any(axis=2)
    binomial = np.array([comb(groups, k) * (1 / groups) ** k * (1 - 1 / groups) ** (groups - k) for k in range(6)])
    expected = binomial[1:] / (1 - binomial[0])
    counts = np.bincount(changed.sum(axis=1), minlength=6)
    assert counts[0] == 0
    assert counts[1:6] / n == pytest.approx(expected, abs=0.015)
    assert changed.mean(axis=0) == pytest.approx(changed.mean(), abs=0.02)


def test_a_group_that_mutates_does_so_as_the_part_does():
    space, part, n = Grouped(Permutation(6), groups=3), Permutation(6), 30_000
    parents = space.sample(np.random.default_rng(0), n)
    children = space.mutate(np.random.default_rng(1), parents)
    before, after = parents.reshape(-1, 6), children.reshape(-1, 6)
    moved = (before != after).sum(axis=1)
    rows = part.sample(np.random.default_rng(2), n)
    alone = (part.mutate(np.random.default_rng(3), rows) != rows).sum(axis=1)
    among = np.bincount(moved[moved > 0], minlength=7) / (moved > 0).sum()
    assert among == pytest.approx(np.bincount(alone, minlength=7) / n, abs=0.015)


def test_half_of_the_groups_come_whole_from_either_parent_and_the_others_are_crossed():
    space, n = Grouped(Binary(64), groups=3), 10_000
    zeros, ones = np.zeros((n, 192), np.bool_), np.ones((n, 192), np.bool_)
    taken = space.crossover(np.random.default_rng(0), zeros, ones).reshape(n, 3, 64).mean(axis=2)
    assert (taken == 0).mean(axis=0) == pytest.approx([0.25] * 3, abs=0.02)
    assert (taken == 1).mean(axis=0) == pytest.approx([0.25] * 3, abs=0.02)
    crossed = (taken > 0) & (taken < 1)
    assert taken[crossed].mean() == pytest.approx(0.5, abs=0.01)
    assert crossed.all(axis=1).mean() == pytest.approx(1 / 8, abs=0.02)


def test_a_child_has_only_what_its_parents_have_in_the_same_group():
    space, rng = Grouped(Subset(20, 4), groups=5), np.random.default_rng(0)
    first, second = space.sample(rng, 500), space.sample(rng, 500)
    child = space.crossover(rng, first, second).reshape(500, 5, 4, 1)
    parents = np.concatenate([first.reshape(500, 5, 1, 4), second.reshape(500, 5, 1, 4)], axis=3)
    assert (child == parents).any(axis=3).all()


def test_the_part_is_asked_once_for_all_groups_of_all_candidates(monkeypatch):
    asked = []
    for name in ("sample", "mutate", "crossover", "repair", "canonical", "contains", "features", "distance"):
        original = getattr(Binary, name)
        monkeypatch.setattr(Binary, name, lambda *given, f=original, name=name: asked.append(name) or f(*given))
    space, rng = Grouped(Binary(2), groups=100), np.random.default_rng(0)
    rows = space.sample(rng, 10)
    space.distance(rows, space.crossover(rng, rows, space.mutate(rng, rows)))
    space.features(space.repair(space.canonical(rows)))
    assert space.contains(rows).all()
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == 8


def test_groups_that_cannot_change_stay():
    space = Grouped(Subset(3, 3), groups=2)
    rows = np.array([[2, 0, 1, 0, 1, 2]], np.int32)
    assert space.size == 1
    assert space.mutate(np.random.default_rng(0), rows).tolist() == [[0, 1, 2, 0, 1, 2]]


def test_size_is_infinite_where_the_part_is():
    assert Grouped(Real(0, 1), groups=3).size == np.inf
    assert Grouped(Binary(10), groups=200).size == 2**2000


def test_groups_of_groups_and_of_products_nest_in_values():
    heads = Grouped(Grouped(Binary(1), groups=2), groups=3)
    assert heads.encode([[[[1], [0]], [[0], [0]], [[1], [1]]]]).tolist() == [[1, 0, 0, 0, 1, 1]]
    assert heads.decode(np.array([1, 0, 0, 0, 1, 1], np.bool_)) == (((1,), (0,)), ((0,), (0,)), ((1,), (1,)))
    blocks = Grouped(Product(kept=Subset(4, 2), rate=Real(0, 1)), groups=2)
    value = ({"kept": (0, 3), "rate": 0.5}, {"kept": (1, 2), "rate": 0.25})
    assert blocks.encode([value]).tolist() == [[0, 3, 0.5, 1, 2, 0.25]]
    assert blocks.decode(blocks.encode([value])[0]) == value
    both = Product(depth=Integer(1, 9), layers=Grouped(Categorical(("a", "b")), groups=3))
    assert both.decode(both.encode([{"depth": 4, "layers": ("b", "a", "b")}])[0])["layers"] == ("b", "a", "b")


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_json_and_repr_rebuild_it(part):
    space = Grouped(part, groups=np.int64(3))
    assert repr(space) == f"Grouped(part={part!r}, groups=3)"
    back = space_from_json(json.loads(json.dumps(space.to_json())))
    assert back == space != Grouped(part, groups=2)
    assert {back: 1}[space] == 1


def test_a_staged_or_narrowing_part_is_searched_at_once():
    staged, items = ExpertMerges(layers=4, experts=4, keep=2, groups=1), Subset(6, 2)
    assert isinstance(staged, StagedSpace)
    assert isinstance(items, ItemSpace)
    assert not isinstance(Grouped(staged, groups=2), StagedSpace)
    assert not isinstance(Grouped(items, groups=2), ItemSpace)


@pytest.mark.parametrize("groups", [0, -1, 1.5, True, "3", None])
def test_a_number_of_groups_that_cannot_be_meant_is_printed(groups):
    with pytest.raises(InvalidSettings, match=re.escape(f"(groups={groups!r})")):
        Grouped(Binary(2), groups)


@pytest.mark.parametrize("part", [Binary, 3, "Binary(2)", None, (Binary(2), Binary(2))])
def test_a_part_that_is_no_space_is_printed(part):
    with pytest.raises(InvalidSettings, match=re.escape(f"(part={part!r})")):
        Grouped(part, 2)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (("a", "b"), "a tuple of 3 values of Categorical("),
        (("a", "b", "a", "b"), "a tuple of 3 values of Categorical("),
        ("aba", "a tuple of 3 values"),
        ({"a": 0, "b": 1, "c": 2}, "a tuple of 3 values"),
        (7, "a tuple of 3 values"),
        (("a", "z", "b"), "values[1] = 'z' does not lie in Categorical("),
    ],
)
def test_a_value_that_does_not_belong_is_named_with_the_group_that_refuses_it(value, reason):
    space = Grouped(Categorical(("a", "b")), groups=3)
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[1] = {value!r} does not lie in Grouped(")) as error:
        space.encode([("a", "a", "a"), value])
    assert reason in str(error.value.__cause__)


def test_a_population_of_the_wrong_width_is_refused_with_its_shape():
    with pytest.raises(InvalidCandidate, match=re.escape("must have shape (n, 6)")):
        Grouped(Binary(2), groups=3).check(np.zeros((4, 2), np.bool_))
