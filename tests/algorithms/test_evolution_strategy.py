"""Evolution strategies: rules, seeded generations, and what they hand over."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from searchlib import CMAES, EvolutionStrategy, FunctionObjective, Search, SeededPopulation, Study, search
from searchlib.__main__ import main
from searchlib.algorithms import Evidence, Problem, Status
from searchlib.algorithms.strategy_rules import centered_ranks, log_utilities
from searchlib.errors import InvalidSettings, MissingOperator, StudyError, StudyMismatch
from searchlib.spaces import Binary, PolicyParameters, Product, Real, Simplex
from searchlib.testing import check_algorithm

METHODS = ("openai", "pgpe", "snes")


def begun(algorithm, space, *, noisy=True, seeds=None, seed=0):
    return algorithm.start(Problem(space, seeds=seeds, noisy=noisy), np.random.default_rng(seed))


def evidence(batch, values, secondary=None):
    values = np.asarray(values, float)
    status = np.where(np.isnan(values), Status.FAILED, Status.DONE).astype(np.int8)
    nothing = np.full(len(values), np.nan)
    ties = nothing if secondary is None else np.asarray(secondary, float)
    return Evidence(batch.ids, batch.population, values[:, None], status, ties, nothing[:, None])


@pytest.mark.parametrize("method", [*METHODS, "auto", "sep-cma"])
@pytest.mark.parametrize(
    "space", [Real(-1, 1, length=4), Simplex(5), Binary(8), Product(a=Real(0, 1), b=Binary(3))], ids=repr
)
def test_the_contract_holds(method, space):
    if method == "sep-cma":
        pytest.importorskip("cma")
    check_algorithm(EvolutionStrategy(method=method, population=6), space)


@pytest.mark.parametrize("method", METHODS)
def test_the_contract_holds_for_generations_kept_as_seeds(method):
    check_algorithm(EvolutionStrategy(method=method, population=6, seeded=True), PolicyParameters(40, spread=0.2))


def test_ranks_are_those_of_scipy_with_ties():
    values = np.array([3.0, 1.0, 3.0, 2.0, np.inf, 1.0])
    expected = 0.5 - (scipy.stats.rankdata(values) - 1) / (len(values) - 1)
    np.testing.assert_allclose(centered_ranks(values), expected, atol=1e-12)


def test_utilities_are_those_of_the_paper():
    n = 10
    raw = [max(0.0, np.log(n / 2 + 1) - np.log(k)) for k in range(1, n + 1)]
    np.testing.assert_allclose(log_utilities(np.arange(n, dtype=float)), np.array(raw) / sum(raw) - 1 / n)
    assert log_utilities(np.zeros(7)).tolist() == pytest.approx([0] * 7)


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_generation_in_which_nobody_is_better_moves_nothing(method, seeded):
    space = PolicyParameters(50)
    run = begun(EvolutionStrategy(method=method, population=8, seeded=seeded), space)
    for _ in range(3):
        run.tell(evidence(batch := run.ask(8), np.zeros(8)))
        assert len(batch) == 8
    assert run.notes()["generations"] == 3
    assert not run.recommend(1).any()


@pytest.mark.parametrize(("secondary", "moves"), [(True, True), (False, False)])
def test_secondary_scores_order_members_of_equal_value_where_they_should(secondary, moves):
    def moved(values, ties):
        run = begun(EvolutionStrategy(method="openai", population=8, secondary=secondary), PolicyParameters(50))
        run.tell(evidence(run.ask(8), values, ties))
        return run.recommend(1)[0]

    assert moved(np.zeros(8), np.arange(8)).any() == moves
    values = np.repeat([0.0, 1.0], 4)
    np.testing.assert_array_equal(moved(values, np.arange(8)) == moved(np.arange(8), np.zeros(8)), moves)
    # A value is never outweighed.
    assert (moved(np.arange(8), np.arange(8)[::-1]) == moved(np.arange(8), np.zeros(8))).all()


@pytest.mark.parametrize("seeded", [False, True])
def test_a_pair_whose_members_are_equal_counts_for_nothing(seeded):
    run = begun(EvolutionStrategy(method="pgpe", population=4, seeded=seeded), PolicyParameters(30))
    batch = run.ask(4)
    rows = np.asarray(batch.population)
    run.tell(evidence(batch, [1.0, 1.0, 0.0, 2.0]))
    moved = run.recommend(1)[0]
    assert np.corrcoef(moved, rows[2])[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("asks", [(8,), (3, 5), (1,) * 8])
def test_members_come_in_mirrored_pairs_however_few_are_asked_for_at_once(asks, seeded):
    run = begun(EvolutionStrategy(method="pgpe", population=8, seeded=seeded), PolicyParameters(30))
    rows = np.concatenate([np.asarray(run.ask(n).population) for n in asks])
    np.testing.assert_allclose(rows[0::2], -rows[1::2], atol=1e-6)
    assert np.unique(rows, axis=0).shape == (8, 30)


@pytest.mark.parametrize("seeded", [False, True])
def test_the_first_step_of_snes_is_the_papers_formula(seeded):
    d, n, sigma = 64, 12, 0.3
    space = PolicyParameters(d, spread=0.5)
    run = begun(EvolutionStrategy(method="snes", population=n, sigma=sigma, seeded=seeded), space)
    batch = run.ask(n)
    rows = np.asarray(batch.population, float)
    values = ((rows - 1) ** 2).sum(axis=1)
    run.tell(evidence(batch, values))
    order = np.argsort(np.argsort(values))
    raw = np.maximum(0, np.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
    utility = (raw / raw.sum() - 1 / n)[order]
    np.testing.assert_allclose(run.recommend(1)[0], utility @ rows, atol=1e-6)
    noise = rows / (sigma * 0.5)
    rate = (3 + np.log(d)) / (5 * np.sqrt(d))
    expected = np.exp(rate / 2 * (utility @ (noise**2 - 1)))
    assert run.notes()["spread"] == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("seeded", [False, True])
def test_the_first_step_of_openai_es_is_adams(seeded):
    d, n, sigma, rate = 40, 10, 0.2, 0.5
    run = begun(
        EvolutionStrategy(method="openai", population=n, sigma=sigma, rate=rate, seeded=seeded), PolicyParameters(d)
    )
    batch = run.ask(n)
    rows = np.asarray(batch.population, float)
    values = rows[:, 0] + 2 * rows[:, 1]
    run.tell(evidence(batch, values))
    ranks = 0.5 - (scipy.stats.rankdata(values) - 1) / (n - 1)
    # Adam's first step has the length of its rate in every coordinate.
    np.testing.assert_allclose(run.recommend(1)[0], rate * sigma * np.sign(ranks @ rows), atol=1e-4)


@pytest.mark.parametrize("seeded", [False, True])
def test_the_first_spread_of_pgpe_is_that_of_the_reference_implementation(seeded):
    """pgpelib averages (f₊ + f₋)/2 · (ε² − 1) σ over pairs, times .1, clipped to a fifth of σ."""
    d, n, sigma = 50, 12, 0.4
    run = begun(EvolutionStrategy(method="pgpe", population=n, sigma=sigma, seeded=seeded), PolicyParameters(d))
    batch = run.ask(n)
    rows = np.asarray(batch.population, float)
    values = (rows**2).sum(axis=1) + rows[:, 0]
    run.tell(evidence(batch, values))
    ranks = 0.5 - (scipy.stats.rankdata(values) - 1) / (n - 1)
    noise = rows[0::2] / sigma
    change = ((ranks[0::2] + ranks[1::2]) / 2) @ (noise**2 - 1) / (n / 2)
    assert run.notes()["spread"] == pytest.approx((1 + np.clip(0.1 * change, -0.2, 0.2)).mean(), rel=1e-6)


def test_a_budget_below_one_generation_says_so_and_hands_over_the_center(caplog):
    result = search(
        FunctionObjective(bowl, PolicyParameters(20_000), batched=True), EvolutionStrategy(population=64), budget=40
    )
    assert "less than one generation of 64" in caplog.text
    assert not result.row.any()


def test_a_wide_policy_can_be_searched_from_outside():
    run = Search(None, EvolutionStrategy(population=8), space=PolicyParameters(20_000), budget=16)
    batch = run.ask(8)
    run.tell(batch.ids, np.arange(8.0))
    assert batch.population[0].shape == (20_000,)
    np.testing.assert_array_equal(batch.population[3], np.asarray(batch.population)[3])
    assert run.result().row.shape == (20_000,)


def test_the_history_of_a_seeded_search_can_be_exported(tmp_path):
    pytest.importorskip("pandas")
    study = tmp_path / "a.db"
    result = search(
        FunctionObjective(bowl, PolicyParameters(20_000), batched=True), EvolutionStrategy(population=8), budget=8,
        study=study,
    )  # fmt: skip
    frame = result.history.to_frame()
    assert len(frame) == 8
    assert frame["candidate"].isna().all()
    assert main(["export", str(study), "--json", str(tmp_path / "a.json")]) == 0
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["value"] for row in rows] == frame["value"].tolist()


def test_many_given_seeds_are_on_file_and_told_apart(tmp_path):
    space = PolicyParameters(20_000)

    def run(seed):
        return search(
            FunctionObjective(bowl, space, batched=True), EvolutionStrategy(population=8), budget=17, seeds=[seed],
            study=tmp_path / "a.db",
        )  # fmt: skip

    seed = np.full(20_000, 0.2, np.float32)
    first = run(seed)
    assert run(seed).history.digest == first.history.digest
    with pytest.raises(StudyMismatch) as refused:
        run(seed + 1)
    assert len(str(refused.value)) < 1000


def test_clipup_never_moves_faster_than_a_fifteenth_of_the_first_radius():
    d, sigma = 200, 0.3
    run = begun(EvolutionStrategy(method="pgpe", population=20, sigma=sigma), Real(-50, 50, length=d))
    centers = []
    for _ in range(30):
        batch = run.ask(20)
        run.tell(evidence(batch, -batch.population.sum(axis=1)))
        centers.append(run.recommend(1)[0])
    speeds = np.linalg.norm(np.diff(centers, axis=0), axis=1) / 25  # one unit of the relaxation is a quarter of 100
    fastest = sigma * np.sqrt(d) / 15
    assert speeds.max() <= fastest * (1 + 1e-9)
    assert speeds[-1] == pytest.approx(fastest, rel=1e-6)  # the slope never changes, so it ends at full speed


def test_under_noise_the_center_is_handed_over_and_never_a_lucky_member():
    space = Real(-1, 1, length=6)
    run = begun(EvolutionStrategy(method="snes", population=10), space)
    rng, asked = np.random.default_rng(3), []
    for _ in range(12):
        batch = run.ask(10)
        asked.append(batch.population)
        run.tell(evidence(batch, rng.normal(size=10)))
    rows = run.recommend(8)
    members = {row.tobytes() for row in np.concatenate(asked)}
    assert 1 <= len(rows) <= 5
    assert not members & {row.tobytes() for row in rows}


def test_without_noise_the_best_member_may_win():
    result = search(lambda x: float(np.sum(x)), EvolutionStrategy(method="pgpe"), space=Binary(30), budget=400)
    assert result.value <= np.nanmin(result.history.values)


def test_failed_members_count_as_worse_than_all_others():
    values = np.array([1.0, np.nan, 2.0, 3.0])
    told, same = (begun(EvolutionStrategy(method="openai", population=4), PolicyParameters(20)) for _ in range(2))
    told.tell(evidence(told.ask(4), values))
    same.tell(evidence(same.ask(4), np.nan_to_num(values, nan=99.0)))
    np.testing.assert_array_equal(told.recommend(1), same.recommend(1))


def test_it_begins_at_the_best_of_the_seeds():
    space = PolicyParameters(5)
    seeds = np.array([[0.0] * 5, [2.0] * 5], np.float32)
    run = begun(EvolutionStrategy(method="pgpe", population=6, sigma=1e-6), space, seeds=seeds)
    run.tell(evidence(run.ask(2), [1.0, 0.0]))
    np.testing.assert_allclose(np.asarray(run.ask(6).population), np.full((6, 5), 2.0), atol=1e-4)


def test_policies_that_begin_at_zero_begin_with_members_like_random_networks():
    space = PolicyParameters(400, spread=0.5)
    first = np.asarray(begun(EvolutionStrategy(method="pgpe"), space).ask(40).population)
    assert first.std() == pytest.approx(0.5, rel=0.1)
    run = begun(EvolutionStrategy(method="pgpe"), space, seeds=np.full((1, 400), 2.0, np.float32))
    run.tell(evidence(run.ask(1), [0.0]))
    assert (np.asarray(run.ask(40).population) - 2).std() == pytest.approx(0.15, rel=0.1)
    assert np.asarray(begun(EvolutionStrategy(method="pgpe"), Real(-2, 2, length=400)).ask(40).population).std() < 0.35


def test_the_method_follows_the_number_of_parameters():
    pytest.importorskip("cma")
    def method(length):
        return begun(EvolutionStrategy(), Real(-1, 1, length=length)).notes().get("method", "cma")

    assert (method(100), method(101)) == ("cma", "pgpe")
    wide = begun(EvolutionStrategy(), PolicyParameters(20_000))
    assert wide.notes()["seeded"]
    assert isinstance(wide.ask(4).population, SeededPopulation)
    assert not begun(EvolutionStrategy(), PolicyParameters(19_999)).notes()["seeded"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "adam"}, "must be one of"),
        ({"sigma": 0.0}, "positive"),
        ({"rate": float("nan")}, "positive"),
        ({"method": "pgpe", "population": 7}, "even"),
        ({"population": 3}, "at least 4"),
        ({"population": 7}, "even"),
        ({"method": "cma", "rate": 1.0}, "not for"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(InvalidSettings, match=said):
        EvolutionStrategy(**settings)


def test_seeds_of_noise_are_refused_where_rows_have_bounds():
    with pytest.raises(MissingOperator, match="PolicyParameters"):
        begun(EvolutionStrategy(method="pgpe", seeded=True), Real(-1, 1, length=9))


def bowl(rows):
    return np.asarray(((rows - 0.3) ** 2).sum(axis=1), float)


@pytest.mark.parametrize("method", METHODS)
def test_a_seeded_search_resumes_bit_for_bit_and_its_file_holds_no_weights(method, tmp_path):
    space, algorithm = PolicyParameters(30_000, spread=0.1), EvolutionStrategy(method=method, population=16)

    def run(name, budget):
        return search(
            FunctionObjective(bowl, space, batched=True), algorithm, budget=budget, batch_size=5, study=tmp_path / name
        )

    whole = run("whole.db", 80)
    run("parts.db", 37)
    parts = run("parts.db", 80)
    assert parts.history.digest == whole.history.digest
    np.testing.assert_array_equal(parts.row, whole.row)
    assert (tmp_path / "whole.db").stat().st_size < 80 * 30_000  # a quarter of what the rows take
    with Study.open(tmp_path / "whole.db") as study:
        read = study.result()
    np.testing.assert_array_equal(read.best["weights"], whole.best["weights"])
    assert read.history.digest == whole.history.digest
    with pytest.raises(StudyError, match="seeds"):
        _ = read.history.population


def test_a_seeded_search_has_the_same_history_on_workers():
    space = PolicyParameters(25_000, spread=0.1)
    digests = {
        search(
            FunctionObjective(bowl, space, batched=True), EvolutionStrategy(population=8), budget=24, workers=workers
        ).history.digest
        for workers in (1, 2)
    }  # fmt: skip
    assert len(digests) == 1


def test_a_generation_of_wide_policies_takes_one_chunk_and_a_few_vectors():
    d, members, chunk = 10**6, 256, 4
    objective = FunctionObjective(lambda rows: rows[:, :5].sum(axis=1), PolicyParameters(d, spread=0.1), batched=True)
    objective.chunk_rows = chunk
    algorithm = EvolutionStrategy(method="openai", population=members)
    tracemalloc.start()
    try:
        result = search(objective, algorithm, budget=members + 4, batch_size=members, shortlist=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.notes["generations"] == 1
    vectors = peak / (4 * d)
    assert vectors < chunk + 24, f"{vectors:.1f} vectors of a million weights, where all members are {members}"


def test_on_a_separable_bowl_it_is_as_good_as_pycma_in_the_long_run():
    pytest.importorskip("cma")
    space, budget = Real(-2, 2, length=30), 6000

    def found(algorithm):
        return [
            search(FunctionObjective(bowl, space, batched=True), algorithm, budget=budget, seed=seed).value
            for seed in range(3)
        ]

    ours, theirs = found(EvolutionStrategy(method="snes")), found(CMAES(covariance="separable"))
    assert np.median(ours) < max(1e-6, 10 * np.median(theirs))
