from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402
from searchlib.objectives.stock_checkpoint import StockCheckpoint, immovable_experts  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8


def checkpoint(model, router, merging, top_k=2):
    """With the first layer in a group of its own."""
    moe = MoeModel(model)
    return StockCheckpoint(moe, router, merging, (0,) + (1,) * (len(moe.layers) - 1), top_k)


def pruned(keep=4):
    rng = np.random.default_rng(0)
    return one_hot_matrices([rng.permutation(E)[:keep] for _ in range(2)], E)


def noisy(matrices):
    return matrices + np.random.default_rng(1).normal(scale=0.1, size=matrices.shape).astype(np.float32)


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


def searched_logits(stock, tokens):
    """Of the model while a search holds it."""
    model = stock.moe.model
    full = logits(model, tokens)
    with MoeModel(model) as moe:
        moe.apply(stock.router, stock.merging, stock.layer_groups, stock.top_k)
        result = logits(model, tokens)
    assert not torch.allclose(result, full, atol=1e-2)
    return result


def reloaded(stock, folder):
    stock.build().save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def test_a_smaller_model_drops_the_expert_groups(build, tokens, tmp_path):
    stock = checkpoint(build("deepseek-v3"), pruned(), noisy(pruned()))
    assert stock.obstacle() is None
    loaded = reloaded(stock, tmp_path)
    config = loaded.config
    assert (config.n_routed_experts, config.num_experts_per_tok, config.n_group, config.topk_group) == (4, 2, 1, 1)
    torch.testing.assert_close(logits(loaded, tokens), searched_logits(stock, tokens), atol=1e-5, rtol=1e-5)


def test_merging_without_pruning_keeps_the_expert_groups(build, tokens, tmp_path):
    identity = one_hot_matrices([range(E)] * 2, E)
    stock = checkpoint(build("deepseek-v3"), identity, noisy(identity))
    assert stock.obstacle() is None
    loaded = reloaded(stock, tmp_path)
    assert (loaded.config.n_group, loaded.config.topk_group) == (4, 2)
    torch.testing.assert_close(logits(loaded, tokens), searched_logits(stock, tokens), atol=1e-5, rtol=1e-5)


def test_half_precision_models_keep_their_type(build, tokens, tmp_path):
    stock = checkpoint(build("mixtral", torch.bfloat16), pruned(), noisy(pruned()))
    loaded = reloaded(stock, tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(loaded, tokens), searched_logits(stock, tokens), atol=0.02, rtol=0.02)


def test_unchanged_tensors_are_shared_with_the_base_model(mixtral):
    stock = checkpoint(mixtral, pruned(), pruned())
    places = {name: parameter.data_ptr() for name, parameter in mixtral.named_parameters()}
    own = {name for name, parameter in stock.build().named_parameters() if parameter.data_ptr() != places[name]}
    assert own == {
        f"model.layers.{number}.mlp.{name}"
        for number in range(3)
        for name in ("gate.weight", "experts.gate_up_proj", "experts.down_proj")
    }


def test_a_grouped_router_cannot_keep_a_single_expert(build):
    stock = checkpoint(build("deepseek-v3"), pruned(keep=1), pruned(keep=1), top_k=1)
    assert "needs two experts at least" in stock.obstacle()


@pytest.mark.parametrize("name", ["qwen3-moe-unnormalized", "deepseek-v2"])
def test_a_router_that_does_not_renormalize_is_an_obstacle(name, build):
    assert "does not renormalize its top-k weights" in checkpoint(build(name), pruned(), pruned()).obstacle()


def test_a_dense_router_mapping_is_an_obstacle(mixtral):
    obstacle = checkpoint(mixtral, noisy(pruned()), pruned()).obstacle()
    assert "dense router mapping acts after the softmax" in obstacle


def test_quantized_experts_are_an_obstacle(mixtral):
    assert immovable_experts(MoeModel(mixtral)) is None
    mixtral.model.layers[1].mlp.experts.down_proj.quant_state = "4 bit"
    obstacle = checkpoint(mixtral, pruned(), pruned()).obstacle()
    assert "cannot be rewritten: model.layers.1.mlp.experts.down_proj is quantized" in obstacle
