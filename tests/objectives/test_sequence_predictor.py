import sys
import time

import numpy as np
import pytest
from scipy.stats import kendalltau

torch = pytest.importorskip("torch")

from searchlib import PredictorGuided, search  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import SequencePredictor  # noqa: E402
from searchlib.spaces import Categorical  # noqa: E402

STEPS, KINDS = 6, 3


def schedules(n, seed, masked=False):
    """Sequences of one-hot kinds (and a mask, and two features of the whole) whose value depends on their order."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(KINDS, size=(n, STEPS))
    active = np.arange(STEPS) < rng.integers(3, STEPS + 1, size=(n, 1)) if masked else np.ones((n, STEPS), bool)
    worth = np.random.default_rng(99).normal(size=(KINDS, KINDS))
    pairs = worth[kinds[:, :-1], kinds[:, 1:]] * (active[:, :-1] & active[:, 1:])
    whole = rng.normal(size=(n, 2))
    values = (pairs * np.linspace(1, 2, STEPS - 1)).sum(axis=1) + 0.5 * whole[:, 0]
    steps = np.eye(KINDS)[kinds] * active[:, :, None]
    if masked:
        steps = np.concatenate([steps, active[:, :, None]], axis=2)
    return np.concatenate([steps.reshape(n, -1), whole], axis=1), values


@pytest.mark.parametrize("masked", [False, True])
def test_it_ranks_schedules_that_it_has_not_seen(masked):
    predictor = SequencePredictor(
        steps=STEPS, features_per_step=KINDS + masked, mask=KINDS if masked else None, iterations=120
    )
    features, values = schedules(300, 0, masked)
    start = time.process_time()
    fitted = predictor.fit(features, values, np.random.default_rng(0))
    assert time.process_time() - start < 10  # a training per stage must be affordable
    unseen, truth = schedules(300, 1, masked)
    assert kendalltau(fitted.predict(unseen), truth).statistic > 0.5


def test_what_an_inactive_step_holds_changes_nothing_and_where_it_lies_neither():
    predictor = SequencePredictor(steps=STEPS, features_per_step=KINDS + 1, mask=KINDS, iterations=5)
    features, values = schedules(50, 0, masked=True)
    fitted = predictor.fit(features, values, np.random.default_rng(0))
    steps = features[:, :-2].reshape(50, STEPS, KINDS + 1)
    filled = steps.copy()
    filled[:, :, :KINDS] += 7.0 * (1 - steps[:, :, KINDS:])
    shifted = np.stack([np.concatenate([row[row[:, KINDS] == 0], row[row[:, KINDS] == 1]]) for row in steps])
    assert (shifted != steps).any()
    assert (filled != steps).any()
    expected = fitted.predict(features)
    assert np.ptp(expected) > 0
    for other in (filled, shifted):
        rows = np.concatenate([other.reshape(50, -1), features[:, -2:]], axis=1)
        np.testing.assert_allclose(fitted.predict(rows), expected, rtol=1e-5, atol=1e-6)


def test_the_lstm_and_the_normalized_mean_are_those_of_plain_torch():
    predictor = SequencePredictor(steps=STEPS, features_per_step=KINDS, iterations=1)
    features, values = schedules(20, 0)
    fitted = predictor.fit(features, values, np.random.default_rng(0))
    network = fitted._network
    steps, _, whole = fitted._tensors(features)
    with torch.no_grad():
        scores = []
        for row, rest in zip(steps, whole, strict=True):
            hidden, outputs = None, []
            for step in row:  # one step at a time
                out, hidden = network.recur(network.embed(step)[None, None], hidden)
                outputs.append(out[0, 0] / out[0, 0].norm())
            mean = torch.stack(outputs).mean(dim=0)
            scores.append(network.head(torch.cat([mean / mean.norm(), rest])))
    np.testing.assert_allclose(fitted.predict(features), torch.cat(scores).numpy(), rtol=1e-4, atol=1e-6)


def test_the_generator_alone_decides_it_and_torch_is_left_as_it_was():
    predictor = SequencePredictor(steps=STEPS, features_per_step=KINDS, iterations=20)
    features, values = schedules(60, 0)
    features.flags.writeable = values.flags.writeable = False
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, again, other = (
        predictor.fit(features, values, np.random.default_rng(seed)).predict(features) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_it_guides_a_search():
    """One-hot features of a categorical are a sequence of steps as they are."""
    space = Categorical(("a", "b", "c"), length=5)
    worth = {"a": 0.0, "b": 1.0, "c": 2.0}
    predictor = SequencePredictor(steps=5, features_per_step=space.features(space.sample(np.random.default_rng(0), 1))
                                  .shape[1] // 5, iterations=20)  # fmt: skip
    result = search(
        lambda kinds: sum(i * worth[kind] for i, kind in enumerate(kinds)),
        PredictorGuided(predictor=predictor, stage=10), space=space, budget=44, direction="maximize",
    )  # fmt: skip
    assert len(result.notes["stages"]) >= 2
    assert result.value >= 18


def test_a_space_with_too_few_features_is_refused_before_anything_is_evaluated():
    def never(value):
        raise AssertionError("this must not be evaluated")

    with pytest.raises(InvalidSettings, match=r"4 steps of 9 features take 36, but the space gives"):
        search(never, PredictorGuided(predictor=SequencePredictor(steps=4, features_per_step=9)),
               space=Categorical(("a", "b"), length=4), budget=5)  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [
    ("steps", 0), ("features_per_step", 1.5), ("mask", 3), ("hidden", 0), ("iterations", 0), ("rate", 0),
    ("margin", -1), ("quantile", 1), ("batch", 0),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        SequencePredictor(**{"steps": 2, "features_per_step": 3, name: value})


def test_without_torch_the_extra_is_named(monkeypatch):
    from searchlib.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "searchlib.objectives.sequence_predictor")
    import searchlib.objectives

    # A package keeps the names that it has loaded once.
    monkeypatch.delattr(searchlib.objectives, "SequencePredictor", raising=False)
    with pytest.raises(MissingDependency, match=r"SequencePredictor needs torch: pip install 'searchlib\[diffusion\]'"):
        searchlib.objectives.SequencePredictor  # noqa: B018
