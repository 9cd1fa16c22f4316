import itertools

import numpy as np
import pytest

from searchlib import Outcome, Problem, ShrinkingPool, search
from searchlib.algorithms import Evidence, Status, pool_schedule
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.spaces import Binary, EvalSubsets, Subset


def told(run, batch, values):
    n = len(batch)
    nothing = np.full(n, np.nan)
    run.tell(Evidence(batch.ids, batch.population, values[:, None], np.full(n, Status.DONE, np.int8), nothing,
                      nothing[:, None]))  # fmt: skip


def test_the_next_pool_is_the_items_most_frequent_in_the_top_share():
    space = Subset(30, k=3)
    run = ShrinkingPool(schedule=(6,), samples=400, top=0.1, polish=0).start(Problem(space), np.random.default_rng(3))
    batch = run.ask(400)
    values = np.random.default_rng(0).random(400)
    told(run, batch, values)
    best = np.argsort(values)[:40]
    counts = np.bincount(batch.population[best].ravel(), minlength=30)
    expected = set(np.argsort(-counts, kind="stable")[:6].tolist())
    assert set(run.ask(400).population.ravel().tolist()) == expected


@pytest.mark.parametrize("space", [Subset(30, k=3), EvalSubsets(30, keep=3)], ids=repr)
def test_by_item_the_answer_is_the_items_most_frequent_in_the_best_sets(space):
    values = np.random.default_rng(0).random(400)
    algorithm = ShrinkingPool(schedule=(), samples=400, top=0.1, level="item")
    run = algorithm.start(Problem(space), np.random.default_rng(3))
    batch = run.ask(400)
    told(run, batch, values)
    counts = np.bincount(batch.population[np.argsort(values)[:40]].ravel(), minlength=30)
    expected = np.sort(np.argsort(-counts, kind="stable")[:3]).tolist()
    last = run.ask(400)
    assert last.population.tolist() == [expected]
    told(run, last, np.array([2.0]))  # worse than all the others
    assert run.recommend(5).tolist() == [expected]
    assert len(run.ask(10)) == 0


def test_by_item_a_search_ends_with_the_items_that_good_sets_share():
    good = {3, 11, 17, 24}
    result = search(
        lambda rows: np.isin(rows, list(good)).sum(axis=1) + 0.0, ShrinkingPool(schedule=(20,), level="item"),
        space=Subset(40, k=4), batched=True, direction="maximize", budget=2001,
    )  # fmt: skip
    assert set(result.best) == good
    assert 1000 < result.history.evaluations <= 2001


def test_by_item_there_must_be_items_to_leave_out():
    with pytest.raises(InvalidSettings, match="'set' or 'item', but is 'prompt'"):
        ShrinkingPool(level="prompt")
    with pytest.raises(InvalidSettings, match="items to leave out"):
        ShrinkingPool(schedule=(), level="item").start(Problem(EvalSubsets(3, keep=4)), np.random.default_rng(0))


def test_by_item_a_search_that_is_cut_short_answers_with_its_best_set():
    algorithm = ShrinkingPool(schedule=(20,), samples=500, level="item")
    result = search(lambda row: -sum(row), algorithm, space=Subset(40, k=4), budget=100)
    assert result.value == result.history.values.min()


def test_exchanges_end_in_a_set_that_no_single_exchange_improves():
    table = np.random.default_rng(1).normal(size=(12, 12))

    def energy(rows):
        return np.array([table[np.ix_(row, row)].sum() for row in rows])

    algorithm = ShrinkingPool(schedule=(10,), samples=20)
    result = search(energy, algorithm, space=Subset(12, k=4), batched=True, budget=5000, seed=2)
    assert result.outcome is Outcome.NOTHING_NEW
    pool = {item for row in result.history.population[20:40].tolist() for item in row}
    kept = set(result.best)
    neighbors = [
        sorted(kept - {out} | {new}) for out in kept for new in pool - kept
    ]
    assert len(neighbors) >= 16
    assert result.value <= energy(np.array(neighbors)).min()


def test_it_finds_the_best_of_all_small_subsets():
    weights = np.random.default_rng(5).normal(size=16)
    pairs = np.random.default_rng(6).normal(size=(16, 16)) * 0.1

    def cost(rows):
        return np.array([weights[row].sum() + pairs[np.ix_(row, row)].sum() for row in rows])

    optimum = cost(np.array(list(itertools.combinations(range(16), 4)))).min()
    algorithm = ShrinkingPool(schedule=(12, 8), samples=100, top=0.2)
    assert search(cost, algorithm, space=Subset(16, k=4), batched=True, budget=1000).value == pytest.approx(optimum)


def test_seeds_are_in_the_first_generation():
    algorithm = ShrinkingPool(schedule=(), samples=10, polish=0)
    result = search(lambda row: sum(row), algorithm, space=EvalSubsets(50, keep=3), budget=10, seeds=[(0, 0, 0)])
    assert result.best == (0, 0, 0)


def test_the_schedules_are_those_of_the_released_configurations():
    assert pool_schedule(5000, 100) == (4000, 3000, 2000, 1500, 1000, 500, 300, 200)
    assert pool_schedule(40_504, 200)[:3] == (30000, 20000, 15000)
    assert pool_schedule(40_504, 200)[-1] == 500
    assert pool_schedule(5000, 500) == (4000, 3000, 2000, 1500, 1000)


def test_a_space_without_items_is_refused_by_naming_what_is_missing():
    with pytest.raises(MissingOperator, match="sample_from"):
        ShrinkingPool().start(Problem(Binary(4)), np.random.default_rng(0))


@pytest.mark.parametrize(
    "settings", [{"schedule": (5, 5)}, {"schedule": (3, 4)}, {"top": 0.0}, {"polish": 1.0}, {"samples": 0}]
)
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InvalidSettings):
        ShrinkingPool(**settings)


def test_a_pool_that_cannot_hold_a_set_is_refused():
    with pytest.raises(InvalidSettings, match="at least the 4 items"):
        ShrinkingPool(schedule=(3,)).start(Problem(Subset(10, k=4)), np.random.default_rng(0))
