import numpy as np
import pytest

from searchlib import Cases, Curriculum, EvolutionStrategy, Objective, RandomSearch, Split, Study, search
from searchlib.errors import InvalidSettings, StudyMismatch
from searchlib.report.replayed_tasks import replayed_tasks
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
        return Cases.of([(0.5, 0.0)] * 3) if split is Split.SEARCH else Cases.none()

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
        tasks, success = replayed_tasks(study, Reaching(), CURRICULUM)
    generations = result.notes["cases"]["generations"]
    assert len(tasks) == len(success) == generations > 5
    met = [part for part in objective.asked if len(part) == 10][-generations:]
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(tasks, met, strict=True))
    assert np.unique(np.concatenate(success)).size > 3


def test_they_are_drawn_over_time(trained):
    path, _, result = trained
    with Study.open(path) as study:
        tasks, success = replayed_tasks(study, Reaching(), CURRICULUM)
    (dots,) = result.plot.tasks(tasks, success, name="distance").collections
    assert len(dots.get_offsets()) == 10 * len(tasks) > 50
    assert np.array_equal(dots.get_offsets()[:, 1], np.concatenate(tasks)[:, 0])


def test_another_curriculum_or_objective_is_refused(trained, tmp_path):
    path, _, _ = trained
    with Study.open(path) as study:
        with pytest.raises(InvalidSettings, match="was searched with"):
            replayed_tasks(study, Reaching(), Curriculum(per_generation=9))
        other = Reaching()
        other.success = lambda scores: 0 * scores[:, :, 0]
        with pytest.raises(StudyMismatch, match="generation 1"):
            replayed_tasks(study, other, CURRICULUM)
    search(Reaching(), RandomSearch(), budget=8, study=tmp_path / "b.db")
    with Study.open(tmp_path / "b.db") as study, pytest.raises(InvalidSettings, match="cases=None"):
        replayed_tasks(study, Reaching(), CURRICULUM)
