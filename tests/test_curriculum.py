"""Curricula: by hand, and inside of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchlib import (
    CMAES,
    Budget,
    CaseRacing,
    Cases,
    Curriculum,
    Evolution,
    EvolutionStrategy,
    FreshCases,
    Ladder,
    Objective,
    RandomSearch,
    Search,
    Split,
    Study,
    TaskArchive,
    search,
)
from searchlib.__main__ import main
from searchlib.errors import InvalidSettings, InvalidTell, MissingOperator, StudyMismatch
from searchlib.objectives import Pursuit, PursuitRange
from searchlib.spaces import CurriculumTasks, PolicyParameters
from searchlib.task_archive import KeptTasks, farthest_points

TASKS = CurriculumTasks(("speed", "size"), (0.0, 1.0), (1.0, 3.0))


def begun(settings, tasks=TASKS, seed=0):
    return settings.start_on(tasks, np.random.default_rng(seed))


def filled(run, shares):
    """Give the archive these tasks."""
    run.archive.replace(np.random.default_rng(0), np.asarray(shares, float), np.ones(len(shares)))


def skill(tasks, level=0.5):
    """Success falls from 1 to 0 around a speed."""
    return 1 / (1 + np.exp(30 * (tasks[:, 0] - level)))


def test_the_archive_holds_what_is_neither_certain_nor_hopeless():
    run = begun(Curriculum(low=0.2, high=0.8, share=0.5))
    for _ in range(60):
        batch = run.ask(20)
        run.tell(batch, skill(batch.tasks))
    kept = skill(TASKS.at(run.archive.tasks))
    assert len(kept) > 30
    assert kept.min() >= 0.2
    assert kept.max() <= 0.8


def test_the_share_of_archived_tasks_falls_as_coded_by_the_authors():
    run = begun(Curriculum(share=0.9, decay=2.0))
    filled(run, np.full((50, 2), 0.5) + np.arange(50)[:, None] / 1000)
    shares = [(run.ask(100, progress).origin == 1).mean() for progress in (0.0, 0.25, 0.5, 0.9)]
    assert shares == [0.5, 0.45, 0.0, 0.0]  # the archive holds 50 tasks, so it offers no more
    again = begun(Curriculum(share=0.9, decay=2.0, repeat=True))
    filled(again, np.full((2, 2), 0.5) + np.arange(2)[:, None] / 10)
    assert [(again.ask(100, progress).origin == 1).mean() for progress in (0.0, 0.25, 0.5)] == [0.9, 0.45, 0.0]


def test_taskflex_replaces_its_archive_by_the_cells_of_the_grid_that_are_within_the_window():
    run = begun(Curriculum(low=0.5, high=0.95, share=0.9, grid=(4, 4), every=3))
    first = run.ask(8)
    cells = np.floor(TASKS.unit(first.tasks) * 4).astype(int)
    assert {tuple(cell) for cell in cells} == {(i, j) for i in range(4) for j in range(4)}
    run.tell(first, np.linspace(0, 1, 16))
    inside = (np.linspace(0, 1, 16) >= 0.5) & (np.linspace(0, 1, 16) <= 0.95)
    np.testing.assert_allclose(TASKS.at(run.archive.tasks), first.tasks[inside])
    for _ in range(2):  # in between, nothing is learned
        batch = run.ask(8)
        assert len(batch) == 8
        run.tell(batch, np.full(8, 0.7))
    np.testing.assert_allclose(TASKS.at(run.archive.tasks), first.tasks[inside])
    run.tell(run.ask(8), np.zeros(16))  # none is kept, so the old ones stay
    assert len(run.archive) == inside.sum()


def test_taskflex_begins_with_the_easiest_task_where_none_is_within_the_window():
    run = begun(Curriculum(low=0.5, high=0.95, grid=(2, 2)))
    batch = run.ask(8)
    run.tell(batch, [0.0, 0.3, 0.1, 0.0])
    np.testing.assert_allclose(TASKS.at(run.archive.tasks), batch.tasks[1:2])


def test_ladders_are_climbed_one_after_the_other():
    tasks = CurriculumTasks(("radius", "speed"), (0.1, 1.0), (0.6, 3.0))
    ladders = (Ladder("radius", 0.6, 0.1, rungs=3, threshold=0.5), Ladder("speed", 1.0, 3.0, rungs=2, threshold=0.5))
    run = begun(Curriculum(share=0.0, ladders=ladders), tasks)
    met = []
    for success in (0.4, 0.6, 0.6, 0.5, 0.6, 0.9):
        batch = run.ask(5)
        met.append(tuple(batch.tasks[0].round(6).tolist()))
        assert (batch.tasks == batch.tasks[0]).all()
        run.tell(batch, np.full((3, 5), success))
    assert met == [(0.6, 1.0), (0.6, 1.0), (0.35, 1.0), (0.1, 1.0), (0.1, 1.0), (0.1, 3.0)]


def test_learnable_tasks_are_offered_more_often():
    run = begun(Curriculum(low=0.0, high=1.0, weights="learnability", share=1.0))
    batch = run.ask(3)
    run.tell(batch, [[1, 1, 1], [0, 1, 1]])  # the first alone tells members apart
    offered = np.concatenate([run.ask(3).tasks[:, 0] for _ in range(50)])
    assert (offered == TASKS.at(run.archive.tasks)[0, 0]).mean() > 0.9


def test_archived_tasks_are_expanded_within_the_bounds():
    run = begun(Curriculum(share=1.0, expansion=0.1))
    filled(run, np.clip(np.array([[0.0, 0.5], [1.0, 0.5]] * 20) + np.arange(40)[:, None] * 1e-6, 0, 1))
    shares = TASKS.unit(run.ask(40).tasks)
    assert ((shares >= 0) & (shares <= 1)).all()
    apart = np.abs(shares[:, None] - np.array([[0.0, 0.5], [1.0, 0.5]])).max(axis=2).min(axis=1)
    assert 0.02 < apart.mean() <= apart.max() <= 0.1 + 1e-4


def test_tasks_that_were_mastered_are_forgotten():
    run = begun(Curriculum(share=1.0, forget=True))
    filled(run, [[0.2, 0.2], [0.8, 0.8], [0.2, 0.3]])
    for _ in range(6):  # both are offered in all likelihood
        batch = run.ask(2)
        run.tell(batch, np.where(TASKS.unit(batch.tasks)[:, 1] < 0.25, 1.0, 0.5))
    assert TASKS.unit(TASKS.at(run.archive.tasks))[:, 1] == pytest.approx([0.8, 0.3])  # not its neighbor


def test_a_task_that_is_met_again_gets_a_new_weight():
    run = begun(Curriculum(low=0.0, high=1.0, weights="learnability", share=1.0))
    run.tell(batch := run.ask(1), [0.5])
    assert run.archive.weights.tolist() == [0.25]
    again = run.ask(1)
    np.testing.assert_array_equal(again.tasks, batch.tasks)
    run.tell(again, [1.0])
    assert run.archive.weights[0] < 0.01
    assert len(run.archive) == 1


@pytest.mark.parametrize("keep", ["farthest", "fifo", "random"])
def test_an_archive_never_grows_beyond_its_capacity(keep):
    rng = np.random.default_rng(0)
    kept = KeptTasks(TaskArchive(capacity=20, keep=keep), 2)
    tasks = rng.random((100, 2))
    for part in np.split(tasks, 10):
        kept.add(rng, part, np.ones(10))
    assert len(kept) == 20
    if keep == "fifo":
        np.testing.assert_array_equal(kept.tasks, tasks[-20:])


def test_farthest_points_cover_better_than_the_newest():
    points = np.random.default_rng(0).random((500, 2))

    def radius(chosen):
        return np.sqrt(((points[:, None] - points[chosen]) ** 2).sum(axis=2)).min(axis=1).max()

    chosen = farthest_points(points, 25)
    assert len(set(chosen.tolist())) == 25
    covered = radius(np.append(chosen, 0))
    assert covered < 0.75 * radius(np.arange(475, 500))
    # Greedy choice stops where no point is farther than the chosen ones are from each other.
    apart = np.sqrt(((points[chosen][:, None] - points[chosen]) ** 2).sum(axis=2))[np.triu_indices(25, 1)].min()
    assert covered <= apart


def test_near_duplicates_are_not_kept():
    kept = KeptTasks(TaskArchive(novelty=0.1), 1)
    assert kept.add(np.random.default_rng(0), np.array([[0.0], [0.05], [0.2], [0.25], [0.5]]), np.ones(5)) == 3
    assert kept.tasks[:, 0].tolist() == [0.0, 0.2, 0.5]


def test_a_trainer_of_ones_own_uses_a_curriculum_in_a_few_lines():
    """A gradient-based learner of thresholds: it improves only on tasks at the edge of what it can do."""

    def trained(curriculum):
        run, level = begun(curriculum, seed=1), 0.1
        for step in range(120):
            batch = run.ask(16, progress=step / 120)
            success = (np.random.default_rng(step).random(16) < skill(batch.tasks, level)).astype(float)
            level += 0.02 * np.mean(skill(batch.tasks, level) * (1 - skill(batch.tasks, level))) / 0.25
            run.tell(batch, success if step % 2 else skill(batch.tasks, level))
        return level

    assert trained(Curriculum(share=0.9, expansion=0.1)) > trained(Curriculum(share=0.0)) + 0.05


@pytest.mark.parametrize(
    ("success", "said"), [(np.zeros(3), "shape"), (np.full(8, 1.5), r"\[0, 1\]"), (np.full(8, np.nan), r"\[0, 1\]")]
)
def test_what_is_no_success_is_refused(success, said):
    run = begun(Curriculum())
    with pytest.raises(InvalidTell, match=said):
        run.tell(run.ask(8), success)


@pytest.mark.parametrize(
    "settings",
    [
        {"low": 0.9, "high": 0.1},
        {"share": 1.5},
        {"weights": "luck"},
        {"per_generation": 0},
        {"decay": -1.0},
        {"grid": 4},
        {"ladders": Ladder("speed", 0, 1)},
        {"ladders": (Ladder("speed", 0, 1), Ladder("speed", 1, 0))},
        {"grid": (2, 2), "forget": True},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InvalidSettings):
        Curriculum(**settings)


def test_ladders_and_grids_must_fit_the_tasks():
    with pytest.raises(InvalidSettings, match="coordinate"):
        begun(Curriculum(ladders=(Ladder("height", 0, 1),)))
    with pytest.raises(InvalidSettings, match="from 0 to 9"):
        begun(Curriculum(ladders=(Ladder("speed", 0, 9),)))
    with pytest.raises(InvalidSettings, match=r"threshold"):
        Ladder("speed", 0, 1, threshold=1.0)
    with pytest.raises(InvalidSettings, match="each of 2"):
        begun(Curriculum(grid=(4,)))
    with pytest.raises(InvalidSettings, match="CurriculumTasks"):
        begun(Curriculum(), PolicyParameters(2))
    with pytest.raises(InvalidSettings, match="at least 1"):
        begun(Curriculum()).ask(0)


class Gaps(CurriculumTasks):
    """Only tasks whose size is at least their speed, and small steps of it, make sense."""

    def valid(self, rows):
        return rows[:, 1] >= 1 + 1.5 * rows[:, 0]


def test_tasks_on_a_rung_make_sense():
    tasks = Gaps(("speed", "size"), (0.0, 1.0), (1.0, 3.0))
    run = begun(Curriculum(share=0.5, ladders=(Ladder("speed", 0.0, 0.9, rungs=3),)), tasks)
    for _ in range(8):
        batch = run.ask(30)
        assert tasks.valid(batch.tasks).mean() > 0.95
        run.tell(batch, np.full(30, 0.7))
    assert run.rung == 2


def test_a_grid_has_no_cells_where_no_task_makes_sense_and_one_of_a_fixed_coordinate():
    run = begun(Curriculum(grid=(4, 4)), Gaps(("speed", "size"), (0.0, 1.0), (1.0, 3.0)))
    batch = run.ask(1)
    assert 6 <= len(batch) < 16
    assert run.tasks.valid(batch.tasks).all()
    fixed = CurriculumTasks(("speed", "radius", "size"), (0.0, 0.1, 1.0), (1.0, 0.1, 3.0))
    assert len(begun(Curriculum(grid=(4, 3)), fixed).ask(1)) == 12
    assert len(begun(Curriculum(grid=(4, 9, 3)), fixed).ask(1)) == 12


def test_the_grid_keeps_tasks_far_apart_where_there_are_too_many():
    run = begun(Curriculum(grid=(4, 4), archive=TaskArchive(capacity=4)))
    batch = run.ask(1)
    run.tell(batch, np.full(16, 0.5))
    shares = run.archive.tasks
    assert len(shares) == 4
    assert np.abs(shares[:, None] - shares).max(axis=2)[np.triu_indices(4, 1)].min() > 0.4


class Throwing(Objective):
    """Throw a ball as far as the task says: success where it lands nearby. Its chance is the task's seed."""

    direction = "maximize"
    task_space = CurriculumTasks(("distance",), (0.0,), (4.0,))
    chunk_rows = 8

    def __init__(self):
        self.space = PolicyParameters(2, spread=1.0)
        self.met = []

    def cases(self, split):
        count = {Split.SEARCH: 60, Split.SELECT: 20, Split.HOLDOUT: 40}[split]
        rng = np.random.default_rng(list(Split).index(split))
        return self._made(rng.uniform(0, 4, (count, 1)), rng.integers(2**30, size=count), split.value)

    def task_cases(self, tasks, seeds):
        return self._made(tasks, seeds, "task")

    def _made(self, tasks, seeds, where):
        payload = [(float(task[0]), int(seed)) for task, seed in zip(tasks, seeds, strict=True)]
        return Cases(tuple(f"{where} {distance!r} #{seed}" for distance, seed in payload), payload)

    def evaluate(self, candidates, cases):
        self.met.append(cases.ids)
        distance = np.array([one for one, _ in cases.payload])
        wind = np.array([np.random.default_rng(seed).normal(0, 0.05) for _, seed in cases.payload])
        landed = candidates.array[:, :1] + candidates.array[:, 1:] * distance + wind
        return (np.abs(landed - distance) < 0.4).astype(float)


