import itertools

import numpy as np
import pytest

from searchlib import Beam, Problem, search
from searchlib.algorithms import Evidence, Status
from searchlib.errors import InvalidCandidate, InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import Binary, Real, Subset
from searchlib.testing import check_algorithm

WEIGHTS = np.random.default_rng(3).normal(size=14)
SPACE = Subset(9, k=3)


def worth(kept):
    return float(WEIGHTS[list(kept)].sum() + 2 * WEIGHTS[sum(kept) % 14])


def neighbors(row, n=9):
    """All sets that differ in one element, in a fixed order."""
    return [sorted({*row} - {out} | {new}) for out in row for new in range(n) if new not in row]


def swap(rng, parents, n=9):
    rows = [(child, owner) for owner, row in enumerate(parents.tolist()) for child in neighbors(row, n)]
    return np.array([child for child, _ in rows], np.int32), np.array([owner for _, owner in rows])


class Spy:
    """A vary that notes the parents it was shown."""

    def __init__(self, vary=swap):
        self.vary, self.parents = vary, []

    def __call__(self, rng, parents):
        self.parents.append([tuple(row) for row in parents.tolist()])
        return self.vary(rng, parents)


def beam_by_hand(first, width, expansion, rounds):
    """The beams of every round, in plain Python."""
    values = {tuple(row): worth(row) for row in first}
    order = list(values)  # earlier candidates win ties
    beams = []
    for _ in range(rounds):
        before = len(order)
        beam = sorted(order, key=lambda row: -values[row])[:width]
        beams.append(beam)
        for parent in beam:
            new = [row for child in neighbors(parent, 14) if (row := tuple(child)) not in values][:expansion]
            values.update({row: worth(row) for row in new})
            order += new
        assert len(order) > before  # a round without anything new would be filled with mutants
    return beams, sorted(order, key=lambda row: -values[row])[:width], len(order)


@pytest.mark.parametrize(("width", "expansion", "batch_size"), [(1, 3, 64), (4, 8, 5), (3, 2, 1), (6, 100, 64)])
def test_the_beam_is_that_of_a_few_lines_of_plain_python(width, expansion, batch_size):
    spy = Spy(lambda rng, parents: swap(rng, parents, 14))
    seeds = [(0, 1, 2, 9), (1, 5, 7, 13), (2, 3, 4, 10), (6, 7, 8, 11), (0, 4, 8, 12), (0, 2, 7, 13)][:width]
    result = search(worth, Beam(width, expansion, rounds=4, vary=spy), space=Subset(14, k=4), budget=1001,
                    direction="maximize", seeds=seeds, batch_size=batch_size)  # fmt: skip
    beams, last, count = beam_by_hand(seeds, width, expansion, 4)
    assert spy.parents == beams
    assert len(result.history) == count
    assert result.best == last[0]


def test_what_is_recommended_is_the_best_of_everything_in_order():
    run = Beam(width=5, expansion=4).start(Problem(SPACE), np.random.default_rng(0))
    told = {}
    for _ in range(6):
        batch = run.ask(11)
        values = np.array([[-worth(row)] for row in batch.population])
        run.tell(evidence(batch.ids, batch.population, values, np.zeros(len(values), bool)))
        told.update({tuple(row): worth(row) for row in batch.population.tolist()})
        best = sorted(told, key=lambda row: -told[row])
        assert [tuple(row) for row in run.recommend(8).tolist()] == best[:5]
        assert [tuple(row) for row in run.recommend(2).tolist()] == best[:2]
    assert len(told) > 20


def evidence(ids, population, values, failed):
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    values = np.where(np.asarray(failed)[:, None], np.nan, values)
    return Evidence(ids, population, values, status, np.full(len(ids), np.nan), np.full_like(values, np.nan))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_round_is_one_look_at_the_beam_however_it_is_asked_for(batch_size):
    spy = Spy(lambda rng, parents: swap(rng, parents))
    result = search(worth, Beam(3, 5, rounds=2, vary=spy), space=SPACE, budget=84, direction="maximize",
                    batch_size=batch_size)  # fmt: skip
    assert len(spy.parents) == 2
    assert len(result.history) == 3 + 2 * 3 * 5


def test_the_papers_beam_evaluates_164_candidates_and_then_says_so():
    result = search(sum, Beam(4, 8, rounds=5), space=Subset(200, k=8), budget=1000, direction="maximize")
    assert len(result.history) == 4 + 5 * 4 * 8
    assert len(set(row_keys(result.history.population))) == 164
    assert result.outcome.name == "NOTHING_NEW"


def test_no_rounds_score_the_first_beam_only():
    assert len(search(sum, Beam(4, 8, rounds=0), space=Subset(20, k=3), budget=99).history) == 4


def test_failed_candidates_are_never_parents():
    spy = Spy()

    def sometimes(kept):
        if sum(kept) % 3 == 0:
            raise ValueError("this one does not work")
        return worth(kept)

    result = search(sometimes, Beam(4, 6, rounds=3, vary=spy), space=SPACE, budget=84, direction="maximize",
                    max_failures=1000)  # fmt: skip
    assert len(spy.parents) == 3
    assert all(sum(parent) % 3 for parents in spy.parents for parent in parents)
    assert (result.history.status == Status.FAILED).any()
    assert sum(result.best) % 3


