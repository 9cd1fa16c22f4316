import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import kendalltau

from searchlib import (
    Evolution,
    GaussianProcess,
    HingeRanker,
    Predictor,
    PredictorGuided,
    Problem,
    ScikitPredictor,
    Search,
    Stages,
    Study,
    search,
)
from searchlib.algorithms import Algorithm, Evidence, Status
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.rebuilt_settings import rebuilt
from searchlib.space import row_keys
from searchlib.spaces import Affine, Binary, ExpertMerges, Real, Subset

WEIGHTS = np.random.default_rng(5).normal(size=30)
SPACE = Subset(30, k=8)


def cost(kept):
    return float(WEIGHTS[list(kept)].sum())


@dataclass(frozen=True)
class Told(Predictor):
    """Scores by a known weight per feature; ``of=0`` knows nothing, ``of=-1`` is always wrong."""

    of: float = 1.0

    def fit(self, features, values, rng):
        assert np.isfinite(values).all()
        assert len(features) == len(values) >= 2
        FITS.append(len(values))
        return self

    def predict(self, features):
        return self.of * features @ WEIGHTS[: features.shape[1]]


FITS: list[int] = []


def evidence(ids, population, values, failed=None):
    failed = np.zeros(len(ids), bool) if failed is None else failed
    values = np.where(failed[:, None], np.nan, np.asarray(values, float)[:, None])
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    nothing = np.full(len(ids), np.nan)
    return Evidence(np.asarray(ids), population, values, status, nothing, np.full_like(values, np.nan))


@pytest.mark.parametrize("of", [0.0, -1.0])
@pytest.mark.parametrize("batch_size", [64, 5])
def test_with_a_predictor_that_is_not_trusted_it_is_evolution_candidate_by_candidate(of, batch_size):
    guided = search(cost, PredictorGuided(predictor=Told(of)), space=SPACE, budget=120, seed=3, batch_size=batch_size)
    plain = search(cost, Evolution(), space=SPACE, budget=120, seed=3, batch_size=batch_size)
    np.testing.assert_array_equal(guided.history.population, plain.history.population)
    assert [stage["guided"] for stage in guided.notes["stages"]] == [False] * 8


def test_with_a_predictor_that_knows_everything_one_stage_finds_the_best():
    best = float(np.sort(WEIGHTS)[:8].sum())
    result = search(cost, PredictorGuided(predictor=Told(), predicted=3000), space=SPACE, budget=36)
    assert result.value == pytest.approx(best)
    assert search(cost, Evolution(), space=SPACE, budget=36).value > best + 0.5
    (stage,) = result.notes["stages"]
    assert stage == {
        "evaluations": 24, "n": 24, "tau": pytest.approx(1.0, abs=0.05), "p_value": pytest.approx(0, abs=1e-9),
        "cross_validated": True, "guided": True,
    }  # fmt: skip


