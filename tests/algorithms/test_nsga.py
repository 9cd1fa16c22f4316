"""NSGA-II and NSGA-III: the contract on every kind of space, pymoo's survivors, pymoo's results."""

import numpy as np
import pytest

from searchlib import NSGA2, NSGA3, RandomSearch, Search, search
from searchlib.algorithms.algorithm import Evidence, Problem, Status
from searchlib.algorithms.nsga2 import _RankAndCrowding
from searchlib.algorithms.nsga3 import _ReferenceDirections, reference_directions
from searchlib.errors import InvalidSettings
from searchlib.hypervolume import hypervolume
from searchlib.pareto import crowding, dominance_ranks, nondominated
from searchlib.space import row_keys
from searchlib.spaces import Binary, ExemplarSets, ExpertMerges, Permutation, Product, Real, Simplex, Subset
from searchlib.testing import check_algorithm

BOTH = pytest.mark.parametrize("algorithm", [NSGA2(population=6), NSGA3(population=6)], ids=["II", "III"])


SPACES = [
    Binary(12),
    Real(-1.0, 1.0, length=3),
    Product(mask=Binary(6), rate=Real(0.0, 1.0)),
    Subset(10, k=4),
    Simplex(4),
    Permutation(6),
    ExpertMerges(layers=4, experts=6, keep=3, groups=2),
    ExemplarSets(8, k=3, capacity=40),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_the_contract_holds_on_every_kind_of_space(space):
    check_algorithm(NSGA2(population=6), space)


@pytest.mark.parametrize("space", SPACES[:3], ids=lambda space: type(space).__name__)
def test_the_contract_holds_with_reference_directions_too(space):
    check_algorithm(NSGA3(population=6), space)


def told(batch, values, failed=()):
    status = np.full(len(batch), Status.DONE, np.int8)
    status[list(failed)] = Status.FAILED
    values = np.where((status == Status.DONE)[:, None], values, np.nan)
    nothing = np.full(len(batch), np.nan)
    return Evidence(batch.ids, batch.population, values, status, nothing, np.full_like(values, np.nan))


def counted(rows):
    """Two objectives in conflict: ones in front are good for the first, ones behind for the second."""
    ones = rows.astype(float)
    half = ones.shape[1] // 2
    return np.stack([-ones[:, :half].sum(axis=1) + 0.1 * ones.sum(axis=1), ones.sum(axis=1)], axis=1)


@BOTH
@pytest.mark.parametrize("sizes", [[1], [7], [500], [3, 64, 1, 20]], ids=str)
def test_batches_of_any_size_never_repeat_a_candidate_and_approach_the_front(algorithm, sizes):
    run = algorithm.start(Problem(Binary(20), 2), np.random.default_rng(0))
    keys, values = [], []
    while len(keys) < 400:
        batch = run.ask(sizes[len(keys) % len(sizes)])
        assert len(batch) > 0
        keys += row_keys(batch.population)
        values.append(counted(batch.population))
        run.tell(told(batch, values[-1]))
    assert len(set(keys)) == len(keys)
    found = np.concatenate(values)
    best = counted(np.concatenate([np.tri(11, 10, -1), np.zeros((11, 10))], axis=1))
    reference = [1.0, 21.0]
    assert hypervolume(found, reference) > 0.9 * hypervolume(best, reference)


@pytest.mark.parametrize("algorithm", [NSGA2(population=30), NSGA3(population=30), RandomSearch()], ids=repr)
def test_the_recommended_front_is_that_of_everything_told_and_failures_are_not_in_it(algorithm):
    run = algorithm.start(Problem(Real(0.0, 1.0, length=3), 2), np.random.default_rng(1))
    rows, values = [], []
    for number in range(40):
        batch = run.ask(50)
        x = batch.population
        value = np.stack([x[:, 0], (1 - np.sqrt(x[:, 0])) + x[:, 1:].sum(axis=1)], axis=1)
        failed = np.arange(len(batch)) % 5 == number % 5
        value[failed] -= 100  # tempting, but it failed
        run.tell(told(batch, value, np.flatnonzero(failed)))
        rows.append(x[~failed])
        values.append(value[~failed])
    rows, values = np.concatenate(rows), np.concatenate(values)
    front = nondominated(values)
    short = run.recommend(int(front.sum()))
    assert len(short) == front.sum() > 5
    assert set(row_keys(short)) == set(row_keys(rows[front]))
    ends = run.recommend(2)
    assert set(row_keys(ends)) == set(row_keys(rows[front][[values[front, 0].argmin(), values[front, 1].argmin()]]))


def test_of_equal_values_the_one_with_the_better_secondary_score_survives():
    run = NSGA2(population=4).start(Problem(Binary(8), 2), np.random.default_rng(0))
    batch = run.ask(4)
    evidence = told(batch, np.zeros((4, 2)))
    secondary = np.array([0.4, 0.1, 0.3, 0.2])
    run.tell(Evidence(batch.ids, batch.population, evidence.values, evidence.status, secondary, evidence.values))
    assert run.recommend(1)[0].tolist() == batch.population[1].tolist()


@pytest.mark.parametrize("m", [2, 3])
def test_survivors_of_nsga2_are_pymoos(m):
    pytest.importorskip("pymoo")
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

    for seed in range(5):
        values = np.random.default_rng(seed).random((120, m))
        theirs = RankAndCrowding().do(
            PymooProblem(n_var=1, n_obj=m), Population.new(F=values, X=np.arange(120)[:, None]), n_survive=50,
            random_state=np.random.default_rng(0),
        ).get("X")[:, 0].astype(int)  # fmt: skip
        ours = _RankAndCrowding().survive(values, dominance_ranks(values), 50)[0]
        # Ends of the last front tie, and both draw lots: so the same but for candidates of equal distance.
        ranks = dominance_ranks(values)
        distance = crowding(values, ranks)
        one, other = (np.array(sorted(zip(ranks[who], distance[who], strict=True))) for who in (ours, theirs))
        np.testing.assert_allclose(one, other)
        assert len(set(ours) & set(theirs)) >= 47


def test_reference_directions_are_those_of_das_and_dennis_as_pymoo_has_them():
    pytest.importorskip("pymoo")
    from pymoo.util.ref_dirs import get_reference_directions

    for m, divisions in ((2, 9), (3, 12), (4, 7)):
        theirs = get_reference_directions("das-dennis", m, n_partitions=divisions)
        ours = reference_directions(m, divisions)
        assert sorted(ours.round(9).tolist()) == sorted(theirs.round(9).tolist())
    layered = reference_directions(8, 3)
    assert len(layered) == 240
    np.testing.assert_allclose(layered.sum(axis=1), 1)
    assert (layered[120:] > 0).all()


def test_normalization_and_niches_of_nsga3_are_pymoos():
    pytest.importorskip("pymoo")
    from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival, associate_to_niches
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem as PymooProblem

    directions = reference_directions(3, 6)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        theirs, ours = ReferenceDirectionSurvival(directions), _ReferenceDirections(directions, rng)
        for generation in range(3):
            values = rng.random((120, 3)) * [1, 10, 100] + generation / 5
            kept = theirs.do(
                PymooProblem(n_var=1, n_obj=3), Population.new(F=values, X=np.arange(120)[:, None]), n_survive=30,
                random_state=np.random.default_rng(0),
            ).get("X")[:, 0].astype(int)  # fmt: skip
            chosen, _ = ours.survive(values, dominance_ranks(values), 30)
            nadir = ours._nadir(values, dominance_ranks(values))
            np.testing.assert_allclose(nadir, theirs.norm.nadir_point)
            niche, distance, _ = associate_to_niches(values, directions, theirs.norm.ideal_point, nadir)
            mine, apart = ours._niches(values, nadir)
            assert (mine == niche).all()
            np.testing.assert_allclose(np.sqrt(np.maximum(apart, 0)), distance, atol=1e-7)
            # Who serves a crowded niche is drawn by lot, but not how many candidates serve each number of niches.
            counts = [np.sort(np.bincount(niche[who], minlength=len(directions))) for who in (chosen, kept)]
            assert (counts[0] == counts[1]).all()
            assert len(set(chosen)) == 30


def zdt1(x):
    """Zitzler, Deb and Thiele 2000, T1."""
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g))], axis=1)


