import csv
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from searchlib import search
from searchlib.errors import InvalidSettings
from searchlib.objectives.eval_subset import EvalSubset
from searchlib.objectives.item_subset import ItemSubset, choice_effects


def subset(models=6, items=("q3", "q7"), noise=0.01, slope=2.0, seed=0):
    means = np.random.default_rng(seed).random(models)
    full = slope * means - 0.3 + np.random.default_rng(seed + 1).normal(scale=0.02, size=models)
    return ItemSubset(tuple(items), tuple(f"m{i}" for i in range(models)), means, full, noise)


# ---- estimates


def test_the_estimate_is_the_least_squares_line_of_scipy():
    known = subset(20)
    line = stats.linregress(known.subset_scores, known.full_scores)
    for scores in ([0.1, 0.4], [0.9, 0.5]):
        assert known.score(scores).score == pytest.approx(line.intercept + line.slope * np.mean(scores), abs=1e-12)


def test_the_interval_is_a_prediction_interval_of_the_line():
    known = subset(20, noise=0.0)
    x, y, n, at = known.subset_scores, known.full_scores, 20, 0.25
    line = stats.linregress(x, y)
    left_out = []
    for model in range(n):  # by definition: fit without the model, predict it
        rest = np.arange(n) != model
        other = stats.linregress(x[rest], y[rest])
        left_out.append(y[model] - other.intercept - other.slope * x[model])
    error = np.sqrt(np.mean(np.square(left_out)))
    spread = np.sqrt(1 + 1 / n + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, n - 2) * error * spread
    estimate = known.score([at, at])
    assert estimate.interval == pytest.approx(
        (line.intercept + line.slope * at - reach, line.intercept + line.slope * at + reach), abs=1e-12
    )


def test_noise_that_the_line_does_not_show_widens_the_interval():
    narrow, wide = (subset(noise=noise).score([0.5, 0.5]).interval for noise in (0.0, 1.0))
    assert wide[1] - wide[0] > 10 * (narrow[1] - narrow[0])


def test_ranks_count_the_known_models_that_are_better():
    full = np.array([0.1, 0.4, 0.4, 0.8, 0.9])
    known = ItemSubset(("a",), tuple("vwxyz"), full, full, noise=0.1)
    estimate = known.score([0.5])
    assert estimate.rank == 3 == 1 + int((full > estimate.score).sum())
    assert estimate.rank_interval == tuple(
        1 + int((full > bound).sum()) for bound in (estimate.interval[1], estimate.interval[0])
    )
    assert estimate.rank_interval[0] < 3 < estimate.rank_interval[1]
    assert estimate.models == 5
    assert known.score([2.0]).rank == 1
    assert known.score([-1.0]).rank == 6


def test_models_that_tie_on_the_subset_are_estimated_by_their_mean():
    known = ItemSubset(("a",), tuple("xyz"), np.full(3, 0.5), np.array([0.1, 0.2, 0.6]), noise=0.1)
    assert known.score([0.9]).score == pytest.approx(0.3)
    assert known.score([0.9]).interval[0] < 0.1 < 0.6 < known.score([0.9]).interval[1]


def graded(rng, models, items, binary):
    ability, difficulty = rng.normal(size=(models, 1)), rng.normal(size=(1, items))
    sharpness = np.exp(rng.normal(scale=0.4, size=(1, items)))
    logits = sharpness * (ability - difficulty)
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-1.5 * logits))) * 1.0 if binary else logits + rng.normal(
        size=logits.shape
    )  # fmt: skip


def covered(subset, scores):
    """Whether the intervals of score and rank hold the truth, for every new model."""
    inside = []
    for row in scores:
        estimate = subset.score(row[list(subset.items)])
        inside.append(estimate.interval[0] <= row.mean() <= estimate.interval[1])
    return inside


def test_on_items_chosen_at_random_the_interval_covers_19_of_20_new_models():
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = graded(rng, 60, 200, binary=False)
        kept = rng.choice(200, 20, replace=False)
        known = ItemSubset(tuple(kept.tolist()), tuple(map(str, range(30))), scores[:30, kept].mean(axis=1),
                           scores[:30].mean(axis=1), noise=0.0)  # fmt: skip
        inside += covered(known, scores[30:])
    assert len(inside) == 1200
    assert 0.93 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("models", [12, 39])
def test_on_items_that_were_searched_for_the_interval_covers_19_of_20_new_models(models, binary):
    inside, errors = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scores = graded(rng, models + 60, 300, binary)
        found = search(EvalSubset(scores[:models], 20), budget=3000, shortlist=1, seed=seed).best
        inside += covered(found, scores[models:])
        errors += [found.score(row[list(found.items)]).score - row.mean() for row in scores[models:]]
    assert len(inside) == 360
    assert 0.92 <= np.mean(inside) <= 1.0
    assert np.std(errors) < 0.6 * np.std([scores[models:].mean(axis=1)])  # and it says something


def test_the_stretch_takes_back_what_the_choice_exaggerates():
    # All items have slope one. Those that seem steepest on twelve models are as steep as others on new models.
    stretched, naive = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(412, 1)) + rng.normal(size=(412, 200)) * 2
        known, new = scores[:12], scores[12:]
        full = known.mean(axis=1) - known.mean()
        kept = np.argsort(-(full @ known))[:20]
        stretch, noise = choice_effects(known, kept)
        naive.append(stats.linregress(full, known[:, kept].mean(axis=1)).slope)
        stretched.append(naive[-1] * stretch)
        apart = new[:, kept].mean(axis=1) - new.mean(axis=1)
        assert noise == pytest.approx(apart.std(), rel=0.35)
    assert np.mean(naive) > 1.5
    assert np.mean(stretched) == pytest.approx(1.0, abs=0.1)


