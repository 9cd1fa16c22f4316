import itertools
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


def released(metric="CLIP"):
    if not DATA.is_file():
        pytest.skip("the scores of FlashEval are not here (../shared/data/flasheval_diffusiondb.npz)")
    with np.load(DATA, allow_pickle=False) as data:
        return data["scores"][[str(name) for name in data["metrics"]].index(metric)].astype(np.float64)


@pytest.mark.parametrize(
    "criterion",
    ["explained_variance", "expected_kendall", "kendall", "spearman", "mean_absolute_error", "top_k_recall"]
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
    from searchlib.sealed_file import SealedFile

    file = SealedFile.writing(path)
    with file.transaction():
        ((omitted,),) = file.execute("SELECT omitted FROM digest WHERE batch = 0").fetchall()
        file.insert("digest", 0, omitted, "other", replace=True)
    file.close()
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


def test_the_optimal_design_ranks_unseen_models_better_than_the_papers_search():
    gains = []
    for metric, seed in itertools.product(("CLIP", "HPS", "ImageReward", "Aesthetic"), range(2)):
        held_out = np.random.default_rng(40 + seed).permutation(78)[:39].tolist()
        scores = released(metric)
        ours = search(EvalSubset(scores, 50, holdout=held_out), budget=1000, shortlist=1)
        paper = search(
            EvalSubset(scores, 50, holdout=held_out, criterion="kendall", replacement=True), budget=60_000, shortlist=1
        )
        gains.append(ours.holdout.value - paper.holdout.value)
    assert len(gains) == 8
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
    ({"size": 0}, "size must be a whole number of at least 1, but is 0"),
    ({"size": 300}, "less than the 300 items"),
    ({"size": 5, "criterion": "tau"}, "criterion must be one of"),
    ({"size": 5, "holdout": ["nobody"]}, "'nobody' is not one of the 20 models"),
    ({"size": 5, "holdout": [20]}, "20 is not one of"),
    ({"size": 5, "holdout": [1], "select": [1]}, "both in holdout"),
    ({"size": 5, "holdout": range(18)}, "at least 3 models"),
    ({"size": 5.0}, "size must be a whole number of at least 1, but is 5.0"),
    ({"size": "5"}, "size must be a whole number"),
    ({"size": True}, "size must be a whole number"),
    ({"size": 5, "holdout": "model 3"}, "holdout= is a list of models .* but is 'model 3'"),
    ({"size": 5, "select": 3}, "select= is a list of models .* but is 3"),
    ({"size": 5, "holdout": [-1, 2]}, "the holdout model -1 is not one of"),
    ({"size": 5, "holdout": [1.7, 2]}, "the holdout model 1.7 is not one of"),
    ({"size": 5, "holdout": [True] * 4 + [False] * 16}, r"not a mask; pass np.flatnonzero\(mask\)"),
    ({"size": 5, "holdout": np.arange(20) < 4}, r"not a mask; pass np.flatnonzero\(mask\)"),
    ({"size": 5, "holdout": [3]}, "holdout= needs at least 2 models"),
    ({"size": 5, "select": ["model 3"]}, "select= needs at least 2 models"),
    ({"size": 5, "margin": -1e-9}, "a tie margin must be 0 or more"),
    ({"size": 5, "margin": float("nan")}, "a tie margin must be 0 or more"),
    ({"size": 5, "margin": "small"}, "a tie margin must be 0 or more"),
    ({"size": 5, "margin": 100.0}, "the 20 search models have the same mean score, .* smaller margin"),
    ({"size": 5, "k": 0, "criterion": "top_k_recall"}, "k must be a whole number of at least 1"),
    ({"size": 5, "k": 4, "criterion": "top_k_recall", "holdout": [1, 2, 3, 4]}, "one part has 4; lower k="),
    ({"size": 5, "k": 20, "criterion": "top_k_recall"}, "one part has 20; lower k="),
    ({"size": 5, "noise": 0.5}, "noise must be a ScoreNoise"),
    ({"size": 5, "criterion": ["kendall"]}, "criterion must be one of"),
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


def test_models_may_be_named_in_every_way_that_counts_or_spells_them():
    for holdout in (["model 3", "model 1"], [3, 1], np.array([3, 1]), {1, 3}, (np.int64(1), "model 3"), [1, 3, 3]):
        objective = EvalSubset(synthetic(), 5, holdout=holdout)
        assert objective.cases(Split.HOLDOUT).ids == ("model 1", "model 3")
        assert len(objective.cases(Split.SEARCH).ids) == 18


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 11])
@pytest.mark.parametrize("criterion", ["kendall", "expected_kendall"])
def test_models_that_tie_on_graded_scores_tie_exactly(levels, criterion):
    # The right counts in whole numbers are compared by scipy; sums of thirds or tenths are not exact.
    rng = np.random.default_rng(levels)
    points = rng.integers(levels, size=(24, 40))
    objective = EvalSubset(points / (levels - 1), 7, holdout=range(12, 24), criterion=criterion)
    rows = objective.space.sample(rng, 300)
    ties = 0
    for split, models in ((Split.SEARCH, points[:12]), (Split.HOLDOUT, points[12:])):
        if split is Split.SEARCH and criterion != "kendall":
            continue
        values = objective.aggregate(objective.evaluate(Candidates(objective.space, rows), objective.cases(split)))
        full = models.sum(axis=1)
        expected = [stats.kendalltau(models[:, row].sum(axis=1), full).statistic for row in rows]
        np.testing.assert_allclose(values[:, 0], expected, atol=1e-12)
        ties += sum(len(set(models[:, row].sum(axis=1).tolist())) < 12 for row in rows)
    assert ties > 100


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1e-25), (0.0, 1e25), (1e6, 1.0), (-1e9, 1e3)])
@pytest.mark.parametrize("criterion", ["kendall", "expected_kendall"])
def test_neither_the_unit_nor_the_zero_of_the_scores_matters(offset, scale, criterion):
    scores = synthetic()
    plain = EvalSubset(scores, 7, criterion=criterion)
    moved = EvalSubset(offset + scale * scores, 7, criterion=criterion)
    rows = plain.space.sample(np.random.default_rng(0), 200)
    first, second = (
        o.aggregate(o.evaluate(Candidates(o.space, rows), o.cases(Split.SEARCH)))[:, 0] for o in (plain, moved)
    )
    assert np.ptp(first) > 0.3
    np.testing.assert_allclose(first, second, atol=2e-4)


