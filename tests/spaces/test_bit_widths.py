"""Bits of every tensor, under budgets of real sizes."""

import itertools
import json

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import BitPlan, BitWidths, SizedTensor
from searchlib.spaces.bit_plan import Bits
from searchlib.testing import check_space

LAYERS = ("blocks.0.attn.q", "blocks.0.ff.0", "blocks.1.attn.q")
WEIGHTS = [SizedTensor(name, "weight", rows=8 * (i + 1), columns=64) for i, name in enumerate(LAYERS)]
INPUTS = [SizedTensor(name, "activation", rows=16, columns=64, macs=100.0 * (i + 1)) for i, name in enumerate(LAYERS)]
CACHES = [SizedTensor(f"blocks.{i}.attn", "kv", rows=32, columns=64, group=16) for i in range(2)]

SPACES = {
    "weights": BitWidths(WEIGHTS, weight=(2, 4, 8)),
    "weights under memory": BitWidths(WEIGHTS, weight=(2, 3, 4, 8, "4@32")).within(mean_bits=3.5),
    "everything": BitWidths(
        [*WEIGHTS, *INPUTS, *CACHES], weight=(3, 4), activation=(4, 8, 16), kv=(3, 4, 8), ranges=(750, 250),
        memory=5000, compute=450, shares=(0.5, 0.25, 0.25),
    ),
    "some layers at fixed bits": BitWidths(WEIGHTS, weight=(2, 8), only=((r".*\.ff\..*", (8,)),)),
}  # fmt: skip


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_the_space_keeps_the_contract(space):
    check_space(space)


def test_sizes_count_packed_numbers_scales_and_zero_points():
    weight = SizedTensor("w", "weight", rows=10, columns=100)
    assert weight.bytes(Bits(16)) == 10 * 100 * 2
    assert weight.bytes(Bits(4)) == 10 * 100 / 2 + 10 * (2 + 0.5)
    assert weight.bytes(Bits(3, 32)) == 10 * 100 * 3 / 8 + 10 * 4 * (2 + 3 / 8)  # 100 = 32 + 32 + 32 + 4
    cache = SizedTensor("a", "kv", rows=7, columns=2 * 4 * 16, group=16)
    assert cache.bytes(Bits(4)) == 7 * 128 / 2 + 7 * 8 * 2.5


def test_every_row_is_within_the_memory_of_its_plan():
    space = SPACES["weights under memory"]
    rows = space.sample(np.random.default_rng(0), 200)
    used = [space.decode(row).memory(WEIGHTS) for row in rows]
    assert max(used) <= space.memory == sum(w.bytes_at(3.5) for w in WEIGHTS)
    assert np.allclose(space.cost_of(rows)[:, 0], used)
    assert max(used) > 0.9 * space.memory  # the budget is used


def test_the_cheapest_budget_leaves_one_plan():
    space = BitWidths(WEIGHTS, weight=(2, 4, 8)).within(mean_bits=2)
    assert space.size == 1
    assert space.decode(space.sample(np.random.default_rng(0), 1)[0]) == space.uniform(weight=2)
    with pytest.raises(InvalidSettings, match="no allocation meets"):
        space.within(mean_bits=1.9)


def test_the_size_is_that_of_enumeration():
    space = BitWidths(WEIGHTS, weight=(2, 4, 8)).within(mean_bits=4)
    within = 0
    for bits in itertools.product((2, 4, 8), repeat=3):
        plan = BitPlan(weight=dict(zip(LAYERS, bits, strict=True)))
        within += plan.memory(WEIGHTS) <= space.memory
    assert space.size == within > 5


def test_computation_is_weighted_by_the_share_of_steps():
    space = BitWidths(INPUTS, activation=(8, 16), ranges=(500,), shares=(0.25, 0.75), compute=600)
    plan = BitPlan(activation={LAYERS[0]: (8, 16), LAYERS[1]: 16, LAYERS[2]: 16}, ranges=(500,))
    row = space.unlimited.encode([plan])
    assert space.cost_of(row).tolist() == [[100 * (0.25 * 0.5 + 0.75) + 200 + 300]]
    assert space.compute_at(8) == 300


def test_weights_have_the_same_bits_at_all_timesteps_and_inputs_one_per_range():
    space = SPACES["everything"]
    assert space.part_names[0] == "blocks.0.attn.q:weight"
    assert sum(name.endswith(("@0", "@1", "@2")) for name in space.part_names) == 9
    plan = space.decode(space.sample(np.random.default_rng(0), 1)[0])
    assert isinstance(plan.weight_bits(LAYERS[0]), Bits)
    assert space.decode(space.encode([plan])[0]) == plan