def test_items_that_really_are_steeper_stay_so():
    rng = np.random.default_rng(0)
    slopes = np.where(np.arange(200) < 20, 2.0, 8 / 9)
    scores = rng.normal(size=(40, 1)) * slopes + rng.normal(scale=0.1, size=(40, 200))
    stretch, _ = choice_effects(scores, np.arange(20))
    assert stretch == pytest.approx(1.0, abs=0.01)


def test_an_item_that_is_kept_twice_brings_its_noise_twice():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 1)) + rng.normal(size=(2000, 50))
    _, noise = choice_effects(scores, np.array([3, 3, 8, 9]))
    assert noise == pytest.approx(np.sqrt(4 + 1 + 1) / 4, rel=0.05)


def test_models_without_differences_are_left_as_they_are():
    assert choice_effects(np.ones((4, 9)), np.array([1, 2])) == (1.0, 0.0)


# ---- scores by item


def test_scores_by_item_need_no_order_and_may_hold_more_items():
    known = subset(items=("q3", "q7", "q9"))
    expected = known.score([0.1, 0.2, 0.6])
    assert known.score({"q9": 0.6, "other": 99.0, "q3": 0.1, "q7": 0.2}) == expected
    assert known.score(pd.Series({"q9": 0.6, "q3": 0.1, "q7": 0.2})) == expected
    assert known.score(np.array([0.1, 0.2, 0.6], np.float32)).score == pytest.approx(expected.score, abs=1e-6)


@pytest.mark.parametrize("ids", [(3, 17), ("3", "17")])
@pytest.mark.parametrize("key", [int, str, np.int64])
def test_numbered_items_may_be_named_by_number_or_by_text(ids, key):
    known = subset(items=ids)
    assert known.score({key(17): 0.9, key(3): 0.1}) == known.score([0.1, 0.9])


def test_an_exact_id_wins_over_one_that_only_reads_the_same():
    known = subset(items=(3, "3"))
    assert known.score({"3": 0.9, 3: 0.1}) == known.score([0.1, 0.9])


@pytest.mark.parametrize(("scores", "message"), [
    ({"q3": 0.5}, "scores of 1 chosen items are missing, the first is 'q7'"),
    ([0.5], "for each of the 2 chosen items is needed, but got 1"),
    ([[0.5, 0.5]], "for each of the 2 chosen items"),
    ([0.5, float("nan")], "of which 1 are finite"),
    (0.5, "for each of the 2 chosen items"),
    (["good", "bad"], "scores must be numbers"),
    ({"q3": None, "q7": 0.1}, "of which 1 are finite"),
])  # fmt: skip
def test_scores_that_do_not_fit_are_refused(scores, message):
    with pytest.raises(InvalidSettings, match=message):
        subset().score(scores)


# ---- files


def test_a_subset_in_json_is_read_back_whole(tmp_path):
    known = subset(items=(3, "q,7", "ü"))
    known.save(tmp_path / "subset.json")
    again = ItemSubset.load(str(tmp_path / "subset.json"))
    assert (again.items, again.models, again.noise) == (known.items, known.models, known.noise)
    np.testing.assert_array_equal(again.subset_scores, known.subset_scores)
    np.testing.assert_array_equal(again.full_scores, known.full_scores)
    data = json.loads((tmp_path / "subset.json").read_text(encoding="utf-8"))
    assert data["items"] == [3, "q,7", "ü"]


def test_a_subset_in_csv_lists_its_items(tmp_path):
    subset(items=(3, "q,7", "ü")).save(tmp_path / "subset.csv")
    with (tmp_path / "subset.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"item": "3"}, {"item": "q,7"}, {"item": "ü"}]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InvalidSettings, match=r"written as .json or .csv"):
        subset().save(tmp_path / "subset.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"items": 3}', json.dumps({
    "items": ["a"], "models": ["x", "y", "z"], "subset_scores": [1, 2], "full_scores": [1, 2, 3], "noise": 0,
}), json.dumps({
    "items": ["a"], "models": ["x", "y", "z"], "subset_scores": [1, 2, None], "full_scores": [1, 2, 3], "noise": 0,
})])  # fmt: skip
def test_a_file_that_save_did_not_write_is_refused(tmp_path, text):
    (tmp_path / "subset.json").write_text(text)
    with pytest.raises(InvalidSettings, match="does not hold a subset written by save"):
        ItemSubset.load(tmp_path / "subset.json")


@pytest.mark.parametrize(("changes", "message"), [
    ({"models": ("a", "b"), "subset_scores": np.zeros(2), "full_scores": np.zeros(2)}, "at least 3 models"),
    ({"subset_scores": np.zeros(4)}, "subset_scores must hold one finite score for each of the 3 models"),
    ({"full_scores": np.array([0, np.inf, 1])}, "full_scores must hold one finite score"),
    ({"items": ()}, "at least one item"),
    ({"noise": -1.0}, "0 or more, but is -1.0"),
    ({"noise": float("nan")}, "0 or more, but is nan"),
])  # fmt: skip
def test_a_subset_that_cannot_be_meant_is_refused(changes, message):
    settings = {"items": ("q",), "models": ("a", "b", "c"), "subset_scores": np.zeros(3), "full_scores": np.zeros(3)}
    with pytest.raises(InvalidSettings, match=message):
        ItemSubset(**{"noise": 0.1, **settings, **changes})


def test_a_subset_shows_its_first_items():
    assert repr(subset(items=range(6))) == "ItemSubset(6 items: 0, 1, 2, 3, …; calibrated with 6 models)"