SOURCES = [FreshCases(12), Curriculum(per_generation=12, share=0.5, expansion=0.05)]


@pytest.mark.parametrize("source", SOURCES, ids=["fresh", "curriculum"])
def test_a_generation_meets_the_same_cases_and_the_next_one_others(source):
    objective = Throwing()
    run = Search(objective, EvolutionStrategy(method="pgpe", population=16), budget=96, batch_size=5, cases=source)
    for _ in run:
        pass
    met = list(dict.fromkeys(objective.met))
    assert len(met) == 6
    assert all(len(ids) == 12 for ids in met)
    assert len({name for ids in met for name in ids}) == (60 if isinstance(source, FreshCases) else 72)


@pytest.mark.parametrize("count", [12, 25])
def test_all_cases_are_met_before_one_comes_again(count):
    run = FreshCases(count).start(Throwing(), np.random.default_rng(0))
    met = [name for _ in range(15) for name in run.ask(0.0).ids]
    for start in range(0, 180, 60):
        assert len(set(met[start : start + 60])) == 60
    generations = [met[start : start + count] for start in range(0, len(met), count)]
    assert all(len(set(names)) == count for names in generations)


@pytest.mark.parametrize("source", SOURCES, ids=["fresh", "curriculum"])
def test_a_search_on_changing_cases_resumes_bit_for_bit(source, tmp_path):
    def run(name, stop=None):
        study = Search(
            Throwing(), EvolutionStrategy(method="pgpe", population=10), budget=80, batch_size=4, cases=source,
            study=tmp_path / name,
        )  # fmt: skip
        for number, _ in enumerate(study, start=1):
            if number == stop:
                break
        result = None if stop else study.result()
        study.close()
        return study.history.digest, result

    whole, result = run("whole.db")
    for stop in (1, 7, 12):
        run(f"{stop}.db", stop)
        resumed, again = run(f"{stop}.db")
        assert resumed == whole
        np.testing.assert_array_equal(again.row, result.row)
        assert again.notes == result.notes