def test_scores_where_lower_is_better_give_the_same_subset_negated_or_not():
    scores = synthetic()
    found = [search(EvalSubset(sign * scores, 7), budget=2000).best.items for sign in (1, -1)]
    assert found[0] == found[1]


@pytest.mark.parametrize("criterion", ["expected_kendall", "kendall", "spearman"])
def test_items_on_which_all_models_tie_are_no_failures_and_not_chosen(criterion):
    scores = synthetic()
    scores[:, :295] = 1.0  # nine of ten sets of two items are of these
    result = search(EvalSubset(scores, 2, criterion=criterion, holdout=range(10, 20)), budget=4000)
    assert result.history.failures == 0
    assert sum(item >= 295 for item in result.best.items) >= 1
    assert result.holdout.cases == 10


def test_scores_without_noise_can_be_searched():
    scores = np.linspace(0, 1, 12)[:, None] * np.linspace(0.5, 2, 60) - np.linspace(-1, 1, 60)
    result = search(EvalSubset(scores, 5, holdout=range(0, 12, 3)), budget=500)
    assert result.value == pytest.approx(1.0)
    assert result.holdout.value == pytest.approx(1.0)


@pytest.mark.parametrize(("settings", "split"), [
    ({}, "search"), ({"holdout": range(4)}, "holdout"), ({"select": range(4)}, "select"),
])  # fmt: skip
def test_models_that_are_all_equally_good_cannot_be_ranked(settings, split):
    scores = synthetic()
    scores[:4 if settings else 20] = 0.5
    with pytest.raises(InvalidSettings, match=f"{split} models have the same mean score, 0.5, .* nothing to rank"):
        EvalSubset(scores, 5, **settings)
    EvalSubset(scores, 5, criterion="mean_absolute_error", **settings)


def test_gaps_of_the_models_searched_on_are_filled_without_a_look_at_the_others():
    scores = synthetic()
    scores[np.random.default_rng(5).random(scores.shape) < 0.3] = np.nan
    changed = scores.copy()
    changed[12:] = 3 * np.random.default_rng(9).normal(size=changed[12:].shape)
    first = search(EvalSubset(scores, 7, holdout=range(12, 20)), budget=1500)
    second = search(EvalSubset(changed, 7, holdout=range(12, 20)), budget=1500)
    assert first.history.digest == second.history.digest
    assert first.best.items == second.best.items
    np.testing.assert_array_equal(first.best.full_scores, second.best.full_scores)


def test_the_choice_on_select_does_not_look_at_held_out_models_either():
    scores = synthetic()
    scores[np.random.default_rng(5).random(scores.shape) < 0.3] = np.nan
    changed = scores.copy()
    changed[14:] = 3 * np.random.default_rng(9).normal(size=changed[14:].shape)
    settings = {"select": range(8, 14), "holdout": range(14, 20)}
    first, second = (search(EvalSubset(data, 7, **settings), budget=1500) for data in (scores, changed))
    assert first.value == second.value
    assert first.best.items == second.best.items


def test_a_table_with_an_item_that_only_held_out_models_have_can_be_searched():
    scores = synthetic()
    scores[:12, 4] = np.nan
    assert search(EvalSubset(scores, 7, holdout=range(12, 20)), budget=500).holdout.cases == 8


def test_items_kept_twice_count_twice_in_the_estimate():
    objective = EvalSubset(synthetic(), 4, replacement=True)
    subset = objective.artifact((3, 3, 3, 9))
    assert subset.items == (3, 3, 3, 9)
    by_item, by_place = subset.score({3: 1.0, 9: 2.0}), subset.score([1.0, 1.0, 1.0, 2.0])
    assert by_item == by_place


def test_a_study_of_other_held_out_models_is_another_study(tmp_path):
    search(EvalSubset(synthetic(), 5, holdout=[0, 1, 2]), budget=300, study=tmp_path / "s.db")
    with pytest.raises(StudyMismatch, match="cases"):
        search(EvalSubset(synthetic(), 5, holdout=[3, 4, 5]), budget=300, study=tmp_path / "s.db")
