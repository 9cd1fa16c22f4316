import itertools

import numpy as np
import pytest

from searchlib import Cases, FunctionObjective, Objective, Split
from searchlib.decision import decide
from searchlib.errors import EvaluationFailed, InvalidSettings
from searchlib.racing import Racing, race
from searchlib.spaces import Integer

EXACT = Racing(error=0)


class Table(Objective):
    """A score table that is known; remembers what it was asked."""

    chunk_rows = 1000

    def __init__(self, table, direction="maximize", broken=None):
        self.table, self.direction, self.broken = np.asarray(table, float), direction, broken
        self.space, self.asked = Integer(0, len(self.table) - 1), []

    def cases(self, split):
        return Cases(tuple(range(self.table.shape[1]))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        rows, columns = candidates.array[:, 0], list(cases.ids)
        self.asked.append((rows.copy(), columns))
        if self.broken is not None and self.broken[np.ix_(rows, columns)].any():
            raise RuntimeError(f"rows {rows.tolist()} cannot be scored")
        return self.table[np.ix_(rows, columns)]

    @property
    def rows(self):
        return np.arange(len(self.table))[:, None]


def coins(rng, n, c):
    """Independent 0/1 scores with uniform success rates."""
    return (rng.random((n, c)) < rng.random((n, 1))).astype(float)


def tables(number, seed=0):
    """Random tables of several kinds, with few columns, so that ties are common, and what belongs to them."""
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        n, c = int(rng.integers(1, 14)), int(rng.integers(1, 9))
        kinds = (coins(rng, n, c), rng.integers(0, 5, (n, c)) / 4, rng.random((n, c)), np.ones((n, c)))
        table = kinds[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])]
        contest = {"groups": rng.integers(0, 5, n), "weights": rng.integers(1, 5, n)}
        yield rng, table, contest | {"prefer": rng.integers(-1, 3, n) if rng.random() < 0.5 else None}


@pytest.mark.parametrize("decision", ["max", "sum"])
def test_without_error_a_race_decides_what_the_whole_table_decides(decision):
    saved = ties = 0
    for rng, table, contest in tables(250):
        racing = Racing(error=0, first=int(rng.integers(1, 4)), step=int(rng.integers(1, 4)),
                        voices=[None, 1, 2, 4][rng.integers(4)])  # fmt: skip
        objective = Table(table)
        result = race(objective, objective.rows, racing=racing, decision=decision, seed=int(rng.integers(9)), **contest)
        winner = decide(table.mean(axis=1), decision=decision, **contest)
        assert result.group == contest["groups"][winner] == contest["groups"][result.winner]
        saved += table.size - result.cells
        ties += int((table.mean(axis=1) == table.mean(axis=1)[winner]).sum() > 1)
    assert saved > 500
    assert ties > 50


def test_without_groups_the_winner_is_the_very_row_that_the_whole_table_picks():
    for rng, table, contest in tables(250, seed=1):
        objective = Table(table)
        result = race(objective, objective.rows, racing=EXACT, prefer=contest["prefer"], seed=int(rng.integers(9)))
        assert result.winner == result.group == decide(table.mean(axis=1), prefer=contest["prefer"])


@pytest.mark.parametrize("decision", ["max", "sum"])
def test_a_race_to_the_minimum_mirrors_one_to_the_maximum(decision):
    for _, table, contest in tables(60, seed=2):
        high, low = Table(table), Table(7 - 3 * table, direction="minimize")
        first = race(high, high.rows, racing=EXACT, decision=decision, **contest)
        second = race(low, low.rows, racing=Racing(error=0, low=4, high=7), decision=decision, **contest)
        assert (first.winner, first.rounds) == (second.winner, second.rounds)
        np.testing.assert_array_equal(first.mask, second.mask)


def bounds(table, result, contest, decision):
    """What each candidate's total can still be, from the cells that a race has seen, and which candidate won."""
    sound = ~result.failed
    least = np.where(result.mask, table, 0).sum(axis=1) * sound
    most = np.where(result.mask, table, 1).sum(axis=1) * sound
    if decision == "max":
        return least[sound], most[sound], int(np.flatnonzero(np.flatnonzero(sound) == result.winner)[0])
    names, owner = np.unique(contest["groups"], return_inverse=True)
    least, most = (np.bincount(owner, contest["weights"] * part) for part in (least, most))
    return least, most, int(np.flatnonzero(names == result.group)[0])