def zdt5(x):
    """Zitzler, Deb and Thiele 2000, T5: 30 bits and ten deceptive blocks of five."""
    ones, blocks = x[:, :30].sum(axis=1), x[:, 30:].reshape(len(x), 10, 5).sum(axis=2)
    return np.stack([1.0 + ones, np.where(blocks < 5, 2 + blocks, 1).sum(axis=1) / (1 + ones)], axis=1)


def dtlz2(x):
    """Deb, Thiele, Laumanns and Zitzler 2002: the positive octant of a sphere."""
    g, angle = 1 + ((x[:, 2:] - 0.5) ** 2).sum(axis=1), x[:, :2] * np.pi / 2
    c, s = np.cos(angle), np.sin(angle)
    return g[:, None] * np.stack([c[:, 0] * c[:, 1], c[:, 0] * s[:, 1], s[:, 0]], axis=1)


def volumes(algorithm, space, function, reference, directions, evaluations=1000):
    found = []
    for seed in range(5):
        result = search(
            function, algorithm, space=space, batched=True, budget=evaluations, seed=seed, batch_size=100,
            direction=("minimize",) * directions,
        )  # fmt: skip
        found.append(result.front.hypervolume(reference))
    return np.array(found)


def pymoos_volumes(algorithm, space, function, reference, evaluations=1000):
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.optimize import minimize

    class Wrapped(PymooProblem):
        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = function(np.asarray(x))
            self.seen.append(out["F"])

    found = []
    for seed in range(5):
        problem = Wrapped(
            n_var=space.dimension, n_obj=len(reference), xl=0, xu=1, vtype=bool if space.dtype == bool else float
        )
        problem.seen = []
        minimize(problem, algorithm(), ("n_eval", evaluations), seed=seed, verbose=False)
        found.append(hypervolume(np.concatenate(problem.seen)[:evaluations], reference))
    return np.array(found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["zdt1", "zdt5", "dtlz2", "dtlz2 by directions"])
