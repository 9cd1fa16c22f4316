import math
import os
import re
import time
import warnings

import numpy as np
import pytest

from searchlib import (
    Budget,
    Candidates,
    Cases,
    Evolution,
    Objective,
    Outcome,
    RandomSearch,
    Scores,
    Search,
    Split,
    Status,
    Study,
    search,
)
from searchlib.errors import EvaluationFailed, InvalidSettings, InvalidTell, StudyBusy, StudyMismatch
from searchlib.spaces import Binary, Categorical, Integer, Real, Subset


class Noisy(Objective):
    """Cases are noise draws around a hidden mask; SELECT and HOLDOUT draw their own."""

    space = Binary(10)
    direction = "maximize"
    chunk_rows = 3
    chunk_cases = 4

    def __init__(self, failing=()):
        self.failing = set(failing)
        self.limit = 10**6
        self.evaluated = []
        self.entered = 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *error):
        self.entered -= 1

    def cases(self, split):
        first = {Split.SEARCH: 0, Split.SELECT: 100, Split.HOLDOUT: 200}[split]
        return Cases(tuple(range(first, first + 10)))

    def evaluate(self, candidates, cases):
        assert self.entered == 1
        ones = candidates.array.sum(axis=1)
        for row in candidates.array:
            self.evaluated.append((row.tobytes(), cases.ids))
            if int(row.sum()) in self.failing:
                raise RuntimeError(f"no model with {int(row.sum())} parts")
        noise = np.stack([np.random.default_rng(i).normal(size=1024)[:1] for i in cases.ids])[:, 0]
        values = ones[:, None] + 0.1 * noise[None, :]
        return Scores(values, secondary=-values)

    def fingerprint(self):
        return {"objective": "noisy ones"}

    def references(self):
        return ("nothing", "everything")

    def evaluate_reference(self, name, cases):
        row = np.zeros((1, 10), bool) if name == "nothing" else np.ones((1, 10), bool)
        values = self.evaluate(Candidates(self.space, row), cases)
        return values.values[0]


def test_a_plain_function_is_minimized_by_default():
    result = search(lambda x: (x - 2) ** 2, space=Integer(-10, 10), budget=21)
    assert result.best == 2
    assert result.value == 0
    assert result.holdout is None


def test_a_batched_function_gets_whole_populations():
    shapes = []

    def function(population):
        shapes.append(population.shape)
        return population.sum(axis=1)

    result = search(function, Evolution(offspring=20), space=Binary(12), budget=100, batched=True, direction="maximize")
    assert sum(n for n, _ in shapes) == 100
    assert len(shapes) < 12
    assert result.value >= 9


def test_the_budget_of_evaluations_is_met_exactly():
    calls = []
    result = search(lambda x: calls.append(x) or 0.0, space=Real(0, 1), budget=53)
    assert len(calls) == len(result.history) == 53
    assert result.outcome is Outcome.EVALUATIONS


def test_duplicates_are_answered_without_evaluating_and_cost_no_budget():
    calls = []
    result = search(lambda x: calls.append(x) or float(x), RandomSearch(), space=Integer(0, 30), budget=25)
    assert len(calls) == len(set(calls)) == 25
    assert len(result.history) > 25
    first = {}
    for row, value in zip(result.history.population[:, 0], result.history.values[:, 0], strict=True):
        assert first.setdefault(int(row), value) == value == float(row)


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [
        (Budget(cells=50), Outcome.CELLS),
        (Budget(cost=40.0), Outcome.COST),
        (Budget(target=8.0), Outcome.TARGET),
        (Budget(seconds=1e-9), Outcome.SECONDS),
        (Budget(evaluations=10**6), Outcome.EXHAUSTED),
    ],
    ids=repr,
)
def test_every_limit_stops_the_search_and_is_named(budget, outcome):
    result = search(Noisy(), budget=budget, batch_size=5)
    assert result.outcome is outcome
    assert len(result.history) > 0