def test_a_larger_budget_goes_on_with_the_tasks_that_the_first_one_planned(tmp_path):
    source = Curriculum(per_generation=12, share=0.9, decay=2.0, low=0.0, high=1.0)

    def run(budget):
        objective = Throwing()
        search(objective, EvolutionStrategy(method="snes", population=8), budget=budget, cases=source,
               study=tmp_path / "a.db", shortlist=1)  # fmt: skip
        return [ids for ids in dict.fromkeys(objective.met) if ids[0].startswith("task")]

    first, second = run(40), run(80)
    assert len(first) == len(second) == 5  # nothing is evaluated again
    assert not set(map(tuple, first)) & set(map(tuple, second))


def test_a_study_whose_tasks_have_changed_is_refused(tmp_path):
    search(Throwing(), budget=16, cases=SOURCES[1], study=tmp_path / "a.db")
    other = Throwing()
    other.task_space = CurriculumTasks(("distance",), (0.0,), (3.0,))
    with pytest.raises(StudyMismatch, match="task_space"):
        search(other, budget=32, cases=SOURCES[1], study=tmp_path / "a.db")


def test_a_study_that_met_other_cases_is_refused(tmp_path, monkeypatch):
    search(Throwing(), budget=16, cases=SOURCES[1], study=tmp_path / "a.db")
    made = Throwing.task_cases
    monkeypatch.setattr(Throwing, "task_cases", lambda self, tasks, seeds: made(self, tasks, seeds + 1))
    with pytest.raises(StudyMismatch, match="batch 0 met other cases"):
        search(Throwing(), budget=32, cases=SOURCES[1], study=tmp_path / "a.db")