def test_at_equal_evaluations_fronts_dominate_as_much_as_pymoos_or_more(name):
    pytest.importorskip("pymoo")
    from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2  # noqa: N811
    from pymoo.algorithms.moo.nsga3 import NSGA3 as PymooNSGA3  # noqa: N811
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling

    bits = {"sampling": BinaryRandomSampling(), "crossover": UniformCrossover(), "mutation": BitflipMutation()}
    directions = reference_directions(3, 12)
    space, function, reference, own, their = {
        "zdt1": (Real(0, 1, length=30), zdt1, [1.1, 7.0], NSGA2(population=100), lambda: PymooNSGA2(100)),
        "zdt5": (Binary(80), zdt5, [32.0, 62.0], NSGA2(population=100), lambda: PymooNSGA2(100, **bits)),
        "dtlz2": (Real(0, 1, length=12), dtlz2, [1.1] * 3, NSGA2(population=92), lambda: PymooNSGA2(92)),
        "dtlz2 by directions": (
            Real(0, 1, length=12), dtlz2, [1.1] * 3, NSGA3(population=92), lambda: PymooNSGA3(directions, pop_size=92),
        ),
    }[name]  # fmt: skip
    ours = volumes(own, space, function, reference, len(reference))
    theirs = pymoos_volumes(their, space, function, reference)
    noise = np.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / np.sqrt(5)
    assert ours.mean() > theirs.mean() - 2 * noise
    assert ours.min() > 0


@BOTH
def test_a_search_of_two_objectives_resumes_bit_by_bit(algorithm, tmp_path):
    def both(mask):
        return [sum(mask[:6]), -sum(i * on for i, on in enumerate(mask))]

    settings = {"space": Binary(12), "direction": ("minimize", "minimize"), "budget": 90, "batch_size": 8}
    whole = search(both, algorithm, **settings)
    for stop in (1, 4, 9):
        path = tmp_path / f"{stop}.db"
        for number, _ in enumerate(Search(both, algorithm, study=path, **settings), start=1):
            if number == stop:
                break
        again = search(both, algorithm, study=path, **settings)
        assert again.history.digest == whole.history.digest
        assert again.front.values.tolist() == whole.front.values.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NSGA2(population=1), r"NSGA2\(population=…\)"),
        (lambda: NSGA2(crossover_rate=1.5), "crossover_rate"),
        (lambda: NSGA3(divisions=0), "divisions"),
        (lambda: NSGA3(mutation_rate=-0.1), "mutation_rate"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(InvalidSettings, match=message):
        make()
