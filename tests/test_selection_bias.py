import json
import math

import numpy as np
import pytest
from scipy import stats

from searchlib import Cases, Objective, RandomSearch, Scores, Search, Split, Study, search
from searchlib.errors import InvalidSettings
from searchlib.selection_bias import Estimate, Sample, corrected, optimism
from searchlib.spaces import Binary, Subset


class Means(Objective):
    space = Binary(2)
    direction = "maximize"

    def cases(self, split):
        return Cases((0,))

    def evaluate(self, candidates, cases):
        raise NotImplementedError


class Medians(Means):
    additive = False

    def aggregate(self, scores):
        return np.median(scores[:, :, 0], axis=1)[:, None]


NO_TIES = np.full(8, np.nan)


def tables(rng, cases, count, spread):
    """Scores of 8 candidates whose true values are known: ``spread`` apart, with noise that all share and their own."""
    for _ in range(count):
        truth = rng.normal(0.0, spread, 8)
        noise = 0.5 * rng.normal(size=(1, cases)) + rng.normal(size=(8, cases))
        yield truth, (truth[:, None] + noise)[:, :, None]


@pytest.mark.parametrize(("cases", "spread"), [(20, 0.0), (40, 0.1), (40, 0.5)])
def test_the_corrected_value_is_much_less_biased_and_its_interval_covers_the_truth(cases, spread):
    rng = np.random.default_rng(cases)
    naive, bbc, covered = [], [], 0
    for truth, scores in tables(rng, cases, 250, spread):
        winner = int(scores.mean(axis=1)[:, 0].argmax())
        found = corrected(Means(), scores, NO_TIES, rng)
        naive.append(scores[winner].mean() - truth[winner])
        bbc.append(found.value - truth[winner])
        covered += found.interval[0] <= truth[winner] <= found.interval[1]
    assert np.mean(naive) > 4 * stats.sem(naive), "nothing to correct"
    assert abs(np.mean(bbc)) < abs(np.mean(naive)) / 2
    assert covered >= 0.9 * 250


def test_without_a_choice_there_is_next_to_nothing_to_correct():
    scores = np.random.default_rng(0).normal(3.0, 1.0, size=(1, 50, 1))
    found = corrected(Means(), scores, np.full(1, np.nan), np.random.default_rng(1))
    assert found.value == pytest.approx(scores.mean(), abs=0.02)


def test_values_that_are_no_means_are_corrected_too():
    rng = np.random.default_rng(4)
    naive, bbc = [], []
    for truth, scores in tables(rng, 30, 12, 0.0):
        winner = int(np.median(scores[:, :, 0], axis=1).argmax())
        naive.append(np.median(scores[winner]) - truth[winner])
        bbc.append(corrected(Medians(), scores, NO_TIES, rng).value - truth[winner])
    assert abs(np.mean(bbc)) < np.mean(naive) / 2


class Asked(Medians):
    """Counts how often it is asked; refuses all that it is asked at once where one part of it lacks the first case."""

    def __init__(self, needs=-np.inf):
        self.needs, self.calls = needs, 0

    def aggregate(self, scores):
        self.calls += 1
        if (scores[:, :, 0].max(axis=1) < self.needs).any():
            raise ValueError("the first case is needed")
        return super().aggregate(scores)


def test_resamples_are_reduced_together():
    """One at a time they took four fifths of a benchmark of short searches."""
    scores = np.random.default_rng(0).normal(size=(6, 12, 1))
    objective = Asked()
    assert corrected(objective, scores, NO_TIES[:6], np.random.default_rng(1)) is not None
    assert objective.calls == 1 + 200  # and every winner on the cases that its resample left out


def test_a_resample_that_cannot_be_reduced_spoils_no_other_one():
    scores = np.random.default_rng(0).normal(size=(6, 12, 1))
    scores[:, 0] = 9.0
    inside = Asked(needs=9.0)
    assert corrected(inside, scores, NO_TIES[:6], np.random.default_rng(1)) is None  # left out where it is not needed
    assert inside.calls > 1 + 200
    scores[:, 1] = 9.0
    found = corrected(Asked(needs=9.0), scores, NO_TIES[:6], np.random.default_rng(1))
    assert np.isfinite([found.value, *found.interval]).all()


def test_ties_are_broken_as_they_are_for_the_winner():
    scores = np.ones((3, 10, 1))
    scores[:, :, 0] += [[0.0], [0.0], [-1.0]]
    only = np.zeros((3, 10, 1))
    only[1] = 5.0
    assert corrected(Means(), scores, np.array([2.0, 1.0, 0.0]), np.random.default_rng(0)).value == 1.0
    assert corrected(Means(), only, np.full(3, np.nan), np.random.default_rng(0)).value == 5.0


def test_one_case_cannot_be_resampled():
    assert corrected(Means(), np.ones((3, 1, 1)), np.zeros(3), np.random.default_rng(0)) is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_of_the_optimism_is_that_of_welch(sign):
    rng = np.random.default_rng(2)
    a, b = rng.normal(1.0, 1.0, 40), rng.normal(0.5, 2.0, 25)
    found = optimism(sign, *(Sample(x.mean(), stats.sem(x), len(x)) for x in (a, b)))
    welch = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(sign * (b.mean() - a.mean()))
    assert found.interval == pytest.approx(sorted((sign * welch.low, sign * welch.high)))


