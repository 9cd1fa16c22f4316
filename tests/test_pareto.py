import time

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.pareto import crowding, dominance_ranks, knee, minimized, nondominated, normalized, repeated, spread


def ranks_by_definition(values):
    dominates = (values[:, None] <= values).all(axis=2) & (values[:, None] < values).any(axis=2)
    ranks, left, rank = np.full(len(values), -1), np.ones(len(values), bool), 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(axis=0)
        ranks[front] = rank
        left, rank = left & ~front, rank + 1
    return ranks


@pytest.mark.parametrize("rows", [1, 40, 700, 3000])
@pytest.mark.parametrize("objectives", [2, 3, 4, 6])
def test_fronts_are_the_same_until_there_are_enough(objectives, rows):
    rng = np.random.default_rng([objectives, rows])
    values = rng.integers(0, 12, (rows, objectives)).astype(float)
    whole = dominance_ranks(values)
    for enough in (0, 1, rows // 3, rows, rows + 9):
        ranks, distinct = dominance_ranks(values, enough=enough), 0
        for front in range(whole.max() + 1):
            if distinct >= enough:
                break
            assert ((ranks == front) == (whole == front)).all()
            distinct += len(np.unique(values[whole == front], axis=0))
        else:
            front += 1
        assert (ranks[whole >= front] >= front).all()


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [3, 8, None])
def test_ranks_are_those_of_the_definition_also_among_equals(m, levels):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = rng.random((70, m)) if levels is None else rng.integers(levels, size=(70, m)).astype(float)
        expected = ranks_by_definition(values)
        assert (dominance_ranks(values) == expected).all()
        assert (nondominated(values) == (expected == 0)).all()


def test_a_front_larger_than_a_block_is_found_whole():
    rng = np.random.default_rng(0)
    sphere = np.abs(rng.standard_normal((2500, 4)))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    values = np.concatenate([1 - sphere, 1.01 - 0.99 * sphere])
    assert (nondominated(values) == (np.arange(5000) < 2500)).all()


@pytest.mark.parametrize("m", [2, 3])
def test_a_hundred_thousand_rows_take_well_under_a_second(m):
    values = np.random.default_rng(0).random((100_000, m))
    start = time.process_time()
    ranks = dominance_ranks(values)
    assert time.process_time() - start < 2.0  # 0.1 and 0.3 s on a free core
    assert nondominated(values).sum() == (ranks == 0).sum() > 5


def test_ranks_and_crowding_are_those_of_pymoo():
    pytest.importorskip("pymoo")
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    for m in (2, 3, 4):
        values = np.random.default_rng(m).random((150, m))
        fronts, ranks = NonDominatedSorting().do(values, return_rank=True)
        ours = dominance_ranks(values)
        assert (ours == ranks).all()
        distance = crowding(values, ours)
        assert len(fronts) > 3
        for front in fronts:
            if len(front) == 1:  # its distance is infinite; pymoo says 0
                continue
            np.testing.assert_allclose(distance[front], m * calc_crowding_distance(values[front]))


def test_a_maximized_column_counts_the_other_way_around():
    values = np.random.default_rng(0).random((60, 3))
    turned = values * [1, -1, 1]
    assert (nondominated(turned, ("minimize", "maximize", "minimize")) == nondominated(values)).all()
    assert knee(turned, ("minimize", "maximize", "minimize")) == knee(values)


def test_rows_with_nan_are_on_no_front():
    values = np.array([[1.0, 2.0], [np.nan, 0.0], [2.0, 1.0], [3.0, 3.0]])
    assert dominance_ranks(values).tolist() == [0, -1, 0, 1]
    assert nondominated(values).tolist() == [True, False, True, False]
    assert nondominated(np.empty((0, 2))).shape == (0,)


def test_the_knee_is_where_the_front_bends_whatever_the_units():
    x = np.linspace(0, 1, 101)
    bent = np.stack([x, (1 - np.sqrt(x)) ** 2], axis=1)  # symmetric: its knee is on the diagonal
    assert bent[knee(bent)].tolist() == pytest.approx([0.25, 0.25])
    assert knee(bent * [1000.0, 0.001] + [5.0, -3.0]) == knee(bent)
    dominated = np.concatenate([bent, [[0.9, 0.9]]])
    assert knee(dominated) == knee(bent)


def test_the_knee_of_three_objectives_lies_deepest_below_the_plane_of_the_extremes():
    corners = np.eye(3)
    inside = np.array([[0.3, 0.3, 0.35], [0.1, 0.2, 0.1], [0.5, 0.4, 0.05]])
    assert knee(np.concatenate([corners, inside])) == 4


def test_fronts_of_one_point_or_one_direction_have_a_knee_too():
    assert knee([[3.0, 4.0]]) == 0
    assert knee([[3.0, 4.0], [3.0, 5.0]]) == 0
    with pytest.raises(InvalidSettings, match="at least one row"):
        knee([[np.nan, 1.0]])


def test_a_spread_selection_begins_with_the_extremes_and_leaves_no_gap():
    x = np.sort(np.random.default_rng(0).random(400))
    front = np.stack([x, 1 - x], axis=1)
    chosen = spread(front, 21)
    assert set(chosen[:2].tolist()) == {0, 399}
    assert len(set(chosen.tolist())) == 21
    assert np.diff(np.sort(x[chosen])).max() < 2.2 / 20 * (x[-1] - x[0])
    assert sorted(spread(front, 1000).tolist()) == list(range(400))
    assert spread(np.empty((0, 2)), 3).shape == (0,)


def test_normalized_values_span_zero_to_one():
    values = np.random.default_rng(0).normal(size=(30, 3)) * [1, 100, 0]
    table = normalized(values)
    assert table.min(axis=0).tolist() == [0, 0, 0]
    assert table.max(axis=0).tolist() == [1, 1, 0]


def test_of_equal_rows_all_but_the_first_are_repeated():
    assert repeated([[1, 2], [0, 0], [1, 2], [0, 1], [1, 2]]).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("values", "direction", "message"),
    [
        ([1.0, 2.0], "minimize", r"shape \(n, objectives\).*\(2,\)"),
        ([[1.0, np.inf]], "minimize", "infinite"),
        ([[1.0, 2.0]], ("minimize",), "tuple of 2"),
        ([[1.0, 2.0]], ("minimize", "up"), "'up'"),
    ],
)
def test_values_and_directions_that_cannot_be_meant_are_refused(values, direction, message):
    with pytest.raises(InvalidSettings, match=message):
        minimized(values, direction)
