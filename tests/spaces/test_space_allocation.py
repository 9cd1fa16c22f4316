import itertools

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import Allocation

BITS = (2, 4, 8)


def random_allocation(parts, options, budgets, fill, *, seed=0, conflict=False, allow=1.0, size=None, distinct=None):
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.random((budgets, parts, options)), axis=2)
    if conflict:
        costs[1::2] = costs[1::2, :, ::-1]
    low, high = costs.min(axis=2).sum(axis=1), costs.max(axis=2).sum(axis=1)
    allowed = rng.random((parts, options)) < allow
    allowed[np.arange(parts), rng.integers(options, size=parts)] = True
    return Allocation(
        tuple(f"part {i}" for i in range(parts)), tuple(range(options)), costs, low + fill * (high - low), allowed,
        None if size is None else [part // size for part in range(parts)], distinct,
    )  # fmt: skip


def fits(space, rows):
    """Membership by plain sums of the declared tables."""
    parts = range(len(space.parts))
    for table, budget in zip(space.costs, space.budgets, strict=True):
        if (sum(np.array(table[part])[rows[:, part]] for part in parts) > budget * (1 + 1e-10)).any():
            return False
    if space.allowed is not None and not all(np.array(space.allowed[part])[rows[:, part]].all() for part in parts):
        return False
    if space.max_distinct is None:
        return True
    group = np.array(space.groups or (0,) * len(space.parts))
    sorted_rows = [np.sort(rows[:, group == number], axis=1) for number in set(group.tolist())]
    return all(((np.diff(part, axis=1) != 0).sum(axis=1) < space.max_distinct).all() for part in sorted_rows)


HARD = {
    "several budgets": random_allocation(24, 6, 4, 0.3),
    "conflicting budgets": random_allocation(24, 6, 4, 0.52, conflict=True),
    "options not allowed": random_allocation(24, 6, 2, 0.45, allow=0.6),
    "few options per group": random_allocation(24, 6, 2, 0.4, size=6, distinct=2),
    "all of these": random_allocation(24, 6, 2, 0.62, conflict=True, allow=0.8, size=6, distinct=3),
    "one option per group": random_allocation(24, 6, 3, 0.45, size=4, distinct=1),
}


@pytest.mark.parametrize("name", HARD)
def test_no_operator_ever_leaves_the_budgets(name):
    space, rng, made = HARD[name], np.random.default_rng(1), 0
    rows = space.sample(rng, 500)
    for _ in range(8):
        results = [
            space.sample(rng, 500),
            space.mutate(rng, rows),
            space.crossover(rng, rows, rows[::-1]),
            space.repair(rng.normal(3, 3, rows.shape)),
            space.from_latent(rng.normal(0, 3, (500, space.latent_dimension))),
        ]
        assert all(fits(space, result) for result in results)
        made += sum(map(len, results))
        rows = results[1]
    assert made == 20_000  # 120,000 over all spaces


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["plain", "conflict", "distinct", "partial"])
def test_the_size_and_the_members_are_those_of_brute_force(seed, kind):
    settings = {
        "plain": {"fill": 0.4},
        "conflict": {"fill": 0.5, "conflict": True},
        "distinct": {"fill": 0.5, "size": 3, "distinct": 2},
        "partial": {"fill": 0.5, "allow": 0.6, "size": 2, "distinct": 1},
    }[kind]
    try:
        space = random_allocation(6, 3, 2, seed=seed, **settings)
    except InvalidSettings:
        free = dict(settings, fill=5.0)
        free.pop("size", None), free.pop("distinct", None)
        wide = random_allocation(6, 3, 2, seed=seed, **free)
        limits = random_limits(wide, settings["fill"])
        rows = np.array(list(itertools.product(range(3), repeat=6)), np.int16)
        rows = rows[wide.contains(rows)]
        assert not len(within(rows, wide, limits, settings.get("size"), settings.get("distinct")))
        return
    rows = np.array(list(itertools.product(range(3), repeat=6)), np.int16)
    members = np.array([row for row in rows if fits(space, row[None])])
    assert np.array_equal(rows[space.contains(rows)], members)
    assert space.size == len(members)
    sampled = np.unique(space.sample(np.random.default_rng(0), 60 * len(members)), axis=0)
    assert len(sampled) == len(members)


def random_limits(space, fill):
    costs = space.costs_array
    low, high = costs.min(axis=2).sum(axis=1), costs.max(axis=2).sum(axis=1)
    return low + fill * (high - low)


def within(rows, space, limits, size, distinct):
    rows = rows[(space.cost_of(rows) <= limits).all(axis=1)]
    if distinct is None:
        return rows
    return rows[[all(len(set(row[i : i + size])) <= distinct for i in range(0, len(row), size)) for row in rows]]