def test_an_algorithm_that_repeats_itself_is_stopped():
    class Stuck(RandomSearch.__mro__[1]):
        def start(self, problem, rng):
            run = RandomSearch().start(problem, rng)
            first = run.ask(1)

            class Again(type(run).__mro__[1]):
                asked = 0

                def ask(self, n):
                    self.asked += n
                    return type(first)(np.arange(self.asked - n, self.asked), np.repeat(first.population, n, axis=0))

                def tell(self, evidence):
                    run.tell(evidence)

                def recommend(self, n):
                    return run.recommend(n)

            return Again()

    result = search(lambda x: x, Stuck(), space=Real(0, 1), budget=100)
    assert result.outcome is Outcome.NOTHING_NEW
    assert result.history.evaluations == 1


def test_records_come_batch_by_batch_and_improve():
    run = Search(lambda mask: sum(mask), space=Binary(16), budget=80, direction="maximize")
    bests = [record.best_value for record in run]
    assert bests == sorted(bests)
    assert bests[-1] == max(run.history.values[:, 0])
    assert run.outcome is Outcome.EVALUATIONS


def test_the_winner_is_picked_on_select_and_compared_on_holdout():
    result = search(Noisy(), budget=600)
    assert result.best == (1,) * 10
    objective = Noisy()
    with objective:
        row = Candidates(objective.space, np.ones((1, 10), bool))
        everything = objective.evaluate(row, objective.cases(Split.SELECT))
        assert result.value == pytest.approx(everything.values.mean())
        held = objective.evaluate_reference("nothing", objective.cases(Split.HOLDOUT))
    assert result.holdout is not None
    nothing = result.holdout.against("nothing")
    assert nothing.value == pytest.approx(held.mean())
    assert nothing.difference == pytest.approx(10.0)
    assert nothing.difference_interval == pytest.approx((10.0, 10.0))
    assert result.holdout.against("everything").difference == 0
    assert result.holdout.cases == 10
    assert "held-out" in str(result)


def test_holdout_cases_are_opened_only_once_the_search_has_stopped():
    objective = Noisy()
    search(objective, budget=100)
    looked = [i for i, (_, ids) in enumerate(objective.evaluated) if ids[0] >= 200]
    assert looked
    assert min(looked) > max(i for i, (_, ids) in enumerate(objective.evaluated) if ids[0] < 200)


def test_a_failing_candidate_costs_only_itself():
    result = search(Noisy(failing={4, 5}), budget=300)
    ones = result.history.population.sum(axis=1)
    failed = result.history.status == Status.FAILED
    assert (failed == np.isin(ones, [4, 5])).all()
    assert failed.any()
    assert np.isnan(result.history.values[failed]).all()
    assert any("no model with 4 parts" in error for error in result.history.errors)
    assert result.best == (1,) * 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_a_failure_and_never_the_best(bad):
    result = search(lambda x: bad if x < 0.5 else x, space=Real(0, 1), budget=60, max_failures=60)
    assert 0.5 <= result.value < 0.7
    assert str(bad) in next(error for error in result.history.errors if error)


@pytest.mark.parametrize("bad", [None, "a", 1j], ids=repr)
def test_a_score_that_is_no_number_fails_with_a_sentence(bad):
    with pytest.raises(EvaluationFailed, match=r"must return|number"):
        search(lambda x: bad, space=Real(0, 1), budget=60)


def test_two_numbers_for_one_direction_are_refused():
    with pytest.raises(InvalidSettings, match=r"\(2, 1\).*\(2, 2\)"):
        search(lambda x: [x, x], space=Real(0, 1), budget=60)


def test_too_many_failures_in_a_row_stop_the_search_with_the_first_traceback():
    def broken(x):
        raise KeyError("weights are missing")

    with pytest.raises(EvaluationFailed, match=r"(?s)max_failures=3.*weights are missing"):
        search(broken, space=Real(0, 1), budget=60, max_failures=3)