@pytest.mark.parametrize("decision", ["max", "sum"])
def test_the_cells_that_were_seen_prove_the_winner_also_where_rows_fail_on_the_way(decision):
    failures = proven = 0
    for rng, table, contest in tables(250, seed=3):
        broken = (rng.random(table.shape) < 0.5) & (rng.random((len(table), 1)) < 0.4)
        broken[0] = False
        groups = contest["groups"] if decision == "sum" else np.arange(len(table))
        objective = Table(table, broken=broken)
        result = race(objective, objective.rows, racing=EXACT, decision=decision, groups=groups,
                      weights=contest["weights"])  # fmt: skip
        assert not result.failed[result.winner]
        assert not (result.failed & ~broken.any(axis=1)).any()
        least, most, winner = bounds(table, result, contest, decision)
        assert least[winner] >= np.delete(most, winner).max(initial=0) - 1e-9
        failures += int(result.failed.sum())
        proven += least[winner] > 0
    assert failures > 200
    assert proven > 150


def test_a_candidate_that_was_behind_a_row_which_fails_later_is_in_again():
    table = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]], float)
    revived = 0
    for seed in range(30):
        broken = np.zeros(table.shape, bool)
        broken[:2, np.random.default_rng(seed).permutation(5)[-1]] = True  # the last column that this race visits
        objective = Table(table, broken=broken)
        result = race(objective, objective.rows, racing=EXACT, seed=seed)
        assert result.winner == 2
        assert result.failed.tolist() == [True, True, False, False]
        in_order = [rows.tolist() for rows, _ in objective.asked]
        revived += [0, 1] in in_order and in_order[-1] != [0, 1]
    assert revived > 5


def test_rows_that_always_fail_are_left_out_of_the_decision():
    for rng, table, _ in tables(80, seed=4):
        bad = rng.random(len(table)) < 0.4
        bad[0] = False
        objective = Table(table, broken=np.repeat(bad[:, None], table.shape[1], axis=1))
        result = race(objective, objective.rows, racing=EXACT)
        assert result.winner == np.flatnonzero(~bad)[decide(table[~bad].mean(axis=1))]


def test_a_race_without_a_sound_row_says_why():
    objective = Table(np.ones((3, 4)), broken=np.ones((3, 4), bool))
    with pytest.raises(EvaluationFailed, match=r"no candidate of the race(.|\n)*cannot be scored"):
        race(objective, objective.rows)


