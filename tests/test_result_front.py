"""Several objectives in a search: the front, the rule that picks the winner, and what a study keeps of both."""

import json
import math
import pickle

import numpy as np
import pytest

from searchlib import NSGA2, NSGA3, Cases, Front, Objective, Scores, Search, Split, Study, search
from searchlib.__main__ import main
from searchlib.errors import InvalidSettings
from searchlib.front import checked_choice, choose_row
from searchlib.pareto import knee, nondominated
from searchlib.spaces import Binary, Real, Subset

WAYS = ("maximize", "minimize")
GAINS = np.array([5.0, 3.0, 2.0, 1.0, 0.5, 0.25])


class Gains(Objective):
    """The gains of parts that are on, with noise per case, against their number."""

    space = Binary(6)
    direction = ("maximize", "minimize")
    value_names = ("gain", "parts")
    chunk_rows = 4

    def __init__(self, held=(Split.SEARCH, Split.SELECT, Split.HOLDOUT)):
        self.held, self.evaluated = held, []

    def cases(self, split):
        first = {Split.SEARCH: 0, Split.SELECT: 100, Split.HOLDOUT: 200}[split]
        return Cases(tuple(range(first, first + 8))) if split in self.held else Cases.none()

    def evaluate(self, candidates, cases):
        rows = candidates.array
        self.evaluated += [(row.tobytes(), cases.ids[0] // 100) for row in rows]
        noise = np.stack([np.random.default_rng(i).normal(size=6) for i in cases.ids])
        gain = rows @ (GAINS + 0.2 * noise).T
        parts = np.repeat(rows.sum(axis=1)[:, None], len(cases), axis=1)
        return Scores(np.stack([gain, parts], axis=2))

    def references(self):
        return ("everything", "unknown size")

    def evaluate_reference(self, name, cases):
        noise = np.stack([np.random.default_rng(i).normal(size=6) for i in cases.ids])
        gain = (GAINS + 0.2 * noise).sum(axis=1)
        return np.stack([gain, np.full(len(cases), 6.0 if name == "everything" else math.nan)], axis=1)


def values_on(split, rows):
    objective = Gains()
    return objective.aggregate(
        objective.evaluate(type("Rows", (), {"array": rows})(), objective.cases(split)).values
    )


def test_the_front_is_scored_again_on_select_and_shown_on_the_held_out_cases():
    result = search(Gains(), budget=64)
    front = result.front
    assert front.names == ("gain", "parts")
    np.testing.assert_allclose(front.values, values_on(Split.SELECT, front.rows))
    np.testing.assert_allclose(front.holdout, values_on(Split.HOLDOUT, front.rows))
    assert nondominated(front.values, WAYS).all()
    assert np.diff(front.values[:, 0]).max() < 0  # the best of the first objective first
    assert len(front) >= 4
    assert front.chosen == knee(front.values, WAYS)
    point = front[front.chosen]
    assert result.best == point.artifact == front.knee().artifact == front.artifacts[front.chosen]
    assert result.row.tolist() == point.row.tolist()
    assert result.value == point.values[0]
    assert result.holdout.value == pytest.approx(point.holdout[0])
    assert [len(part) for part in (front[:2], list(front))] == [2, len(front)]


def test_without_other_cases_the_whole_front_of_the_history_is_the_front():
    result = search(Gains(held=(Split.SEARCH,)), budget=50)
    history = result.history
    expected = history.population[nondominated(history.values, WAYS)]
    assert {row.tobytes() for row in result.front.rows} == {row.tobytes() for row in expected}
    assert result.front.holdout is None
    assert result.holdout is None


def test_the_chosen_candidate_is_compared_in_every_objective():
    result = search(Gains(), budget=64)
    (parts,) = result.holdout.others
    assert [row.name for row in parts] == ["best", "everything", "unknown size"]
    assert parts[0].value == result.best.count(1)
    assert parts[1].difference == result.best.count(1) - 6
    assert math.isnan(parts[2].value)
    assert result.holdout.against("unknown size").value == result.holdout.against("everything").value


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("first", lambda values: values[:, 0].argmax()),
        ((0, 1), lambda values: values[:, 1].argmin()),
        ((3, 1), lambda values: (3 * (values[:, 0].max() - values[:, 0]) / np.ptp(values[:, 0])
                                 + (values[:, 1] - values[:, 1].min()) / np.ptp(values[:, 1])).argmin()),
        (lambda values: int(np.flatnonzero(values[:, 1] <= 3)[0]), lambda values: (values[:, 1] <= 3).argmax()),
    ],
    ids=["first", "size only", "weights", "function"],
)  # fmt: skip
def test_a_named_rule_picks_the_winner(choose, expected):
    result = search(Gains(), budget=64, choose=choose)
    assert result.front.chosen == expected(result.front.values)
    assert result.best == result.front[result.front.chosen].artifact


@pytest.mark.parametrize("choose", ["kneee", (1,), (1, -1), (0, 0), (1, math.nan), 3, ["a", "b"]], ids=repr)
def test_a_rule_that_is_none_is_refused_before_the_search(choose):
    objective = Gains()
    with pytest.raises(InvalidSettings, match="'knee', 'first', 2 weights"):
        Search(objective, budget=10, choose=choose)
    assert objective.evaluated == []


def test_one_objective_has_no_front_and_no_rule():
    with pytest.raises(InvalidSettings, match="this objective has one"):
        search(sum, space=Binary(4), budget=10, choose="knee")
    assert search(sum, space=Binary(4), budget=10).front is None
    assert checked_choice(None, 1) is None


