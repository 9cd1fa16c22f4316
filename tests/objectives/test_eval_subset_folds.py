import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from searchlib import ShrinkingPool
from searchlib.errors import InvalidSettings
from searchlib.objectives.eval_subset_folds import SubsetMethod, choose_method
from searchlib.objectives.score_matrix import ScoreMatrix
from searchlib.objectives.score_noise import ScoreNoise

DATA = Path(__file__).parents[3] / "shared" / "data" / "flasheval_diffusiondb.npz"

#: A search whose subsets are random.
BLIND = ShrinkingPool(schedule=(), samples=1, polish=0)


def table(models=15, items=120, seed=0):
    rng = np.random.default_rng(seed)
    ability, difficulty = rng.normal(size=(models, 1)), rng.normal(size=(1, items))
    return ability * rng.normal(0.6, 0.6, size=(1, items)) - difficulty + rng.normal(size=(models, items))


def test_the_tau_of_a_fold_is_scipys_for_the_best_set_of_the_other_models():
    # So few sets that every one is looked at: the best one is known without a search.
    scores = table(models=9, items=7, seed=3)
    _, taus = choose_method(
        scores, 2, {"all": SubsetMethod(criterion="spearman", algorithm=ShrinkingPool(schedule=(), samples=400))},
        budget=400, seed=5,
    )  # fmt: skip
    folds = np.array_split(np.random.default_rng(5).permutation(9), 3)
    expected = []
    for fold in folds:
        rest = np.setdiff1d(np.arange(9), fold)
        rhos = {
            kept: stats.spearmanr(scores[np.ix_(rest, kept)].mean(axis=1), scores[rest].mean(axis=1)).statistic
            for kept in itertools.combinations(range(7), 2)
        }
        best = [kept for kept, rho in rhos.items() if rho >= max(rhos.values()) - 1e-9]
        expected.append({
            round(stats.kendalltau(scores[np.ix_(fold, kept)].mean(axis=1), scores[fold].mean(axis=1)).statistic, 9)
            for kept in best
        })  # fmt: skip
    assert len(taus["all"]) == 3
    assert all(round(tau, 9) in possible for tau, possible in zip(taus["all"], expected, strict=True))


def test_methods_are_compared_by_tau_whatever_they_search_for():
    # An error of the mean is small and positive: taken for a tau, it would lose against anything.
    methods = {
        "error": SubsetMethod(criterion="mean_absolute_error", algorithm=ShrinkingPool(samples=400, polish=0)),
        "recall": SubsetMethod(criterion="top_k_recall", k=2),
        "blind": SubsetMethod(criterion="kendall", algorithm=BLIND),
    }
    name, taus = choose_method(table(24, 200), 10, methods, budget=3000, repeats=2)
    assert all(values.shape == (6,) and (np.abs(values) <= 1).all() for values in taus.values())
    assert taus["error"].mean() > 0.3
    assert name == max(taus, key=lambda method: taus[method].mean())


def test_every_model_is_left_out_once_per_repeat(monkeypatch):
    seen = []
    original = SubsetMethod.objective

    def spying(self, scores, size, **settings):
        seen.append(sorted(settings["select"]))
        return original(self, scores, size, **settings)

    monkeypatch.setattr(SubsetMethod, "objective", spying)
    choose_method(table(), 5, {"a": SubsetMethod(algorithm=BLIND)}, budget=10, folds=4, repeats=2)
    assert len(seen) == 8
    for repeat in (seen[:4], seen[4:]):
        assert sorted(model for fold in repeat for model in fold) == list(range(15))
    assert seen[:4] != seen[4:]


def test_a_seed_decides_everything():
    methods = {"a": SubsetMethod(), "b": SubsetMethod(noise=ScoreNoise(shrinkage=0.0), replacement=True)}
    first, second, other = (choose_method(table(), 5, methods, budget=600, seed=seed)[1] for seed in (1, 1, 2))
    for name in methods:
        np.testing.assert_array_equal(first[name], second[name])
    assert any((first[name] != other[name]).any() for name in methods)


def test_the_left_out_models_do_not_change_which_subset_is_found(monkeypatch):
    found = []
    from searchlib.objectives import eval_subset_folds

    original = eval_subset_folds.search

    def spying(*arguments, **settings):
        result = original(*arguments, **settings)
        found.append(result.best.items)
        return result

    monkeypatch.setattr(eval_subset_folds, "search", spying)
    scores = table()
    fold = np.array_split(np.random.default_rng(0).permutation(15), 3)[0]
    changed = scores.copy()
    changed[fold] = np.random.default_rng(9).normal(size=(5, 120))
    for data in (scores, changed):
        choose_method(data, 5, {"ours": SubsetMethod()}, budget=600)
    assert len(found) == 6
    assert found[0] == found[3]


def test_a_fold_of_models_that_tie_counts_nothing():
    scores = table()
    folds = np.array_split(np.random.default_rng(0).permutation(15), 3)
    scores[folds[1]] = scores[folds[1][0]]
    _, taus = choose_method(scores, 5, {"ours": SubsetMethod()}, budget=600)
    assert taus["ours"][1] == 0
    assert taus["ours"][[0, 2]].all()


def test_missing_cells_are_no_problem():
    scores = table()
    scores[np.random.default_rng(1).random(scores.shape) < 0.2] = np.nan
    _, taus = choose_method(ScoreMatrix.of(scores), 10, {"ours": SubsetMethod()}, budget=1000)
    assert np.isfinite(taus["ours"]).all()


def test_on_real_scores_the_optimal_design_is_chosen_over_a_blind_choice():
    if not DATA.is_file():
        pytest.skip("the scores of FlashEval are not here (../shared/data/flasheval_diffusiondb.npz)")
    with np.load(DATA, allow_pickle=False) as data:
        scores = data["scores"][0, :39, :1500].astype(np.float64)
    methods = {"blind": SubsetMethod(criterion="kendall", algorithm=BLIND), "ours": SubsetMethod()}
    name, taus = choose_method(scores, 30, methods, budget=6000)
    assert name == "ours"
    assert taus["ours"].mean() > taus["blind"].mean() + 0.03


@pytest.mark.parametrize(("settings", "message"), [
    ({"folds": 1}, "folds must be a whole number of at least 2"),
    ({"folds": 2.0}, "folds must be a whole number"),
    ({"repeats": 0}, "repeats must be a whole number of at least 1"),
    ({"folds": 6}, "6 folds need at least 18 models, but there are 15"),
    ({"methods": {}}, "at least one method"),
    ({"methods": {"a": SubsetMethod(criterion="tau")}}, "criterion must be one of"),
    ({"methods": {"a": SubsetMethod(criterion="top_k_recall")}}, "lower k= or hold out more models"),
    ({"margin": -1.0}, "a tie margin must be 0 or more"),
    ({"size": 120}, "less than the 120 items"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    settings = {"scores": table(), "size": 5, "methods": {"a": SubsetMethod()}, "budget": 50, **settings}
    with pytest.raises(InvalidSettings, match=message):
        choose_method(**settings)
