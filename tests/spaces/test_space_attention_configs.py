import dataclasses

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import AttentionConfigs, AttentionPlan, elastic_rules

RULES = elastic_rules((64, 128), (256,), step=16, betas=5)
LENGTHS = (64, 128, 256)


def space(**changes):
    return AttentionConfigs(**{"layers": 4, "heads": 8, "rules": RULES, "lengths": LENGTHS, "density": 0.5} | changes)


def test_the_grid_is_the_released_one():
    rules = elastic_rules((2048, 4096, 8192), (16384,))
    assert len(rules) == 48
    assert sorted({alpha for alpha, _ in rules}) == [-1024, *range(0, 8193, 1024)]
    spans = [alpha + beta * 16384 for alpha, beta in rules]
    assert spans == sorted(spans)


@pytest.mark.parametrize(
    "changes", [{}, {"sink": 4}, {"block": 16, "density": 0.6}, {"kv_groups": 4}, {"same_per_layer": True}]
)
def test_every_operator_keeps_what_plans_keep_within_the_budget_at_every_length(changes):
    here = space(**changes)
    rng = np.random.default_rng(0)
    rows = here.sample(rng, 40)
    children = [here.mutate(rng, rows), here.crossover(rng, rows, rows[::-1]), here.repair(np.full_like(rows, 99))]
    plans = [here.decode(row) for part in (rows, *children) for row in part]
    assert len(plans) == 160
    for length in LENGTHS:
        densities = [plan.density(length) for plan in plans]
        assert max(densities) <= here.density
        assert max(densities) > 0.8 * here.density  # budgets are used


def test_at_most_two_rules_per_layer_where_kernels_want_that():
    here = space(max_rules_per_layer=2)
    rng = np.random.default_rng(1)
    rows = here.sample(rng, 60)
    for row in np.concatenate([rows, here.mutate(rng, rows), here.crossover(rng, rows, rows[::-1])]):
        assert max(map(len, here.decode(row).distinct_rules())) <= 2
    assert max(len(layer) for row in space().sample(rng, 20) for layer in space().decode(row).distinct_rules()) > 2


def test_grouped_queries_share_rules_between_consecutive_heads():
    here = space(kv_groups=4)
    plan = here.decode(here.sample(np.random.default_rng(2), 1)[0])
    rules = np.array(plan.rules())
    assert here.dimension == 4 * 2
    assert (rules.reshape(4, 2, 4, 2) == rules.reshape(4, 2, 4, 2)[:, :, :1]).all()
    assert len({tuple(rule) for rule in rules.reshape(-1, 2).tolist()}) > 1
    assert here.encode([plan]).shape == (1, 8)


def test_one_rule_per_layer_where_only_layers_differ():
    here = space(same_per_layer=True)
    plan = here.decode(here.sample(np.random.default_rng(3), 1)[0])
    assert here.dimension == 4
    assert {len(layer) for layer in plan.distinct_rules()} == {1}


def test_uniform_rows_are_windows_that_no_other_window_beats():
    here = space(sink=4, rules=((8, 0), (28, 0), (0, 0.25), (-8, 0.25), (0, 1)))
    rows = here.uniform()
    kept = here.kept_array[:, rows[:, 0]]
    assert rows[:, 0].tolist() == [2, 1]
    assert (rows == rows[:, :1]).all()
    assert (kept <= 0.5 * np.array(LENGTHS)[:, None]).all()
    feasible = here.kept_array[:, (here.kept_array <= 0.5 * np.array(LENGTHS)[:, None]).all(axis=0)]
    assert len(kept.T) == 2
    for column in kept.T:
        more = feasible.T - column
        assert not ((more >= 0).all(axis=1) & (more > 0).any(axis=1)).any()


def test_without_a_budget_rows_mean_the_same_plans():
    here = space(max_rules_per_layer=2)
    row = here.sample(np.random.default_rng(4), 1)[0]
    assert here.unlimited.decode(row) == here.decode(row)
    dense = here.unlimited.encode([AttentionPlan.dense(4, 8)])
    assert not here.contains(dense)[0]
    assert here.unlimited.max_distinct is None
    assert len(here.unlimited.budgets_array) == 0


def test_costs_are_what_the_plan_keeps():
    here = space(sink=4, block=16, density=0.6)
    rows = here.sample(np.random.default_rng(5), 8)
    kept = [[here.decode(row).kept(length).sum() for length in LENGTHS] for row in rows]
    assert here.cost_of(rows).tolist() == kept


def test_a_foreign_plan_is_moved_onto_the_space():
    here = space(sink=4)
    foreign = AttentionPlan.uniform(4, 8, beta=0.26, sink=2)
    near = here.decode(here.nearest(foreign))
    assert near.density(256) == pytest.approx(0.27, abs=0.03)
    assert here.contains(here.nearest(AttentionPlan.dense(4, 8))[None])[0]
    with pytest.raises(InvalidCandidate, match="2 layers"):
        here.nearest(AttentionPlan.dense(2, 8))


def test_values_of_other_rules_or_shapes_are_refused():
    here = space()
    for plan in (AttentionPlan.uniform(4, 8, alpha=7), AttentionPlan.uniform(4, 4, beta=0.25), "plan"):
        with pytest.raises(InvalidCandidate):
            here.encode([plan])
    split = AttentionPlan([[0] * 8] * 4, [[0.25, 0.5] + [0.25] * 6] * 4)
    assert here.encode([split]).shape == (1, 32)
    with pytest.raises(InvalidCandidate):
        dataclasses.replace(here, kv_groups=2).encode([split])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": ()}, "rules must be"),
        ({"rules": ((1, 0), (1, 0))}, "rules must be"),
        ({"lengths": ()}, "lengths must hold"),
        ({"density": 1.5}, "density must be"),
        ({"sink": 40}, "smallest rule and 40 sinks keep"),
        ({"kv_groups": 3}, "kv_groups must divide"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(InvalidSettings, match=message):
        space(**changes)