@pytest.mark.parametrize(("share", "picks"), [(0.5, 6), (0.3, 4), (1.0, 12)])
def test_a_guided_stage_holds_the_picks_first_and_children_of_the_evolution(share, picks):
    algorithm = PredictorGuided(predictor=Told(), predicted=3000, share=share)
    assert algorithm.picks == picks
    values = search(cost, algorithm, space=SPACE, budget=36).history.values[24:, 0]
    good = np.sort(WEIGHTS)[:8].sum() + 2.0
    assert len(values) == 12
    assert (values[: picks // 2] < good).all()  # from the late parts of the evolution on predictions
    assert (values[picks:] > good).sum() >= 0.8 * (12 - picks)


@pytest.mark.parametrize("seed", range(3))
def test_its_notes_are_what_scipy_says_of_the_predictions(seed):
    result = search(cost, PredictorGuided(significance=0.05), space=SPACE, budget=84, seed=seed)
    stages = result.notes["stages"]
    assert json.loads(json.dumps(result.notes)) == result.notes
    assert [stage["evaluations"] for stage in stages] == [24, 36, 48, 60, 72]
    assert [stage["n"] for stage in stages] == [24, 12, 12, 12, 12]
    assert [stage["cross_validated"] for stage in stages] == [True, False, False, False, False]
    assert all(stage["guided"] == (stage["p_value"] <= 0.05) for stage in stages)
    # A process that is trained again on what was known by then predicts the stage after as it did.
    features, values = SPACE.features(result.history.population), result.history.values[:, 0]
    for stage, next_one in itertools.pairwise(stages):
        known = slice(0, stage["evaluations"])
        new = slice(stage["evaluations"], next_one["evaluations"])
        fitted = GaussianProcess().fit(features[known], values[known], np.random.default_rng(0))
        expected = kendalltau(fitted.predict(features[new]), values[new], alternative="greater")
        assert next_one["tau"] == pytest.approx(expected.statistic)
        assert next_one["p_value"] == pytest.approx(expected.pvalue)


def test_notes_survive_a_kill_and_stand_in_the_study(tmp_path):
    whole = search(cost, PredictorGuided(), space=SPACE, budget=70, batch_size=7, study=tmp_path / "whole.db")
    assert len(whole.notes["stages"]) == 4
    path = tmp_path / "killed.db"
    for stop in (2, 6, 9):
        interrupted = Search(cost, PredictorGuided(), space=SPACE, budget=70, batch_size=7, study=path)
        for number, _ in enumerate(interrupted, start=1):
            if number == stop:
                break
        interrupted.close()
    resumed = search(cost, PredictorGuided(), space=SPACE, budget=70, batch_size=7, study=path)
    assert resumed.notes == whole.notes
    assert resumed.history.digest == whole.history.digest
    assert Study.open(path).result().notes == whole.notes


def test_an_algorithm_without_notes_has_none(tmp_path):
    path = tmp_path / "plain.db"
    assert search(cost, Evolution(), space=SPACE, budget=10, study=path).notes == {}
    assert Study.open(path).result().notes == {}


def test_stages_hand_on_the_notes_of_both():
    space = ExpertMerges(layers=4, experts=6, keep=3, groups=2)
    guided = PredictorGuided(population=6, stage=4)
    result = search(lambda merge: 0.0, Stages(Evolution(), guided, first_evaluations=8), space=space, budget=30)
    assert list(result.notes) == ["second"]
    assert len(result.notes["second"]["stages"]) >= 2


def test_no_candidate_is_proposed_twice_and_a_small_space_is_exhausted():
    result = search(sum, PredictorGuided(), space=Binary(7), budget=1000, direction="maximize", batch_size=10)
    assert len(set(row_keys(result.history.population))) == len(result.history) == 128
    assert result.outcome.name == "EXHAUSTED"
    assert result.value == 7


def test_seeds_come_first_and_told_strangers_count_as_a_first_stage():
    seeds = SPACE.sample(np.random.default_rng(0), 3)
    run = PredictorGuided(predictor=Told(), predicted=3000).start(Problem(SPACE, seeds=seeds), np.random.default_rng(0))
    strangers = SPACE.sample(np.random.default_rng(1), 40)
    run.tell(evidence(-1 - np.arange(40), strangers, [cost(row) for row in strangers]))
    first = run.ask(64)
    np.testing.assert_array_equal(first.population, SPACE.canonical(seeds))
    run.tell(evidence(first.ids, first.population, [cost(row) for row in first.population]))
    second = run.ask(64)
    assert len(second) == 12
    assert min(cost(row) for row in second.population) == pytest.approx(np.sort(WEIGHTS)[:8].sum(), abs=0.5)
    assert not set(row_keys(second.population)) & set(row_keys(SPACE.canonical(strangers)))


def test_failed_candidates_are_neither_learned_from_nor_proposed_again():
    FITS.clear()

    def sometimes(kept):
        if 0 in kept:
            raise ValueError("this one does not work")
        return cost(kept)

    result = search(sometimes, PredictorGuided(predictor=Told()), space=SPACE, budget=60, max_failures=100)
    failed = result.history.status == Status.FAILED
    assert failed.any()
    assert FITS[-1] == (~failed[:48]).sum() == result.notes["stages"][-1]["evaluations"]
    assert len(set(row_keys(result.history.population))) == 60
    assert 0 not in result.best


def test_where_everything_fails_or_is_equal_it_goes_on_as_evolution():
    def never(kept):
        raise ValueError("nothing works")

    assert search(never, PredictorGuided(), space=SPACE, budget=60, max_failures=100).best is None
    flat = search(lambda kept: 1.0, PredictorGuided(significance=1.0), space=SPACE, budget=60)
    assert len(flat.history) == 60
    assert [stage["tau"] for stage in flat.notes["stages"]] == [None] * 3
    assert not any(stage["guided"] for stage in flat.notes["stages"])


def subsets_with_pairs(seed):
    rng = np.random.default_rng([seed, 1])
    linear, pairs = rng.normal(size=40), np.triu(rng.normal(size=(40, 40)) * 0.25, 1)

    def value(rows):
        kept = np.zeros((len(rows), 40))
        np.put_along_axis(kept, rows.astype(int), 1, axis=1)
        return kept @ linear + ((kept @ pairs) * kept).sum(axis=1)

    return Subset(40, k=12), value


def mixtures(seed):
    vectors = np.random.default_rng([seed, 8]).normal(size=(15, 20)) + 1.0
    return Affine(20), lambda rows: ((rows @ vectors.T) ** 2).sum(axis=1)


def turned_bowls(seed):
    rng = np.random.default_rng([seed, 6])
    turn, center = np.linalg.qr(rng.normal(size=(8, 8)))[0], rng.uniform(-0.5, 0.5, 8)
    return Real(-1, 1, length=8), lambda rows: (((rows - center) @ turn) ** 2 * np.logspace(0, 2, 8)).sum(axis=1)


@pytest.mark.parametrize(("make", "evaluations"), [(subsets_with_pairs, 120), (mixtures, 120), (turned_bowls, 240)])
def test_it_is_ahead_of_evolution_at_half_its_evaluations_or_at_the_same(make, evaluations):
    ahead = 0
    for seed in range(5):
        space, value = make(seed)
        guided = search(value, PredictorGuided(), space=space, batched=True, budget=evaluations, seed=seed)
        plain = search(value, Evolution(), space=space, batched=True, budget=240, seed=seed)
        ahead += guided.value <= plain.value
    assert ahead == 5


@pytest.mark.parametrize("predictor", [GaussianProcess(most=50), HingeRanker(steps=9), ScikitPredictor("forest")])
def test_the_command_line_rebuilds_the_settings(predictor):
    settings = PredictorGuided(stage=9, predictor=predictor, evolution=Evolution(offspring=3))
    assert rebuilt(repr(settings), Algorithm) == settings


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), PredictorGuided(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


@pytest.mark.parametrize(("name", "value"), [
    ("population", 1), ("stage", 0), ("predicted", 0), ("share", 0), ("share", 1.5), ("significance", 0),
    ("predictor", 3), ("evolution", 3),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        PredictorGuided(**{name: value})
