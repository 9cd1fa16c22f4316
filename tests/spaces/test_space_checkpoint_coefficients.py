from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dct

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import CheckpointCoefficients

K = 12
SPACE = CheckpointCoefficients(K)


def test_the_ema_row_is_what_a_running_average_over_the_checkpoints_gives():
    weights = np.random.default_rng(0).standard_normal((K, 5))
    decay, average = 0.8, np.zeros(5)
    for theta in weights:
        average = decay * average + (1 - decay) * theta
    debiased = average / (1 - decay**K)  # as Adam does; the row sums to one
    np.testing.assert_allclose(SPACE.ema(decay) @ weights, debiased, rtol=1e-12)


def test_the_ends_of_the_ema_are_the_last_checkpoint_and_the_uniform_average():
    np.testing.assert_array_equal(SPACE.ema(0), SPACE.last())
    np.testing.assert_allclose(SPACE.ema(1), SPACE.average())
    assert SPACE.last().tolist() == [0.0] * (K - 1) + [1.0]


def test_a_window_averages_the_newest_checkpoints():
    weights = np.random.default_rng(0).standard_normal((K, 5))
    np.testing.assert_allclose(SPACE.average(window=3) @ weights, weights[-3:].mean(axis=0))


def test_the_first_population_holds_every_baseline_once():
    rows, baselines = SPACE.seed_population(), SPACE.baselines()
    assert SPACE.contains(rows).all()
    assert len(np.unique(rows, axis=0)) == len(rows) == len(baselines)
    assert {"last", "average", "average of last 6", "average of last 3", "EMA 0.5", "EMA 0.9"} <= baselines.keys()


def test_a_single_checkpoint_has_a_single_candidate():
    space = CheckpointCoefficients(1, blocks=2)
    assert space.size == 1
    assert space.seed_population().tolist() == [[1.0, 1.0]]
    assert space.features(space.seed_population()).shape == (1, 0)


def test_baselines_are_the_same_in_every_block():
    space = CheckpointCoefficients(K, blocks=3)
    for name, row in space.baselines().items():
        np.testing.assert_array_equal(space.by_block(row)[0], [SPACE.baselines()[name]] * 3)


def test_a_mutation_moves_a_quarter_of_the_coefficients_and_shifts_the_others_alike():
    space = CheckpointCoefficients(40)
    parents = np.tile(space.average(), (2000, 1))
    step = space.mutate(np.random.default_rng(0), parents) - parents
    common = np.median(step, axis=1, keepdims=True)  # what the projection does to all
    moved = np.abs(step - common) > 1e-12
    assert moved.mean() == pytest.approx(0.25, abs=0.01)
    assert (step - common)[moved].std() == pytest.approx(0.065, rel=0.02)
    assert np.abs(step.sum(axis=1)).max() < 1e-12


def test_a_mutation_leaves_most_blocks_as_they_are():
    space = CheckpointCoefficients(K, blocks=8)
    parents = space.sample(np.random.default_rng(0), 2000)
    changed = (space.by_block(space.mutate(np.random.default_rng(1), parents)) != space.by_block(parents)).any(axis=2)
    assert changed.any(axis=1).all()
    # One of 8 on average, given at least one.
    assert changed.sum(axis=1).mean() == pytest.approx(1 / (1 - (7 / 8) ** 8), rel=0.05)


def test_a_mixed_child_has_every_coefficient_from_a_parent_up_to_a_common_shift():
    space = CheckpointCoefficients(K, mix_rate=1)
    first, second = space.sample(np.random.default_rng(0), 2000).reshape(2, 1000, K)
    child = space.crossover(np.random.default_rng(1), first, second)
    # The shift is unknown: of both differences of neighbors, one parent's must be met where both come from it.
    gap = np.diff(child, axis=1)
    met = np.isclose(gap, np.diff(first, axis=1)) | np.isclose(gap, np.diff(second, axis=1))
    assert met.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(child.sum(axis=1), 1, atol=1e-9)


def test_another_child_lies_on_the_line_between_its_parents():
    space = CheckpointCoefficients(K, mix_rate=0)
    first, second = space.sample(np.random.default_rng(0), 200).reshape(2, 100, K)
    child = space.crossover(np.random.default_rng(1), first, second)
    share = ((child - first) * (second - first)).sum(axis=1) / ((second - first) ** 2).sum(axis=1)
    assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_allclose(child, first + share[:, None] * (second - first), atol=1e-12)


