import time

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidSettings
from searchlib.objectives.rank_agreement import (
    AGREEMENTS,
    expected_kendall,
    kendall_tau,
    mean_absolute_error,
    spearman,
    top_k_recall,
)


def tables(cases, seed):
    """Random estimates and truths of 2 to 40 models, with few or many ties."""
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        m, levels = int(rng.integers(2, 41)), int(rng.choice([2, 3, 5, 1000]))
        yield rng.integers(levels, size=(3, m)).astype(float), rng.integers(levels, size=m).astype(float)


def by_definition(estimates, truth, margin):
    """Tau-b counted pair by pair."""
    concordant = discordant = only_truth = only_estimates = 0
    for i in range(len(truth)):
        for j in range(i):
            a, b = estimates[i] - estimates[j], truth[i] - truth[j]
            a, b = (0 if abs(d) <= margin else np.sign(d) for d in (a, b))
            concordant += a * b > 0
            discordant += a * b < 0
            only_truth += b != 0 and a == 0
            only_estimates += a != 0 and b == 0
    pairs = (concordant + discordant + only_truth) * (concordant + discordant + only_estimates)
    return (concordant - discordant) / np.sqrt(pairs) if pairs else np.nan


def test_tau_is_scipys_on_thousands_of_tables_with_and_without_ties():
    seen = ties = 0
    for estimates, truth in tables(1500, seed=0):
        mine = kendall_tau(estimates, truth)
        for row, value in zip(estimates, mine, strict=True):
            expected = stats.kendalltau(row, truth).statistic
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)
            seen += 1
            ties += len(set(truth)) < len(truth)
    assert seen == 4500
    assert 1000 < ties < 4000


def test_tau_with_a_margin_is_the_count_of_pairs():
    rng = np.random.default_rng(1)
    tied = 0
    for _ in range(200):
        m = int(rng.integers(2, 12))
        estimates, truth = rng.normal(size=(2, m)), rng.normal(size=m)
        margin = float(rng.choice([0.01, 0.3, 1.0]))
        expected = [by_definition(row, truth, margin) for row in estimates]
        np.testing.assert_allclose(kendall_tau(estimates, truth, margin), expected, atol=1e-12)
        tied += margin == 1.0
    assert tied


def test_more_models_than_a_small_counter_holds_are_counted_right():
    rng = np.random.default_rng(2)
    estimates, truth = rng.normal(size=(2, 300)), rng.normal(size=300)
    expected = [stats.kendalltau(row, truth).statistic for row in estimates]
    np.testing.assert_allclose(kendall_tau(estimates, truth), expected, atol=1e-12)


def test_a_truth_for_every_row_gives_what_one_row_at_a_time_gives():
    rng = np.random.default_rng(3)
    estimates, truth = rng.integers(4, size=(50, 9)).astype(float), rng.integers(4, size=(50, 9)).astype(float)
    one_by_one = [kendall_tau(e[None], t)[0] for e, t in zip(estimates, truth, strict=True)]
    np.testing.assert_allclose(kendall_tau(estimates, truth), one_by_one, atol=1e-12)


def test_expected_tau_is_the_mean_tau_of_noisy_estimates():
    rng = np.random.default_rng(4)
    estimates, truth = rng.normal(scale=2, size=12), rng.normal(size=12)
    noisy = estimates + rng.normal(size=(20_000, 12))
    taus = kendall_tau(noisy, truth)
    assert expected_kendall(estimates[None], truth)[0] == pytest.approx(taus.mean(), abs=4 * taus.std() / 20_000**0.5)


def test_expected_tau_without_noise_is_tau():
    rng = np.random.default_rng(5)
    estimates, truth = rng.normal(size=(40, 15)), rng.normal(size=15)
    np.testing.assert_allclose(expected_kendall(estimates * 1e6, truth), kendall_tau(estimates, truth), atol=1e-9)


def test_models_that_truly_tie_count_for_nothing_in_the_expected_tau():
    assert expected_kendall(np.array([[9.0, 0.0, 50.0]]), np.array([1.0, 1.0, 2.0]))[0] == pytest.approx(1.0)


def test_spearman_is_scipys():
    compared = 0
    for estimates, truth in tables(100, seed=6):
        if len(set(truth)) == 1:
            continue
        for row, value in zip(estimates, spearman(estimates, truth), strict=True):
            if len(set(row)) > 1:
                assert value == pytest.approx(stats.spearmanr(row, truth).statistic, abs=1e-12)
                compared += 1
    assert compared > 100


def test_top_k_recall_counts_the_best_models_that_are_found():
    estimates, truth = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]]), np.array([4.0, 3.0, 2.0, 1.0])
    assert top_k_recall(estimates, truth, k=2).tolist() == [1.0, 0.0]
    assert top_k_recall(estimates, truth, k=3).tolist() == [1.0, pytest.approx(2 / 3)]


def test_the_error_of_the_score_is_lower_for_better_estimates():
    assert mean_absolute_error(np.array([[1.0, 3.0], [1.0, 2.0]]), np.array([1.0, 2.0])).tolist() == [0.5, 0.0]
    assert not AGREEMENTS["mean_absolute_error"][1]


@pytest.mark.parametrize("agreement", [function for function, _ in AGREEMENTS.values()])
def test_shapes_that_do_not_fit_are_named(agreement):
    with pytest.raises(InvalidSettings, match=r"\(2, 3\).*\(4,\)"):
        agreement(np.zeros((2, 3)), np.zeros(4))


def test_a_negative_margin_and_an_impossible_k_are_refused():
    with pytest.raises(InvalidSettings, match="margin"):
        kendall_tau(np.zeros((1, 3)), np.arange(3.0), margin=-1)
    with pytest.raises(InvalidSettings, match="k=4"):
        top_k_recall(np.zeros((1, 3)), np.arange(3.0), k=4)


def test_many_rows_take_no_python_per_row():
    estimates, truth = np.random.default_rng(7).normal(size=(20_000, 39)).astype(np.float32), np.arange(39.0)
    start = time.process_time()
    kendall_tau(estimates, truth)
    mine = (time.process_time() - start) / len(estimates)
    start = time.process_time()
    for row in estimates[:200]:
        stats.kendalltau(row, truth)
    assert mine < (time.process_time() - start) / 200 / 20
