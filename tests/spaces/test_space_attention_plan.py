import json
from pathlib import Path

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate
from searchlib.spaces import AttentionPlan

RELEASED = Path(__file__).parents[3] / "shared" / "data" / "moa_plans"
VICUNA, LLAMA = "lmsys--vicuna-7b-v1.5-16k", "gradientai--Llama-3-8B-Instruct-262k"


def released(model, kind="moa"):
    path = RELEASED / model / f"{kind}_alpha_beta.json"
    if not path.is_file():
        pytest.skip(f"the released plan is not here (../shared/data/moa_plans/{model})")
    return path


def test_a_span_counts_the_token_itself_and_is_at_least_one_and_at_most_the_length():
    plan = AttentionPlan([[-100, 0, 5, 100]], [[0, 0.1, 0.5, 1]])
    assert plan.span(20).tolist() == [[1, 2, 15, 20]]
    assert plan.span(30)[0, 1] == 3  # 0.1 * 30 is 3.0000000000000004


def test_spans_are_rounded_up_to_blocks_and_sinks_come_on_top():
    plan = AttentionPlan([[1, 64, 65]], [[0, 0, 0]], block=64, sink=4)
    assert plan.span(1000).tolist() == [[64, 64, 128]]
    assert plan.kept(1000).tolist() == [[68, 68, 132]]
    assert plan.kept(130).tolist() == [[68, 68, 130]]
    assert plan.density(1000) == pytest.approx((68 + 68 + 132) / 3000)


@pytest.mark.parametrize(
    ("model", "rules", "published"), [(VICUNA, 9, (0.484, 0.492, 0.496)), (LLAMA, 11, (0.487, 0.492, 0.495))]
)
def test_released_plans_have_two_rules_per_layer_and_their_published_density(model, rules, published):
    plan = AttentionPlan.load(released(model))
    assert (plan.layers, plan.heads, plan.sink, plan.block) == (32, 32, 64, 64)
    assert max(map(len, plan.distinct_rules())) == 2
    assert len({rule for layer in plan.distinct_rules() for rule in layer}) == rules
    alphas, betas = np.array(plan.alphas), np.array(plan.betas)
    for length, density in zip((4096, 8192, 16384), published, strict=True):
        assert np.mean((alphas + betas * length) / length) == pytest.approx(density, abs=6e-4)
        # Clipped to the length and with a block of sinks, the plan keeps a little more or less than the rule says.
        assert plan.density(length) == pytest.approx(density, abs=0.03)


def test_released_uniform_plans_see_half():
    plan = AttentionPlan.load(released(VICUNA, "streamingllm"))
    assert plan.distinct_rules() == (((0.0, 0.5),),) * 32
    assert plan.density(8192) == (4096 + 64) / 8192


def test_a_plan_survives_its_file_and_the_file_reads_as_a_released_one(tmp_path):
    plan = AttentionPlan([[0, -8.5], [3, 4]], [[0.25, 0.5], [0, 1]], sink=4, block=16, kv_groups=2)
    plan.save(tmp_path / "plan.json")
    assert AttentionPlan.load(tmp_path / "plan.json") == plan
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["alphas"] == [[0, -8.5], [3, 4]]
    assert written["betas"] == [[0.25, 0.5], [0, 1]]
    again = AttentionPlan.load(released(LLAMA))
    assert AttentionPlan.from_json(again.to_json()) == again


def test_heads_that_share_a_key_value_head_are_consecutive_and_get_the_widest_rule():
    plan = AttentionPlan([[8, 2, 3, 4]], [[0, 0, 0, 0]])
    assert plan.shared(2, 16).alphas == ((8, 8, 4, 4),)
    # One sequence, float16, head size 10: a key-value head keeps its widest head's keys, and the values.
    grouped = AttentionPlan(plan.alphas, plan.betas, kv_groups=2)
    assert grouped.kv_bytes(16, 10) == (8 + 4) * 2 * 10 * 2
    assert plan.kv_bytes(16, 10) == (8 + 2 + 3 + 4) * 2 * 10 * 2


@pytest.mark.parametrize(
    "tables",
    [
        ([], []), ([[1]], [[1], [1]]), ([[1, 2], [1]], [[0, 0], [0]]), ([[float("nan")]], [[0]]), ([1], [2]),
        ([[]], [[]]),
    ],
)
def test_tables_that_are_no_plan_are_refused(tables):
    with pytest.raises(InvalidCandidate):
        AttentionPlan(*tables)


def test_files_that_are_no_plan_are_refused(tmp_path):
    with pytest.raises(InvalidCandidate, match="missing are \\['betas'\\], unknown \\['gamma'\\]"):
        AttentionPlan.from_json({"alphas": [[1]], "gamma": 1})
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidCandidate, match="must hold an object"):
        AttentionPlan.load(tmp_path / "list.json")
    with pytest.raises(InvalidCandidate, match="kv_groups must divide"):
        AttentionPlan([[1, 1, 1]], [[0, 0, 0]], kv_groups=2)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("no plan")
    with pytest.raises(InvalidCandidate, match=r"plan\.json holds no plan"):
        AttentionPlan.load(tmp_path / "plan.json")
