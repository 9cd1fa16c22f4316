import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.sparse import linalg

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.objectives.score_matrix import ScoreMatrix, additively_filled

TABLE = np.array([[0.5, 1.0, 0.0, 0.25], [0.0, 1.0, np.nan, 0.75], [1.0, 0.0, 0.5, 0.5]])
DATE, LATER = "2025-01-31T09-15-02.123456", "2025-02-01T00-00-00.000001"


def sample(doc_id, filter="none", **metrics):
    """One line as EvaluationTracker.save_results_samples of lm-evaluation-harness 0.4.9 dumps it."""
    return {
        "doc_id": doc_id,
        "doc": {"question": f"Q{doc_id}\u2028 with a line separator"},
        "target": "42",
        "arguments": {"gen_args_0": {"arg_0": "Question: …\nAnswer:", "arg_1": {"until": ["Question:"]}}},
        "resps": [["The answer is 42."]],
        "filtered_resps": ["42"],
        "filter": filter,
        "metrics": list(metrics),
        "doc_hash": "a" * 64,
        "prompt_hash": "b" * 64,
        "target_hash": "c" * 64,
        **metrics,
    }  # fmt: skip


def log(root, model, task, samples, date=DATE):
    """What ``--output_path ROOT --log_samples`` leaves behind for a task of a model."""
    folder = Path(root) / model.replace("/", "__")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{date}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        for line in samples:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    (folder / f"results_{date}.json").write_text("{}")
    return path


# ---- kinds of input


def test_an_array_gets_names_and_keeps_its_numbers():
    matrix = ScoreMatrix.of(TABLE)
    np.testing.assert_array_equal(matrix.scores, TABLE)
    assert matrix.models == ("model 0", "model 1", "model 2")
    assert matrix.items == (0, 1, 2, 3)
    assert ScoreMatrix.of(TABLE, models=["a", "b", "c"], items=np.arange(4) * 10).items == (0, 10, 20, 30)


def test_the_table_of_the_caller_is_copied():
    mine = TABLE.copy()
    matrix = ScoreMatrix.of(mine)
    mine[0, 0] = 99
    assert matrix.scores[0, 0] == 0.5


def test_missing_cells_are_counted_and_stated():
    matrix = ScoreMatrix.of(TABLE)
    assert matrix.missing == pytest.approx(1 / 12)
    assert "1 of 12 cells missing (8.3 %)" in repr(matrix)
    assert "complete" in repr(ScoreMatrix.of(TABLE[[0, 2]]))


@pytest.mark.parametrize("data", [
    [[1.0, None, 2.0], [0.0, 1.0, 2.0]],
    np.ma.masked_array([[1, 77, 2], [0, 1, 2]], [[False, True, False], [False, False, False]]),
    pd.DataFrame([[1, None, 2], [0, 1, 2]]),
    pd.DataFrame([[1, pd.NA, 2], [0, 1, 2]], dtype="Int64"),
], ids=["None", "mask", "NaN", "NA"])  # fmt: skip
def test_every_way_to_leave_a_cell_out_is_understood(data):
    np.testing.assert_array_equal(ScoreMatrix.of(data).scores, [[1, np.nan, 2], [0, 1, 2]])


def test_right_and_wrong_are_one_and_zero():
    assert ScoreMatrix.of(np.array([[True, False], [False, True]])).scores.tolist() == [[1, 0], [0, 1]]


def test_a_data_frame_names_models_and_items():
    frame = pd.DataFrame(TABLE, index=["a", "b", "c"], columns=[7, "q", 9.5, np.int64(3)])
    matrix = ScoreMatrix.of(frame)
    assert matrix.models == ("a", "b", "c")
    assert matrix.items == (7, "q", "9.5", 3)
    np.testing.assert_array_equal(matrix.scores, TABLE)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_a_text_file_is_read_as_pandas_wrote_it(tmp_path, suffix, separator):
    path = tmp_path / f"scores{suffix}"
    pd.DataFrame(TABLE, index=["a", "b,b", "c"], columns=[10, 11, 12, 13]).to_csv(path, sep=separator)
    matrix = ScoreMatrix.of(path)
    np.testing.assert_array_equal(matrix.scores, TABLE)
    assert matrix.models == ("a", "b,b", "c")
    assert matrix.items == ("10", "11", "12", "13")
    assert ScoreMatrix.of(str(path)).items == matrix.items