def test_tasks_to_order_are_not_those_of_an_objectives_own_splits():
    for seed in range(3):
        pursuit = Pursuit(PursuitRange(), search=8, select=24, holdout=24, seed=seed)
        source = Curriculum(per_generation=24)
        run = Search(pursuit, EvolutionStrategy(population=8), budget=16, seed=seed, cases=source)
        for _ in run:
            pass
        made = run._sourced._cases.payload
        for split in Split:
            drawn = pursuit.cases(split).payload
            assert not np.isin(np.round(made.vectors[:, 0], 12), np.round(drawn.vectors[:, 0], 12)).any()
            assert not np.isin(made.seeds, drawn.seeds).any()


def test_the_progress_of_a_budget_in_cells_is_known_and_that_of_seconds_refused():
    source = Curriculum(per_generation=10, share=1.0, decay=1.0, low=0.0, high=1.0)
    run = Search(Throwing(), EvolutionStrategy(method="snes", population=8), budget=Budget(cells=800), cases=source)
    shares = []
    for _ in run:
        shares.append((run._sourced._run._batch.origin == 1).mean())
    assert shares[1] > 0.7 > 0.3 > shares[-1]
    with pytest.raises(InvalidSettings, match="seconds"):
        Search(Throwing(), budget=Budget(seconds=9), cases=source)