def test_when_everything_fails_there_is_no_best():
    result = search(lambda x: math.nan, space=Real(0, 1), budget=5)
    assert result.best is None
    assert math.isnan(result.value)
    assert result.history.failures == 5


def test_ctrl_c_returns_the_best_so_far():
    def function(x):
        if len(seen) == 30:
            raise KeyboardInterrupt
        seen.append(x)
        return x

    seen = []
    result = search(function, space=Real(0, 1), budget=100)
    assert result.outcome is Outcome.INTERRUPTED
    assert result.value == min(result.history.values[:, 0])


def test_an_interrupted_search_is_not_continued_half_way():
    def function(x):
        if len(seen) == 30:
            raise KeyboardInterrupt
        seen.append(x)
        return x

    seen: list[float] = []
    run = Search(function, space=Real(0, 1), budget=100)
    assert len(list(run)) > 0
    with pytest.raises(InvalidSettings, match="interrupted within a batch"):
        next(iter(run))
    assert run.result().outcome is Outcome.INTERRUPTED


def test_the_same_seed_gives_the_same_history_and_another_seed_another():
    digests = [search(Noisy(), budget=120, seed=seed).history.digest for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


def test_the_objective_is_open_while_searching_and_closed_afterwards():
    objective = Noisy()
    run = Search(objective, budget=40)
    for _ in run:
        assert objective.entered == 1
        break
    run.result()
    assert objective.entered == 0


# ask and tell ---------------------------------------------------------------------------------------------------------


def test_ask_and_tell_are_the_same_loop_opened_up():
    space = Subset(9, k=3)
    run = Search(space=space, budget=40, seed=3, direction="maximize")
    while len(batch := run.ask(5)):
        run.tell(batch.ids, [sum(kept) for kept in Candidates(space, batch.population)])
    result = run.result()
    assert result.outcome is Outcome.EVALUATIONS
    assert len(result.history) == 40
    assert result.value == max(result.history.values[:, 0])
    assert sum(result.best) == result.value


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        ([99], [1.0], r"not asked.*\[99\]"),
        ([0, 0], [1.0, 1.0], "told already"),
        ([0], [math.inf], "finite"),
        ([0], [[1.0, 2.0]], "1 number"),
    ],
)
def test_a_wrong_tell_is_refused_and_loses_nothing(ids, values, message):
    run = Search(space=Real(0, 1), budget=10)
    batch = run.ask(4)
    with pytest.raises(InvalidTell, match=message):
        run.tell(ids, values)
    run.tell(batch.ids, [0.1, 0.2, 0.3, 0.4])
    assert len(run.history) == 4


def test_a_failed_candidate_is_told_as_nan():
    run = Search(space=Real(0, 1), budget=10)
    batch = run.ask(3)
    run.tell(batch.ids, [0.5, math.nan, 0.2])
    assert run.history.failures == 1
    assert run.result().value == 0.2


# studies --------------------------------------------------------------------------------------------------------------


def test_resume_after_any_batch_is_bit_identical_and_evaluates_nothing_twice(tmp_path):
    whole = Noisy(failing={5})
    reference = search(whole, budget=60, batch_size=7, study=tmp_path / "whole.db")
    for stop in range(0, 9, 2):
        path = tmp_path / f"{stop}.db"
        first = Noisy(failing={5})
        for number, _ in enumerate(Search(first, budget=60, batch_size=7, study=path)):
            if number == stop:
                break
        second = Noisy(failing={5})
        result = search(second, budget=60, batch_size=7, study=path)
        assert result.history.digest == reference.history.digest
        assert result.value == reference.value
        assert str(result.holdout) == str(reference.holdout)
        cells = [c for c in first.evaluated + second.evaluated if c[1][0] < 100]
        succeeded = [c for c in cells if np.frombuffer(c[0], bool).sum() != 5]
        once = [c for c in whole.evaluated if c[1][0] < 100 and np.frombuffer(c[0], bool).sum() != 5]
        assert set(succeeded) == set(once)
        assert len(succeeded) == len(once)


