import shutil
from pathlib import Path

import numpy as np
import pytest

from searchlib import (
    Cases,
    Curriculum,
    EvolutionStrategy,
    FreshCases,
    Objective,
    RandomSearch,
    Search,
    Split,
    Study,
    search,
)
from searchlib.algorithms import Status
from searchlib.errors import StudyDamaged
from searchlib.report import stored_tasks
from searchlib.report.page import report_page
from searchlib.sealed_file import SealedFile
from searchlib.spaces import CurriculumTasks, PolicyParameters


class Reaching(Objective):
    """Success where a policy's first weight is beyond what the task asks; it fails where the second one is large."""

    direction = "maximize"
    task_space = CurriculumTasks(("distance", "wind"), (0.0, 0.0), (2.0, 1.0))
    chunk_rows, chunk_cases = 3, 4

    def __init__(self):
        self.space = PolicyParameters(2, spread=1.0)
        self.asked = []

    def cases(self, split):
        return Cases.of([(0.5, 0.0), (0.6, 0.0), (0.7, 0.0)]) if split is Split.SEARCH else Cases.none()

    def task_cases(self, tasks, seeds):
        self.asked.append(tasks.copy())
        return Cases(tuple(f"{task.tolist()} {seed}" for task, seed in zip(tasks, seeds, strict=True)), tasks.tolist())

    def evaluate(self, candidates, cases):
        if (candidates.array[:, 1] > 1.5).any():
            raise ValueError("too large")
        return (candidates.array[:, :1] > np.array([task[0] for task in cases.payload])).astype(float)


CURRICULUM = Curriculum(per_generation=10, low=0.1, high=0.9, share=0.8, decay=0.5, expansion=0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path, objective = tmp_path_factory.mktemp("tasks") / "a.db", Reaching()
    result = search(objective, EvolutionStrategy(population=8), budget=96, cases=CURRICULUM, study=path, seed=3)
    return path, objective, result


def test_the_tasks_are_those_that_the_search_met(trained):
    path, objective, result = trained
    assert 0 < result.history.failures < 40
    with Study.open(path) as study:
        tasks, success = stored_tasks(study)
    generations = result.notes["cases"]["generations"]
    assert len(tasks) == len(success) == generations > 5
    met = [part for part in objective.asked if len(part) == 10][-generations:]
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(tasks, met, strict=True))


def test_the_success_is_the_share_of_the_members_that_reach_the_task(trained):
    path, _, _ = trained
    with Study.open(path) as study:
        tasks, success = stored_tasks(study)
        generations = [(batch.population, study.told(batch).status) for batch in study.batches()]
    for (members, status), offered, mine in list(zip(generations, tasks, success, strict=True))[:-1]:
        weights = members[status == Status.DONE, 0]
        assert mine == pytest.approx((weights[:, None] > offered[:, 0]).mean(axis=0))
    assert np.isnan(success[-1]).all()  # nobody was told of it: the search was over
    assert np.unique(np.concatenate(success[:-1])).size > 3


def test_they_are_drawn_over_time(trained):
    path, _, result = trained
    with Study.open(path) as study:
        tasks, success = stored_tasks(study)
    (dots,) = result.plot.tasks(tasks, success, name="distance").collections
    assert len(dots.get_offsets()) == 10 * len(tasks) > 50
    assert np.array_equal(dots.get_offsets()[:, 1], np.concatenate(tasks)[:, 0])


def test_a_report_has_a_picture_of_every_coordinate_that_changes(trained):
    path, _, _ = trained
    with Study.open(path) as study:
        page = report_page(study)
    assert "Tasks: The distance of what the curriculum offered" in page
    assert "Tasks: The wind of what the curriculum offered" in page
    assert page.count("<b>Tasks</b>") == 2


@pytest.mark.parametrize("cases", [None, FreshCases(2)])
def test_a_search_without_a_curriculum_has_no_tasks(cases, tmp_path):
    algorithm = RandomSearch() if cases is None else EvolutionStrategy(population=4)
    search(Reaching(), algorithm, budget=8, cases=cases, study=tmp_path / "b.db")
    with Study.open(tmp_path / "b.db") as study:
        assert stored_tasks(study) == ([], [])
        assert "<b>Tasks</b>" not in report_page(study)


def test_a_resumed_search_has_the_tasks_of_an_undisturbed_one(trained, tmp_path):
    whole, _, _ = trained
    run = Search(Reaching(), EvolutionStrategy(population=8), budget=96, cases=CURRICULUM, study=tmp_path / "c.db",
                 seed=3)  # fmt: skip
    for _, record in zip(range(5), run, strict=False):
        assert record.evaluations <= 40
    run.close()
    search(Reaching(), EvolutionStrategy(population=8), budget=96, cases=CURRICULUM, study=tmp_path / "c.db", seed=3)
    with Study.open(whole) as one, Study.open(tmp_path / "c.db") as other:
        for mine, theirs in zip(stored_tasks(one), stored_tasks(other), strict=True):
            assert np.array_equal(mine, theirs, equal_nan=True)


def test_tasks_that_make_no_sense_are_said_to_be_damage(trained, tmp_path):
    path = Path(shutil.copy(trained[0], tmp_path / "d.db"))
    file = SealedFile.writing(path)
    with file.transaction():
        file.insert("array", "success 0", "<f8", "[1]", bytes(8), replace=True)
    file.close()
    with Study.open(path) as study, pytest.raises(StudyDamaged, match="not one success per task"):
        stored_tasks(study)
