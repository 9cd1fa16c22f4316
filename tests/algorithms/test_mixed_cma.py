"""Covariance matrix adaptation with margin on reals, whole numbers and categories together."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from searchlib import CatCMAwM, LocalSearch, Portfolio, Problem, search
from searchlib.algorithms import Evidence, Status
from searchlib.errors import InvalidSettings, MissingDependency, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import Binary, Categorical, Grouped, Integer, OneOf, Permutation, Product, Real, Subset
from searchlib.testing import check_algorithm

cmaes = pytest.importorskip("cmaes")

MIXED = Product(x=Real(0, 1, length=4), z=Integer(0, 7, length=4), c=Categorical(("a", "b", "c"), length=4))
NESTED = Product(
    a=Integer(1, 9, log=True), fixed=Categorical(("only",)), wide=Integer(1, 10**6, log=True), mask=Binary(2),
    rate=Real(1e-5, 1.0, log=True), point=Real(2.0, 2.0),
    layers=Grouped(Product(kind=Categorical((1, 2, 3)), depth=Integer(-4, 4)), groups=3),
)  # fmt: skip


def mixed(rows):
    """Couples every category with a real and a level; the least value is 0."""
    rows = np.asarray(rows, float)
    x, z, c = rows[:, :4], rows[:, 4:8], rows[:, 8:]
    wanted = 0.2 + 0.3 * c
    chained = (c != np.roll(c, 1, axis=1)).sum(axis=1)
    return 6 * ((x - wanted) ** 2).sum(axis=1) + (((z - 2 - c) / 3) ** 2).sum(axis=1) + (c != 2).sum(axis=1) + chained


def by_row(value):
    return float(mixed(MIXED.encode([value]))[0])


def evidence(ids, population, values, failed=None):
    failed = np.zeros(len(ids), bool) if failed is None else np.asarray(failed)
    values = np.where(failed[:, None], np.nan, np.asarray(values, float).reshape(-1, 1))
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    nothing = np.full(len(ids), np.nan)
    return Evidence(np.asarray(ids), population, values, status, nothing, np.full_like(values, np.nan))


def going(run, function, evaluations, batch=64):
    """Rows that a run evaluates, in their order."""
    rows = []
    while sum(map(len, rows)) < evaluations:
        asked = run.ask(batch)
        run.tell(evidence(asked.ids, asked.population, function(asked.population)))
        rows.append(asked.population)
    return np.concatenate(rows)[:evaluations]


def packages_own(seed, evaluations):
    """Rows that the package's own loop evaluates."""
    settings = {"x_space": [[0, 1]] * 4, "z_space": [range(8)] * 4, "c_space": [3] * 4}
    strategy = cmaes.CatCMAwM(**settings, seed=seed)
    rows = []
    while len(rows) < evaluations:
        drawn = [strategy.ask() for _ in range(strategy.population_size)]
        rows += [np.concatenate([one.x, one.z, one.c.argmax(axis=1)]) for one in drawn]
        strategy.tell(list(zip(drawn, mixed(rows[-len(drawn) :]).tolist(), strict=True)))
    return np.array(rows[:evaluations])


