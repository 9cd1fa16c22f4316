import itertools

import numpy as np
import pytest

from searchlib.algorithms.dependency_tree import DependencyTree
from searchlib.algorithms.level_switch import LevelSwitch
from searchlib.algorithms.linear_model import LinearModel
from searchlib.algorithms.on_off_scores import OnOffScores
from searchlib.spaces import Allocation, Binary, Categorical, ExpertSubsets, Grouped, Product, Subset

MODES = Categorical(("a", "b", "c"))


@pytest.mark.parametrize(
    ("space", "variable"),
    [
        (Binary(3), [0, 1, 2]),
        (Categorical(("a", "b", "c"), length=2), [0, 0, 0, 1, 1, 1]),
        (Subset(5, k=2), [0, 1, 2, 3, 4]),
        (Subset(4, k=1), [0, 0, 0, 0]),
        (Product(mask=Binary(2), mode=MODES, kept=Subset(3, k=2)), [0, 1, 2, 2, 2, 3, 4, 5]),
        (Grouped(Product(bit=Binary(1), mode=MODES), groups=2), [0, 1, 1, 1, 2, 3, 3, 3]),
        (ExpertSubsets(layers=2, experts=4, keep=2, groups=2), [0, 1, 2, 3, 4, 5, 6, 7]),
        (Allocation(("q", "k"), (2, 4, 8), costs=(((2, 4, 8),) * 2,), budgets=(12.0,)), [0, 0, 0, 1, 1, 1]),
    ],
    ids=repr,
)
def test_the_options_of_a_gene_are_one_variable(space, variable):
    structure = OnOffScores(space, "it")
    assert structure.variable.tolist() == variable
    counts = np.bincount(variable)
    assert structure.single.tolist() == [bool(counts[number] == 1) for number in variable]


def test_scores_come_back_as_the_rows_they_were_read_from():
    space = Product(mask=Binary(2), mode=MODES, kept=Subset(4, k=2))
    structure, rows = OnOffScores(space, "it"), space.sample(np.random.default_rng(1), 50)
    assert np.array_equal(structure.rows(np.where(structure.of(rows), 3.0, -3.0)), space.canonical(rows))


def test_the_tree_is_the_one_of_all_trees_with_the_most_mutual_information():
    """Against every spanning tree of five variables (Prüfer sequences), on a noisy chain in shuffled order."""
    rng = np.random.default_rng(0)
    chain = np.cumsum(rng.random((4000, 5)) < 0.15, axis=1) % 2 == 1
    on = chain[:, [3, 0, 4, 1, 2]]
    tree = DependencyTree(OnOffScores(Binary(5), "it"), on, on.mean(axis=0).clip(0.01, 0.99))
    information = np.zeros((5, 5))
    for i, j, a, b in itertools.product(range(5), range(5), (False, True), (False, True)):
        both = ((on[:, i] == a) & (on[:, j] == b)).mean()
        information[i, j] += both * np.log(both / ((on[:, i] == a).mean() * (on[:, j] == b).mean())) if both else 0
    links = [(child, parent) for child, parent in enumerate(tree.parents.tolist()) if parent >= 0]
    best = max(
        sum(information[edge] for edge in edges)
        for edges in itertools.combinations(itertools.combinations(range(5), 2), 4)
        if spans(edges)
    )
    assert len(links) == 4
    assert sum(information[link] for link in links) == pytest.approx(best)


def spans(edges):
    parts = [{node} for node in range(5)]
    for first, second in edges:
        one, other = (next(part for part in parts if node in part) for node in (first, second))
        if one is other:
            return False
        parts = [part for part in parts if part is not one and part is not other] + [one | other]
    return len(parts) == 1


def test_samples_of_the_tree_depend_on_each_other_as_the_observations_do():
    space, rng = Product(mode=MODES, bit=Binary(1)), np.random.default_rng(0)
    modes = rng.integers(3, size=3000)
    rows = np.stack([modes, (modes == 1) ^ (rng.random(3000) < 0.1)], axis=1)
    structure = OnOffScores(space, "it")
    on = structure.of(rows)
    drawn = structure.rows(DependencyTree(structure, on, on.mean(axis=0)).draw(rng, 3000))
    for mode, bit in itertools.product(range(3), range(2)):
        share = ((rows[:, 0] == mode) & (rows[:, 1] == bit)).mean()
        assert ((drawn[:, 0] == mode) & (drawn[:, 1] == bit)).mean() == pytest.approx(share, abs=0.03)


def test_independent_variables_are_not_linked():
    rng = np.random.default_rng(0)
    on = rng.random((200, 2)) < 0.5
    tree = DependencyTree(OnOffScores(Binary(2), "it"), on, np.full(2, 0.5))
    assert tree.parents.tolist() == [-1, -1]


def test_the_linear_model_is_ridge_regression_whatever_the_batches():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=40)
    model = LinearModel(6, ridge=2.0)
    for part in np.split(np.arange(40), [1, 8, 9, 30]):
        model.add(x[part], y[part])
    model.add(x[:0], y[:0])
    design = np.column_stack([x, np.ones(40)])
    penalty = 2.0 * np.diag([*np.ones(6), 1e-4])
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ (y - y[0]))
    assert np.allclose(model.slopes, solution[:-1])
    assert np.allclose(model.predict(x), design @ solution + y[0])


@pytest.mark.parametrize("budget", [2.0 * 6, 25.0, 40.0])
def test_level_switches_stay_within_budgets_and_move_neighboring_levels_only(budget):
    options = (2, 8, 4)  # not in the order of their costs
    space = Allocation(tuple("abcdef"), options, costs=((options,) * 6,), budgets=(budget,))
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 500)
    changed = LevelSwitch(space)(rng, rows)
    assert space.contains(changed).all()
    if space.size > 1:
        assert (changed != rows).any(axis=1).all()
    level = np.array([0, 2, 1])  # of every option
    steps = level[changed] - level[rows]
    switched = (np.abs(steps) <= 1).all(axis=1)
    switched &= ((steps == 1).sum(axis=1) <= 1) & ((steps == -1).sum(axis=1) <= 1)
    assert switched.mean() > 0.9  # the others found no room and mutated as the space does
