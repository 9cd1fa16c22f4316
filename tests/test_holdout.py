import numpy as np
import pytest
from scipy import stats

from searchlib import Cases, Objective, search
from searchlib.errors import InvalidSettings
from searchlib.holdout import Holdout, compare
from searchlib.spaces import Binary, Real


class Means(Objective):
    space = Binary(2)

    def cases(self, split):
        return Cases((0,))

    def evaluate(self, candidates, cases):
        raise NotImplementedError


class Median(Means):
    additive = False

    def aggregate(self, scores):
        return np.median(scores[:, :, 0], axis=1)[:, None]


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    ours = rng.normal(1.0, 1.0, size=(80, 1))
    return {"best": ours, "rival": ours + rng.normal(0.5, 0.1, size=(80, 1))}


def test_intervals_of_means_are_those_of_scipys_paired_t_test(scores):
    result = compare(Means(), scores, np.random.default_rng(0), 1)
    paired = stats.ttest_rel(scores["best"][:, 0], scores["rival"][:, 0]).confidence_interval(0.95)
    rival = result.against("rival")
    assert rival.difference_interval == pytest.approx((paired.low, paired.high))
    alone = stats.ttest_1samp(scores["best"][:, 0], 0.0).confidence_interval(0.95)
    assert result.interval == pytest.approx((alone.low, alone.high))
    assert rival.difference == pytest.approx(result.value - rival.value)


def test_intervals_of_other_statistics_are_bootstrapped(scores):
    result = compare(Median(), scores, np.random.default_rng(0), 1)
    again = stats.bootstrap((scores["best"][:, 0],), np.median, n_resamples=4000, method="percentile", rng=1)
    assert result.interval == pytest.approx(tuple(again.confidence_interval), abs=0.08)
    low, high = result.against("rival").difference_interval
    assert low < result.against("rival").difference < high < 0


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        draw = rng.normal(0.3, 1.0, size=(30, 1))
        low, high = compare(Means(), {"best": draw}, rng, 1).interval
        hits += low <= 0.3 <= high
    assert stats.binomtest(hits, 400, 0.95).pvalue > 0.01


def test_json_round_trip(scores):
    result = compare(Means(), scores, np.random.default_rng(0), 2)
    import json

    assert Holdout.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_unknown_reference_is_named_with_those_that_exist(scores):
    with pytest.raises(KeyError, match="rival"):
        compare(Means(), scores, np.random.default_rng(0), 1).against("nobody")


@pytest.mark.parametrize("references", [("one",), lambda: "one", lambda: (1,)])
def test_names_of_references_that_are_none_are_refused_before_the_search(references):
    class Wrong(Objective):
        space = Real(0, 1)

        def cases(self, split):
            return Cases.of([1.0])

        def evaluate(self, candidates, cases):
            raise AssertionError("nothing may be evaluated")

    objective = Wrong()
    objective.references = references
    with pytest.raises(InvalidSettings, match="must be a method that returns names"):
        search(objective, budget=10)