def test_an_objective_without_a_success_is_refused_before_anything_is_paid_for():
    class Missing(Throwing):
        direction = "minimize"

    with pytest.raises(InvalidSettings, match=r"override success"):
        Search(Missing(), budget=9, cases=SOURCES[1])
    Missing.success = lambda self, scores: 1 - scores[:, :, 0]
    Search(Missing(), budget=9, cases=SOURCES[1])


def test_the_last_centers_compete_where_cases_change():
    objective = Throwing()
    run = Search(objective, EvolutionStrategy(method="snes", population=8), budget=80, cases=SOURCES[0])
    for _ in run:
        pass
    finalists = run._run.recommend(8)
    assert 2 <= len(finalists) <= 5
    assert np.linalg.norm(np.diff(finalists, axis=0), axis=1).max() < 1  # one after the other on the way


def test_an_estimate_counts_the_cases_of_a_generation():
    objective = Throwing()
    Search(objective, EvolutionStrategy(population=8), budget=Budget(cells=4800), cases=FreshCases(12)).estimate()
    assert {len(ids) for ids in objective.met} == {12}


def test_the_command_line_resumes_a_search_on_changing_cases(tmp_path, capsys):
    source = Curriculum(per_generation=6, ladders=(Ladder("distance", 0.5, 4.0, rungs=3),))
    search(Throwing(), EvolutionStrategy(population=8), budget=16, cases=source, study=tmp_path / "a.db")
    made = "import sys; sys.path.insert(0, {root!r})\nfrom tests.test_curriculum import Throwing as make\n"
    (tmp_path / "own.py").write_text(made.format(root=str(Path(__file__).parents[1])))
    options = ["resume", str(tmp_path / "a.db"), "--objective", f"{tmp_path / 'own.py'}:make", "--budget", "24"]
    assert main(options) == 0
    assert "best" in capsys.readouterr().out
    with Study.open(tmp_path / "a.db") as study:
        assert study.history().evaluations == 24