class Noisy(Objective):
    """All candidates are alike but for the luck that a case brings each of them."""

    space = Subset(12, k=2)
    direction = "maximize"

    def __init__(self, select=30, holdout=60, additive=True):
        self.sizes, self.additive = {Split.SEARCH: 4, Split.SELECT: select, Split.HOLDOUT: holdout}, additive

    def cases(self, split):
        return Cases(tuple(f"{split} {i}" for i in range(self.sizes[split])))

    def evaluate(self, candidates, cases):
        luck = [np.random.default_rng(list(name.encode())).normal(size=12) for name in cases.ids]
        return Scores(np.array(luck)[:, candidates.array].sum(axis=2).T)


@pytest.mark.parametrize("additive", [True, False])
def test_a_result_says_how_much_its_value_flatters(tmp_path, additive):
    result = search(Noisy(additive=additive), RandomSearch(), budget=66, study=tmp_path / "noisy.db")
    assert result.optimism.value == pytest.approx(result.value - result.holdout.value)
    low, high = result.optimism.interval
    assert low < result.optimism.value < high
    assert result.corrected.value < result.value
    assert result.corrected.interval[0] < 0.0 < result.corrected.interval[1]
    assert "corrected " in str(result)
    assert "optimism " in str(result)
    with Study.open(tmp_path / "noisy.db") as study:
        again = study.result()
    assert (again.optimism, again.corrected, again.overlaps) == (result.optimism, result.corrected, ())


def test_without_held_out_cases_the_corrected_value_remains():
    result = search(Noisy(holdout=0), budget=66)
    assert result.optimism is None
    assert result.corrected.value < result.value


def test_without_select_cases_only_the_optimism_is_known():
    result = search(Noisy(select=0), budget=66)
    assert result.corrected is None
    assert result.optimism.value == pytest.approx(result.value - result.holdout.value)
    assert result.optimism.value > 0.5, "4 cases decided among 66 candidates"


def test_an_estimate_survives_json():
    for found in (Estimate(1.0, (0.5, 2.0)), Estimate(1.0, (math.nan, math.nan))):
        again = Estimate.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert again.value == found.value
        assert np.array_equal(again.interval, found.interval, equal_nan=True)
    assert Estimate.from_json(None) is None


class Shared(Noisy):
    """The held-out cases have some of the search's."""

    def __init__(self, splits):
        self.splits = splits

    def cases(self, split):
        return self.splits.get(split, Cases.none())

    def evaluate(self, candidates, cases):
        return np.repeat(candidates.array[:, :1], len(cases), axis=1)


def test_shared_cases_are_warned_of_by_number_and_name(caplog, tmp_path):
    exam = {Split.SEARCH: Cases(("a", "b", "c")), Split.HOLDOUT: Cases(("b", "x", "c", "y"))}
    result = search(Shared(exam), budget=4, study=tmp_path / "shared.db")
    assert "2 of 4 holdout cases are search cases too ('b', 'c')" in caplog.text
    assert result.overlaps[0].ids == ("b", "c")
    assert "2 of 4 holdout cases" in str(result)
    with Study.open(tmp_path / "shared.db") as study:
        assert study.result().overlaps == result.overlaps


def test_payload_decides_before_ids_do(caplog):
    """``Cases.of`` numbers every split from 0; the same text under another number is the same case."""
    apart = {Split.SEARCH: Cases.of(["1+1", "1+2"]), Split.HOLDOUT: Cases.of(["2+1", "2+2"])}
    Search(Shared(apart), budget=1)
    assert not caplog.text
    same = {Split.SEARCH: Cases.of(["1+1", "1+2"]), Split.SELECT: Cases.of(["3", "4", "1+1"])}
    Search(Shared(same), budget=1)
    assert "1 of 3 select cases are search cases too (2)" in caplog.text


@pytest.mark.parametrize("payload", [np.arange(3.0), {"question": ["a", None]}, (1, (2.0, b"x"))])
def test_equal_payload_of_any_readable_kind_is_seen(payload, caplog):
    import copy

    Search(Shared({Split.SEARCH: Cases.of([payload]), Split.HOLDOUT: Cases.of([0, copy.deepcopy(payload)])}), budget=1)
    assert "1 of 2 holdout cases" in caplog.text


def test_a_value_that_cannot_be_made_of_few_cases_does_not_end_the_search():
    """A correlation over models refuses a resample that leaves out all but one of them."""

    class Correlation(Noisy):
        def aggregate(self, scores):
            if scores.shape[1] < 3:
                raise InvalidSettings("a correlation needs three cases")
            return super().aggregate(scores)

    result = search(Correlation(select=4, additive=False), RandomSearch(), budget=66)
    assert np.isfinite(result.value)


def test_wide_observations_are_not_resampled():
    class Distance(Noisy):
        calls = 0

        def evaluate(self, candidates, cases):
            return np.repeat(super().evaluate(candidates, cases).values[..., None], 40, axis=2)

        def aggregate(self, scores):
            type(self).calls += 1
            return super().aggregate(scores[:, :, 0])

    result = search(Distance(holdout=0, additive=False), RandomSearch(), budget=66)
    assert result.corrected is None
    assert Distance.calls < 20