def test_resume_in_the_middle_of_a_batch_keeps_its_finished_chunks(tmp_path):
    class Stopping(Noisy):
        def evaluate(self, candidates, cases):
            if len(self.evaluated) >= self.limit:
                self.limit = 10**6
                raise KeyboardInterrupt
            return super().evaluate(candidates, cases)

    reference = search(Noisy(), budget=40, batch_size=8).history.digest
    for limit in (1, 17, 50, 111):
        first, second = Stopping(), Noisy()
        first.limit = limit
        result = search(first, budget=40, batch_size=8, study=tmp_path / f"{limit}.db")
        assert result.outcome is Outcome.INTERRUPTED
        finished = {cell for cell in first.evaluated if cell[1][0] < 100}
        assert search(second, budget=40, batch_size=8, study=tmp_path / f"{limit}.db").history.digest == reference
        assert not finished & {cell for cell in second.evaluated if cell[1][0] < 100}


def test_a_finished_study_is_read_back_without_evaluating(tmp_path):
    first = search(Noisy(), budget=50, study=tmp_path / "s.db")
    objective = Noisy()
    again = search(objective, budget=50, study=tmp_path / "s.db")
    assert objective.evaluated == []
    assert str(again.holdout) == str(first.holdout)
    with Study.open(tmp_path / "s.db") as study:
        stored = study.result()
    assert stored.history.digest == first.history.digest
    assert (stored.best, stored.value, stored.outcome) == (first.best, first.value, first.outcome)
    assert stored.holdout == first.holdout


def test_more_budget_goes_on_where_the_first_one_stopped(tmp_path):
    from searchlib import Stages
    from searchlib.spaces import ExpertMerges

    def size(matrices):
        return float(np.abs(matrices.merging).sum())

    settings = {"space": ExpertMerges(2, 4, 2, 2), "study": tmp_path / "s.db"}
    stages = Stages(RandomSearch(), Evolution(population=6))
    first = search(size, stages, budget=40, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        more = search(size, stages, budget=80, **settings)
    assert more.history.evaluations == 80
    assert np.array_equal(more.history.population[: len(first.history)], first.history.population)


def test_a_resumed_study_may_spend_more_and_counts_its_looks(tmp_path):
    first = search(Noisy(), budget=30, study=tmp_path / "s.db")
    more = search(Noisy(), budget=90, study=tmp_path / "s.db")
    assert more.history.evaluations == 90
    assert more.holdout is not None
    assert more.holdout.looks == 1 + (more.row.tolist() != first.row.tolist())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 on file, 1 now"),
        ({"algorithm": RandomSearch()}, "algorithm"),
        ({"batch_size": 9}, "batch_size"),
        ({"threads": 2}, "threads"),
    ],
)
def test_another_search_is_refused_by_naming_what_differs(tmp_path, change, named):
    search(Noisy(), budget=20, study=tmp_path / "s.db")
    with pytest.raises(StudyMismatch, match=named):
        search(Noisy(), budget=20, study=tmp_path / "s.db", **change)


def test_another_function_or_space_is_refused(tmp_path):
    search(lambda x: x, space=Real(0, 1), budget=5, study=tmp_path / "s.db")
    with pytest.raises(StudyMismatch, match="objective"):
        search(lambda x: -x, space=Real(0, 1), budget=5, study=tmp_path / "s.db")
    with pytest.raises(StudyMismatch, match="space"):
        search(lambda x: x, space=Real(0, 2), budget=5, study=tmp_path / "s.db")


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "s.db"
    first = iter(Search(Noisy(), budget=40, batch_size=4, study=path))
    next(first)
    with pytest.raises(StudyBusy, match="another search is writing"):
        Search(Noisy(), budget=40, batch_size=4, study=path)
    assert len(list(first)) == 9


