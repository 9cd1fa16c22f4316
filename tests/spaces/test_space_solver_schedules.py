import json
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import SolverSchedule, SolverSchedules, SolverStep
from searchlib.testing import check_space

BASE = SolverSchedule(
    (80.0, 20.0, 5.0, 1.0, 0.3, 0.0),
    (
        SolverStep(1, corrector=True, corrector_relaxation="bh2"),
        SolverStep(2, relaxation="bh2", corrector=True),
        SolverStep(3, "noise", second_scale=0.5),
        SolverStep(2, relaxation="linear", coefficient=0.1, start=-2),
        SolverStep(1),
    ),
)

SPACES = [
    SolverSchedules(2, 10.0, (0.1, 1.0), min_nfe=1),
    SolverSchedules(2, 10.0, 0.1, min_nfe=1, final="zero", analytic_first_step=False),
    SolverSchedules(10, 157.4, 0.01, min_nfe=10, final="zero", analytic_first_step=False),
    SolverSchedules(12, 14.6, (0.03, 0.04), final="sigma_min", max_order=2, correctors=False),
    SolverSchedules(30, 1e6, (1e-3, 1e-2)),
    SolverSchedules(5, 80.0, (0.002, 0.003), vary=("times",), base=BASE),
    SolverSchedules(5, 80.0, (0.002, 0.003), vary=("decisions",), base=BASE),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_setting_keeps_the_contract(space, seed):
    check_space(space, seed=seed)


def variants(space, n=200, seed=0):
    """Values that the operators make: sampled, mutated twice, and crossed."""
    rng = np.random.default_rng(seed)
    rows = space.sample(rng, n)
    children = space.mutate(rng, space.mutate(rng, rows))
    crossed = space.crossover(rng, children, rows)
    return [space.decode(row) for row in np.concatenate([rows, children, crossed])]


def test_no_schedule_exceeds_the_budget_and_all_numbers_of_steps_occur():
    values = variants(SolverSchedules(6, 80.0, (0.002, 0.003), min_nfe=4))
    assert {value.nfe for value in values} == {4, 5, 6}
    assert {len(value.steps) for value in values if value.analytic_first_step} == {5, 6, 7}
    assert {len(value.steps) for value in values if not value.analytic_first_step} == {4, 5, 6}


def test_noise_levels_start_at_the_given_one_and_end_in_the_range_or_at_zero():
    values = variants(SolverSchedules(6, 80.0, (0.002, 0.003)))
    ends = np.array([value.sigmas[-1] for value in values])
    assert {value.sigmas[0] for value in values} == {80.0}
    assert (ends == 0).any()
    assert (ends > 0).any()
    assert ((ends == 0) | ((ends >= 0.002) & (ends <= 0.003))).all()
    assert all(value.sigmas[-2] >= 0.002 * (1 - 1e-6) for value in values)


@pytest.mark.parametrize(("final", "zero"), [("zero", True), ("sigma_min", False)])
def test_the_end_can_be_prescribed(final, zero):
    values = variants(SolverSchedules(6, 80.0, (0.002, 0.003), final=final))
    assert {value.sigmas[-1] == 0 for value in values} == {zero}


def test_every_decision_occurs():
    steps = [step for value in variants(SolverSchedules(8, 80.0, (0.002, 0.003))) for step in value.steps]
    assert {step.order for step in steps} == {1, 2, 3}
    assert {step.prediction for step in steps} == {"noise", "data"}
    assert {step.points for step in steps if step.order == 3} == {1, 2}
    assert {step.relaxation for step in steps} == {"none", "linear", "bh1", "bh2"}
    assert {step.corrector_relaxation for step in steps if step.corrector} == {"none", "bh1", "bh2"}
    assert {step.second_scale for step in steps if step.order == 3} == {0.5, 1.0}
    assert len({step.coefficient for step in steps}) > 100
    # As in every released schedule, and never changed by the released mutation.
    assert {step.start for step in steps} == {-1}


def test_decisions_can_be_left_out():
    space = SolverSchedules(8, 80.0, 0.01, max_order=2, correctors=False, analytic_first_step=False)
    values = variants(space)
    assert {step.order for value in values for step in value.steps} == {1, 2}
    assert not any(step.corrector for value in values for step in value.steps)
    assert not any(value.analytic_first_step for value in values)


def test_with_times_alone_every_decision_is_the_base_ones():
    values = variants(SolverSchedules(5, 80.0, (0.002, 0.003), vary=("times",), base=BASE))
    assert {value.steps for value in values} == {BASE.steps}
    assert {value.sigmas[-1] for value in values} == {0.0}
    assert len({value.sigmas for value in values}) > 500


def test_with_decisions_alone_every_noise_level_is_the_base_one():
    values = variants(SolverSchedules(5, 80.0, (0.002, 0.003), vary=("decisions",), base=BASE))
    assert {value.sigmas for value in values} == {BASE.sigmas}
    assert len({value.steps for value in values}) > 500


@pytest.mark.parametrize("vary", [("times",), ("decisions",), ("times", "decisions")])
def test_the_base_lies_in_its_own_space(vary):
    base = BASE if len(vary) == 1 else None
    space = SolverSchedules(5, 80.0, (0.002, 0.003), vary=vary, base=base)
    assert space.decode(space.encode([BASE])[0]) == BASE


def test_genes_without_meaning_are_zero():
    space = SolverSchedules(3, 80.0, (0.002, 0.003))
    rows = space.encode([SolverSchedule((80.0, 1.0, 0.0), (SolverStep(), SolverStep()))])
    genes = rows[0, 2:].reshape(4, 10)
    assert genes[:2, :2].tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert not genes[:, 2:].any()
    assert not genes[2:].any()


def test_both_predictions_of_ddim_are_one_candidate_unless_the_sample_was_corrected():
    ddim = [SolverSchedule((4.0, 1.0, 0.5), (SolverStep(1, kind), SolverStep(1, kind))) for kind in ("noise", "data")]
    assert ddim[0] == ddim[1]
    corrected = [
        SolverSchedule((4.0, 1.0, 0.5), (SolverStep(1, corrector=True), SolverStep(1, kind)))
        for kind in ("noise", "data")
    ]
    assert corrected[0] != corrected[1]


def test_repair_sorts_times_and_keeps_orders_within_the_history():
    space = SolverSchedules(3, 80.0, (0.01, 0.02), analytic_first_step=False, final="sigma_min")
    row = np.zeros((1, space.dimension))
    row[0, 0] = 3
    row[0, 2::10] = 1.0, 50.0, 0.015
    row[0, 3::10] = 3
    value = space.decode(space.repair(row)[0])
    assert np.allclose(value.sigmas, (80.0, 50.0, 1.0, 0.015))
    assert [step.order for step in value.steps] == [1, 2, 3]


def test_a_mutation_changes_times_and_decisions_at_its_rate():
    space = SolverSchedules(10, 80.0, (0.002, 0.003), min_nfe=10, analytic_first_step=False, final="sigma_min",
                            count_rate=0, rate=0.3)  # fmt: skip
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 4000)
    children = space.mutate(rng, rows)
    sigma = np.log(children[:, 2::10] / rows[:, 2::10])[:, :-1]
    moved = np.abs(sigma) > 1e-9
    assert moved.mean() == pytest.approx(0.3, abs=0.03)
    assert np.abs(sigma[moved]).mean() == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.15)
    # A corrector is drawn anew with the rate, and differs in half of the draws.
    assert (children[:, 9::10] != rows[:, 9::10])[:, :-1].mean() == pytest.approx(0.15, abs=0.01)


