import itertools

import numpy as np
import pytest

from searchlib import AdditiveProfile
from searchlib.errors import InvalidSettings
from searchlib.spaces import Allocation

BITS = (2, 4, 8)


def small_space(parts=6, budget=24, **limits):
    return Allocation(tuple(f"layer {i}" for i in range(parts)), BITS, [[BITS] * parts], [budget], **limits)


def random_profile(space, seed=0, **fields):
    rng = np.random.default_rng(seed)
    loss = -np.sort(-rng.exponential(size=space.allowed_array.shape), axis=1)
    return AdditiveProfile.of(space, loss - loss[:, -1:], base=[2] * len(space.parts), **fields)


@pytest.mark.parametrize("limits", [{}, {"groups": (0, 0, 0, 1, 1, 1), "max_distinct": 2}, {"max_distinct": 1}])
@pytest.mark.parametrize("seed", range(3))
def test_the_allocation_is_that_of_brute_force(limits, seed):
    space = small_space(**limits)
    profile = random_profile(space, seed)
    rows = np.array(list(itertools.product(range(3), repeat=6)), np.int16)
    rows = rows[space.contains(rows)]
    found = profile.allocate(method="milp")
    assert len(rows) > 1
    assert found.loss == pytest.approx(profile.loss_of(rows).min())
    assert space.contains(found.choice[None])[0]


def test_a_front_falls_with_the_budget_and_holds_no_dominated_allocation():
    profile = random_profile(small_space())
    front = profile.front(9)
    losses, costs = [found.loss for found in front], [found.cost[0] for found in front]
    assert len(front) > 4
    assert losses == sorted(losses, reverse=True)
    assert costs == sorted(costs)
    assert losses[-1] == 0
    assert [found.cost[0] for found in profile.front([[12], [48]])] == [12, 48]


def test_metrics_are_decoupled_by_weights_that_differ_from_part_to_part():
    quality, alignment = [[4.0, 0], [4.0, 0]], [[1.0, 0], [1.0, 0]]
    profile = AdditiveProfile([quality, alignment], [[[1, 2]] * 2], [3], metrics=("quality", "alignment"),
                              error=np.full((2, 2, 2), 0.3))  # fmt: skip
    decoupled = profile.combined({"quality": [0.0, 1.0], "alignment": [2.0, 0.0]})
    assert decoupled.loss[0].tolist() == [[2, 0], [4, 0]]
    assert decoupled.errors[0] == pytest.approx(np.array([[0.6, 0.6], [0.3, 0.3]]))
    assert decoupled.allocate().choice.tolist() == [0, 1]
    with pytest.raises(InvalidSettings, match="say how much each metric counts"):
        profile.allocate()
    with pytest.raises(InvalidSettings, match="no metric 'speed'"):
        profile.combined({"speed": 1.0})


def test_the_monotone_projection_is_the_nearest_monotone_table_and_nearer_to_the_truth():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    true = -np.sort(-rng.exponential(size=(40, 6)), axis=1)
    true -= true[:, -1:]
    error = rng.uniform(0.05, 0.6, true.shape)
    error[:, -1] = 0
    noisy = true + error * rng.standard_normal(true.shape)
    costs = np.tile(np.arange(6.0), (40, 1))[None]
    profile = AdditiveProfile(noisy, costs, [80.0], error=error, base=[5] * 40)
    monotone = profile.monotone()
    assert (np.diff(monotone.loss[0], axis=1) <= 1e-12).all()
    assert (monotone.loss[0, :, -1] == 0).all()
    for part in range(40):
        weights = np.where(error[part] > 0, error[part], 1e-9) ** -2
        expected = IsotonicRegression(increasing=False).fit(np.arange(6), noisy[part], weights).predict(np.arange(6))
        assert monotone.loss[0, part] == pytest.approx(expected, abs=1e-5)
    assert np.square(monotone.loss[0] - true).sum() < 0.8 * np.square(noisy - true).sum()


def test_reliable_entries_stand_out_of_their_noise():
    profile = AdditiveProfile([[1.0, 0.2, 0.0]], [], [], error=[[0.3, 0.1, np.nan]])
    assert profile.reliable().tolist() == [[[True, False, False]]]
    assert profile.reliable(1.5).tolist() == [[[True, True, False]]]


def test_a_saved_profile_is_loaded_without_pickle(tmp_path):
    space = small_space(groups=(0, 0, 0, 1, 1, 1), max_distinct=2)
    profile = random_profile(space, error=np.ones((6, 3)), metrics=("mse",))
    profile.save(tmp_path / "profile.npz")
    loaded = AdditiveProfile.load(tmp_path / "profile.npz")
    assert loaded.digest == profile.digest
    assert repr(loaded) == repr(profile)
    assert loaded.part_names == space.part_names
    assert loaded.allocate().choice.tolist() == profile.allocate().choice.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": [1.0]}, "loss must have shape"),
        ({"loss": [[np.nan, 1]]}, "every loss must be a number"),
        ({"loss": [[np.inf, np.inf]]}, "every part needs an option"),
        ({"costs": [[[1, 2, 3]]]}, "costs must have shape"),
        ({"error": [[1.0]]}, "error must have shape"),
        ({"metrics": ("a", "b")}, "metrics must be 1 distinct names"),
    ],
)
def test_tables_that_do_not_fit_are_refused(fields, message):
    given = {"loss": [[1.0, 0]], "costs": [[[1, 2]]], "budgets": [2]} | fields
    with pytest.raises(InvalidSettings, match=message):
        AdditiveProfile(given.pop("loss"), given.pop("costs"), given.pop("budgets"), **given)


def test_weights_may_be_numbers_and_arrays_in_one_sequence():
    both = AdditiveProfile([[[4.0, 0.0]] * 2, [[1.0, 0.0]] * 2], [], [], metrics=("quality", "alignment"))
    assert both.combined([0.5, [1.0, 2.0]]).loss.tolist() == [[[3.0, 0.0], [4.0, 0.0]]]
    with pytest.raises(InvalidSettings, match="a weight must be a number"):
        both.combined([0.5, [1.0, 2.0, 3.0]])


@pytest.mark.parametrize("base", [[3, 0], [-1, 0], [1, 0]])
def test_a_base_that_is_no_option_of_its_part_is_refused(base):
    with pytest.raises(InvalidSettings, match="base must hold an option of finite loss"):
        AdditiveProfile([[1.0, np.inf, 0.0], [1.0, 0.5, 0.0]], [[BITS] * 2], [12], base=base)


def test_a_profile_without_budgets_has_no_order_to_be_monotone_in():
    with pytest.raises(InvalidSettings, match="0 budgets"):
        AdditiveProfile([[1.0, 0.0]], [], []).monotone()


def test_a_front_of_which_no_budget_has_an_allocation_says_why():
    profile = AdditiveProfile([[1.0, np.inf], [np.inf, 1.0]], [[[1, 2]] * 2], [4], max_distinct=1)
    with pytest.raises(InvalidSettings, match="max_distinct"):
        profile.front(3)


def test_a_file_that_is_no_profile_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no profile")
    np.savez(tmp_path / "other.npz", loss=np.zeros((1, 2)))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(InvalidSettings, match="holds no profile"):
            AdditiveProfile.load(tmp_path / name)
