import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from searchlib import Candidates, Outcome, ShrinkingPool, Split, Study, search
from searchlib.errors import InvalidSettings, StudyMismatch
from searchlib.objectives.eval_subset import EvalSubset
from searchlib.objectives.eval_subset_folds import SubsetMethod, choose_method
from searchlib.objectives.item_subset import ItemSubset
from searchlib.objectives.score_noise import ScoreNoise
from searchlib.testing import check_objective

DATA = Path(__file__).parents[3] / "shared" / "data" / "flasheval_diffusiondb.npz"


def synthetic(models=20, items=300, seed=0):
    """Scores with an ability per model, a discrimination per item, and noise."""
    rng = np.random.default_rng(seed)
    ability, difficulty = rng.normal(size=(models, 1)), rng.normal(size=(1, items))
    return ability * rng.normal(0.6, 0.6, size=(1, items)) - difficulty + rng.normal(size=(models, items))


def released():
    if not DATA.is_file():
        pytest.skip("the scores of FlashEval are not here (../shared/data/flasheval_diffusiondb.npz)")
    with np.load(DATA, allow_pickle=False) as data:
        return data["scores"][[str(name) for name in data["metrics"]].index("CLIP")].astype(np.float64)


@pytest.mark.parametrize(
    "criterion", ["expected_kendall", "kendall", "spearman", "mean_absolute_error", "top_k_recall"]
)
def test_the_contract_holds(criterion):
    check_objective(EvalSubset(synthetic(), 7, holdout=range(12, 20), criterion=criterion))


def test_the_value_on_held_out_models_is_scipys_tau_of_the_subset_means():
    scores = synthetic()
    objective = EvalSubset(scores, 7, holdout=range(12, 20))
    rows = objective.space.sample(np.random.default_rng(1), 30)
    cases = objective.cases(Split.HOLDOUT)
    values = objective.aggregate(objective.evaluate(Candidates(objective.space, rows), cases))[:, 0]
    held_out, full = scores[12:], scores[12:].mean(axis=1)
    expected = [stats.kendalltau(held_out[:, row].mean(axis=1), full).statistic for row in rows]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_the_search_value_of_the_papers_criterion_is_tau_on_the_search_models():
    scores = synthetic()
    objective = EvalSubset(scores, 7, holdout=range(12, 20), criterion="kendall", replacement=True)
    rows = objective.space.encode([(0, 0, 0, 5, 5, 9, 11), (1, 2, 3, 4, 5, 6, 7)])
    cases = objective.cases(Split.SEARCH)
    values = objective.aggregate(objective.evaluate(Candidates(objective.space, rows), cases))[:, 0]
    searched, full = scores[:12], scores[:12].mean(axis=1)
    expected = [stats.kendalltau(searched[:, row].mean(axis=1), full).statistic for row in rows]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_the_search_never_sees_the_held_out_models():
    scores = synthetic()
    changed = scores.copy()
    changed[12:] = np.random.default_rng(9).normal(size=changed[12:].shape)
    first = search(EvalSubset(scores, 7, holdout=range(12, 20)), budget=3000)
    second = search(EvalSubset(changed, 7, holdout=range(12, 20)), budget=3000)
    assert first.best.items == second.best.items
    assert first.holdout.value != second.holdout.value


def test_a_searched_subset_beats_random_ones_on_held_out_models():
    scores = synthetic(models=40, items=400)
    result = search(EvalSubset(scores, 10, holdout=range(20, 40)), budget=30_000)
    held_out, full = scores[20:], scores[20:].mean(axis=1)
    rng = np.random.default_rng(0)
    drawn = [
        stats.kendalltau(held_out[:, rng.choice(400, 10, replace=False)].mean(axis=1), full).statistic
        for _ in range(200)
    ]
    assert result.holdout.value > np.quantile(drawn, 0.9)
    assert [row.name for row in result.holdout.rows] == [
        "best", "random", "best single items", "greedy mean matching", "random, 10 times as many",
    ]  # fmt: skip


def test_a_study_of_subsets_holds_digests_and_resumes_to_the_same_history(tmp_path):
    def objective():
        return EvalSubset(synthetic(), 7, holdout=range(12, 20))

    algorithm = ShrinkingPool(samples=500)
    whole = search(objective(), algorithm, budget=6000, batch_size=400, study=tmp_path / "whole.db")
    path = tmp_path / "cut.db"
    search(objective(), algorithm, budget=1500, batch_size=400, study=path)
    resumed = search(objective(), algorithm, budget=6000, batch_size=400, study=path)
    assert len(whole.history) > 3000
    assert whole.history.omitted > 2000
    assert len(whole.history) == whole.history.omitted + len(whole.history.ids)
    # the cut search ended in a smaller batch, so only what was searched from the same batches is the same
    again = search(objective(), algorithm, budget=6000, batch_size=400, study=tmp_path / "whole.db")
    assert again.history.digest == whole.history.digest
    assert resumed.best.items == search(objective(), algorithm, budget=6000, batch_size=400, study=path).best.items
    with Study.open(tmp_path / "whole.db") as study:
        assert study.history().digest == whole.history.digest
    assert (tmp_path / "whole.db").stat().st_size < 400_000


