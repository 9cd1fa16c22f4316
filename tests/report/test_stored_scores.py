import numpy as np
import pytest

from searchlib import CaseRacing, Cases, Objective, RandomSearch, Split, Study, search
from searchlib.errors import InvalidSettings
from searchlib.report.score_heat import plot_scores
from searchlib.report.stored_scores import StoredScores, stored_scores
from searchlib.spaces import Integer


class Remainders(Objective):
    """How far a number is from a multiple of each case; 54 cannot be evaluated."""

    space, chunk_rows, chunk_cases = Integer(1, 200), 4, 5

    def __init__(self, unlucky=True):
        self.unlucky = unlucky

    def unseen(self):
        return ()

    def cases(self, split):
        return Cases(tuple(range(2, 14))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        numbers = candidates.array[:, 0]
        if self.unlucky and 54 in numbers:
            raise ValueError("unlucky")
        return np.array([[number % case for case in cases.ids] for number in numbers.tolist()], float)


def searched(path, **settings):
    return search(Remainders(), RandomSearch(), budget=120, batch_size=30, study=path, **settings)


def expected(history):
    numbers = history.population[history.fresh, 0]
    return np.where(numbers[:, None] == 54, np.nan, numbers[:, None] % np.arange(2, 14))


def test_the_table_holds_every_score_of_every_new_candidate(tmp_path):
    history = searched(tmp_path / "a.db").history
    with Study.open(tmp_path / "a.db") as study:
        table = stored_scores(study)
    assert (history.population == 54).any()
    assert not history.fresh.all()
    assert table.ids.tolist() == history.ids[history.fresh].tolist()
    assert np.array_equal(table.scores, expected(history), equal_nan=True)
    assert (table.candidates, table.cases) == (120, 12)


def test_a_part_of_the_table_is_evenly_spaced_and_says_of_how_many(tmp_path):
    history = searched(tmp_path / "a.db").history
    with Study.open(tmp_path / "a.db") as study:
        table = stored_scores(study, candidates=7, cases=4)
    rows = np.linspace(0, 119, 7).round().astype(int)
    assert table.columns.tolist() == [0, 4, 7, 11]
    assert np.array_equal(table.scores, expected(history)[np.ix_(rows, table.columns)], equal_nan=True)
    axes = plot_scores(table)
    assert "4 of 12" in axes.get_xlabel()
    assert "7 of 120" in axes.get_ylabel()


def test_what_a_cache_has_answered_stands_in_its_own_row(tmp_path):
    search(Remainders(), RandomSearch(), budget=60, seed=5, cache=tmp_path / "cache")
    history = searched(tmp_path / "a.db", cache=tmp_path / "cache").history
    assert history.cached.sum() > 5
    with Study.open(tmp_path / "a.db") as study:
        assert np.array_equal(stored_scores(study).scores, expected(history), equal_nan=True)


def test_a_raced_study_has_no_table_and_says_why(tmp_path):
    search(Remainders(unlucky=False), RandomSearch(), budget=60, racing=CaseRacing(), study=tmp_path / "a.db")
    with Study.open(tmp_path / "a.db") as study, pytest.raises(InvalidSettings, match="cases of its own"):
        stored_scores(study)


def test_the_heat_map_shows_every_cell_and_puts_the_easiest_case_first():
    scores = np.array([[3.0, 1.0, 2.0], [4.0, 0.0, np.nan]])
    table = StoredScores(np.arange(2), scores, 2, 3, np.arange(3))
    for direction, order in (("minimize", [1, 2, 0]), ("maximize", [0, 2, 1])):
        (image,) = plot_scores(table, direction).images
        assert np.array_equal(np.asarray(image.get_array().filled(np.nan)), scores[:, order], equal_nan=True)