def test_a_step_more_or_less_keeps_the_others():
    space = SolverSchedules(8, 80.0, (0.002, 0.003), min_nfe=6, rate=1e-9, count_rate=0.5,
                            analytic_first_step=False)  # fmt: skip
    rng = np.random.default_rng(0)
    rows = space.encode([space.decode(row) for row in space.sample(rng, 300) if row[0] == 7])
    children = space.mutate(rng, rows)
    grown = children[:, 0] == 8
    shrunk = children[:, 0] == 6
    assert grown.sum() > 10
    assert shrunk.sum() > 10
    for parent, child in zip(rows[grown], children[grown], strict=True):
        kept = np.isclose(parent[2:72:10, None], child[2:82:10], rtol=1e-9)
        assert kept.any(axis=1).sum() >= 6
    for parent, child in zip(rows[shrunk], children[shrunk], strict=True):
        assert set(child[2:62:10]) < set(parent[2:72:10])


def test_a_child_has_the_times_of_one_parent_and_decisions_of_both():
    space = SolverSchedules(6, 80.0, (0.002, 0.003), min_nfe=6, analytic_first_step=False)
    rng = np.random.default_rng(0)
    first, second = space.sample(rng, 500), space.sample(rng, 500)
    children = space.crossover(rng, first, second)
    ours = (children[:, 2::10] == first[:, 2::10]).all(axis=1)
    theirs = (children[:, 2::10] == second[:, 2::10]).all(axis=1)
    assert (ours ^ theirs).all()
    assert 200 < ours.sum() < 300
    mate = np.where(ours[:, None], second, first)
    changed = (children != np.where(ours[:, None], first, second)).any(axis=1)
    assert changed.mean() > 0.9
    # Predictions (gene 2 of a step whose order is above 1) come from either parent, nothing else.
    steps = [array[:, 2:].reshape(500, 6, 10) for array in (children, np.where(ours[:, None], first, second), mate)]
    child, own, other = (step[..., 2] for step in steps)
    assert ((child == own) | (child == other) | (child == 0)).all()