def test_some_layers_have_fewer_options():
    rows = SPACES["some layers at fixed bits"].sample(np.random.default_rng(0), 50)
    plans = [SPACES["some layers at fixed bits"].decode(row) for row in rows]
    assert {plan.weight_bits(LAYERS[1]).bits for plan in plans} == {8}
    assert {plan.weight_bits(LAYERS[0]).bits for plan in plans} == {2, 8}


def test_what_has_no_options_takes_its_part_of_the_memory():
    cached = BitWidths([*WEIGHTS, *CACHES], weight=(2, 4, 8)).within(memory=20_000)
    full = sum(cache.bytes(Bits(16)) for cache in CACHES)
    assert cached.budgets_array.tolist() == [20_000 - full]
    assert cached.with_budgets((1000.0,)).memory == 1000 + full


def test_a_plan_survives_json_and_says_what_it_costs():
    plan = BitPlan(
        weight={"a": 4, "b": "3@32"}, activation={"a": [8, 6], "b": [4, 4]}, kv={"x.key": 8, "x.value": 4},
        ranges=(500,),
    )  # fmt: skip
    assert BitPlan.from_json(json.dumps(plan.to_json())) == plan
    assert plan.kv_bits("x") == (Bits(8), Bits(4))
    assert plan.activation_bits("b", 0) == plan.activation_bits("b", 1) == Bits(4)
    sized = [SizedTensor("a", "weight", rows=1, columns=30), SizedTensor("b", "weight", rows=1, columns=10)]
    assert plan.mean_bits(sized) == (30 * 4 + 10 * 3) / 40
    inputs = [SizedTensor("a", "activation", rows=1, columns=30), SizedTensor("c", "activation", rows=1, columns=10)]
    assert plan.mean_bits(inputs, "activation") == (30 * 7 + 10 * 16) / 40
    assert plan.changed["weight"] == ("a", "b")
    assert BitPlan(weight={"a": 4, "b": 16}) == BitPlan(weight={"a": 4})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BitPlan(weight={"a": 1}), "from 2 to 16"),
        (lambda: BitPlan(weight={"a": "16@32"}), "no group size"),
        (lambda: BitPlan(weight={"a": True}), "from 2 to 16"),
        (lambda: BitPlan(activation={"a": (8, 8)}), "one for each of the 1"),
        (lambda: BitPlan(weight={"a": (8, 8)}, ranges=(500,)), "only activations"),
        (lambda: BitPlan(weight=[("a", 4), ("a", 8)]), "distinct names"),
        (lambda: BitPlan(ranges=(250, 500)), "strictly descending"),
        (lambda: BitPlan.from_json("[4]"), "no plan of bits"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(build, message):
    with pytest.raises(InvalidCandidate, match=message):
        build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 4}, "must be a tuple of options"),
        ({"weight": (4, 4)}, "distinct"),
        ({}, "no tensor has options"),
        ({"weight": (4, 8), "compute": 10}, "pass activation="),
        ({"weight": (4, 8), "memory": -1}, "greater than 0"),
        ({"weight": (4, 8), "shares": (0.5, 0.5)}, "1 shares"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        BitWidths(WEIGHTS, **settings)


def test_a_plan_with_other_layers_is_refused():
    with pytest.raises(InvalidCandidate, match="does not lie in"):
        SPACES["weights"].encode([BitPlan(weight={"elsewhere": 4})])


def test_keys_and_values_of_different_bits_each_count_once():
    cache, keys, values = CACHES[0], Bits(4), Bits(8)
    plan = BitPlan(kv={f"{cache.name}.key": 4, f"{cache.name}.value": 8})
    assert plan.memory([cache]) == (cache.bytes(keys) + cache.bytes(values)) / 2
    assert plan.mean_bits([cache], "kv") == 6
    alone = BitPlan(kv={f"{cache.name}.key": 4})
    assert alone.memory([cache]) == (cache.bytes(keys) + cache.elements * 2) / 2


def test_numbers_and_expressions_that_are_none_are_refused():
    with pytest.raises(InvalidSettings, match="regular expressions"):
        BitWidths(WEIGHTS, weight=(4, 8), only=(("(", (4,)),))
    with pytest.raises(InvalidSettings, match="shares must be"):
        BitWidths(INPUTS, activation=(4, 8), ranges=(500,), shares=(float("nan"), 1.0))
    for macs in (float("nan"), -1.0):
        with pytest.raises(InvalidSettings, match="macs"):
            SizedTensor("a", "activation", rows=1, columns=4, macs=macs)
