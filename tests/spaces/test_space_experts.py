from __future__ import annotations

import itertools
import pickle
import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import ExpertMatrices, ExpertMerges, ExpertSubsets

# What the released code of EEP (arXiv 2407.00945) does, configs/search/search.yml.
ACTIVE, ELEMENT, STEP, NORMALIZED, FIRST_PARENT, RELEASED_ROW = 0.25, 0.25, 0.065, 0.1, 0.6, 0.15

MIXTRAL = ExpertSubsets(layers=32, experts=8, keep=4, groups=4)
MERGES = ExpertMerges(layers=32, experts=8, keep=4, groups=4)


def given_one(rate, count):
    """Probability of one of ``count`` independent events, given that at least one happens."""
    return rate / (1 - (1 - rate) ** count)


def matrices(rows, space=MERGES):
    return rows.reshape(-1, 2, space.groups, space.keep, space.experts)


# Which layers share a choice


def test_mixtral_has_four_groups_of_eight_layers():
    assert MIXTRAL.layer_groups == MERGES.layer_groups == (0,) * 8 + (1,) * 8 + (2,) * 8 + (3,) * 8


def test_groups_are_consecutive_and_the_first_ones_larger():
    assert ExpertSubsets(10, 8, 4, 4).layer_groups == (0, 0, 0, 1, 1, 1, 2, 2, 3, 3)


# Which experts are kept


@pytest.mark.parametrize(("groups", "size"), [(4, 70**4), (32, 70**32)])
def test_the_size_of_the_mixtral_space_is_that_of_the_paper(groups, size):
    assert ExpertSubsets(32, 8, 4, groups).size == size


def test_size_is_the_number_of_choices():
    space = ExpertSubsets(2, 4, 2, 2)
    values = list(itertools.product(itertools.combinations(range(4), 2), repeat=2))
    assert len(set(row_keys(space.encode(values)))) == space.size == 36


def test_samples_are_uniform_over_all_choices():
    space = ExpertSubsets(2, 4, 2, 2)
    keys = row_keys(space.sample(np.random.default_rng(0), 7200))
    seen = [keys.count(key) for key in set(keys)]
    assert len(seen) == 36
    assert stats.chisquare(seen).pvalue > 1e-3


def test_the_order_of_slots_means_nothing():
    assert MIXTRAL.encode([[(3, 1, 0, 2)] * 4]).tolist() == [[0, 1, 2, 3] * 4]
    assert MIXTRAL.contains(np.array([[3, 1, 0, 2] * 4])).all()
    assert not MIXTRAL.contains(np.array([[3, 1, 0, 0] * 4])).any()


def test_groups_are_active_as_often_as_in_the_released_code():
    space = ExpertSubsets(32, 16, 4, 4, row_rate=1.0)
    parents = space.sample(np.random.default_rng(0), 10_000)
    changed = (space.mutate(np.random.default_rng(1), parents) != parents).reshape(-1, 4, 4).any(axis=2)
    assert changed.any(axis=1).all()
    assert changed.mean() == pytest.approx(given_one(ACTIVE, 4), abs=0.01)


@pytest.mark.parametrize(("row_rate", "expected"), [(RELEASED_ROW, 0.15), (None, 0.25)])
def test_experts_of_active_groups_are_replaced_at_the_row_rate(row_rate, expected):
    space = ExpertSubsets(8, 16, 4, 8, group_rate=1.0, row_rate=row_rate)
    parents = space.sample(np.random.default_rng(0), 5000)
    replaced = space.distance(parents, space.mutate(np.random.default_rng(1), parents))
    assert replaced.min() >= 1
    assert replaced.mean() / 32 == pytest.approx(expected, abs=0.005)


def test_every_mutation_replaces_an_expert_by_one_that_the_group_did_not_keep():
    space = ExpertSubsets(4, 6, 5, 4)
    parents = space.sample(np.random.default_rng(0), 20_000)
    children = space.mutate(np.random.default_rng(1), parents)
    assert space.contains(children).all()
    assert space.distance(parents, children).min() >= 1


def test_a_child_keeps_what_both_parents_keep_in_every_group_or_takes_the_group_whole():
    rng = np.random.default_rng(0)
    first, second = MIXTRAL.sample(rng, 2000), MIXTRAL.sample(rng, 2000)
    child, a, b = (
        MIXTRAL.features(rows).reshape(-1, 4, 8) > 0 for rows in (MIXTRAL.crossover(rng, first, second), first, second)
    )
    assert not (a & b & ~child).any()
    assert not (child & ~(a | b)).any()
    different = (a != b).any(axis=2)
    whole = ((child == a).all(axis=2) | (child == b).all(axis=2))[different]
    assert 0.5 < whole.mean() < 0.8  # one half by choice, and some by filling up