def test_large_spaces_are_counted_exactly_where_few_sums_occur_and_bounded_elsewhere():
    space = Allocation(tuple("abcdefghijklmnop"), (1, 2, 3), costs=[[[1, 2, 3]] * 16], budgets=[30])
    ways = [1]  # of every sum, by convolution
    for _ in range(16):
        ways = np.convolve(np.array(ways, object), [0, 1, 1, 1])
    assert space.size == sum(ways[:31])
    assert space.size > 4096
    bounded = random_allocation(10, 3, 1, 0.4)
    rows = np.array(list(itertools.product(range(3), repeat=10)), np.int16)
    exact = int(bounded.contains(rows).sum())
    assert exact <= bounded.size < 1.05 * exact


def test_a_budget_that_decimal_costs_meet_exactly_is_met():
    parts = tuple(f"layer {i}" for i in range(30))
    costs = [[[bits / 30 / 0.1 * 0.1 for bits in BITS]] * 30]
    space = Allocation(parts, BITS, costs, budgets=(4.0,))
    uniform = space.encode([(4,) * 30])
    assert space.cost_of(uniform)[0, 0] <= 4.0
    with pytest.raises(InvalidCandidate, match="breaks a budget"):
        space.encode([(8, *(4,) * 29)])


def test_samples_use_the_budget_and_reach_from_cheap_to_dear():
    space = random_allocation(64, 8, 2, 0.5)
    use = (space.cost_of(space.sample(np.random.default_rng(0), 400)) / space.budgets_array).max(axis=1)
    assert np.mean(use > 0.98) > 0.6
    assert use.min() < 0.8


def test_a_mutant_differs_in_few_parts_and_stays_near_the_budget():
    space, rng = random_allocation(128, 8, 2, 0.5), np.random.default_rng(0)
    rows = space.sample(rng, 400)
    mutants = space.mutate(rng, rows)
    assert space.distance(rows, mutants).min() >= 1
    assert space.distance(rows, mutants).mean() < 6
    before, after = (space.cost_of(x) / space.budgets_array for x in (rows, mutants))
    assert after.max(axis=1).mean() > before.max(axis=1).mean() - 0.01


def test_a_child_of_affordable_mixtures_has_every_part_from_a_parent():
    space, rng = random_allocation(40, 6, 3, 0.4), np.random.default_rng(0)
    first, second = space.sample(rng, 300), space.sample(rng, 300)
    child = space.crossover(rng, first, second)
    assert ((child == first) | (child == second)).all()
    assert (child != first).any(axis=1).mean() > 0.9


def test_under_a_distinct_limit_a_child_has_every_group_from_a_parent():
    space, rng = HARD["few options per group"], np.random.default_rng(0)
    first, second = space.sample(rng, 200), space.sample(rng, 200)
    child = space.crossover(rng, first, second).reshape(200, 4, 6)
    same = [(child == parent.reshape(200, 4, 6)).all(axis=2) for parent in (first, second)]
    assert (same[0] | same[1]).all()


def test_the_relaxation_gives_up_what_costs_least_score():
    space = Allocation(("a", "b", "c"), BITS, costs=[[BITS] * 3], budgets=(20,))
    scores = np.array([[[0, 4, 9], [0, 8, 9], [0, 4, 9]]], float)
    assert space.decode(space.from_latent(scores.reshape(1, 9))[0]) == (8, 4, 8)


def test_budgets_that_only_a_search_can_meet_are_met():
    rng = np.random.default_rng(3)
    costs = rng.random((3, 10, 4))
    rows = np.array(list(itertools.product(range(4), repeat=8)), np.int16)
    rows = np.concatenate([rows, np.zeros((len(rows), 2), np.int16)], axis=1)
    sums = np.stack([cost[np.arange(10), rows].sum(axis=1) for cost in costs], axis=1)
    tight = sums[sums.max(axis=1).argmin()]  # no other row of these has its largest sum below
    space = Allocation(tuple("abcdefghij"), (0, 1, 2, 3), costs, budgets=np.full(3, tight.max()))
    assert fits(space, space.sample(np.random.default_rng(0), 20))
    with pytest.raises(InvalidSettings, match="no allocation meets the limits"):
        Allocation(tuple("abcdefghij"), (0, 1, 2, 3), costs, budgets=np.full(3, 0.8 * tight.max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": ("a", "a")}, "parts must be distinct"),
        ({"options": (1, 1.0, 2)}, "options must be distinct"),
        ({"costs": ((1, 2, 3),)}, "costs must have shape"),
        ({"costs": [[[1, 2, 3], [1, 2, float("inf")]]]}, "costs must be finite"),
        ({"budgets": ("much",)}, r"budgets\[0\] must be a finite number"),
        ({"budgets": (1.0,)}, "needs at least"),
        ({"allowed": ((True, True, True), (False, False, False))}, "has none for 'b'"),
        ({"groups": (0,)}, "one number per part"),
        ({"max_distinct": 0}, "max_distinct must be"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    settings = {"parts": ("a", "b"), "options": (1, 2, 3), "costs": [[[1, 2, 3]] * 2], "budgets": (4,)} | change
    with pytest.raises(InvalidSettings, match=message):
        Allocation(**settings)
