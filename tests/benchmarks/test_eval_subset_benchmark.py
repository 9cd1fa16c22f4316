import dataclasses
import json
import os

import numpy as np
import pytest

from benchmarks import eval_subset
from benchmarks.__main__ import main
from benchmarks.eval_subset import MARGINS, PRESETS, RELEASED, SCORES
from searchlib.objectives.score_matrix import ScoreMatrix


def zoo(models=78):
    rng = np.random.default_rng(0)
    kinds = [f"checkpoint{row % 6}|solver{row % 8}{10 * (1 + row % 3)}|fp" for row in range(models)]
    scores = rng.normal(size=(models, 1)) + rng.normal(size=(models, 60))
    return ScoreMatrix.of(scores, models=[f"{kind} {row}" for row, kind in enumerate(kinds)])


def test_every_split_holds_its_test_models_out():
    scores, preset = zoo(), PRESETS["paper"]
    folds = list(eval_subset._folds(scores, preset))
    assert [fold.kind for fold, _ in folds].count("halves") == 1 + preset.halves
    for fold, _ in folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == 78
    released = folds[0][0]
    assert set(released.train) == set(RELEASED)
    assert len(RELEASED) == len(released.test) == 39


def test_an_unseen_family_is_not_in_the_training_models():
    scores = zoo()
    folds = [fold for fold, _ in eval_subset._folds(scores, PRESETS["paper"]) if fold.kind == "unseen family"]
    assert len(folds) == 6
    for fold in folds:
        inside = {scores.models[row].split("|")[0] for row in fold.train}
        outside = {scores.models[row].split("|")[0] for row in fold.test}
        assert outside == {fold.name}
        assert not inside & outside


def test_the_paper_preset_has_all_sizes_metrics_and_at_least_five_random_splits():
    preset = PRESETS["paper"]
    assert preset.sizes == (5, 10, 50, 100, 200, 500)
    assert set(preset.metrics) == set(MARGINS)
    assert min(preset.halves, preset.other_halves) >= 5
    assert preset.unseen


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_a_short_run_prints_all_rows_and_writes_its_json(tmp_path, capsys, monkeypatch):
    if not SCORES.is_file():
        pytest.skip("the scores of FlashEval are not here (../shared/data/flasheval_diffusiondb.npz)")
    short = dataclasses.replace(PRESETS["smoke"], evaluations=400, fold_evaluations=60, draws=3)
    monkeypatch.setattr(eval_subset, "PRESETS", {**PRESETS, "smoke": short})
    monkeypatch.setattr(eval_subset, "CHECKED", 100)
    assert main(["eval_subset", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "eval_subset.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    for method in ("random", "best single items", "best random set", "greedy mean matching", "k-means medoids",
                   "item response anchors", "FlashEval", "ours", "random, 500 items"):  # fmt: skip
        assert method in printed
        taus = rows["CLIP, 50 items, halves", method]["holdout_tau"]
        assert len(taus["values"]) == 2
        assert 0.3 < taus["mean"] < 1
    claims = {claim["claim"]: claim for claim in written["claims"]}
    assert claims["ours ranks held-out models better than random subsets of the same size"]["holds"]
    assert any("50 searched items rank held-out models like 500 random ones" in claim for claim in claims)


def test_a_table_of_ones_own_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_subset, "CHECKED", 100)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(24, 1)) * rng.normal(0.5, 1, size=30) + rng.normal(size=(24, 30))
    lines = [",".join(["model", *(f"q{i}" for i in range(30))])]
    lines += [",".join([f"m{row}", *map(str, scores[row])]) for row in range(24)]
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    assert main(["eval_subset", "--preset", "full", "--scores", str(tmp_path / "scores.csv"), "--size", "5",
                 "--budget", "60", "--seeds", "1", "--out", str(tmp_path)]) == 0  # fmt: skip
    rows = json.loads((tmp_path / "eval_subset.json").read_text())["rows"]
    assert {row["task"] for row in rows} == {"own, 5 items, halves"}
    ours = next(row for row in rows if row["method"] == "ours")
    assert len(ours["metrics"]["holdout_tau"]["values"]) == 10


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"not at .*nowhere\.npz; name their file by --scores"):
        main(["eval_subset", "--preset", "smoke", "--scores", str(tmp_path / "nowhere.npz"), "--out", str(tmp_path)])