def test_not_a_number_is_a_failed_row():
    objective = Table([[np.nan, 1.0, np.nan], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    result = race(objective, objective.rows, racing=Racing(error=0, first=3))
    assert result.winner == 1
    assert result.failed.tolist() == [True, False, False]
    assert np.isnan(result.scores[0]).all()


@pytest.mark.parametrize(("decision", "n", "c"), [("max", 24, 9), ("max", 8, 30), ("sum", 24, 18)])
def test_races_with_small_error_decide_as_the_whole_table_in_95_of_100_cases(decision, n, c):
    number, other, cells, certain = 200, 0, 0, 0
    for i in range(number):
        rng = np.random.default_rng([5, i])
        objective = Table(coins(rng, n, c))
        groups = rng.integers(0, 6, n) if decision == "sum" else None
        result = race(objective, objective.rows, racing=Racing(error=0.05), groups=groups, decision=decision, seed=i)
        winner = decide(objective.table.mean(axis=1), groups=groups, decision=decision)
        other += (result.winner != winner) if groups is None else (groups[result.winner] != groups[winner])
        cells += result.cells
        if i < 40:
            certain += race(objective, objective.rows, racing=EXACT, groups=groups, decision=decision, seed=i).cells
    assert other / number < 0.05
    assert cells / number < 0.6 * n * c
    assert cells / number < 0.75 * certain / 40 < 0.75 * n * c


def test_over_many_columns_a_race_may_confuse_equals_but_loses_next_to_nothing():
    number, lost, cells = 40, [], 0
    for i in range(number):
        objective = Table(coins(np.random.default_rng([6, i]), 12, 100))
        result = race(objective, objective.rows, seed=i)
        means = objective.table.mean(axis=1)
        lost.append(means.max() - means[result.winner])
        cells += result.cells
    assert np.mean(lost) < 0.01
    assert cells < 0.25 * number * 12 * 100


def test_cells_are_in_the_order_of_the_cases_and_the_others_are_missing():
    rng = np.random.default_rng(7)
    objective = Table(coins(rng, 20, 12))
    result = race(objective, objective.rows, seed=1)
    np.testing.assert_array_equal(result.scores[result.mask], objective.table[result.mask])
    assert np.isnan(result.scores[~result.mask]).all()
    assert 20 <= result.cells == result.mask.sum() < 240
    assert result.cells == sum(len(rows) * len(columns) for rows, columns in objective.asked)  # none asked twice


def test_candidates_are_compared_on_the_same_cases():
    objective = Table(coins(np.random.default_rng(8), 20, 12))
    result = race(objective, objective.rows, seed=1)
    by_length = result.mask[np.argsort(result.mask.sum(axis=1))]
    assert len(set(result.mask.sum(axis=1))) > 3
    assert all((longer | shorter == longer).all() for shorter, longer in itertools.pairwise(by_length))


def test_the_same_seed_is_the_same_race_and_another_seed_visits_other_cells():
    objective = Table(coins(np.random.default_rng(9), 20, 12))
    groups = np.arange(20) % 4
    races = [race(objective, objective.rows, groups=groups, decision="sum", seed=seed) for seed in (3, 3, 4)]
    assert races[0].winner == races[1].winner
    np.testing.assert_array_equal(races[0].mask, races[1].mask)
    assert (races[0].mask != races[2].mask).any()


@pytest.mark.parametrize(("chunk_rows", "chunk_cases"), [(1, None), (3, 2), (1000, 1)])
def test_chunks_are_no_larger_than_the_objective_wants_and_change_nothing(chunk_rows, chunk_cases):
    whole, cut = (Table(coins(np.random.default_rng(10), 20, 12)) for _ in range(2))
    cut.chunk_rows, cut.chunk_cases = chunk_rows, chunk_cases
    racing = Racing(first=4, step=3)
    first, second = (race(objective, objective.rows, racing=racing) for objective in (whole, cut))
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.winner == second.winner
    assert len(cut.asked) > len(whole.asked)
    assert all(len(rows) <= chunk_rows and len(columns) <= (chunk_cases or 12) for rows, columns in cut.asked)


def test_first_and_step_say_how_often_is_judged():
    objective = Table(np.tile(np.linspace(0.4, 0.6, 8)[:, None], 12))  # nobody is out before the end
    assert race(objective, objective.rows, racing=EXACT).rounds > 8
    assert race(objective, objective.rows, racing=Racing(error=0, first=12)).rounds == 1
    assert race(objective, objective.rows, racing=Racing(error=0, first=2, step=10)).rounds == 2


def test_few_voices_of_a_group_speak_first():
    table = coins(np.random.default_rng(11), 40, 6)
    groups = np.arange(40) % 2
    for voices, most in ((1, 1), (4, 4), (None, 20)):
        objective = Table(table)
        race(objective, objective.rows, racing=Racing(error=0, voices=voices), groups=groups, decision="sum")
        rows, columns = objective.asked[0]
        assert len(columns) == 1
        assert np.bincount(groups[rows]).tolist() == [most, most]


def test_where_all_argue_for_the_same_nothing_is_evaluated():
    for decision in ("max", "sum"):
        objective = Table(np.ones((4, 3)))
        result = race(objective, objective.rows, groups=[7, 7, 7, 7], prefer=[0, 2, 1, 2], decision=decision)
        assert (result.winner, result.group, result.cells, result.rounds) == (1, 7, 0, 0)
        assert objective.asked == []


def test_scores_out_of_their_range_are_named():
    objective = Table([[0.5, 0.5], [1.5, 0.5]])
    with pytest.raises(InvalidSettings, match=r"lie in \[0.0, 1.0\], but one is 1.5; .*Racing\(low"):
        race(objective, objective.rows)
    assert race(objective, objective.rows, racing=Racing(error=0, high=2)).winner == 1


@pytest.mark.parametrize(("settings", "message"), [
    ({"error": 0.5}, r"error must be a probability in \[0, 0.5\), but is 0.5"),
    ({"error": float("nan")}, "error must be"),
    ({"first": 0}, "first must be a whole number of at least 1"),
    ({"step": 0}, "step must be"),
    ({"voices": 0}, "voices must be"),
    ({"low": 1, "high": 1}, "`low < high` must hold"),
    ({"high": float("inf")}, "both finite"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        Racing(**settings)


def test_objectives_whose_value_is_no_mean_are_refused():
    objective = Table(np.ones((3, 2)))
    objective.additive = False
    with pytest.raises(InvalidSettings, match="mean over its cases"):
        race(objective, objective.rows)
    two = FunctionObjective(lambda value: (value, -value), Integer(0, 3), direction=("minimize", "minimize"))
    with pytest.raises(InvalidSettings, match="mean over its cases"):
        race(two, np.array([[0], [1]]))
    with pytest.raises(InvalidSettings, match="no holdout cases"):
        race(Table(np.ones((3, 2))), np.array([[0], [1]]), split=Split.HOLDOUT)
    pair = FunctionObjective(lambda value: (0.5, 0.5), Integer(0, 3))
    with pytest.raises(InvalidSettings, match="one score per cell, but there are 2"):
        race(pair, np.array([[0], [1]]))


def test_settings_are_rebuilt_from_their_repr():
    racing = Racing(error=0.01, first=3, voices=None, high=5)
    assert eval(repr(racing)) == racing