@pytest.mark.parametrize(
    "space",
    [
        Binary(12), Binary(1), Categorical(("a", "b", "c"), length=5), Integer(0, 20, length=3), Integer(3, 3),
        Real(-1.0, 1.0, length=3), Product(mask=Binary(6), rate=Real(0.0, 1.0)), NESTED,
        Grouped(Product(mask=Binary(3), rate=Real(0.0, 1.0)), groups=2),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(
    "algorithm", [CatCMAwM(), CatCMAwM(population=4, mean="middle", patience=2)], ids=["default", "small"]
)
def test_the_contract_holds(algorithm, space):
    check_algorithm(algorithm, space, rounds=14)


@pytest.mark.parametrize("batch", [64, 5, 1])
def test_it_is_the_package_step_by_step(batch):
    rng = np.random.default_rng(3)
    theirs = packages_own(int(np.random.default_rng(3).integers(2**31)), 300)
    ours = going(CatCMAwM().start(Problem(MIXED), rng), mixed, 300, batch)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("evaluations", [150, 400])
def test_it_is_no_worse_than_the_packages_own_loop_at_equal_evaluations(evaluations):
    seeds = range(16)
    theirs = [mixed(packages_own(seed, evaluations)).min() for seed in seeds]
    runs = [going(CatCMAwM().start(Problem(MIXED), np.random.default_rng(seed)), mixed, evaluations) for seed in seeds]
    ours = [mixed(rows).min() for rows in runs]
    random = [mixed(MIXED.sample(np.random.default_rng(seed), evaluations)).min() for seed in seeds]
    assert mannwhitneyu(ours, theirs, alternative="greater").pvalue > 0.05
    assert mannwhitneyu(ours, random, alternative="less").pvalue < 1e-3


def test_bits_alone_need_fewer_evaluations_than_in_the_packages_own_loop():
    """What is known already is not evaluated again, but still learned from."""
    weights = np.random.default_rng(5).normal(size=16)
    ours, theirs = [], []
    for seed in range(9):
        run = CatCMAwM().start(Problem(Binary(16)), np.random.default_rng(seed))
        ours.append((going(run, lambda rows: rows @ weights, 150) @ weights).min())
        strategy, values = cmaes.CatCMAwM(c_space=[2] * 16, seed=seed), []
        while len(values) < 150:
            drawn = [strategy.ask() for _ in range(strategy.population_size)]
            new = [float(one.c.argmax(axis=1) @ weights) for one in drawn]
            strategy.tell(list(zip(drawn, new, strict=True)))
            values += new
        theirs.append(min(values[:150]))
    assert np.mean(ours) <= np.mean(theirs)
    assert min(ours) == pytest.approx(np.minimum(weights, 0).sum())


def test_no_candidate_is_proposed_twice_and_small_spaces_are_exhausted():
    space = Product(c=Categorical(("a", "b"), length=3), z=Integer(0, 3))
    run, keys = CatCMAwM().start(Problem(space), np.random.default_rng(0)), []
    while len(asked := run.ask(5)):
        keys += row_keys(asked.population)
        run.tell(evidence(asked.ids, asked.population, asked.population.sum(axis=1)))
    assert len(keys) == len(set(keys)) == space.size == 32
    assert run.recommend(1).sum() == 0


def test_seeds_are_evaluated_first_and_the_distribution_starts_at_the_best_of_them():
    seeds = MIXED.encode([
        {"x": (0.9,) * 4, "z": (7,) * 4, "c": ("c",) * 4},
        {"x": (0.1,) * 4, "z": (0,) * 4, "c": ("a",) * 4},
    ])  # fmt: skip
    run = CatCMAwM(sigma=0.01).start(Problem(MIXED, seeds=seeds), np.random.default_rng(0))
    first = run.ask(64)
    np.testing.assert_array_equal(first.population, seeds)
    run.tell(evidence(first.ids, seeds, [2.0, 1.0]))
    rows = run.ask(64).population
    assert len(rows) >= 10
    assert np.abs(rows[:, :4] - 0.1).max() < 0.05
    assert (rows[:, 4:8] == 0).all()
    assert (rows[:, 8:] == 0).mean() > 0.5


def test_a_seed_that_failed_is_no_start():
    seeds = MIXED.encode([{"x": (0.9,) * 4, "z": (7,) * 4, "c": ("c",) * 4}])
    run = CatCMAwM(sigma=0.01).start(Problem(MIXED, seeds=seeds), np.random.default_rng(0))
    run.tell(evidence(run.ask(1).ids, seeds, [0.0], [True]))
    assert np.abs(run.ask(64).population[:, :4] - 0.5).max() < 0.05


def test_good_strangers_draw_the_distribution_towards_them():
    far = MIXED.encode([{"x": (0.95,) * 4, "z": (7,) * 4, "c": ("b",) * 4}])
    ends = []
    for strangers in (0, 3):
        run = CatCMAwM(sigma=0.3).start(Problem(MIXED), np.random.default_rng(0))
        for turn in range(5):
            asked = run.ask(64)
            run.tell(evidence(asked.ids, asked.population, 1 + mixed(asked.population)))
            rows = np.repeat(far, strangers, axis=0)
            run.tell(evidence(-1 - np.arange(strangers) - strangers * turn, rows, np.zeros(strangers)))
        ends.append(MIXED.distance(run.ask(64).population[:5], np.repeat(far, 5, axis=0)).mean())
    assert ends[1] < 0.8 * ends[0]


def test_failures_count_as_worst_and_are_never_recommended():
    run = CatCMAwM().start(Problem(MIXED), np.random.default_rng(0))
    for turn in range(40):
        asked = run.ask(64)
        bad = (asked.population[:, 0] > 0.5) | (turn == 0)  # half of the space does not work
        run.tell(evidence(asked.ids, asked.population, mixed(asked.population), bad))
    assert (run.recommend(8)[:, 0] <= 0.5).all()
    assert (run.ask(64).population[:, 0] <= 0.5).mean() > 0.6


def test_under_noise_the_mean_comes_first_and_is_better_than_the_luckiest_candidate():
    space, pairs = Product(x=Real(0, 1, length=8), c=Binary(2)), []

    def truth(rows):
        return 12 * ((rows[:, :8] - 0.35) ** 2).sum(axis=1) + (rows[:, 8:] == 0).sum(axis=1) / 2

    for seed in range(12):
        noise = np.random.default_rng([seed, 7])
        run = CatCMAwM().start(Problem(space, noisy=True), np.random.default_rng(seed))
        rows = going(run, lambda rows, noise=noise: truth(rows) + 3 * noise.normal(size=len(rows)), 400)
        pairs.append(truth(short := run.recommend(2)))
        assert row_keys(short[:1])[0] not in row_keys(rows)
    assert np.median(pairs, axis=0)[0] < 0.9 * np.median(pairs, axis=0)[1]


def test_without_noise_the_best_candidate_comes_first_and_then_the_mean():
    run = CatCMAwM().start(Problem(MIXED), np.random.default_rng(0))
    rows = going(run, mixed, 200)
    short = run.recommend(2)
    assert mixed(short)[0] == mixed(rows).min()
    assert row_keys(short)[1] not in row_keys(rows)


def test_after_convergence_it_starts_again_with_twice_the_population():
    run = CatCMAwM(population=6, patience=1).start(Problem(MIXED), np.random.default_rng(0))
    batches = []
    while sum(batches) < 120:
        asked = run.ask(1000)
        batches.append(len(asked))
        run.tell(evidence(asked.ids, asked.population, np.zeros(len(asked))))  # nothing ever improves
    assert batches[:2] == [6, 6]
    assert sorted(set(batches)) == [6, 12, 24, 48]
    assert run.notes()["restarts"] == 3


def test_it_takes_turns_with_others():
    result = search(by_row, Portfolio((CatCMAwM(), LocalSearch())), space=MIXED, budget=300, batch_size=4)
    shares = [member["candidates"] for member in result.notes["portfolio"]]
    assert sum(shares) == 300
    assert min(shares) >= 30
    assert result.value < 2


def test_every_gene_of_a_nested_space_moves_within_its_bounds():
    rows = going(CatCMAwM().start(Problem(NESTED), np.random.default_rng(0)), lambda rows: rows[:, 0], 200)
    assert NESTED.contains(rows).all()
    moved = np.array([len(np.unique(column)) for column in rows.T])
    assert (moved[[1, 6]] == 1).all()  # the lone option and the lone number
    assert (np.delete(moved, [1, 6]) > 1).all()
    assert rows[-50:, 0].mean() < rows[:50, 0].mean()


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (Subset(8, k=3), "Subset"), (Permutation(4), "Permutation"),
        (Product(x=Real(0, 1), y=Grouped(Subset(8, k=3), groups=2)), "Subset"),
        (Product(x=OneOf(a=Real(0, 1), b=Binary(3))), "OneOf"),
    ],
    ids=repr,
)  # fmt: skip
def test_parts_of_other_kinds_are_refused_by_name(space, name):
    with pytest.raises(MissingOperator, match=f"has a part of {name}"):
        CatCMAwM().start(Problem(space), np.random.default_rng(0))


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), CatCMAwM(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(MissingDependency, match=r"searchlib\[cma\]"):
        search(sum, CatCMAwM(), space=Binary(4), budget=3)


def test_numpys_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    search(by_row, CatCMAwM(), space=MIXED, budget=60)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_study_rebuilds_the_settings():
    settings = CatCMAwM(sigma=0.5, population=8, patience=float("inf"))
    assert eval(repr(settings), {"CatCMAwM": CatCMAwM, "inf": float("inf")}) == settings


@pytest.mark.parametrize(("name", "value"), [
    ("sigma", 0), ("sigma", float("nan")), ("sigma", float("inf")), ("population", 3), ("mean", "worst"),
    ("patience", 0), ("archive", 0),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        CatCMAwM(**{name: value})
