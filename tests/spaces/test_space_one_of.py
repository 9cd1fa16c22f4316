import json
import math
import re

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import space_from_json
from searchlib.spaces import Binary, Integer, Monotone, Multiset, OneOf, Permutation, Product, Real, Simplex, Subset

METHODS = OneOf(prune=Subset(8, 2), quantize=Integer(2, 8), both=Product(kept=Subset(8, 2), bits=Integer(2, 8)))


def test_size_is_the_sum_over_the_branches():
    assert METHODS.size == 28 + 7 + 28 * 7
    assert OneOf(a=Binary(3), b=Real(0, 1)).size == math.inf


def test_values_name_their_branch():
    values = [("prune", (3, 5)), ("quantize", 4), ("both", {"kept": (0, 7), "bits": 3})]
    rows = METHODS.encode(values)
    assert rows.tolist() == [[0, 3, 5, 0], [1, 4, 0, 0], [2, 0, 7, 3]]
    assert [METHODS.decode(row) for row in rows] == values


def test_genes_that_a_branch_does_not_have_are_zeroed_and_lie_outside_otherwise():
    stray = np.array([[1, 4, 6, 1], [0, 3, 5, 2]])
    assert METHODS.canonical(stray).tolist() == METHODS.repair(stray).tolist() == [[1, 4, 0, 0], [0, 3, 5, 0]]
    assert METHODS.contains(stray).tolist() == [False, False]


def test_samples_choose_every_branch_alike_however_large_it_is():
    rows = METHODS.sample(np.random.default_rng(0), 9000)
    assert np.bincount(rows[:, 0]) / 9000 == pytest.approx([1 / 3] * 3, abs=0.02)


def test_a_mutation_changes_the_branch_at_its_rate_and_otherwise_mutates_within():
    space = OneOf(a=Binary(5), b=Permutation(4), switch_rate=0.3)
    rows = space.sample(np.random.default_rng(0), 6000)
    changed = space.mutate(np.random.default_rng(1), rows)
    switched = changed[:, 0] != rows[:, 0]
    assert switched.mean() == pytest.approx(0.3, abs=0.02)
    assert (changed != rows).any(axis=1).all()


def test_a_branch_with_one_candidate_can_only_be_left():
    space = OneOf(fixed=Subset(3, 3), free=Integer(0, 9))
    rows = space.encode([("fixed", (0, 1, 2))] * 100)
    assert (space.mutate(np.random.default_rng(0), rows)[:, 0] == 1).all()
    alone = OneOf(fixed=Subset(3, 3))
    assert np.array_equal(alone.mutate(np.random.default_rng(0), rows), rows)


def test_crossover_mixes_parents_of_one_branch_and_never_of_two():
    space = OneOf(a=Integer(0, 9, 4), b=Integer(0, 9, 4))
    rng = np.random.default_rng(0)
    first, second = space.sample(rng, 4000), space.sample(rng, 4000)
    child = space.crossover(rng, first, second)
    alike = first[:, 0] == second[:, 0]
    of_one = (child == first).all(axis=1) | (child == second).all(axis=1)
    assert of_one[~alike].all()
    assert of_one[alike].mean() < 0.2
    assert ((child[alike] == first[alike]) | (child[alike] == second[alike])).all()
    assert (child[~alike] == first[~alike]).all(axis=1).mean() == pytest.approx(0.5, abs=0.05)


def test_distance_between_branches_is_beyond_that_within():
    both = ("both", {"kept": (0, 1), "bits": 2})
    rows = METHODS.encode([("prune", (0, 1)), ("prune", (2, 3)), ("quantize", 2), both])
    assert METHODS.distance(rows[[0, 0, 0, 2]], rows[[1, 2, 3, 3]]).tolist() == [2, 3, 4, 4]


def test_features_and_relaxation_keep_the_branches_apart():
    space = OneOf(a=Subset(3, 1), b=Simplex(2))
    rows = space.encode([("a", (2,)), ("b", (0.25, 0.75))])
    features = space.features(rows)
    assert features[:, :2].tolist() == [[1, 0], [0, 1]]
    assert features[0, 2:5].tolist() == [0, 0, 1]
    assert not features[0, 5:].any()
    assert not features[1, 2:5].any()
    latent = np.zeros((1, space.latent_dimension))
    latent[0, :5] = [0.0, 1.0, 0.0, 0.0, 5.0]
    assert space.decode(space.from_latent(latent)[0]) == ("b", (0.5, 0.5))


def test_conditions_nest_and_lie_beside_other_choices():
    solver = OneOf(ddim=Integer(5, 50), dpm=OneOf(order=Integer(2, 3), times=Monotone(4, 0, 9, whole=True, gap=1)))
    space = Product(solver=solver, prompts=Multiset(Subset(3, 1), 2))
    assert space.size == (46 + 2 + math.comb(10, 4)) * 6
    value = {"solver": ("dpm", ("times", (0, 2, 3, 9))), "prompts": ((0,), (2,))}
    assert space.encode([value]).tolist() == [[1, 1, 0, 2, 3, 9, 0, 2]]
    assert space.decode(space.encode([value])[0]) == value
    assert len(space.enumerate()) == space.size


def test_names_need_be_no_identifiers_and_the_rate_survives_json():
    space = OneOf({"a b": Binary(1), "switch_rate": Binary(2)}, switch_rate=0.5, c=Binary(3))
    assert space_from_json(json.loads(json.dumps(space.to_json()))) == space
    assert eval(repr(space), {"OneOf": OneOf, "Binary": Binary}) == space
    assert space != OneOf({"a b": Binary(1), "switch_rate": Binary(2)}, c=Binary(3))


@pytest.mark.parametrize(
    ("branches", "settings", "says"),
    [
        ((), {}, "but got ()"),
        ((("a", 3),), {}, "'a': 3"),
        ((("a", Binary(1)), ("a", Binary(2))), {}, "['a', 'a']"),
        (7, {}, "branches must be pairs"),
        ((("a", Binary(1)),), {"switch_rate": 0}, "switch_rate"),
    ],
)
def test_branches_that_cannot_be_meant_are_printed(branches, settings, says):
    with pytest.raises(InvalidSettings, match=re.escape(says)):
        OneOf(branches, **settings)


@pytest.mark.parametrize("value", [("merge", 3), ("quantize", 9), "quantize", ("quantize",), 7])
def test_a_value_that_does_not_belong_is_refused(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in OneOf(")):
        METHODS.encode([value])
