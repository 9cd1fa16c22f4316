from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest

from searchlib.decision import Contest, decide
from searchlib.errors import InvalidSettings


def first_of(candidates, value, order):
    """Of the candidates with the largest value, the one that comes first in an order."""
    top = max(map(value, candidates))
    return min((candidate for candidate in candidates if value(candidate) == top), key=order)


def brute_force(values, groups, weights, prefer, decision):
    """The winning row in exact arithmetic, by what the documentation says."""
    rows = range(len(values))

    def order(row):
        return -prefer[row], row

    if decision == "max":
        return first_of(rows, lambda row: values[row], order)
    members, totals = defaultdict(list), defaultdict(Fraction)
    for row in rows:
        members[groups[row]].append(row)
        totals[groups[row]] += weights[row] * values[row]
    group = first_of(totals, lambda name: totals[name], lambda name: min(map(order, members[name])))
    return first_of(members[group], lambda row: values[row], order)


@pytest.mark.parametrize("decision", ["max", "sum"])
def test_the_decision_is_that_of_exact_arithmetic_with_many_ties(decision):
    rng = np.random.default_rng(0)
    ties = 0
    for _ in range(400):
        n = int(rng.integers(1, 9))
        tenths, groups = rng.integers(0, 4, n), rng.integers(0, 4, n) * 7 - 5
        weights, prefer = rng.integers(1, 4, n), rng.integers(-1, 3, n)
        exact = [Fraction(int(x), 10) for x in tenths]
        expected = brute_force(exact, groups.tolist(), weights.tolist(), prefer.tolist(), decision)
        found = decide(tenths / 10, groups=groups, weights=weights, prefer=prefer, decision=decision)
        assert found == expected
        ties += int((tenths == tenths.max()).sum() > 1)
    assert ties > 100


def test_without_preferences_the_heavier_group_wins_a_tie_then_the_lower_row():
    assert decide([0.5, 0.5, 0.5], groups=[4, 9, 9]) == 1
    assert decide([0.5, 0.5, 0.5], groups=[4, 9, 9], weights=[5, 1, 1]) == 0
    assert decide([0.2, 0.7, 0.7, 0.7]) == 1
    assert decide([1.0, 0.5, 0.5], groups=[0, 1, 1], decision="sum") == 1


def test_sums_that_differ_by_rounding_only_are_a_tie():
    assert 0.1 + 0.2 > 0.3
    assert decide([0.3, 0.1, 0.2], groups=[0, 1, 1], prefer=[1, 0, 0], decision="sum") == 0


def test_self_consistency_is_a_sum_of_ones():
    answers = [3, 1, 2, 1, 3, 3]
    assert decide(np.ones(6), groups=answers, decision="sum") == 0
    assert decide(np.ones(4), groups=[3, 1, 2, 2], weights=[1, 4, 2, 1], decision="sum") == 1


def test_a_contest_keeps_the_names_of_its_groups():
    contest = Contest(4, [10, -3, 10, 5], [1, 2, 3, 4], None, "sum")
    assert contest.size == 3
    totals = {int(contest.names[row]): contest.sums(np.ones(4))[contest.owner[row]] for row in range(4)}
    assert totals == {10: 2.0, -3: 1.0, 5: 1.0}
    first = np.flatnonzero(contest.owner == contest.rank.argmin())  # 10 and 5 weigh 4 each; 10 has the lower row
    assert contest.names[first].tolist() == [10, 10]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"values": []}, "at least one candidate"),
    ({"values": 3.0}, "values must be 1 finite numbers"),
    ({"values": [0.5, np.nan]}, "values must be 2 finite numbers"),
    ({"values": ["a", "b"]}, "values must be 2 finite numbers"),
    ({"values": [0.5, 0.2], "groups": [0]}, "groups must be 2 whole numbers"),
    ({"values": [0.5, 0.2], "groups": [0.5, 1.0]}, "groups must be 2 whole numbers"),
    ({"values": [0.5, 0.2], "weights": [0, 1]}, "weights must be positive, but the smallest is 0"),
    ({"values": [0.5, 0.2], "prefer": [1]}, "prefer must be 2 finite numbers"),
    ({"values": [0.5, 0.2], "decision": "mean"}, "decision must be"),
])  # fmt: skip
def test_arguments_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(InvalidSettings, match=message):
        decide(**arguments)
