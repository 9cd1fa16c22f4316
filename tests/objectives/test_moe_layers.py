from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.errors import UnsupportedModel  # noqa: E402
from searchlib.objectives.moe_layers import find_config_field, find_moe_layers  # noqa: E402
from searchlib.objectives.routing_rule import RoutingRule  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8
RULES = {
    "mixtral": RoutingRule("softmax", True),
    "qwen2-moe": RoutingRule("softmax", False),
    "qwen3-moe": RoutingRule("softmax", True),
    "qwen3-moe-unnormalized": RoutingRule("softmax", False),
    "olmoe": RoutingRule("softmax", False),
    "deepseek-v2": RoutingRule("softmax", False),
    "deepseek-v2-groups": RoutingRule("softmax", False, 1.5, 4, 2, "max"),
    "deepseek-v3": RoutingRule("sigmoid", True, 1.5, 4, 2, "two largest"),
    "granite": RoutingRule("softmax", True),
}
CONFIG_FIELDS = {"mixtral": "num_local_experts", "qwen2-moe": "num_experts", "deepseek-v3": "n_routed_experts"}


def test_every_family_is_found_by_structure(family, build):
    layers = find_moe_layers(build(family))
    dense = 1 if family.startswith("deepseek") or family == "qwen2-moe" else 0
    assert [layer.number for layer in layers] == list(range(dense, 3))
    assert {layer.rule for layer in layers} == {RULES[family]}
    assert (layers[0].correction is not None) == (family == "deepseek-v3")


def test_the_field_for_the_number_of_experts_is_found(family, build):
    model = build(family)
    experts = find_moe_layers(model)[0].experts
    field = find_config_field(model.config, experts, "num_experts")
    assert field is not None
    assert getattr(model.config, field) == E
    assert field == CONFIG_FIELDS.get(family, field)


def test_transposed_experts_are_refused_with_a_sentence():
    config = transformers.GptOssConfig(
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=24,
        vocab_size=48,
        num_local_experts=E,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
    )
    model = transformers.GptOssForCausalLM(config)
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.0\.mlp: its experts GptOssExperts store transposed"):
        find_moe_layers(model)


def test_dense_models_are_refused_with_a_sentence():
    config = transformers.LlamaConfig(
        num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=4, vocab_size=48
    )
    with pytest.raises(UnsupportedModel, match="LlamaForCausalLM has no mixture-of-experts layer"):
        find_moe_layers(transformers.LlamaForCausalLM(config))


def test_a_router_that_no_rule_reproduces_is_refused(mixtral):
    router = mixtral.model.layers[1].mlp.gate

    def forward(hidden):
        scores, weights, index = type(router).forward(router, hidden)
        return scores, weights**2, index

    router.forward = forward
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.1\.mlp: no known scoring rule .* MixtralTopKRouter"):
        find_moe_layers(mixtral)