@pytest.mark.parametrize("space", [SPACE, CheckpointCoefficients(K, 3)], ids=["one block", "three blocks"])
def test_the_relaxation_is_the_discrete_cosine_transform_without_its_constant(space):
    rows = space.sample(np.random.default_rng(0), 10)
    expected = dct(space.by_block(rows), type=2, norm="ortho", axis=2)[..., 1:]
    decay = 1 / (1 + np.arange(1, K))
    got = space.to_latent(rows).reshape(expected.shape)
    ratio = got * decay / expected  # one number, the unit
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-6)


def test_the_relaxation_starts_at_the_uniform_average_and_is_linear():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, SPACE.latent_dimension))
    zero = SPACE.from_latent(np.zeros_like(a))
    np.testing.assert_allclose(zero[0], SPACE.average())
    apart = (SPACE.from_latent(a) - zero) + 2 * (SPACE.from_latent(b) - zero)
    np.testing.assert_allclose(SPACE.from_latent(a + 2 * b) - zero, apart, atol=1e-12)


@pytest.mark.parametrize(("smoothness", "spread"), [(1, None), (0, None), (3, 0.5)])
def test_standard_normal_coordinates_give_coefficients_of_the_spread(smoothness, spread):
    space = CheckpointCoefficients(K, smoothness=smoothness, spread=spread)
    rows = space.from_latent(np.random.default_rng(0).standard_normal((20_000, space.latent_dimension)))
    assert np.sqrt(((rows - 1 / K) ** 2).mean()) == pytest.approx(spread or 1 / K, rel=0.02)


def test_a_smooth_relaxation_gives_neighbors_like_coefficients_and_a_white_one_does_not():
    def neighbors(smoothness):
        space = CheckpointCoefficients(K, smoothness=smoothness)
        step = space.from_latent(np.random.default_rng(0).standard_normal((5000, K - 1))) - 1 / K
        return (step[:, 1:] * step[:, :-1]).sum() / (step**2).sum()

    assert neighbors(0) == pytest.approx(-1 / K, abs=0.02)  # only the fixed sum correlates them
    assert neighbors(1) > 0.4
    assert neighbors(2) > 0.7


@pytest.mark.parametrize(
    ("settings", "offender"),
    [
        ({"checkpoints": 0}, "checkpoints=0"),
        ({"checkpoints": 3, "blocks": 1.5}, "blocks=1.5"),
        ({"checkpoints": 3, "element_rate": 0}, "element_rate=0"),
        ({"checkpoints": 3, "scale": -1}, "scale=-1"),
        ({"checkpoints": 3, "mix_rate": 2}, "mix_rate=2"),
        ({"checkpoints": 3, "spread": 0}, "spread=0"),
        ({"checkpoints": 3, "smoothness": -0.5}, "smoothness=-0.5"),
        ({"checkpoints": 3, "smoothness": 9}, "smoothness=9"),
    ],
)
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=offender):
        CheckpointCoefficients(**settings)


def test_a_window_or_a_rate_that_cannot_be_meant_is_printed():
    with pytest.raises(InvalidSettings, match="window=13"):
        SPACE.average(window=13)
    with pytest.raises(InvalidSettings, match=r"decay=1\.5"):
        SPACE.ema(1.5)


@pytest.mark.parametrize("value", [(0.5, 0.6), (1.0,), ((0.5, 0.5),), (2000.0, -1999.0)])
def test_a_value_of_one_block_is_a_tuple_of_coefficients_that_sum_to_one(value):
    with pytest.raises(InvalidCandidate, match=r"values\[0\]"):
        CheckpointCoefficients(2).encode([value])


@pytest.mark.parametrize("value", [(0.5, 0.5, 0.5, 0.5), ((0.5, 0.5),), ((1.0, 0.0), (0.5, 0.6))])
def test_a_value_of_many_blocks_is_a_tuple_of_such_tuples(value):
    with pytest.raises(InvalidCandidate, match=r"values\[0\]"):
        CheckpointCoefficients(2, blocks=2).encode([value])
