import numpy as np
import pytest

from searchlib import Evolution, Pool, Problem, RandomSearch, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import Binary, Permutation, Real, Subset


def test_no_candidate_is_proposed_twice():
    result = search(sum, Evolution(population=10, offspring=7), space=Binary(7), budget=128, direction="maximize")
    assert len(set(row_keys(result.history.population))) == len(result.history) == 128


def test_a_small_space_is_exhausted_and_its_optimum_found():
    result = search(sum, Evolution(), space=Subset(6, k=3), budget=1000, direction="maximize")
    assert len(result.history) == 20
    assert result.best == (3, 4, 5)
    assert result.outcome.name == "EXHAUSTED"


@pytest.mark.parametrize("seed", range(3))
def test_it_beats_random_search_on_a_planted_subset(seed):
    weights = np.random.default_rng(seed).normal(size=40)

    def gain(kept):
        return float(weights[list(kept)].sum())

    ours = search(gain, Evolution(), space=Subset(40, k=12), budget=400, seed=seed, direction="maximize")
    blind = search(gain, RandomSearch(), space=Subset(40, k=12), budget=400, seed=seed, direction="maximize")
    best = float(np.sort(weights)[-12:].sum())
    assert ours.value > blind.value
    assert ours.value > 0.9 * best


def test_seeds_are_evaluated_first_and_once():
    seeds = [(1, 1, 0, 0, 0, 0), (0, 0, 1, 1, 0, 0), (1, 1, 0, 0, 0, 0)]
    result = search(sum, Evolution(population=4), space=Binary(6), budget=12, seeds=seeds)
    first = [tuple(int(gene) for gene in row) for row in result.history.population[:3]]
    assert first[:2] == seeds[:2]
    assert first[2] not in seeds


def test_one_child_per_look_is_steady_state():
    problem = Problem(Binary(10), batch_size=8)
    run = Evolution(population=2, offspring=1).start(problem, np.random.default_rng(0))
    assert len(run.ask(8)) == 2
    # nothing has been told yet: there are no parents, so it samples one at a time
    assert len(run.ask(8)) == 1


def test_equal_values_leave_no_trace_of_order():
    """On a plateau every member is as likely a parent as any other: late candidates breed too."""
    run = Evolution(population=64, offspring=400, crossover_rate=0.0, mutation_pool=Pool(at_least=1)).start(
        Problem(Permutation(8), batch_size=400), np.random.default_rng(0)
    )
    parents = run.ask(64)
    space = Permutation(8)
    from searchlib.testing.algorithm import _evidence  # the evidence of a plateau

    run.tell(_evidence(parents.ids, parents.population, np.zeros((64, 1)), np.zeros(64, bool)))
    children = run.ask(400).population
    nearest = np.array([
        np.argmin(space.distance(np.repeat(child[None], 64, axis=0), parents.population)) for child in children
    ])  # fmt: skip
    assert len(set(nearest.tolist())) > 40


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), Evolution(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


@pytest.mark.parametrize(
    ("name", "value"), [("population", 0), ("offspring", 0), ("archive", 0), ("crossover_rate", 1.5)]
)
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        Evolution(**{name: value})