def test_other_proposals_than_on_file_warn_and_the_recorded_ones_are_used(tmp_path):
    path = tmp_path / "s.db"
    reference = search(Noisy(), budget=20, batch_size=5, study=path).history.population.copy()
    from searchlib.sealed_file import SealedFile

    file = SealedFile.writing(path)
    with file.transaction():
        file.insert("array", "seeds", "|b1", "[1, 10]", bytes(10), replace=True)
    file.close()
    with pytest.warns(UserWarning, match="other candidates than on file"):
        result = search(Noisy(), budget=20, batch_size=5, study=path)
    assert np.array_equal(result.history.population, reference)


# workers --------------------------------------------------------------------------------------------------------------


def square(x):
    return (x - 0.3) ** 2


def deadly(x):
    if 0.4 < x < 0.5:
        os._exit(11)
    return x


def slow(x):
    if x > 0.9:
        time.sleep(60)
    return -x


@pytest.mark.slow
def test_the_history_does_not_depend_on_the_number_of_workers():
    digests = [search(square, space=Real(0, 1), budget=40, workers=workers).history.digest for workers in (1, 2, 3)]
    assert len(set(digests)) == 1


ballast: list[np.ndarray] = []


def growing(x):
    """Grows its process by 400 MB once; says which process it is."""
    if not ballast:
        ballast.append(np.ones(50_000_000))
    time.sleep(0.15)
    return os.getpid()


@pytest.mark.slow
def test_a_worker_that_grows_by_the_size_of_a_model_is_kept():
    import psutil  # noqa: F401  without it joblib does not look at the memory of its workers

    search(square, space=Real(0, 1), budget=4, workers=2)  # the workers' first task, after which joblib takes measure
    history = search(growing, space=Real(0, 1), budget=32, workers=2).history
    assert (history.status == Status.DONE).all()
    assert 1 <= len(set(history.values[:, 0])) <= 2


@pytest.mark.slow
def test_a_candidate_that_kills_its_worker_costs_only_itself():
    result = search(deadly, RandomSearch(), space=Real(0, 1), budget=24, workers=2)
    rows = result.history.population[:, 0]
    guilty = (rows > 0.4) & (rows < 0.5)
    assert guilty.any()
    assert ((result.history.status == Status.FAILED) == guilty).all()
    assert "killed its worker" in next(error for error in result.history.errors if error)


@pytest.mark.slow
def test_a_candidate_that_hangs_is_ended_by_its_time_out():
    start = time.monotonic()
    result = search(slow, RandomSearch(), space=Real(0, 1), budget=16, workers=2, timeout=1.0)
    guilty = result.history.population[:, 0] > 0.9
    assert guilty.any()
    assert ((result.history.status == Status.FAILED) == guilty).all()
    assert "timeout=1.0" in next(error for error in result.history.errors if error)
    assert time.monotonic() - start < 50


def test_a_time_out_without_workers_is_refused():
    with pytest.raises(InvalidSettings, match="workers=2"):
        search(square, space=Real(0, 1), budget=4, timeout=1.0)


def test_an_objective_that_cannot_travel_is_refused_with_the_way_out():
    import threading

    lock = threading.Lock()
    with pytest.raises(InvalidSettings, match=r"cannot be sent to worker processes.*workers=1"):
        search(lambda x: lock and x, space=Real(0, 1), budget=4, workers=2)


# settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "at least 1.*0"),
        ({"budget": 2.5}, "whole number.*2.5"),
        ({"budget": 5, "seed": -1}, "seed.*-1"),
        ({"budget": 5, "batch_size": 0}, "batch_size.*0"),
        ({"budget": 5, "workers": 0}, "workers.*0"),
        ({"budget": 5, "threads": True}, "threads.*True"),
        ({"budget": 5, "timeout": 0.0, "workers": 2}, "timeout.*0"),
        ({"budget": 5, "direction": "up"}, "'minimize' or 'maximize'.*'up'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        search(square, space=Real(0, 1), **settings)


def test_a_function_without_a_space_is_refused():
    with pytest.raises(InvalidSettings, match="space="):
        search(square, budget=5)


def test_an_objective_with_a_space_beside_it_is_refused():
    with pytest.raises(InvalidSettings, match="Noisy has its own"):
        search(Noisy(), space=Binary(3), budget=5)


def test_seeds_outside_the_space_are_refused():
    from searchlib.errors import InvalidCandidate

    with pytest.raises(InvalidCandidate, match="2"):
        search(sum, space=Binary(3), budget=5, seeds=[(0, 1, 2)])


def test_a_dry_run_evaluates_one_chunk_and_says_how_long_the_whole_will_take(caplog):
    objective = Noisy()
    result = search(objective, budget=100, dry_run=True)
    assert result.outcome is Outcome.DRY_RUN
    assert len(result.history) == 0
    assert 0 < len(objective.evaluated) <= 3 * 3
    assert "will take about" in caplog.text
    assert "finalist" not in caplog.text  # there is no short list that could have failed


class Slow(Noisy):
    """Ten cells, thirty units of cost and a hundredth of a second per candidate."""

    chunk_cases = 10

    def evaluate(self, candidates, cases):
        time.sleep(0.01 * len(candidates))
        return super().evaluate(candidates, cases)

    def cost(self, candidates, cases):
        return 3.0 * len(candidates) * len(cases)


@pytest.mark.parametrize(
    ("budget", "candidates"),
    [
        (Budget(evaluations=200), 200),
        (Budget(cells=2000), 200),
        (Budget(cost=6000.0), 200),
        (Budget(cells=1995), 200),
        (Budget(cells=2000, cost=600.0), 20),
        (Budget(evaluations=200, seconds=1000.0, target=9.0), 200),
        (Budget(evaluations=10**6), 1024),  # all that there are
    ],
    ids=repr,
)
def test_a_dry_run_counts_any_limit_in_candidates_and_seconds(budget, candidates, caplog):
    search(Slow(), budget=budget, dry_run=True)
    assert f"about {candidates} candidates" in caplog.text
    assert f"a cost of about {30 * candidates:.3g} in" in caplog.text
    gigabytes = re.search(r"has used ([\d.]+) GB of memory", caplog.text)
    assert gigabytes is not None
    assert 0.05 < float(gigabytes[1]) < 50
    seconds = Search(Slow(), budget=budget).estimate()
    assert 0.01 * candidates <= seconds < candidates


def test_a_dry_run_says_how_many_candidates_a_time_limit_buys(caplog):
    assert Search(Slow(), budget=Budget(seconds=1.0)).estimate() == 1.0
    search(Slow(), budget=Budget(seconds=1.0), dry_run=True)
    said = re.search(r"will take about 1 s of evaluation, enough for about (\d+) candidates", caplog.text)
    assert said is not None
    assert 1 < int(said[1]) <= 100


def test_a_dry_run_with_a_target_alone_says_that_nobody_knows(caplog):
    result = search(Slow(), budget=Budget(target=9.0), dry_run=True)
    assert result.outcome is Outcome.DRY_RUN
    assert re.search(r"a candidate takes about 0\.0\d+ s, but Budget", caplog.text)
    assert "Budget(target=9.0) does not say how many it takes; give evaluations=…" in caplog.text
    assert Search(Slow(), budget=Budget(target=9.0)).estimate() == math.inf


def test_a_winner_is_printed_on_one_short_line():
    class Wide(Noisy):
        def artifact(self, value):
            return {"weights": np.zeros((6, 6)), "name": "x" * 500}

    result = search(Wide(), budget=8)
    assert "\n" in repr(result.best)
    first, second = str(result).splitlines()[:2]
    assert first.startswith("best       {'weights': array([[0., 0.")
    assert len(first) <= 11 + 200
    assert second.startswith("value")


def test_a_fixed_number_of_threads_holds_for_torch_and_its_own_mkl():
    torch = pytest.importorskip("torch")
    seen = []

    def spy(value):
        seen.append(torch.__config__.parallel_info())
        return value

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # from here on torch's MKL does not listen to OpenMP any more
        search(spy, space=Integer(0, 9), budget=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen
    for text in seen:
        assert "at::get_num_threads() : 1\n" in text
        assert "mkl_get_max_threads()" not in text or "mkl_get_max_threads() : 1\n" in text


def test_history_becomes_a_data_frame():
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = search(lambda c: {"a": 1.0, "b": 2.0}[c], space=Categorical(("a", "b")), budget=5).history.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert sorted(frame["candidate"]) == ["a", "b"]


# found by review ------------------------------------------------------------------------------------------------------


def test_a_second_result_looks_at_its_own_winner():
    run = Search(Noisy(), budget=400, batch_size=8)
    for _ in run:
        break
    early = run.result()
    list(run)
    late = run.result()
    assert early.row is not None
    assert late.row is not None
    assert early.holdout is not None
    assert late.holdout is not None
    assert late.holdout.value - early.holdout.value == pytest.approx(late.row.sum() - early.row.sum())
    assert (early.holdout.looks, late.holdout.looks) == (1, 2)


class Correlated(Noisy):
    """A value that is undefined for some candidates and some resamples."""

    additive = False
    direction = "maximize"

    def aggregate(self, scores):
        values = scores[:, :, 0].mean(axis=1)
        return np.where(values < 5, np.nan, values)[:, None]


def test_a_value_that_is_not_finite_is_a_failed_candidate():
    run = Search(Correlated(), budget=200)
    bests = [record.best_value for record in run]
    assert np.isfinite(bests[-1])
    failed = run.history.status == Status.FAILED
    assert failed.any()
    assert (np.isnan(run.history.values[:, 0]) == failed).all()
    assert "must be finite" in next(error for error in run.history.errors if error)


def test_a_reference_that_fails_is_left_out_and_costs_nothing_else(tmp_path, caplog):
    class Half(Noisy):
        def evaluate_reference(self, name, cases):
            if name == "nothing":
                raise RuntimeError("no such checkpoint")
            return np.full(len(cases), np.nan) if self.limit else super().evaluate_reference(name, cases)

    for _ in range(2):
        result = search(Half(), budget=40, study=tmp_path / "s.db")
        assert [row.name for row in result.holdout.rows] == ["best"]
    assert "no such checkpoint" in caplog.text
    assert "must give finite scores" in caplog.text


def test_another_constant_or_name_is_another_function(tmp_path):
    import functools

    def power(x, exponent=2):
        return x**exponent

    pairs = [
        (lambda x: (x - 0.2) ** 2, lambda x: (x - 0.9) ** 2),
        (lambda x: math.sin(x), lambda x: math.cos(x)),
        (functools.partial(power, exponent=2), functools.partial(power, exponent=4)),
    ]
    for number, (one, other) in enumerate(pairs):
        search(one, space=Real(0, 1), budget=5, study=tmp_path / f"{number}.db")
        search(one, space=Real(0, 1), budget=6, study=tmp_path / f"{number}.db")
        with pytest.raises(StudyMismatch, match="objective"):
            search(other, space=Real(0, 1), budget=5, study=tmp_path / f"{number}.db")


def test_a_dry_run_leaves_a_finished_study_as_it_is(tmp_path):
    first = search(Noisy(), budget=40, study=tmp_path / "s.db")
    search(Noisy(), budget=50, study=tmp_path / "s.db", dry_run=True)
    with Study.open(tmp_path / "s.db") as study:
        assert study.result().best == first.best
        assert study.result().outcome is Outcome.EVALUATIONS
        assert "40" in study.settings["budget"]


def test_a_study_is_one_file_once_the_search_has_returned(tmp_path):
    result = search(Noisy(), budget=40, study=tmp_path / "s.db")
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]
    assert result.history.evaluations == 40
    run = Search(Noisy(), budget=40, study=tmp_path / "t.db")
    list(run)
    (tmp_path / "copy.db").write_bytes((tmp_path / "t.db").read_bytes())
    with Study.open(tmp_path / "copy.db") as study:
        assert study.history().digest == run.history.digest == result.history.digest


def test_a_start_that_was_refused_leaves_the_file_free(tmp_path):
    from searchlib.errors import MissingOperator

    with pytest.raises(MissingOperator):
        search(
            lambda x: (x, x), Evolution(), space=Real(0, 1), budget=5, direction=("minimize",) * 2,
            study=tmp_path / "s.db",
        )  # fmt: skip
    assert search(lambda x: x, space=Real(0, 1), budget=5, study=tmp_path / "s.db").history.evaluations == 5


def test_an_algorithm_that_refuses_leaves_the_objective_closed():
    class Refusing(RandomSearch.__mro__[1]):
        def start(self, problem, rng):
            raise InvalidSettings("not today")

    objective = Noisy()
    with pytest.raises(InvalidSettings, match="not today"):
        search(objective, Refusing(), budget=5)
    assert objective.entered == 0


class Counting(Objective):
    """Scores how often this very object was entered."""

    space = Real(0, 1)
    entered = 0

    def __enter__(self):
        self.entered += 1
        return self

    def cases(self, split):
        return Cases((0,)) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        return np.full((len(candidates), 1), float(self.entered))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_enters_its_own_objective_once(workers):
    assert set(search(Counting(), budget=20, workers=workers).history.values[:, 0]) == {1.0}


def test_what_a_user_does_to_a_record_does_not_reach_the_history():
    run = Search(lambda x: x, space=Real(0, 1), budget=40)
    for record in run:
        with pytest.raises(ValueError, match="read-only"):
            record.values[:] = -99
    assert run.history.values.min() >= 0


def test_several_stale_batches_are_no_reason_to_stop_small_ones():
    result = search(sum, RandomSearch(), space=Binary(6), budget=64, batch_size=1)
    assert result.history.evaluations == 64
    assert result.outcome is Outcome.EVALUATIONS


def test_duplicates_of_a_failed_candidate_are_no_new_failures():
    def half(x):
        if x < 2:
            raise ValueError("too small")
        return float(x)

    result = search(half, RandomSearch(), space=Integer(0, 3), budget=10, max_failures=3)
    assert result.best == 2
    assert "too small" in str(result)


@pytest.mark.parametrize(("rows", "columns"), [(0, None), (1.5, None), (4, 0), (4, -1)])
def test_chunks_that_cannot_be_are_refused(rows, columns):
    objective = Noisy()
    objective.chunk_rows, objective.chunk_cases = rows, columns
    with pytest.raises(InvalidSettings, match="chunk_"):
        search(objective, budget=5)


@pytest.mark.parametrize(
    ("ids", "values"), [([], []), ([0.7], [1.0]), (["x"], [1.0]), ([0], ["high"]), ([0, 1], [1.0])]
)
def test_a_tell_that_makes_no_sense_is_refused(ids, values):
    run = Search(space=Real(0, 1), budget=10)
    run.ask(3)
    with pytest.raises(InvalidTell):
        run.tell(ids, values)
    assert len(run.history) == 0


def test_numpy_whole_numbers_are_whole_numbers(tmp_path):
    eight = np.int64(8)
    result = search(Noisy(), budget=eight, batch_size=eight, workers=np.int64(1), seed=eight, study=tmp_path / "s.db")
    assert result.history.evaluations == 8


def test_the_short_list_holds_distinct_candidates():
    run = Search(lambda x: float(x), RandomSearch(), space=Integer(0, 5), budget=6, direction="maximize")
    list(run)
    assert run._run is not None
    assert run._run.recommend(6)[:, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_a_time_limit_counts_what_is_evaluated_outside():
    run = Search(space=Real(0, 1), algorithm=RandomSearch(), budget=Budget(seconds=0.05))
    rounds = 0
    while len(batch := run.ask(1)):
        time.sleep(0.02)
        run.tell(batch.ids, [0.5])
        rounds += 1
    assert 1 <= rounds <= 3
    assert run.result().outcome is Outcome.SECONDS