def test_features_are_a_sequence_and_globals():
    space = SolverSchedules(5, 80.0, (0.002, 0.003))
    rows = space.encode([BASE])
    features = space.features(rows)
    steps = features[:, : -space.global_features].reshape(1, space.max_steps, space.features_per_step)[0]
    assert steps[:, 0].tolist() == [1, 1, 1, 1, 1, 0]
    assert steps[:5, 4:7].argmax(axis=1).tolist() == [0, 1, 2, 1, 0]
    assert steps[1, 1] == pytest.approx(math.log(80 / 20) / math.log(80 / 0.002))
    assert steps[1, 2] == steps[2, 1]
    assert not steps[5].any()
    assert features[0, -5:-1].tolist() == [5 / 6, 1.0, 0.0, 1.0]


def test_a_schedule_is_readable_json_and_comes_back_to_the_bit():
    values = variants(SolverSchedules(6, 80.0, (0.002, 0.003)), n=50)
    for value in values:
        assert SolverSchedule.from_json(json.loads(json.dumps(value.to_json()))) == value
    assert BASE.to_json()["steps"][3] == {
        "order": 2, "prediction": "data", "relaxation": "linear", "coefficient": 0.1, "start": -2,
    }  # fmt: skip


def test_a_schedule_from_another_process_is_the_same_key():
    code = f"import pickle, sys; from searchlib.spaces import *; sys.stdout.buffer.write(pickle.dumps({BASE!r}))"
    environment = dict(os.environ, PYTHONHASHSEED="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert pickle.loads(done.stdout) in {BASE}


@pytest.mark.parametrize(
    ("sigmas", "steps", "says"),
    [
        ((1.0, 2.0), (SolverStep(),), "strictly descending"),
        ((math.inf, 2.0), (SolverStep(),), "has to be cut"),
        ((2.0, 1.0, 0.0), (SolverStep(), SolverStep(2)), "sigma = 0 has order 1"),
        ((2.0, 1.0), (SolverStep(2),), r"steps\[0\] has 1 evaluations"),
        ((2.0, 1.0), (SolverStep(start=-2),), r"steps\[0\] has 1 evaluations"),
        ((2.0, 1.0), (SolverStep(corrector=True),), "last step has no corrector"),
        ((2.0, 1.0), (SolverStep(), SolverStep()), "one sigma more"),
        ((2.0, 1.0), ("ddim",), "must be a SolverStep"),
    ],
)
def test_what_is_no_schedule_is_refused(sigmas, steps, says):
    with pytest.raises(InvalidCandidate, match=says):
        SolverSchedule(sigmas, steps)


@pytest.mark.parametrize("wrong", [{"order": 4}, {"prediction": "v3"}, {"points": 3, "order": 3}, {"start": 0},
                                   {"relaxation": None}, {"coefficient": math.nan}, {"corrector": 1}])  # fmt: skip
def test_what_is_no_step_is_refused(wrong):
    with pytest.raises(InvalidCandidate, match=next(iter(wrong))):
        SolverStep(**wrong)


@pytest.mark.parametrize("data", [{}, [], {"sigmas": [1, 0.5], "steps": [{"order": 1, "solver": "ddim"}]}, "text"])
def test_json_of_something_else_is_refused(data):
    with pytest.raises(InvalidCandidate, match="to_json"):
        SolverSchedule.from_json(data)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma_min": (0.1, 100.0)}, "below sigma_max"),
        ({"final": "one"}, "final must be"),
        ({"vary": ("times",)}, "base schedule exactly where"),
        ({"base": BASE}, "base schedule exactly where"),
        ({"vary": ("times",), "base": BASE, "nfe": 7}, "base must have 7"),
        ({"vary": ("times",), "base": BASE, "max_order": 2}, "other settings allow"),
        ({"vary": ("decisions",), "base": "{}"}, "JSON text"),
        ({"nfe": 1}, "hardly anything varies"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, says):
    with pytest.raises(InvalidSettings, match=says):
        SolverSchedules(**{"nfe": 5, "sigma_max": 80.0, "sigma_min": (0.002, 0.003)} | settings)
