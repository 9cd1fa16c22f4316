import numpy as np

from searchlib.case_order import chances, drawn_order, spread


def test_chances_are_how_often_a_case_is_among_the_first():
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.2, 2, 40)
    for n in (5, 10, 30):
        seen, draws = np.zeros(40), 4000
        for _ in range(draws):
            seen[drawn_order(sizes, rng)[:n]] += 1
        chance = chances(sizes, n)
        assert np.isclose(chance.sum(), n)
        # Ohlsson (1998): the chances of sequential Poisson sampling are nearly those that were aimed at.
        assert np.abs(seen / draws - chance).max() < 0.06


def test_no_chance_exceeds_one_and_the_sure_cases_come_first_of_all():
    chance = chances(np.array([1.0, 2.0, 50.0, 100.0]), 3)
    assert chance[2:].tolist() == [1, 1]
    assert np.allclose(chance[:2], [1 / 3, 2 / 3])
    assert chances(np.array([1.0, 5.0]), 2).tolist() == [1, 1]


def test_every_beginning_of_the_order_gives_a_nearly_unbiased_mean_even_of_scores_on_the_least_likely_cases():
    rng = np.random.default_rng(1)
    sizes = np.repeat([0.5, 1.0, 2.0], 30)
    scores = np.where(sizes == 0.5, rng.random(90), 0.0)
    for n in (15, 30, 60):
        chance, estimates = chances(sizes, n), []
        for _ in range(2000):
            met = drawn_order(sizes, rng)[:n]
            weights = 1 / chance[met]
            estimates.append(scores[met] @ weights / weights.sum())
        estimates = np.array(estimates)
        assert 0 < estimates.std() < 0.15
        assert abs(estimates.mean() - scores.mean()) < 0.2 * estimates.std()  # the bias of a ratio of two sums


def test_a_weighted_draw_is_more_precise_where_few_cases_make_the_difference():
    rng = np.random.default_rng(2)
    trivial = np.arange(200) < 140  # everybody scores 1 there
    table = np.where(trivial, 1.0, rng.random((201, 200)) < 0.5)
    usual, row = table[:200].mean(axis=0), table[200]
    errors = {}
    for name, sizes in (("informed", spread(table[:200], usual)), ("uniform", np.ones(200))):
        chance, missed = chances(sizes, 25), []
        for _ in range(1500):
            met = drawn_order(sizes, rng)[:25]
            weights = 1 / chance[met]
            missed.append(usual.mean() + (row - usual)[met] @ weights / weights.sum() - row.mean())
        errors[name] = np.std(missed)
    assert 0 < errors["informed"] < 0.8 * errors["uniform"]


def test_rows_that_are_all_alike_leave_every_case_as_likely():
    assert spread(np.ones((5, 4)), np.ones(4)).tolist() == [1, 1, 1, 1]
