from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import ExemplarSets, Subset


def test_samples_are_uniform_over_the_sets_of_the_pool():
    rows = ExemplarSets(6, 3, capacity=50).sample(np.random.default_rng(0), 8000)
    codes = {subset: place for place, subset in enumerate(itertools.combinations(range(6), 3))}
    seen = np.bincount([codes[tuple(row)] for row in rows.tolist()], minlength=len(codes))
    assert stats.chisquare(seen).pvalue > 1e-3


@pytest.mark.parametrize("row", [[0, 1, 2], [0, 1, 17], [3, 12, 29], [11, 12, 13]])
def test_a_replacement_is_any_exemplar_of_the_pool_that_is_not_shown(row):
    space = ExemplarSets(5, 3, capacity=30)
    parents = np.tile(np.array(row, np.int32), (9000, 1))
    children = space.mutate(np.random.default_rng(0), parents)
    assert space.contains(children).all()
    assert (np.diff(children, axis=1) > 0).all()
    entered = [set(child) - set(row) for child in children.tolist()]
    assert all(new and new <= set(range(5)) for new in entered)
    outside = [i for i in range(5) if i not in row]
    assert stats.chisquare([sum(i in new for new in entered) for i in outside]).pvalue > 1e-3
    left = [sum(i not in child for child in children.tolist()) for i in row]
    assert stats.chisquare(left).pvalue > 1e-3


def test_as_many_are_replaced_as_in_a_subset_of_the_same_size():
    parents = Subset(100, 20).sample(np.random.default_rng(0), 20_000)
    ours, theirs = (space.distance(parents, space.mutate(np.random.default_rng(1), parents))
                    for space in (ExemplarSets(100, 20, capacity=400), Subset(100, 20)))  # fmt: skip
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.02)
    written = parents + 100 * (np.arange(20) >= 12).astype(np.int32)[None]  # eight of twenty were written
    space = ExemplarSets(100, 20, capacity=400)
    assert space.distance(written, space.mutate(np.random.default_rng(1), written)).mean() == pytest.approx(
        theirs.mean(), rel=0.02
    )


def test_rows_with_and_without_written_exemplars_are_mutated_together():
    space = ExemplarSets(6, 3, capacity=1000)
    rng = np.random.default_rng(0)
    rows = space.encode([(0, 1, 2), (3, 700, 999), (6, 7, 8), (0, 1, 6)] * 50)
    for _ in range(20):
        children = space.mutate(rng, rows)
        assert space.contains(children).all()
        assert (space.distance(rows, children) > 0).all()
        written = [{i for i in row if i >= 6} for row in children.tolist()]
        assert all(new <= {i for i in old if i >= 6} for new, old in zip(written, rows.tolist(), strict=True))
    assert len(rows) == 200


def test_ids_beyond_the_pool_belong_to_the_space_up_to_its_capacity():
    space = ExemplarSets(5, 2, capacity=9)
    assert space.contains(np.array([[0, 8], [8, 5]])).all()
    assert not space.contains(np.array([[0, 9], [3, 3], [-1, 2]])).any()
    assert space.encode([(8, 0)]).tolist() == [[0, 8]]
    assert space.size == 36
    with pytest.raises(InvalidCandidate, match=r"\(0, 9\)"):
        space.encode([(0, 9)])


def test_repair_leaves_written_exemplars_and_draws_none():
    space = ExemplarSets(5, 3, capacity=90)
    rows = np.array([[89.0, 2, 7], [1e9, 1e9, 1e9], [88, 88, 3]])
    assert space.repair(rows).tolist() == [[89, 2, 7], [2, 3, 4], [2, 3, 4]]


def test_the_relaxation_reaches_the_pool_unless_it_is_told_otherwise():
    space = ExemplarSets(5, 3, capacity=40)
    rows = space.from_latent(np.random.default_rng(0).normal(size=(500, 40)))
    assert (rows < 5).all()
    written = space.encode([(4, 17, 39), (37, 38, 39), (0, 1, 5)])
    assert space.from_latent(space.to_latent(written)).tolist() == written.tolist()


def test_features_name_the_pool_and_count_the_rest():
    space = ExemplarSets(4, 3, capacity=30)
    assert space.features(np.array([[0, 2, 3], [1, 28, 29]], np.int32)).tolist() == [[1, 0, 1, 1, 0], [0, 1, 0, 0, 2]]


def test_without_room_for_more_it_is_a_subset():
    ours, theirs = ExemplarSets(8, 3), Subset(8, 3)
    assert ours == ExemplarSets(8, 3, capacity=8)
    assert ours.size == theirs.size == 56
    for seed in range(5):
        rows = ours.sample(np.random.default_rng(seed), 30)
        assert np.array_equal(rows, theirs.sample(np.random.default_rng(seed), 30))
        mine, other = (space.mutate(np.random.default_rng(seed), rows) for space in (ours, theirs))
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(("settings", "offender"), [
    ({"pool": 3, "k": 4}, "k=4, pool=3"), ({"pool": 9, "k": 2, "capacity": 5}, "pool=9, capacity=5"),
    ({"pool": 3, "k": 3, "capacity": 9}, "pool of 3"), ({"pool": 3, "k": 0}, "k=0"), ({"pool": True, "k": 1}, "True"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=offender):
        ExemplarSets(**settings)
