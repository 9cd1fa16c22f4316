import numpy as np
import pytest

from searchlib import Evolution, RandomSearch, Stages, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import Binary, ExpertMerges

SPACE = ExpertMerges(layers=2, experts=5, keep=2, groups=2)
STAGES = Stages(Evolution(population=10, offspring=2), Evolution(population=12, offspring=3), share=0.4)


def discrepancy(matrices):
    """Best when slot j of every group is a mixture of experts j and 4, two to one."""
    target = np.zeros((2, 2, 5), np.float32)
    target[:, [0, 1], [0, 1]] = 2 / 3
    target[:, :, 4] = 1 / 3
    return float(((matrices.merging - target) ** 2).sum() + ((matrices.router - target) ** 2).sum())


def test_the_first_stage_stays_on_the_coarse_space_and_the_second_leaves_it():
    result = search(discrepancy, STAGES, space=SPACE, budget=100)
    _, exact = SPACE.restrict(result.history.population)
    assert exact[:40].all()
    assert not exact[40:].any()


def test_the_second_stage_starts_from_the_archive_of_the_first():
    result = search(discrepancy, STAGES, space=SPACE, budget=100)
    values = result.history.values[:, 0]
    assert values[40:].min() < values[:40].min()
    children = result.history.population[40:43]
    elite = result.history.population[:40][np.argsort(values[:40])[:12]]
    moved = np.array([[(child != parent).mean() for parent in elite] for child in children]).min(axis=1)
    assert (moved < 0.5).all()


def test_nothing_is_evaluated_twice_across_the_hand_over():
    result = search(discrepancy, STAGES, space=SPACE, budget=100)
    assert len(set(row_keys(SPACE.canonical(result.history.population)))) == 100


def test_an_exhausted_first_stage_hands_over_early():
    full = ExpertMerges(layers=2, experts=3, keep=3, groups=1)  # only one subset: all experts
    result = search(lambda m: float(np.abs(m.merging - 0.3).sum()), STAGES, space=full, budget=50)
    _, exact = full.restrict(result.history.population)
    assert exact.tolist() == [True] + [False] * 49


def test_seeds_off_the_coarse_space_wait_for_the_second_stage():
    row = SPACE.sample(np.random.default_rng(5), 1)
    result = search(discrepancy, STAGES, space=SPACE, budget=60, seeds=[SPACE.decode(row[0])])
    place = row_keys(result.history.population).index(row_keys(SPACE.canonical(row))[0])
    assert place == 24


def test_seeds_that_the_first_stage_had_no_budget_for_start_the_second():
    rows = SPACE.embed(SPACE.first.sample(np.random.default_rng(1), 6))
    seeds = [SPACE.decode(row) for row in rows]
    for share in (0.0, 0.05, 0.5):
        stages = Stages(Evolution(population=3), Evolution(population=8), share=share)
        told = set(row_keys(search(discrepancy, stages, space=SPACE, budget=40, seeds=seeds).history.population))
        assert set(row_keys(SPACE.canonical(rows))) <= told


def test_a_plain_space_is_refused_by_name():
    with pytest.raises(MissingOperator, match=r"StagedSpace.*Binary\(n=4\)"):
        search(sum, STAGES, space=Binary(4), budget=5)


def test_a_share_needs_a_budget_in_evaluations():
    from searchlib import Budget

    with pytest.raises(InvalidSettings, match="first_evaluations"):
        search(discrepancy, Stages(RandomSearch(), RandomSearch()), space=SPACE, budget=Budget(seconds=1.0))


@pytest.mark.parametrize("settings", [{"share": -0.1}, {"share": 1.1}, {"first_evaluations": -1}])
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InvalidSettings, match=str(next(iter(settings.values())))):
        Stages(RandomSearch(), RandomSearch(), **settings)
