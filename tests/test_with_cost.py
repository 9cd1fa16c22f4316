"""Costs that the candidate alone decides, as further objectives."""

import numpy as np
import pytest

from searchlib import Candidates, Cases, FunctionObjective, Objective, Scores, Split, WithCost, search
from searchlib.errors import EvaluationFailed, InvalidSettings
from searchlib.pareto import nondominated
from searchlib.space import row_keys
from searchlib.spaces import Binary, Integer, Subset
from searchlib.testing import check_objective


class Sums(Objective):
    """The sum of what is on, case by case."""

    space = Binary(6)
    direction = "maximize"
    chunk_cases = 2

    def cases(self, split):
        first = {Split.SEARCH: 0, Split.SELECT: 10, Split.HOLDOUT: 20}[split]
        return Cases(tuple(range(first, first + 4)))

    def evaluate(self, candidates, cases):
        weights = np.stack([np.random.default_rng(i).random(6) for i in cases.ids])
        return Scores(candidates.array @ weights.T, secondary=np.ones((len(candidates), len(cases))))

    def references(self):
        return ("everything", "nothing")

    def evaluate_reference(self, name, cases):
        return self.evaluate(Candidates(self.space, np.full((1, 6), name == "everything")), cases).values[0]

    def seeds(self):
        return np.ones((1, 6), bool)

    def artifact(self, value):
        return ("plan", value)


def weight(value):
    return sum((i + 1) * on for i, on in enumerate(value))


def weights(rows):
    return rows @ np.arange(1.0, 7.0)


def test_the_contract_holds():
    costs = {"everything": 21.0, "nothing": 0.0}
    check_objective(WithCost(Sums(), weight, name="weight", reference_costs=costs))
    check_objective(WithCost(Sums(), weights, batched=True, reference_costs=costs))


def test_one_by_one_and_as_a_population_costs_are_the_same():
    rows = Sums.space.sample(np.random.default_rng(0), 20)
    candidates = Candidates(Sums.space, rows)
    one, all_at_once = WithCost(Sums(), weight), WithCost(Sums(), weights, batched=True)
    assert one.costs(candidates).tolist() == all_at_once.costs(candidates).tolist()
    cases = one.cases(Split.SEARCH)
    values = one.aggregate(one.evaluate(candidates, cases).values)
    np.testing.assert_allclose(values[:, 0], Sums().evaluate(candidates, cases).values.mean(axis=1))
    assert values[:, 1].tolist() == weights(rows).tolist()


def test_a_search_ends_in_the_true_front_of_value_and_cost():
    result = search(WithCost(Sums(), weight, name="weight", value_name="sum"), budget=64)
    rows = np.array([[i >> bit & 1 for bit in range(6)] for i in range(64)], bool)
    values = np.stack([Sums().evaluate(Candidates(Sums.space, rows), Sums().cases(Split.SELECT)).values.mean(axis=1),
                       weights(rows)], axis=1)  # fmt: skip
    expected = values[nondominated(values, ("maximize", "minimize"))]
    assert result.front.names == ("sum", "weight")
    # Only 64 of the candidates that were best on SEARCH compete on SELECT: here these are all.
    np.testing.assert_allclose(result.front.values, expected[np.argsort(-expected[:, 0])])
    assert result.best[0] == "plan"
    assert result.holdout.others[0][0].value == weight(result.best[1])


def test_references_without_a_known_cost_are_compared_by_value_alone():
    result = search(WithCost(Sums(), weight, reference_costs={"everything": 21}), budget=30)
    (costs,) = result.holdout.others
    assert [row.name for row in costs] == ["best", "everything", "nothing"]
    assert costs[1].value == 21
    assert np.isnan(costs[2].value)
    assert result.holdout.against("nothing").value == 0
    assert "+nan" not in str(result)


def test_several_costs_with_directions_of_their_own():
    both = WithCost(Sums(), lambda value: (sum(value), value[0]), name=("parts", "first"),
                    direction=("minimize", "maximize"))  # fmt: skip
    assert both.direction == ("maximize", "minimize", "maximize")
    result = search(both, budget=64)
    assert result.front.values[:, 2].tolist() == result.front.rows[:, 0].astype(float).tolist()
    assert nondominated(result.front.values, both.direction).all()


def test_another_space_is_searched_through_a_translation():
    levels = Integer(0, 6)

    def first_ones(rows):
        return np.arange(6) < rows

    costs = {"everything": 6, "nothing": 0}
    both = WithCost(
        Sums(), lambda level: level, space=levels, translate=first_ones, seeds=np.array([[6]]), reference_costs=costs
    )  # fmt: skip
    check_objective(both, pickles=False)
    result = search(both, budget=7)
    assert result.front.values[:, 1].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert result.front[0].artifact == ("plan", (1,) * 6)
    assert result.history.population[0].tolist() == [6]


def test_a_study_refuses_another_cost(tmp_path):
    from searchlib.errors import StudyMismatch

    search(WithCost(Sums(), weight), budget=10, study=tmp_path / "s.db")
    with pytest.raises(StudyMismatch, match="objective"):
        search(WithCost(Sums(), sum), budget=10, study=tmp_path / "s.db")


@pytest.mark.parametrize("cost", [lambda value: float("nan"), lambda value: (1, 2)], ids=["nan", "two"])
def test_a_cost_that_is_no_number_says_so(cost):
    with pytest.raises(EvaluationFailed, match="a cost must be a finite number"):
        search(WithCost(Sums(), cost), budget=40, max_failures=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference_costs": {"all": 3}}, r"\['all'\].*everything"),
        ({"name": ("a", "b"), "direction": ("minimize",)}, "one direction per cost"),
        ({"space": Subset(6, k=2)}, "translation"),
        ({"seeds": np.zeros((1, 6), bool)}, "translation"),
        ({"value_name": ("a", "b")}, "1 value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InvalidSettings, match=message):
        WithCost(Sums(), weight, **arguments)


def test_a_plain_function_needs_no_wrapper():
    with pytest.raises(InvalidSettings, match="returns several numbers needs no wrapper"):
        WithCost(weight, weight)
    inner = FunctionObjective(lambda value: -sum(value), Binary(4))
    result = search(WithCost(inner, sum), budget=16)
    assert len(set(row_keys(result.front.rows))) == len(result.front) == 5