def test_where_everything_fails_it_tries_others_and_ends():
    def never(kept):
        raise ValueError("nothing works")

    result = search(never, Beam(4, 6, rounds=3), space=SPACE, budget=84, max_failures=1000)
    assert len(result.history) == 4 + 3 * 4
    assert result.best is None


def test_the_first_new_children_of_each_parent_count():
    run = Beam(width=2, expansion=3, vary=swap).start(
        Problem(SPACE, seeds=np.array([[0, 1, 2], [6, 7, 8]], np.int32)), np.random.default_rng(0)
    )
    first = run.ask(64)
    assert first.population.tolist() == [[0, 1, 2], [6, 7, 8]]
    run.tell(evidence(first.ids, first.population, np.array([[0.0], [1.0]]), np.zeros(2, bool)))
    children = run.ask(64).population.tolist()
    assert children == [[1, 2, 3], [1, 2, 4], [1, 2, 5], [0, 7, 8], [1, 7, 8], [2, 7, 8]]


@pytest.mark.parametrize("kept", [slice(None), slice(0)], ids=["the parents", "nothing"])
def test_mutants_take_the_place_of_a_round_with_nothing_new(kept):
    def stale(rng, parents):
        return parents[kept], np.arange(len(parents))[kept]

    result = search(worth, Beam(3, 4, rounds=3, vary=stale), space=SPACE, budget=84, direction="maximize")
    assert len(result.history) == 3 + 3 * 3 * 4
    assert len(set(row_keys(result.history.population))) == len(result.history)


def test_a_round_with_anything_new_is_left_as_it_is():
    one = lambda rng, parents: (swap(rng, parents)[0][:1], np.zeros(1, int))  # noqa: E731
    run = Beam(3, 4, vary=one).start(Problem(SPACE), np.random.default_rng(0))
    first = run.ask(3)
    run.tell(evidence(first.ids, first.population, np.arange(3.0)[:, None], np.zeros(3, bool)))
    assert len(run.ask(64)) == 1


def test_an_exhausted_space_ends_the_run():
    result = search(sum, Beam(2, 3), space=Subset(6, k=3), budget=1000, direction="maximize")
    assert len(result.history) == 20
    assert result.best == (3, 4, 5)
    run = Beam(2, 3).start(Problem(Binary(2)), np.random.default_rng(0))
    rows = []
    while len(batch := run.ask(3)):
        run.tell(evidence(batch.ids, batch.population, batch.population.sum(1, keepdims=True) * 1.0, [0] * len(batch)))
        rows += batch.population.tolist()
    assert sorted(rows) == [list(bits) for bits in itertools.product([False, True], repeat=2)]


def test_strangers_join_the_beam_and_are_not_proposed():
    spy = Spy()
    run = Beam(2, 4, vary=spy).start(Problem(SPACE), np.random.default_rng(0))
    strangers = np.array([[8, 7, 6], [0, 1, 2], [6, 7, 8]], np.int32)  # the same one twice, in another order
    run.tell(evidence(np.array([-1, -2, -3]), strangers, np.array([[0.0], [1.0], [0.0]]), np.zeros(3, bool)))
    rows = run.ask(64).population.tolist()
    assert spy.parents == [[(6, 7, 8), (0, 1, 2)]]
    assert len(rows) == 8
    assert [6, 7, 8] not in rows


@pytest.mark.parametrize(("given", "error"), [
    ((np.array([[0, 1, 9]], np.int32), np.array([0])), InvalidCandidate),
    ((np.array([[0, 1, 5]], np.int32), np.array([4])), InvalidSettings),
    ((np.array([[0, 1, 5]], np.int32), np.array([-1])), InvalidSettings),
    ((np.array([[0, 1, 5]], np.int32), np.array([0, 0])), InvalidSettings),
])  # fmt: skip
def test_children_that_cannot_be_meant_are_refused(given, error):
    with pytest.raises(error, match=r"vary|child"):
        search(worth, Beam(2, vary=lambda rng, parents: given), space=SPACE, budget=30)


def test_a_study_knows_the_operator_by_name(tmp_path):
    from searchlib.errors import StudyMismatch

    assert repr(Beam(vary=swap)) == "Beam(width=4, expansion=8, rounds=None, vary=swap)"
    assert eval(repr(Beam(3, rounds=2))) == Beam(3, rounds=2)
    path = tmp_path / "s.db"
    search(worth, Beam(vary=swap), space=SPACE, budget=10, study=path)
    with pytest.raises(StudyMismatch, match="vary=swap"):
        search(worth, Beam(), space=SPACE, budget=10, study=path)


def one_mutant_each(rng, parents):
    return SPACE.mutate(rng, parents), np.arange(len(parents))


@pytest.mark.parametrize("vary", [swap, one_mutant_each])
def test_the_contract_holds_with_an_operator_of_ones_own(vary):
    check_algorithm(Beam(3, 2, vary=vary), SPACE, rounds=8)


def test_it_beats_the_first_beam_on_a_planted_subset():
    values = []
    for seed in range(3):
        weights = np.random.default_rng(seed).normal(size=40)
        result = search(lambda kept, w=weights: float(w[list(kept)].sum()), Beam(), space=Subset(40, k=8), budget=600,
                        seed=seed, direction="maximize")  # fmt: skip
        values.append(result.value / np.sort(weights)[-8:].sum())
    assert min(values) > 0.9


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), Beam(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("expansion", 0), ("rounds", -1), ("width", 1.5), ("vary", 3)]
)
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        Beam(**{name: value})
