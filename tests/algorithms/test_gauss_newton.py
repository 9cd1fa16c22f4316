"""Gauss-Newton on score tables, against scipy with the true gradient and against CMA-ES."""

import json

import numpy as np
import pytest
from scipy import optimize

from searchlib import CMAES, Cases, GaussNewton, Objective, Problem, Search, Split, search
from searchlib.algorithms import Evidence, Status
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.result import Outcome
from searchlib.space import row_keys
from searchlib.spaces import Binary, CheckpointCoefficients, Real


class Features(Objective):
    """Features of 40 images that move with the coordinates of the space, and how far their moments are from a goal.

    The value is that of a Fréchet distance without correlations: squared differences of means and of deviations.
    """

    batch_size = chunk_rows = 8
    additive = False
    differentiable = True

    def __init__(self, space=None, bend=0.0, direction="minimize", fails=lambda row: False):
        self.space = space or Real(-50.0, 50.0, length=12)
        self.direction, self.bend, self.fails = direction, bend, fails
        rng = np.random.default_rng(0)
        self.start = rng.normal(size=(40, 3))
        self.slopes = rng.normal(size=(self.space.latent_dimension, 40, 3)) / 5
        answer = rng.uniform(-1, 1, self.space.latent_dimension)  # where also bounded spaces reach
        goal = self.table(answer)
        self.goal = goal.mean(axis=0) + 0.3, goal.std(axis=0)

    def table(self, latent):
        moved = np.tensordot(latent, self.slopes, 1)
        return self.start + moved + self.bend * np.sin(moved)

    def cases(self, split):
        return Cases(tuple(range(40))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        for row in candidates.array:
            if self.fails(row):
                raise ValueError("this candidate fails")
        return np.stack([self.table(latent) for latent in self.space.to_latent(candidates.array)])

    def aggregate(self, scores):
        return np.array([[self.slope(table)[0]] for table in scores])

    def slope(self, scores):
        mean, deviation = scores.mean(axis=0), scores.std(axis=0)
        apart, wider = mean - self.goal[0], deviation - self.goal[1]
        value = (apart**2).sum() + (wider**2).sum()
        gradient = (2 * apart + 2 * wider / deviation * (scores - mean)) / len(scores)
        sign = 1 if self.direction == "minimize" else -1
        return sign * float(value), sign * gradient

    def optimum(self):
        """The least value that scipy finds with the true gradient, within the bounds of the relaxation."""

        def value_and_gradient(latent):
            value, gradient = self.slope(self.table(latent))
            moved = 1 + self.bend * np.cos(np.tensordot(latent, self.slopes, 1))
            return value, np.tensordot(self.slopes, gradient * moved, 2)

        reach = 2.0 if isinstance(self.space, Real) else 50.0
        bounds = [(-reach, reach)] * self.space.latent_dimension
        starts = np.random.default_rng(1).uniform(-1, 1, size=(3, len(bounds)))
        return min(optimize.minimize(value_and_gradient, start, jac=True, bounds=bounds).fun for start in starts)


SPACES = [Real(-50.0, 50.0, length=12), CheckpointCoefficients(14), CheckpointCoefficients(7, 2, smoothness=1.0)]


def best_after(result, evaluations):
    return float(np.nanmin(result.history.values[:evaluations]))


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_the_optimum_takes_about_as_many_evaluations_as_there_are_coordinates(space, bend):
    objective = Features(space, bend)
    start = objective.slope(objective.table(np.zeros(space.latent_dimension)))[0]
    optimum, few = objective.optimum(), space.latent_dimension + 24
    # At the bounds, which its linear model does not know, it is less exact.
    tolerance = 0.03 if isinstance(space, Real) else 2e-3
    found = [search(objective, GaussNewton(), budget=few + 16, seed=seed) for seed in range(5)]
    # Where one step more or less is needed depends on the last bits, which processors round in ways of their own.
    gaps = np.array([[best_after(result, few) - optimum, result.value - optimum] for result in found]) / start
    assert gaps.min() > -1e-6
    assert np.median(gaps[:, 0]) < tolerance
    assert gaps[:, 1].max() < tolerance


def test_cma_es_needs_many_times_the_evaluations():
    pytest.importorskip("cma")
    objective = Features(CheckpointCoefficients(14), bend=0.3)
    optimum = objective.optimum()
    for seed in range(2):
        ours = search(objective, GaussNewton(), budget=33, seed=seed)
        theirs = search(objective, CMAES(), budget=10 * 33, seed=seed)
        gaps = best_after(ours, 33) - optimum, best_after(theirs, 10 * 33) - optimum
        assert gaps[0] < gaps[1] / 5


def test_a_maximized_objective_takes_the_same_way():
    least, most = (search(Features(bend=0.3, direction=d), GaussNewton(), budget=40) for d in ("minimize", "maximize"))
    assert least.history.digest != most.history.digest  # the sign is in the values
    np.testing.assert_array_equal(least.history.population, most.history.population)
    np.testing.assert_array_equal(least.history.values, -most.history.values)


def started(seed=0, batch_size=8, **settings):
    objective = Features(bend=0.3)
    seeds = objective.space.canonical(objective.space.sample(np.random.default_rng(seed + 100), 2))
    problem = Problem(objective.space, 1, seeds, None, batch_size, slope=objective.slope)
    return objective, GaussNewton(**settings).start(problem, np.random.default_rng(seed))


def evidence(objective, ids, rows, failed=None):
    failed = np.zeros(len(ids), bool) if failed is None else np.asarray(failed)
    tables = np.stack([objective.table(latent) for latent in objective.space.to_latent(rows)])
    values = np.where(failed[:, None], np.nan, objective.aggregate(tables))
    tables[failed] = np.nan
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    nothing = np.full(len(ids), np.nan)
    told = Evidence(np.asarray(ids), rows.copy(), values, status, nothing, np.full_like(values, np.nan), tables)
    for array in (told.population, told.values, told.observations):
        array.flags.writeable = False
    return told


@pytest.mark.parametrize("order", ["reversed", "one by one"])
def test_the_order_of_tells_has_no_effect(order):
    traces = []
    for how in ("in order", order):
        objective, run = started()
        trace = []
        for n in [3, 1, 5, 4, 2] * 4:
            batch = run.ask(n)
            trace += row_keys(batch.population)
            told = evidence(objective, batch.ids, batch.population, batch.ids % 5 == 4)
            places = list(range(len(batch)))[:: 1 if how == "in order" else -1]
            for rows in [[place] for place in places] if how == "one by one" else [places]:
                run.tell(told.take(np.array(rows)))
        traces.append(trace + row_keys(run.recommend(3)))
    assert len(traces[0]) > 20
    assert traces[0] == traces[1]


def test_ids_count_up_and_answers_that_come_late_are_not_taken_for_the_step():
    objective, run = started()
    first = run.ask(8)
    run.tell(evidence(objective, first.ids, first.population))
    probes = run.ask(8)
    run.tell(evidence(objective, probes.ids, probes.population))
    step = run.ask(8)
    assert len(step) == 1
    around = run.ask(8)  # its answer is missing; look around meanwhile
    assert around.ids[0] == step.ids[0] + 1
    run.tell(evidence(objective, around.ids, around.population))
    run.ask(8)
    assert run.notes()["steps"] == 0
    run.tell(evidence(objective, step.ids, step.population))
    run.ask(8)
    assert run.notes()["steps"] == 1


def test_candidates_that_fail_are_survived_and_never_recommended():
    def fails(row):
        return row[0] > 20

    objective = Features(bend=0.3, fails=fails)
    result = search(objective, GaussNewton(), budget=60, seeds=[tuple([21.0] + [0.0] * 11), tuple([0.0] * 12)])
    assert result.history.failures >= 1
    assert result.row[0] <= 20
    whole = search(Features(bend=0.3), GaussNewton(), budget=60, seeds=[tuple([0.0] * 12)])
    assert result.value < whole.history.values[0, 0] / 4


def test_where_all_seeds_fail_it_tries_elsewhere():
    objective, run = started()
    first = run.ask(8)
    run.tell(evidence(objective, first.ids, first.population, [True] * len(first)))
    second = run.ask(8)
    assert len(second) >= 1
    assert not set(row_keys(second.population)) & set(row_keys(first.population))
    run.tell(evidence(objective, second.ids, second.population))
    assert len(run.ask(8)) >= 1


def test_a_search_that_can_find_nothing_new_ends():
    """All of the relaxation is clipped to one corner, where steps are candidates that are known already."""

    class Corner(Features):
        def table(self, latent):
            return self.start + 1 - latent.sum() / 100

    objective = Corner(Real(-1.0, 1.0, length=2))
    objective.goal = objective.start.mean(axis=0) - 10, objective.start.std(axis=0)
    result = search(objective, GaussNewton(), budget=5000)
    assert result.best == pytest.approx((1, 1), abs=1e-6)
    assert result.outcome is Outcome.NOTHING_NEW


def test_strangers_are_recommended_but_do_not_count_as_steps():
    objective, run = started()
    rows = objective.space.canonical(objective.space.sample(np.random.default_rng(9), 3))
    told = evidence(objective, [-1, -2, -3], rows)
    run.tell(told)
    assert len(run.ask(2)) == 2
    assert row_keys(run.recommend(1)) == row_keys(rows[told.values[:, 0].argmin()][None])


@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_a_search_that_stops_midway_resumes_bit_for_bit(tmp_path, stop):
    def run(name, stop_after=None):
        objective = Features(bend=0.3, fails=lambda row: row[0] > 4)
        search = Search(objective, GaussNewton(), budget=40, study=tmp_path / name, batch_size=4)
        for number, _ in enumerate(search, start=1):
            if number == stop_after:
                break
        result = search.result()
        search.close()
        return result

    whole = run("whole.db")
    assert run("stopped.db", stop).history.evaluations < 40
    again = run("stopped.db")
    assert again.history.evaluations == 40
    assert again.history.digest == whole.history.digest
    assert again.notes == whole.notes
    np.testing.assert_array_equal(again.row, whole.row)


def test_notes_are_json():
    result = search(Features(), GaussNewton(), budget=40)
    notes = json.loads(json.dumps(result.notes))
    assert notes["steps"] >= notes["taken"] >= 1
    assert notes["radius"] > 0


def test_settings_come_back_from_their_repr():
    settings = GaussNewton(radius=2.0, probes=3)
    assert eval(repr(settings)) == settings


def test_an_objective_without_a_slope_is_refused_with_the_way_out():
    with pytest.raises(MissingOperator, match=r"slope in its observations.*use CMAES\(\) instead"):
        search(lambda x: x**2, GaussNewton(), space=Real(-1, 1), budget=5)


def test_several_objectives_are_refused():
    with pytest.raises(MissingOperator, match="2"):
        GaussNewton().start(Problem(Real(0, 1), 2, slope=lambda scores: (0.0, scores)), np.random.default_rng(0))


def test_spaces_without_coordinates_are_rounded_to():
    """A relaxation with thresholds is no linear model's friend, but proposals stay feasible."""
    objective = Features(Binary(12))
    result = search(objective, GaussNewton(), budget=40)
    assert Binary(12).contains(result.history.population).all()


@pytest.mark.parametrize(("name", "value"), [
    ("radius", 0), ("radius", float("nan")), ("probe", -1.0), ("probes", 0), ("archive", 0)
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        GaussNewton(**{name: value})
