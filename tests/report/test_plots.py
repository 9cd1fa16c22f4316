"""``result.plot``: every picture shows what the result holds."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from searchlib import (
    NSGA2,
    Cases,
    EvolutionStrategy,
    Objective,
    Portfolio,
    PredictorGuided,
    RandomSearch,
    Split,
    Study,
    search,
)
from searchlib.errors import InvalidSettings
from searchlib.report import Plots
from searchlib.report.convergence import best_so_far
from searchlib.report.hypervolume_growth import hypervolume_growth
from searchlib.report.pareto_front import plot_front
from searchlib.report.task_history import plot_tasks
from searchlib.spaces import Binary, Integer, Real


class Distances(Objective):
    """Distance to targets; some of them are held out."""

    space = Integer(0, 60)
    value_names = ("distance $\\frac{",)

    def cases(self, split):
        return Cases(tuple(range(list(Split).index(split), 60, 3)))

    def evaluate(self, candidates, cases):
        return np.abs(candidates.array - np.array(cases.ids)).astype(float)

    def references(self):
        return ("_hidden $\\frac{", "middle")

    def evaluate_reference(self, name, cases):
        return np.abs((30 if name == "middle" else 0) - np.array(cases.ids)).astype(float)


@pytest.fixture(scope="module")
def two_values():
    def values(rows):
        return np.stack([rows[:, 0] ** 2 + rows[:, 1], -((rows[:, 0] - 1) ** 2) - rows[:, 1]], axis=1)

    space = Real(0.0, 1.0, length=2)
    return search(values, NSGA2(), space=space, batched=True, budget=150, direction=("minimize", "maximize"))


def test_convergence_draws_the_best_so_far_and_every_held_out_value():
    result = search(Distances(), RandomSearch(), budget=30)
    axes = result.plot.convergence()
    curve, *levels = axes.lines
    assert curve.get_ydata().tolist() == best_so_far(result.history, "minimize").tolist()
    assert [line.get_ydata()[0] for line in levels] == [row.value for row in result.holdout.rows]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["search", "winner (held-out)", " _hidden \\$\\frac{ (held-out)", "middle (held-out)"]
    axes.figure.canvas.draw()  # a name is no formula


def test_a_picture_is_drawn_where_the_caller_wants_it(two_values):
    figure = Figure()
    axes = figure.subplots()
    assert two_values.plot.front(ax=axes) is axes
    assert two_values.plot.hypervolume(ax=figure.subplots()).figure is figure


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_direction_is_that_of_the_search(direction):
    result = search(sum, RandomSearch(), space=Binary(6), budget=30, direction=direction)
    assert result.plot.direction == (direction,)
    curve = result.plot.convergence().lines[0].get_ydata()
    assert np.all(np.diff(curve) >= 0 if direction == "maximize" else np.diff(curve) <= 0)


def test_a_direction_that_nobody_has_said_must_be_said():
    result = dataclasses.replace(search(sum, RandomSearch(), space=Binary(6), budget=30), direction=())
    with pytest.raises(InvalidSettings, match="direction='minimize'"):
        result.plot.convergence()
    assert Plots(result, "minimize").convergence() is not None


@pytest.mark.parametrize("direction", ["up", ("minimize", "maximize"), (), (1,)])
def test_directions_that_are_none_are_refused(direction):
    result = search(sum, RandomSearch(), space=Binary(4), budget=10)
    with pytest.raises(InvalidSettings, match="direction must be"):
        Plots(result, direction)


def test_the_front_is_that_of_the_result_with_its_winner(two_values):
    axes = two_values.plot.front()
    candidates, front, winner = axes.collections
    assert len(candidates.get_offsets()) == len(two_values.history)
    order = np.argsort(two_values.front.values[:, 0], kind="stable")
    assert np.allclose(front.get_offsets(), two_values.front.values[order])
    assert np.allclose(winner.get_offsets(), two_values.front.values[two_values.front.chosen])
    assert "higher is better" in axes.get_ylabel()


@pytest.mark.parametrize("direction", [("minimize", "minimize"), ("maximize", "minimize"), ("minimize", "maximize"),
                                       ("maximize", "maximize")])  # fmt: skip
def test_the_steps_of_a_front_never_promise_what_no_candidate_reaches(direction):
    rng = np.random.default_rng(0)
    signs = np.array([1 if way == "minimize" else -1 for way in direction])
    values = np.array([[1, 4], [2, 2], [4, 1]]) * signs
    noise = values[rng.integers(3, size=30)] + signs * rng.uniform(0, 1, (30, 2))
    axes = plot_front(np.concatenate([values, noise]), direction)
    (line,) = axes.lines
    path = line.get_path()
    corners = path.vertices if line.get_drawstyle() == "default" else None
    if corners is None:  # as matplotlib draws steps
        from matplotlib.cbook import STEP_LOOKUP_MAP

        corners = np.column_stack(STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_data()))
    for corner in corners:
        assert ((values * signs) <= corner * signs + 1e-12).all(axis=1).any()
    assert len(corners) == 5


def test_the_last_hypervolume_is_that_of_everything_and_it_never_shrinks(two_values):
    from searchlib.hypervolume import hypervolume

    history, direction = two_values.history, ("minimize", "maximize")
    points, volumes = hypervolume_growth(history.values, direction, reference=(3.0, -3.0))
    assert points[-1] == len(history)
    assert volumes[-1] == pytest.approx(hypervolume(history.values, (3.0, -3.0), direction))
    assert (np.diff(volumes) >= 0).all()
    assert volumes[0] == pytest.approx(hypervolume(history.values[:1], (3.0, -3.0), direction))
    assert two_values.plot.hypervolume(reference=(3.0, -3.0)).lines[0].get_ydata().tolist() == volumes.tolist()


def test_of_one_value_there_is_no_front():
    result = search(sum, RandomSearch(), space=Binary(4), budget=10)
    for draw in (result.plot.front, result.plot.hypervolume):
        with pytest.raises(InvalidSettings, match="two objectives"):
            draw()


def test_predictor_quality_shows_every_stage():
    result = search(sum, PredictorGuided(population=8, stage=4), space=Binary(10), budget=24)
    stages = [stage for stage in result.notes["stages"] if stage["tau"] is not None]
    (marks,) = result.plot.predictor_quality().collections
    assert len(marks.get_offsets()) == len(stages) > 1
    with pytest.raises(InvalidSettings, match="no stage of a predictor"):
        search(sum, RandomSearch(), space=Binary(4), budget=8).plot.predictor_quality()


def test_the_predictor_of_a_portfolio_is_found_in_its_notes():
    members = (PredictorGuided(population=6, stage=3), RandomSearch())
    result = search(sum, Portfolio(members), space=Binary(12), budget=80)
    (found,) = [member for member in result.notes["portfolio"] if "notes" in member]
    stages = [stage for stage in found["notes"]["stages"] if stage["tau"] is not None]
    (marks,) = result.plot.predictor_quality().collections
    assert len(marks.get_offsets()) == len(stages) > 0


def test_importance_and_interactions_draw_the_same_shares():
    pytest.importorskip("sklearn")
    result = search(lambda bits: 4 * bits[2] + bits[0] * bits[1], RandomSearch(), space=Binary(4), budget=16)
    with pytest.raises(InvalidSettings, match="20 candidates"):
        result.plot.importance()
    result = search(lambda x: 4.0 * x[2] + x[0] * x[1], RandomSearch(), space=Real(0.0, 1.0, length=3), budget=60)
    plots = result.plot
    bars = plots.importance()
    assert bars.get_yticklabels()[0].get_text() == "2"
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 70
    (image,) = plots.interactions().images
    assert image.get_array().diagonal().max() == pytest.approx(widths[0])


def test_scores_are_read_from_the_study_of_the_result(tmp_path):
    result = search(Distances(), RandomSearch(), budget=30, study=tmp_path / "a.db")
    with Study.open(tmp_path / "a.db") as study:
        shapes = {draw.images[0].get_array().shape for draw in (
            result.plot.scores(tmp_path / "a.db"), result.plot.scores(study), study.result().plot.scores(study),
        )}  # fmt: skip
    assert shapes == {(30, 20)}


def test_tasks_are_drawn_generation_by_generation():
    tasks = [np.array([[1.0, 5.0], [2.0, 6.0]]), np.array([[3.0, 7.0]]), np.array([[4.0, 8.0]])]
    (dots,) = plot_tasks(tasks, [np.array([0.0, 1.0]), np.array([0.5])], name="speed", coordinate=1).collections
    assert dots.get_offsets().tolist() == [[0, 5], [0, 6], [1, 7]]
    assert dots.get_array().tolist() == [0.0, 1.0, 0.5]
    for wrong in ({"coordinate": 2}, {"success": [np.zeros(3)]}):
        with pytest.raises(InvalidSettings):
            plot_tasks(tasks, **wrong)


def test_a_search_that_keeps_seeds_only_still_converges():
    result = search(lambda rows: (rows**2).sum(axis=1), EvolutionStrategy(), space=Real(-1.0, 1.0, length=4),
                    batched=True, budget=120)  # fmt: skip
    curve = Plots(result, "minimize").convergence().lines[0].get_ydata()
    assert len(curve) == result.history.evaluations
    assert curve[-1] < curve[0]