def test_the_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_table(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("model,x,y\n\na,1,2\n\nb,3,\n", encoding="utf-8-sig")
    matrix = ScoreMatrix.read(path)
    assert (matrix.models, matrix.items) == (("a", "b"), ("x", "y"))
    np.testing.assert_array_equal(matrix.scores, [[1, 2], [3, np.nan]])


@pytest.mark.parametrize("names", ["models", "names"])
def test_an_npz_is_read_as_numpy_wrote_it(tmp_path, names):
    path = tmp_path / "scores.npz"
    np.savez(path, scores=TABLE.astype(np.float32), items=np.array([5, 6, 7, 8]), **{names: np.array(["a", "b", "c"])})
    matrix = ScoreMatrix.read(path)
    assert (matrix.models, matrix.items) == (("a", "b", "c"), (5, 6, 7, 8))
    np.testing.assert_array_equal(matrix.scores, TABLE)
    np.savez(path, scores=TABLE)
    assert ScoreMatrix.read(path).models[0] == "model 0"


def test_a_parquet_file_has_its_models_in_the_index_or_in_the_first_column(tmp_path):
    path = tmp_path / "scores.parquet"
    pd.DataFrame(TABLE, index=["a", "b", "c"], columns=list("wxyz")).to_parquet(path)
    matrix = ScoreMatrix.read(path)
    np.testing.assert_array_equal(matrix.scores, TABLE)
    assert (matrix.models, matrix.items) == (("a", "b", "c"), ("w", "x", "y", "z"))
    pd.DataFrame({"model": ["a", "b"], "x": [1.0, 2.0], "y": [3.0, np.nan]}).to_parquet(path)
    matrix = ScoreMatrix.read(path)
    assert (matrix.models, matrix.items) == (("a", "b"), ("x", "y"))
    assert np.isnan(matrix.scores[1, 1])


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (tmp_path / "scores.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InvalidSettings, match="cannot be read as a parquet file"):
        ScoreMatrix.read(tmp_path / "scores.parquet")


def test_a_parquet_file_without_pandas_names_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "scores.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="needs pandas and pyarrow: pip install"):
        ScoreMatrix.read(tmp_path / "scores.parquet")


# ---- what is refused


@pytest.mark.parametrize(("name", "content", "message"), [
    ("none.csv", None, "there is no score table at"),
    ("a.xlsx", "", r"a score table is a \.csv, \.tsv, \.npz or \.parquet file"),
    ("a.csv", "", "must have a header with item ids and one line per model"),
    ("a.csv", "model,x,y\n", "must have a header with item ids and one line per model"),
    ("a.csv", "model;x;y\na;1;2\nb;1;2\n", "has one cell only; cells are separated by ','"),
    ("a.csv", "model,x,y\na,1,2\n\nb,1\n", "line 4 of .* has 1 scores for 2 items"),
    ("a.csv", "model,x,y\na,1,2\nb,1,good\n", "the score of 'b' on 'y' in .* is 'good'"),
    ("a.csv", "model,x,y\na,1,2\nb,1,inf\n", "'b' has inf on 'y'"),
    ("a.csv", "model,x,y\na,1,2\na,1,3\n", "every model must be there once, but 'a' is there 2 times"),
    ("a.csv", "model,x,x\na,1,2\nb,1,3\n", "every item must be there once, but 'x' is there 2 times"),
    ("a.csv", "model,x,y\na,1,2\nb,,\n", "the model 'b' has no score at all; leave it out"),
    ("a.csv", "model,x,y\na,1,\nb,2,\n", "the item 'y' has no score at all; leave it out"),
    ("a.csv", "model,x,y\na,1,2\n", "at least 2 of each"),
    ("a.csv", b"model,x,y\nM\xfcller,1,2\nb,1,2\n", "not a text file of separated values in UTF-8"),
    ("a.npz", b"not a zip file", "must hold arrays|is not a file that numpy.savez wrote"),
    ("a.npz", b"PK\x03\x04 cut off", "is not a file that numpy.savez wrote"),
])  # fmt: skip
def test_a_malformed_file_is_refused_with_what_is_wrong(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidSettings, match=message):
        ScoreMatrix.of(path)


@pytest.mark.parametrize(("arrays", "message"), [
    ({"values": TABLE}, r"must hold an array 'scores', but holds \['values'\]"),
    ({"scores": np.zeros((2, 3, 4))}, r"must have shape \(models, items\), but have shape \(2, 3, 4\)"),
    ({"scores": TABLE, "models": np.array(["a"])}, "for 1 models and 4 items"),
    ({"scores": TABLE, "items": np.array([{}, {}], object)}, "must hold arrays of numbers and text"),
    ({"scores": np.array([["a", "b"], ["c", "d"]])}, "scores must be numbers"),
])  # fmt: skip
def test_arrays_of_an_npz_that_do_not_fit_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidSettings, match=message):
        ScoreMatrix.read(tmp_path / "a.npz")


@pytest.mark.parametrize(("data", "message"), [
    ([["a", 1], [1, 2]], "scores must be numbers"),
    ([[1, 2], [3]], "scores must be numbers"),
    ({"a": [1, 2]}, "scores must be numbers"),
    ([1.0, 2.0], r"but have shape \(2,\)"),
    (pd.DataFrame({"model": ["a", "b"], "x": [1, 2]}), "belong into the index of a DataFrame"),
])  # fmt: skip
def test_what_is_no_table_is_refused(data, message):
    with pytest.raises(InvalidSettings, match=message):
        ScoreMatrix.of(data)


def test_names_for_a_table_that_has_its_own_are_refused(tmp_path):
    matrix = ScoreMatrix.of(TABLE)
    with pytest.raises(InvalidSettings, match="name the rows and columns of an array"):
        ScoreMatrix.of(matrix, models=["a", "b", "c"])
    assert ScoreMatrix.of(matrix) is matrix
    with pytest.raises(InvalidSettings, match="name the rows and columns of an array"):
        ScoreMatrix.of(tmp_path / "a.csv", items=[1, 2])


# ---- missing cells


def least_squares(scores):
    """The additive fit by a solver for sparse least squares."""
    models, items = scores.shape
    row, column = np.nonzero(~np.isnan(scores))
    n = len(row)
    design = sparse.csr_array(
        (np.ones(2 * n), (np.tile(np.arange(n), 2), np.concatenate([row, models + column]))), shape=(n, models + items)
    )
    effects = linalg.lsqr(design, scores[row, column], atol=1e-14, btol=1e-14)[0]
    return effects[:models, None] + effects[None, models:]


def test_missing_cells_are_the_least_squares_fit_of_model_and_item_effects():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(12, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(12, 30))
    gaps = rng.random(scores.shape) < 0.3
    scores[gaps] = np.nan
    assert gaps.sum() > 50
    filled = ScoreMatrix.of(scores).filled()
    np.testing.assert_allclose(filled[gaps], least_squares(scores)[gaps], atol=1e-6)
    np.testing.assert_array_equal(filled[~gaps], scores[~gaps])


def test_a_model_that_skipped_the_hard_items_is_not_the_better_for_it():
    rng = np.random.default_rng(1)
    full = np.linspace(-0.5, 0.5, 8)[:, None] + np.linspace(-3, 3, 40)[None, :] + rng.normal(scale=0.1, size=(8, 40))
    gaps = full.copy()
    gaps[0, :20] = np.nan  # the worst model has the easy half only
    assert np.nanmean(gaps, axis=1).argmax() == 0
    assert ScoreMatrix.of(gaps).filled().mean(axis=1).argmin() == 0


def test_an_item_that_no_model_has_is_one_of_mean_difficulty():
    scores = np.array([[1.0, 3.0, np.nan], [2.0, 4.0, np.nan]])
    np.testing.assert_allclose(additively_filled(scores)[:, 2], [2.0, 3.0])


def test_taken_models_keep_their_names_and_scores():
    taken = ScoreMatrix.of(TABLE, models=["a", "b", "c"]).take(np.array([2, 0]))
    assert taken.models == ("c", "a")
    np.testing.assert_array_equal(taken.scores, TABLE[[2, 0]])


# ---- logs of lm-evaluation-harness


def test_samples_of_several_tasks_and_models_become_one_table(tmp_path):
    for number, model in enumerate(["org/model-a", "org/model-b"]):
        log(tmp_path, model, "arc_easy", [sample(i, acc=float(i == number), acc_norm=0.5) for i in range(3)])
        log(tmp_path, model, "mmlu_abstract_algebra", [sample(i, acc=1.0 - number) for i in range(2)])
    matrix = ScoreMatrix.from_lm_eval({"a": tmp_path / "org__model-a", "b": str(tmp_path / "org__model-b")})
    assert matrix.models == ("a", "b")
    assert matrix.items == (
        "arc_easy/0", "arc_easy/1", "arc_easy/2", "mmlu_abstract_algebra/0", "mmlu_abstract_algebra/1",
    )  # fmt: skip
    assert matrix.scores.tolist() == [[1, 0, 0, 1, 1], [0, 1, 0, 0, 0]]


def test_samples_that_a_model_lacks_are_missing(tmp_path):
    log(tmp_path, "a", "arc", [sample(i, acc=1.0) for i in range(4)])
    log(tmp_path, "b", "arc", [sample(i, acc=0.0) for i in (1, 3)])
    log(tmp_path, "b", "piqa", [sample(0, acc=1.0)])
    matrix = ScoreMatrix.from_lm_eval({name: tmp_path / name for name in "ab"})
    assert matrix.items == ("arc/0", "arc/1", "arc/2", "arc/3", "piqa/0")
    np.testing.assert_array_equal(matrix.scores, [[1, 1, 1, 1, np.nan], [np.nan, 0, np.nan, 0, 1]])


def test_of_several_dates_of_a_task_the_last_one_counts(tmp_path):
    for name in "ab":
        log(tmp_path / "second run", name, "arc", [sample(i, acc=1.0) for i in range(2)], LATER)
        log(tmp_path / "zeroth run", name, "arc", [sample(i, acc=0.0) for i in range(2)], DATE)
    folders = {"x": tmp_path, "y": tmp_path}
    with pytest.raises(InvalidSettings, match=r"samples of 'arc' in \['a', 'b'\]; name one folder per model"):
        ScoreMatrix.from_lm_eval(folders)
    for name in ("second run", "zeroth run"):
        for path in (tmp_path / name / "b").iterdir():
            path.unlink()
    assert (ScoreMatrix.from_lm_eval(folders).scores == 1).all()


def test_the_metric_is_the_first_listed_or_the_first_of_those_asked_for_that_there_is(tmp_path):
    for name in "ab":
        log(tmp_path, name, "arc", [sample(i, acc=0.0, acc_norm=1.0) for i in range(2)])
        log(tmp_path, name, "gsm8k", [sample(0, exact_match=0.25)])
    folders = {name: tmp_path / name for name in "ab"}
    assert ScoreMatrix.from_lm_eval(folders).scores[0].tolist() == [0, 0, 0.25]
    assert ScoreMatrix.from_lm_eval(folders, metric=["acc_norm", "exact_match"]).scores[0].tolist() == [1, 1, 0.25]
    with pytest.raises(InvalidSettings, match=r"line 1 of .*gsm8k.*'acc_norm'.* lists the metrics \['exact_match'\]"):
        ScoreMatrix.from_lm_eval(folders, metric="acc_norm")


def test_of_several_filters_one_must_be_chosen_where_a_task_has_them(tmp_path):
    for name in "ab":
        lines = [sample(i, filter, exact_match=float(filter == "strict-match"))
                 for filter in ("strict-match", "flexible-extract") for i in range(2)]  # fmt: skip
        log(tmp_path, name, "gsm8k", lines)
        log(tmp_path, name, "arc", [sample(0, acc=0.5)])
    folders = {name: tmp_path / name for name in "ab"}
    with pytest.raises(InvalidSettings, match=r"answer filters \['flexible-extract', 'strict-match'\]; choose one"):
        ScoreMatrix.from_lm_eval(folders)
    with pytest.raises(InvalidSettings, match="choose one by filter"):
        ScoreMatrix.from_lm_eval(folders, filter="strict")
    matrix = ScoreMatrix.from_lm_eval(folders, filter="strict-match")
    assert dict(zip(matrix.items, matrix.scores[0], strict=True)) == {"gsm8k/0": 1, "gsm8k/1": 1, "arc/0": 0.5}
    assert ScoreMatrix.from_lm_eval(folders, filter=["remove", "flexible-extract"]).scores[0].sum() == 0.5


def test_scores_that_json_made_bools_or_text_of_are_numbers(tmp_path):
    # IFEval's metric is a bool; json dumps what it does not know, as bools and single precision of numpy, by str
    scores = {"a": True, "b": False, "c": str(np.bool_(True)), "d": str(np.float32(0.5)), "e": 1, "f": np.nan}
    for name, score in scores.items():
        log(tmp_path, name, "ifeval", [sample(0, prompt_level_strict_acc=score), sample(1, prompt_level_strict_acc=1)])
    matrix = ScoreMatrix.from_lm_eval({name: tmp_path / name for name in scores})
    np.testing.assert_array_equal(matrix.scores[:, 0], [1, 0, 1, 0.5, 1, np.nan])


@pytest.mark.parametrize(("lines", "message"), [
    ([sample(0, acc=1.0), sample(0, acc=0.0)], "line 2 of .* is a second sample of the document 'arc/0'"),
    ([sample(0, acc=[True, False])], r"no number under metric='acc' but \[True, False\]"),
    ([sample(0)], r"no number under metric=None but None; it lists the metrics \[\]"),
    ([{"doc": {}, "acc": 1.0}], "it has no 'doc_id'"),
    ([["acc", 1.0]], "it has no 'doc_id'"),
])  # fmt: skip
def test_samples_that_cannot_be_read_are_named_by_line(tmp_path, lines, message):
    log(tmp_path, "a", "arc", lines)
    with pytest.raises(InvalidSettings, match=message):
        ScoreMatrix.from_lm_eval({"a": tmp_path / "a"})


def test_a_log_that_was_cut_off_is_named(tmp_path):
    path = log(tmp_path, "a", "arc", [sample(0, acc=1.0), sample(1, acc=1.0)])
    path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    with pytest.raises(InvalidSettings, match=r"line 2 of .* is no JSON .* may have been cut off"):
        ScoreMatrix.from_lm_eval({"a": tmp_path / "a"})


def test_folders_without_samples_are_named(tmp_path):
    with pytest.raises(InvalidSettings, match="run with --log_samples"):
        ScoreMatrix.from_lm_eval({"a": tmp_path / "nowhere"})
    for nothing in ({}, [tmp_path], tmp_path):
        with pytest.raises(InvalidSettings, match="needs a folder by model"):
            ScoreMatrix.from_lm_eval(nothing)
