"""A winner is drawn as fits its space, and the picture shows the winner's own numbers."""

import numpy as np
import pytest

from searchlib import RandomSearch, search, spaces
from searchlib.errors import InvalidSettings
from searchlib.report.expert_layers import expert_weights
from searchlib.report.head_spans import plot_spans
from searchlib.report.item_influence import item_influence
from searchlib.report.layer_bits import bit_table
from searchlib.report.noise_axis import plot_schedule
from searchlib.report.training_coefficients import plot_coefficients
from searchlib.report.winner_picture import WINNER_PICTURES
from searchlib.spaces import (
    AttentionConfigs,
    AttentionPlan,
    Binary,
    BitPlan,
    BitWidths,
    CheckpointCoefficients,
    EvalSubsets,
    ExemplarSets,
    ExpertMerges,
    ExpertSubsets,
    SizedTensor,
    SolverSchedule,
    SolverSchedules,
    SolverStep,
    Subset,
    elastic_rules,
)

TENSORS = [SizedTensor(name, kind, rows=8, columns=8) for name in ("a", "b$") for kind in ("weight", "activation")]
SPACES = [
    ExpertSubsets(layers=6, experts=4, keep=2, groups=3), ExpertMerges(layers=6, experts=4, keep=2, groups=3),
    CheckpointCoefficients(5), CheckpointCoefficients(5, blocks=2), SolverSchedules(5, 80.0, (0.002, 0.003)),
    AttentionConfigs(2, 4, elastic_rules((64, 128), step=16, betas=5), lengths=(64, 128), sink=4),
    BitWidths(TENSORS, weight=(4, 8), activation=(4, 8), ranges=(500,)), EvalSubsets(12, 4), ExemplarSets(9, k=3),
    Subset(9, k=3),
]  # fmt: skip


def test_every_name_in_the_table_is_that_of_a_space():
    assert set(WINNER_PICTURES) <= set(spaces.__all__)
    assert {type(space).__name__ for space in SPACES} == set(WINNER_PICTURES)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_every_paper_space_has_its_picture(space):
    weights = np.random.default_rng(0).normal(size=space.dimension)
    result = search(lambda rows: np.sin(rows.astype(float)) @ weights, RandomSearch(), space=space, batched=True,
                    budget=40)  # fmt: skip
    axes = result.plot.winner()
    assert axes.has_data()
    assert axes.get_xlabel() or axes.get_xticklabels()


def test_other_spaces_are_refused_by_name():
    result = search(sum, space=Binary(4), budget=8)
    with pytest.raises(InvalidSettings, match="no picture for candidates of Binary"):
        result.plot.winner()


def test_merged_experts_keep_their_weights_in_the_layers_of_their_group():
    space = ExpertMerges(layers=3, experts=3, keep=2, groups=2)
    value = space.decode(space.embed(space.first.encode([[(0, 1), (1, 2)]]))[0])
    assert expert_weights(space, value).tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 1]]


def test_coefficients_stand_at_their_training_steps():
    space, value = CheckpointCoefficients(3), (-0.5, 0.5, 1.0)
    axes = plot_coefficients(space, value, steps=[100, 200, 400])
    assert axes.lines[0].get_xydata().tolist() == [[100, -0.5], [200, 0.5], [400, 1.0]]
    assert "0.5" in axes.get_title()
    with pytest.raises(InvalidSettings, match="3 numbers"):
        plot_coefficients(space, value, steps=[1, 2])


def test_a_schedule_steps_from_noisy_to_clean_at_its_levels():
    steps = (SolverStep(), SolverStep(2, "noise", corrector=True), SolverStep())
    axes = plot_schedule(SolverSchedule((80.0, 5.0, 0.5, 0.0), steps))
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_xydata().tolist() for line in marks] == [[[80.0, 1.0]], [[5.0, 2.0]], [[0.5, 1.0]]]
    assert [line.get_marker() for line in marks] == ["o", "s", "o"]
    left, right = axes.get_xlim()
    assert left > 80 > 0.5 > right > 0
    assert axes.get_title().startswith("3 evaluations")


def test_spans_are_the_shares_that_the_plan_keeps():
    plan = AttentionPlan([[0, 16], [8, -8]], [[0.25, 0.0], [0.5, 1.0]], sink=4)
    (image,) = plot_spans(plan, length=64).images
    assert np.allclose(image.get_array() * 64, plan.kept(64).T)


def test_bits_are_those_of_the_plan_and_unnamed_layers_stay_whole():
    space = BitWidths(TENSORS, weight=(4, 8), activation=(4, 8), ranges=(500,))
    layers, kinds, table = bit_table(space, BitPlan(weight={"a": 4}, activation={"a": (8, 4), "b$": 8}, ranges=(500,)))
    assert layers == ["a", "b$"]
    assert kinds == ["weight", "input, steps 1/2", "input, steps 2/2"]
    assert table.tolist() == [[4, 16], [8, 8], [4, 8]]


def test_influence_is_the_difference_of_means_with_its_standard_error():
    rng = np.random.default_rng(0)
    rows = np.array([rng.permutation(6)[:2] for _ in range(400)])
    values = 3.0 * (rows == 2).any(axis=1) + rng.normal(size=400)
    influence, error = item_influence([2, 5], rows, values)
    has = (rows == 2).any(axis=1)
    from scipy import stats

    welch = stats.ttest_ind(values[has], values[~has], equal_var=False)
    assert influence[0] == pytest.approx(values[has].mean() - values[~has].mean())
    assert influence[0] / error[0] == pytest.approx(welch.statistic)
    assert abs(influence[1]) < 1


def test_an_item_that_every_candidate_has_has_no_influence_to_be_known():
    influence, error = item_influence([1], np.array([[0, 1], [1, 2]]), np.array([1.0, 2.0]))
    assert np.isnan(influence).all()
    assert np.isnan(error).all()