def test_a_digest_that_does_not_come_out_again_is_refused(tmp_path):
    path = tmp_path / "s.db"
    settings = {"algorithm": ShrinkingPool(samples=200), "budget": 600, "study": path}
    objective = EvalSubset(synthetic(), 7, criterion="kendall")
    search(objective, **settings)
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE digest SET value = 'other' WHERE batch = 0")
    with pytest.raises(StudyMismatch, match="evaluated again and differs"):
        search(EvalSubset(synthetic(), 7, criterion="kendall"), **settings)


def test_workers_do_not_change_what_is_found():
    objective = EvalSubset(synthetic(), 7)
    objective.chunk_rows = 100
    alone = search(objective, budget=2000)
    assert search(pickle.loads(pickle.dumps(objective)), budget=2000, workers=2).history.digest == alone.history.digest


def test_the_estimate_of_a_new_model_covers_its_full_score():
    scores = released()
    rng = np.random.default_rng(3)
    inside = total = 0
    for _ in range(4):
        held_out = np.sort(rng.permutation(78)[:39]).tolist()
        objective = EvalSubset(scores, 50, holdout=held_out)
        subset = search(objective, budget=20_000, shortlist=1).best
        for model in held_out:
            estimate = subset.score(scores[model, list(subset.items)])
            inside += estimate.interval[0] <= scores[model].mean() <= estimate.interval[1]
            total += 1
            assert estimate.rank_interval[0] <= estimate.rank <= estimate.rank_interval[1]
    assert total == 156
    assert inside / total >= 0.88


def test_searching_real_scores_ranks_unseen_models_better_than_the_papers_search():
    scores = released()
    gains = []
    for seed in range(3):
        held_out = np.random.default_rng(40 + seed).permutation(78)[:39].tolist()
        ours = search(EvalSubset(scores, 50, holdout=held_out), budget=60_000, shortlist=1)
        paper = search(
            EvalSubset(scores, 50, holdout=held_out, criterion="kendall", replacement=True), budget=60_000, shortlist=1
        )
        gains.append(ours.holdout.value - paper.holdout.value)
    assert len(gains) == 3
    assert np.mean(gains) > 0


def test_a_subset_is_written_down_and_read_back(tmp_path):
    subset = search(EvalSubset(synthetic(), 5), budget=500).best
    subset.save(tmp_path / "subset.json")
    subset.save(tmp_path / "subset.csv")
    again = ItemSubset.load(tmp_path / "subset.json")
    assert again.items == subset.items
    assert again.score([0.1] * 5) == subset.score([0.1] * 5)
    assert (tmp_path / "subset.csv").read_text().split()[1:] == [str(item) for item in subset.items]
    (tmp_path / "bad.json").write_text(json.dumps({"items": []}))
    with pytest.raises(InvalidSettings, match="does not hold a subset"):
        ItemSubset.load(tmp_path / "bad.json")


def test_missing_and_infinite_scores_of_a_new_model_are_named():
    subset = search(EvalSubset(synthetic(), 5), budget=500).best
    with pytest.raises(InvalidSettings, match="scores of 5 chosen items are missing"):
        subset.score({})
    with pytest.raises(InvalidSettings, match="of which 4 are finite"):
        subset.score([0.0, 1.0, 2.0, 3.0, np.nan])


def test_missing_cells_of_the_table_are_filled():
    scores = synthetic()
    scores[3, 5] = np.nan
    assert search(EvalSubset(scores, 5), budget=500).outcome in (Outcome.EVALUATIONS, Outcome.NOTHING_NEW)


@pytest.mark.parametrize(("settings", "message"), [
    ({"size": 0}, "size must be at least 1"),
    ({"size": 300}, "less than the 300 items"),
    ({"size": 5, "criterion": "tau"}, "criterion must be one of"),
    ({"size": 5, "holdout": ["nobody"]}, "'nobody' is not one of the 20 models"),
    ({"size": 5, "holdout": [20]}, "20 is not one of"),
    ({"size": 5, "holdout": [1], "select": [1]}, "both in holdout"),
    ({"size": 5, "holdout": range(18)}, "at least 3 models"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        EvalSubset(synthetic(), **settings)


def test_noise_is_split_off_as_a_truncated_singular_value_decomposition_would():
    scores = synthetic()
    shrunk, variance = ScoreNoise(rank=0.25, shrinkage=1.0, scale=1.0).split(scores)
    centered = scores - scores.mean(axis=0)
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    expected = (left[:, :5] * singular[:5]) @ right[:5]
    np.testing.assert_allclose(shrunk, expected, atol=1e-9)
    remainder = ((centered - expected) ** 2).sum(axis=0) / (20 - 1 - 5)
    np.testing.assert_allclose(variance, np.maximum(remainder, 0.05 * remainder.mean()), atol=1e-9)


def test_cross_validation_prefers_the_method_that_carries_over():
    scores = synthetic(models=24, items=300, seed=4)
    # One of the methods looks at nothing: its subsets are random.
    methods = {
        "searched": SubsetMethod(algorithm=ShrinkingPool(samples=500)),
        "random": SubsetMethod(algorithm=ShrinkingPool(schedule=(), samples=1, polish=0)),
    }
    name, taus = choose_method(scores, 10, methods, budget=4000, repeats=2)
    assert name == "searched"
    assert taus["random"].shape == (6,)


def test_folds_of_too_few_models_are_refused():
    with pytest.raises(InvalidSettings, match="need at least 24 models"):
        choose_method(synthetic(), 5, {"ours": SubsetMethod()}, budget=100, folds=8)