def test_the_experts_with_the_largest_scores_are_kept():
    scores = np.tile([0.0, 5.0, -1.0, 2.0, 3.0, 0.1, -7.0, 4.0], 4)
    assert MIXTRAL.decode(MIXTRAL.from_latent(scores[None])[0]) == ((1, 3, 4, 7),) * 4


def test_rows_that_would_wrap_around_in_the_array_type_are_refused():
    rows = np.array([[0, 1, 2, 3] * 4], np.int64)
    assert MIXTRAL.check(rows).dtype == np.int16
    with pytest.raises(InvalidCandidate, match="must hold int16 genes"):
        MIXTRAL.check(rows + 2**16)


@pytest.mark.parametrize("space", [ExpertSubsets, ExpertMerges])
@pytest.mark.parametrize(
    ("settings", "offender"),
    [
        ({"keep": 9}, "`keep <= experts` must hold, but got (keep=9, experts=8)"),
        ({"groups": 33}, "`groups <= layers` must hold, but got (groups=33, layers=32)"),
        ({"keep": 0}, "keep=0"),
        ({"layers": True}, "layers=True"),
        ({"experts": 40_000}, "experts=40000"),
        ({"group_rate": 0}, "group_rate=0"),
        ({"row_rate": 1.1}, "row_rate=1.1"),
        ({"row_rate": float("nan")}, "row_rate=nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_printed(space, settings, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        space(**{"layers": 32, "experts": 8, "keep": 4, "groups": 4, **settings})


@pytest.mark.parametrize(
    ("settings", "offender"),
    [
        ({"element_rate": 0}, "element_rate=0"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"normalize_rate": -0.1}, "normalize_rate=-0.1"),
        ({"parent_rate": 2}, "parent_rate=2"),
    ],
)
def test_rates_of_merging_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        ExpertMerges(32, 8, 4, 4, **settings)


@pytest.mark.parametrize("value", [((0, 1, 2), (3,)), ((0, 0), (1, 2)), ((0, 1), (1, 4)), 3])
def test_a_value_that_is_no_choice_of_experts_is_named(value):
    space = ExpertSubsets(2, 4, 2, 2)
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in ExpertSubsets(")):
        space.encode([value])


# How experts are merged


def test_matrices_of_the_mixtral_space_have_the_dimensions_of_the_paper():
    assert [ExpertMerges(32, 8, keep, groups).dimension for keep, groups in [(4, 4), (2, 4), (4, 32), (6, 32)]] == [
        256,
        128,
        2048,
        3072,
    ]


def test_an_embedded_subset_is_one_hot_in_both_matrices_and_comes_back():
    subsets = MIXTRAL.sample(np.random.default_rng(0), 50)
    both = matrices(MERGES.embed(subsets))
    assert (both.sum(axis=-1) == 1).all()
    assert (both[:, 0] == both[:, 1]).all()
    assert (both[:, 1].argmax(axis=-1).reshape(50, 16) == subsets).all()
    restricted, exact = MERGES.restrict(both.reshape(50, -1))
    assert (restricted == subsets).all()
    assert exact.all()


def test_restriction_repairs_repeated_experts_and_says_that_it_is_not_the_same():
    space = ExpertMerges(1, 4, 2, 1)
    rows = np.array([[0, 1, 0, 0, 0, 0, 1, 0, 0, 0.9, 0, 0.1, 0.1, 0.8, 0, 0.1]], np.float32)
    kept, exact = space.restrict(rows)
    assert kept.tolist() == [[1, 2]]
    assert exact.tolist() == [False]


def change(parents, **settings):
    space = ExpertMerges(32, 8, 4, 4, **settings)
    children = space.mutate(np.random.default_rng(1), parents)
    return matrices(children).astype(np.float64) - matrices(parents)


def test_matrices_and_entries_change_as_often_as_in_the_released_code():
    parents = MERGES.embed(MIXTRAL.sample(np.random.default_rng(0), 10_000))
    step = change(parents, normalize_rate=0)
    active = (step != 0).any(axis=(3, 4))
    assert active.any(axis=(1, 2)).all()
    assert active.mean() == pytest.approx(given_one(ACTIVE, 8), abs=0.01)
    assert active[:, 0].mean() == pytest.approx(active[:, 1].mean(), abs=0.01)
    assert (step[active] != 0).mean() == pytest.approx(given_one(ELEMENT, 32), abs=0.002)


def test_steps_are_gaussian_with_the_released_standard_deviation():
    parents = MERGES.embed(MIXTRAL.sample(np.random.default_rng(0), 1000))
    step = change(parents, normalize_rate=0)
    step = step[step != 0]
    assert step.std() == pytest.approx(STEP, rel=0.01)
    assert stats.kstest(step[:5000], stats.norm(0, STEP).cdf).pvalue > 1e-3


def test_one_child_in_ten_has_its_merging_rows_divided_by_their_sums():
    parents = MERGES.embed(MIXTRAL.sample(np.random.default_rng(0), 10_000)) * np.float32(1.5)
    children = matrices(MERGES.mutate(np.random.default_rng(1), parents))
    normalized = (np.abs(children.sum(axis=-1) - 1) < 1e-5).all(axis=(2, 3))
    assert normalized[:, 1].mean() == pytest.approx(NORMALIZED, abs=0.01)
    assert not normalized[:, 0].any()


def test_rows_that_sum_to_nearly_zero_are_not_blown_up():
    space = ExpertMerges(1, 4, 2, 1, normalize_rate=1.0)
    parents = np.tile(np.array([1, 0, 0, 0, 0, 1, 0, 0, 1, -1, 0, 0, 0, 1, 0, -1], np.float32), (500, 1))
    children = space.mutate(np.random.default_rng(0), parents)
    assert np.abs(children).max() < 30


def test_normalizing_never_undoes_a_mutation():
    space = ExpertMerges(1, 2, 1, 1, normalize_rate=1.0)
    parents = space.embed(space.first.sample(np.random.default_rng(0), 5000))
    assert (space.mutate(np.random.default_rng(1), parents) != parents).any(axis=1).all()


def test_rows_come_from_the_first_parent_as_often_as_in_the_released_code():
    first = MERGES.embed(MIXTRAL.sample(np.random.default_rng(0), 10_000))
    child = matrices(MERGES.crossover(np.random.default_rng(1), first, first * np.float32(2)))
    from_first = child.sum(axis=-1) == 1
    assert from_first.mean() == pytest.approx(FIRST_PARENT, abs=0.01)
    mixed = from_first.any(axis=-1) & ~from_first.all(axis=-1)
    by_row = 1 - FIRST_PARENT**4 - (1 - FIRST_PARENT) ** 4
    assert mixed.mean() == pytest.approx(given_one(ACTIVE, 8) * by_row, abs=0.01)


def test_permuting_the_slots_of_a_group_in_both_matrices_is_the_same_candidate():
    rng = np.random.default_rng(0)
    rows = matrices(MERGES.sample(rng, 20))
    rows[:, 1, 0, 2] = rows[:, 1, 0, 1]  # two slots with the same merging row
    both = rows.copy()
    both[:, :, 2] = both[:, :, 2, [3, 1, 0, 2]]
    both[:, :, 0] = both[:, :, 0, [1, 2, 3, 0]]
    one = rows.copy()
    one[:, 0, 2] = one[:, 0, 2, [3, 1, 0, 2]]
    canonical, same, other = (MERGES.canonical(x.reshape(20, -1)) for x in (rows, both, one))
    assert (canonical == same).all()
    assert (canonical != other).any(axis=1).all()


def test_negative_zero_is_zero():
    rows = MERGES.embed(MIXTRAL.sample(np.random.default_rng(0), 3))
    assert not np.signbit(MERGES.canonical(-rows * 0)).any()


def test_keeping_all_experts_is_fine_tuning_around_the_identity():
    space = ExpertMerges(4, 8, 8, 2)
    assert space.first.size == 1
    rows = matrices(space.sample(np.random.default_rng(0), 200), space)
    assert np.abs(rows - np.eye(8)).max() < 6 * STEP + 0.2
    assert matrices(space.from_latent(np.zeros((1, space.dimension))), space)[0, 1, 1].tolist() == np.eye(8).tolist()


def test_matrices_are_read_only_and_compared_by_content():
    row = MERGES.sample(np.random.default_rng(0), 1)[0]
    first, second = MERGES.decode(row), MERGES.decode(row.copy())
    assert first == second != MERGES.decode(row + 1)
    assert hash(first) == hash(second)
    assert first == pickle.loads(pickle.dumps(first))
    assert first.router.shape == first.merging.shape == (4, 4, 8)
    with pytest.raises(ValueError, match="read-only"):
        first.merging[0, 0, 0] = 1
    assert (MERGES.decode(row) == "something else") is False


@pytest.mark.parametrize("shape", [(4, 4, 7), (3, 4, 8), (4, 8)])
def test_matrices_of_another_shape_are_refused(shape):
    with pytest.raises(InvalidCandidate, match="does not lie in ExpertMerges"):
        MERGES.encode([ExpertMatrices(np.zeros(shape), np.zeros(shape))])


def test_matrices_that_are_not_finite_are_refused():
    with pytest.raises(InvalidCandidate, match="does not lie in ExpertMerges"):
        MERGES.encode([ExpertMatrices(np.full((4, 4, 8), np.nan, np.float32), np.zeros((4, 4, 8), np.float32))])
