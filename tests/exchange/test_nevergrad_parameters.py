import pickle

import numpy as np
import pytest

from searchlib import Nevergrad, Problem, spaces
from searchlib.errors import InvalidCandidate

nevergrad = pytest.importorskip("nevergrad")
to_nevergrad = pytest.importorskip("searchlib.algorithms.nevergrad_parameters").to_nevergrad

SPACES = [
    spaces.Subset(8, k=3),
    spaces.Permutation(5),
    spaces.Simplex(3),
    spaces.Product(rate=spaces.Real(1e-3, 1.0, log=True), solver=spaces.Categorical(("euler", "heun"))),
    spaces.OneOf(prune=spaces.Subset(8, k=2), quantize=spaces.Integer(2, 8)),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_every_value_is_a_candidate_and_setting_one_gives_it_back(space):
    parameter = space.to_nevergrad()
    parameter.random_state.seed(0)
    met = set()
    for _ in range(30):
        child = parameter.sample()
        assert space.contains(space.encode([child.value])).all()
        met.add(repr(child.value))
        again = parameter.spawn_child(new_value=child.value)
        np.testing.assert_allclose(space.encode([again.value]), space.encode([child.value]))
    assert len(met) > 3


def test_an_optimizer_finds_the_best_candidate_of_a_subset():
    optimizer = nevergrad.optimizers.TwoPointsDE(to_nevergrad(spaces.Subset(8, k=3)), budget=300)
    optimizer.parametrization.random_state.seed(1)
    assert optimizer.minimize(lambda kept: -float(sum(kept))).value == (5, 6, 7)


def test_it_proposes_what_the_same_optimizer_proposes_in_our_loop():
    space, rng = spaces.Subset(8, k=3), np.random.default_rng(5)
    run = Nevergrad("TwoPointsDE").start(Problem(space, evaluations=40, batch_size=1), rng)
    ours = [space.decode(run.ask(1).population[0]) for _ in range(20)]
    parameter = to_nevergrad(space)
    parameter.random_state = np.random.RandomState(np.random.default_rng(5).integers(2**32, dtype=np.uint32))
    optimizer = nevergrad.optimizers.TwoPointsDE(parameter, 40, num_workers=1)
    assert [optimizer.ask().value for _ in range(20)] == ours
    assert len(set(ours)) > 10


def test_it_is_a_part_of_a_larger_parametrization():
    whole = nevergrad.p.Instrumentation(to_nevergrad(spaces.Permutation(3)), rate=nevergrad.p.Log(lower=0.01, upper=1))
    args, settings = whole.sample().value
    assert sorted(args[0]) == [0, 1, 2]
    assert 0.01 <= settings["rate"] <= 1


def test_a_copy_on_another_worker_means_the_same():
    parameter = to_nevergrad(spaces.Subset(8, k=3)).sample()
    assert pickle.loads(pickle.dumps(parameter)).value == parameter.value
    assert parameter.copy().value == parameter.value


def test_what_is_no_candidate_is_refused():
    parameter = to_nevergrad(spaces.Subset(8, k=3))
    with pytest.raises(InvalidCandidate):
        parameter.value = (1, 2)