@pytest.mark.parametrize("picked", [-1, 5, 1.0, None, True])
def test_a_function_that_returns_no_position_is_refused(picked):
    with pytest.raises(InvalidSettings, match="from 0 to 2"):
        choose_row(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), ("minimize", "minimize"), lambda values: picked)


@pytest.mark.parametrize(("directions", "algorithm"), [(2, NSGA2()), (3, NSGA2()), (4, NSGA3()), (6, NSGA3())])
def test_the_default_algorithm_suits_the_number_of_objectives(directions, algorithm):
    def function(x):
        return [abs(xi - number / 5) + x[number % 2] for number, xi in zip(range(directions), x * 3, strict=False)]

    result = search(function, space=Real(0, 1, length=3), direction=("minimize",) * directions, budget=60)
    assert result.notes["chosen"] == repr(algorithm)
    assert len(result.front) > 1
    assert nondominated(result.front.values).all()


def test_equal_values_stand_once_in_the_front():
    result = search(
        lambda kept: [kept[0], -kept[0]], space=Subset(6, k=3), direction=("minimize", "minimize"), budget=20
    )
    assert sorted(result.front.values[:, 0].tolist()) == [0, 1, 2, 3]


def test_the_hypervolume_of_a_front_is_in_the_callers_units_or_without_any():
    values = np.array([[4.0, 10.0], [3.0, 5.0], [1.0, 0.0]])
    front = Front(Binary(2), np.zeros((3, 2), bool), values, WAYS)
    assert front.hypervolume([0.0, 20.0]) == pytest.approx(1 * 20 + 2 * 15 + 1 * 10)
    x, y = np.array([0, 1 / 3, 1]), np.array([1, 0.5, 0])
    expected = (1.1 - x[0]) * 0.1 + (1.1 - x[1]) * 0.5 + (1.1 - x[2]) * (y[1] - y[2])
    assert front.hypervolume() == pytest.approx(expected)


def test_a_study_keeps_the_front(tmp_path, capsys):
    path = tmp_path / "s.db"
    first = search(Gains(), budget=40, study=path)
    with Study.open(path) as study:
        kept = study.result()
    for name in ("rows", "values", "holdout", "chosen", "names", "direction"):
        assert np.array_equal(getattr(kept.front, name), getattr(first.front, name)), name
    assert kept.holdout.rows == first.holdout.rows
    assert kept.best == first.best
    assert main(["show", str(path)]) == 0
    assert str(first.front) in capsys.readouterr().out
    assert main(["show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["front"]["values"] == first.front.values.tolist()


def test_resuming_scores_nothing_twice_and_another_rule_is_another_look(tmp_path):
    path = tmp_path / "s.db"
    whole = search(Gains(), budget=40, batch_size=8)
    for number, _ in enumerate(Search(Gains(), budget=40, batch_size=8, study=path)):
        if number == 1:
            break
    second = search(Gains(), budget=40, batch_size=8, study=path)
    assert second.history.digest == whole.history.digest
    assert str(second.front) == str(whole.front)
    objective = Gains()
    again = search(objective, budget=40, batch_size=8, study=path)
    assert objective.evaluated == []
    assert (again.holdout.looks, str(again.front)) == (1, str(whole.front))
    other = search(Gains(), budget=40, batch_size=8, study=path, choose="first")
    assert other.best != again.best
    assert other.holdout.looks == 2


def test_a_failed_candidate_is_on_no_front():
    def function(mask):
        return [math.nan, math.nan] if mask[0] else [-sum(mask), sum(mask)]

    result = search(function, space=Binary(6), direction=("minimize", "minimize"), budget=64, max_failures=99)
    assert len(result.front) == 6
    assert not result.front.rows[:, 0].any()
    nothing = search(lambda x: [math.nan] * 2, space=Real(0, 1), direction=("minimize",) * 2, budget=9)
    assert (nothing.best, nothing.front) == (None, None)


def test_cheap_objectives_keep_the_front_of_every_batch():
    class Cheap(Gains):
        recomputable = True

    result = search(Cheap(held=(Split.SEARCH,)), NSGA2(population=32), budget=64, batch_size=64)
    assert result.history.omitted > 0
    everything = search(Gains(held=(Split.SEARCH,)), NSGA2(population=32), budget=64, batch_size=64)
    np.testing.assert_allclose(result.front.values, everything.front.values)


def test_a_result_prints_its_front_as_a_short_table():
    result = search(lambda x: [x, 1 - x], space=Real(0, 1), direction=("minimize", "minimize"), budget=200)
    lines = str(result).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("front"))
    table = lines[start + 2 :]
    assert len(result.front) == 200
    assert 12 <= len(table) <= 14
    assert sum(line.lstrip().startswith("*") for line in table) == 1
    assert "value 0 (min)" in lines[start + 1]


def test_ask_and_tell_end_in_a_front_too():
    run = Search(space=Binary(8), direction=("minimize", "maximize"), budget=60, seed=1)
    while len(batch := run.ask(7)):
        run.tell(batch.ids, np.stack([batch.population[:, 4:].sum(axis=1) + 0.5, batch.population.sum(axis=1)], axis=1))
    front = run.result().front
    assert nondominated(front.values, ("minimize", "maximize")).all()
    assert len(front) >= 3


def test_a_front_pickles():
    front = search(Gains(), budget=40).front
    assert np.array_equal(pickle.loads(pickle.dumps(front)).values, front.values)