def test_results_do_not_depend_on_workers_where_cases_are_made_to_order():
    digests = {
        search(Throwing(), EvolutionStrategy(population=8), budget=32, cases=SOURCES[1], workers=n).history.digest
        for n in (1, 2)
    }
    assert len(digests) == 1


def test_a_search_on_a_curriculum_learns_and_is_judged_on_fixed_cases():
    result = search(Throwing(), EvolutionStrategy(method="pgpe", sigma=0.5), budget=1200, seed=1, cases=SOURCES[1])
    assert result.holdout.rows[0].value > 0.8
    assert result.notes["cases"]["generations"] > 50


def test_the_winner_is_a_center_and_never_the_luckiest_member():
    for seed in range(3):
        result = search(Throwing(), EvolutionStrategy(method="snes"), budget=120, seed=seed, cases=SOURCES[0])
        assert not (result.history.population == result.row).all(axis=1).any()


def test_evolution_strategies_are_the_default_where_cases_change():
    result = search(Throwing(), budget=40, cases=FreshCases(8))
    assert result.algorithm.startswith("EvolutionStrategy")


@pytest.mark.parametrize("algorithm", [Evolution(), RandomSearch()])
def test_algorithms_that_compare_batches_are_refused(algorithm):
    with pytest.raises(InvalidSettings, match="different cases"):
        Search(Throwing(), algorithm, budget=10, cases=FreshCases(8))


def test_cma_es_may_meet_fresh_cases():
    pytest.importorskip("cma")
    objective = Throwing()
    search(objective, CMAES(population=8), budget=48, cases=FreshCases(12), shortlist=1)
    met = [ids for ids in dict.fromkeys(objective.met) if ids[0].startswith("search")]
    assert len(met) == 6
    result = search(Throwing(), CMAES(population=8), budget=48, cases=FreshCases(12))
    assert not (result.history.population == result.row).all(axis=1).any()  # a mean, and no lucky member


@pytest.mark.parametrize(
    "settings",
    [{"racing": CaseRacing()}, {"cache": "scores.db"}, {"budget": Budget(evaluations=9, target=0.0)}],
    ids=["racing", "cache", "target"],
)
def test_what_compares_values_across_generations_is_refused(settings):
    with pytest.raises(InvalidSettings, match="generations"):
        Search(Throwing(), **{"budget": 9, "cases": FreshCases(8), **settings})


def test_a_curriculum_needs_an_objective_with_tasks_and_fresh_cases_enough_of_them():
    with pytest.raises(MissingOperator, match="task_space"):
        Search(lambda x: 0.0, space=PolicyParameters(2), budget=9, cases=Curriculum())
    with pytest.raises(InvalidSettings, match="60"):
        Search(Throwing(), budget=9, cases=FreshCases(61))
