import numpy as np
import pytest

from searchlib.algorithms import Archive, Evidence, Pool, Status
from searchlib.errors import InvalidSettings
from searchlib.spaces import Integer


def evidence(ids, values, secondary=None, status=None):
    n = len(ids)
    return Evidence(
        np.array(ids),
        np.array(ids)[:, None].astype(np.int64),
        np.array(values, float)[:, None],
        np.full(n, Status.DONE, np.int8) if status is None else np.array(status, np.int8),
        np.full(n, np.nan) if secondary is None else np.array(secondary, float),
        np.full((n, 1), np.nan),
    )


def filled(*pieces, capacity=10):
    archive = Archive(Integer(0, 1000), capacity)
    for piece in pieces:
        archive.add(piece)
    archive.settle()
    return archive


def test_members_are_ranked_by_value_then_secondary_then_id():
    archive = filled(evidence([3, 1, 2, 0], [5, 5, 5, 9], [0.2, 0.1, 0.2, 0.0]))
    assert archive.ids.tolist() == [1, 2, 3, 0]


def test_the_order_of_tells_has_no_effect():
    pieces = [evidence([i], [value]) for i, value in enumerate([3.0, 1.0, 2.0, 1.0])]
    assert filled(*pieces).ids.tolist() == filled(*reversed(pieces)).ids.tolist() == [1, 3, 2, 0]


def test_only_the_best_are_kept_when_room_runs_out():
    assert filled(evidence(range(9), np.arange(9.0)[::-1]), capacity=3).ids.tolist() == [8, 7, 6]


def test_failed_candidates_never_enter():
    archive = filled(evidence([0, 1], [np.nan, 4.0], status=[Status.FAILED, Status.DONE]))
    assert archive.ids.tolist() == [1]


def test_a_pool_admits_everything_that_ties_with_its_last_member():
    archive = filled(evidence(range(5), [1, 2, 2, 2, 3]))
    assert len(archive.pool(Pool(at_least=2))) == 4


def test_a_pool_breaks_ties_by_the_secondary_score():
    archive = filled(evidence(range(4), [1, 2, 2, 2], [0.0, 0.3, 0.1, 0.2]))
    assert archive.pool(Pool(at_least=2))[:, 0].tolist() == [0, 2]


def test_a_margin_admits_what_is_nearly_as_good():
    archive = filled(evidence(range(5), [10, 11, 12.5, 13, 14]))
    assert archive.pool(Pool(at_least=1, margin=3.0))[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("settings", [{"at_least": 0}, {"margin": -1.0}, {"margin": float("nan")}])
def test_a_pool_refuses_settings_that_cannot_be_meant(settings):
    with pytest.raises(InvalidSettings, match=str(next(iter(settings.values())))):
        Pool(**settings)


def test_a_secondary_weight_makes_the_secondary_score_part_of_the_rank():
    archive = Archive(Integer(0, 1000), 10, secondary_weight=0.5)
    archive.add(evidence([0, 1, 2], [1.0, 1.2, 1.4], [1.0, 0.2, 0.6]))
    archive.settle()
    assert archive.ids.tolist() == [1, 0, 2]


def test_a_short_list_holds_the_best_by_plain_value_also_where_the_blend_ranks_them_low():
    archive = Archive(Integer(0, 50), 10, secondary_weight=1.0)
    # The best value (candidate 3) has a large loss, so the blend puts it last.
    archive.add(evidence([0, 1, 2, 3], [5.0, 6.0, 7.0, 1.0], secondary=[0.0, 0.0, 0.0, 90.0]))
    archive.settle()
    assert archive.population[:, 0].tolist().index(3) == 3
    assert archive.best(2)[:, 0].tolist() == [0, 3]
    assert sorted(archive.best(4)[:, 0].tolist()) == [0, 1, 2, 3]
