from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.expert_baselines import (  # noqa: E402
    discrepancies,
    frequency,
    naee,
    random_subsets,
    soft_activation,
)
from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402
from searchlib.objectives.router_statistics import RouterStatistics  # noqa: E402

E = 6
SHARED = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
DEEPSEEK = {
    "intermediate_size": 40,
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 3,
    "topk_group": 2,
}
FAMILIES = {
    "Mixtral": {"intermediate_size": 48, "num_local_experts": E, "num_key_value_heads": 2},
    "Olmoe": {"intermediate_size": 24, "num_experts": E},
    "DeepseekV3": DEEPSEEK,
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHARED | FAMILIES[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("gate.weight"):
                parameter.normal_()
            elif ".experts." in path:
                parameter.normal_(std=0.3)
        for path, buffer in model.named_buffers():
            if path.endswith("e_score_correction_bias"):
                buffer.normal_(std=0.3)
    return model.eval()


def calibrate(moe):
    tokens = torch.randint(1, 48, (4, 9), generator=torch.Generator().manual_seed(1))
    return moe.statistics([{"input_ids": tokens}])


def statistics_of(values):
    table = np.array(values, dtype=np.float64)
    return RouterStatistics(frequency=table, soft=table[:, ::-1], tokens=1, inputs=(), logits=())


def routed_output(layer, hidden):
    with torch.no_grad():
        _, weights, index = layer.router(hidden)
        return layer.experts(hidden, index, weights)


def brute_force(moe, statistics, keep):
    """Discrepancy of every subset in every layer, by running the pruned layer: (layers, subsets)."""
    full = [routed_output(layer, hidden) for layer, hidden in zip(moe.layers, statistics.inputs, strict=True)]
    table = []
    for subset in itertools.combinations(range(E), keep):
        matrices = one_hot_matrices([subset] * len(moe.layers), E)
        moe.apply(matrices, matrices)
        table.append(
            [
                (routed_output(layer, hidden) - output).norm().item()
                for layer, hidden, output in zip(moe.layers, statistics.inputs, full, strict=True)
            ]
        )
    moe.identity()
    return np.array(table).T


def masked_brute_force(layer, hidden, keep):
    """The same for Mixtral without our hook: pruned experts get the logit minus infinity."""
    full = routed_output(layer, hidden)
    weight = layer.router.weight.detach()
    result = []
    for subset in itertools.combinations(range(E), keep):
        scores = hidden @ weight.T
        scores[:, [expert for expert in range(E) if expert not in subset]] = float("-inf")
        weights, index = scores.softmax(-1).topk(2, -1)
        with torch.no_grad():
            pruned = layer.experts(hidden, index, weights / weights.sum(-1, keepdim=True))
        result.append((pruned - full).norm().item())
    return np.array(result)


def subsets(keep):
    return np.array(list(itertools.combinations(range(E), keep)))


@pytest.mark.parametrize("family", FAMILIES)
def test_naee_equals_brute_force(family):
    with MoeModel(build(family)) as moe:
        statistics = calibrate(moe)
        expected = brute_force(moe, statistics, keep=3)
        for number, layer in enumerate(moe.layers):
            found = discrepancies(layer, statistics.inputs[number], statistics.logits[number], subsets(3), 2, 2)
            np.testing.assert_allclose(found, expected[number], rtol=1e-4)
        assert expected.min() > 0.1
        rng = np.random.default_rng(0)
        assert np.array_equal(naee(moe, statistics, 3, rng=rng), subsets(3)[expected.argmin(axis=1)])
        pooled = naee(moe, statistics, 3, [0] * len(moe.layers), rng=rng)
        assert np.array_equal(pooled, subsets(3)[[expected.sum(axis=0).argmin()]])


def test_naee_equals_masking_the_logits_of_mixtral():
    with MoeModel(build("Mixtral")) as moe:
        statistics = calibrate(moe)
        kept = naee(moe, statistics, 4, rng=np.random.default_rng(0))
        for number, layer in enumerate(moe.layers):
            expected = masked_brute_force(layer, statistics.inputs[number], 4)
            assert kept[number].tolist() == subsets(4)[expected.argmin()].tolist()


def test_naee_removes_experts_that_are_never_chosen():
    with MoeModel(build("Mixtral")) as moe:
        statistics = calibrate(moe)
        for scores in statistics.logits:
            scores[:, [0, 4]] = -50
        kept = naee(moe, statistics, 4, rng=np.random.default_rng(0))
        assert kept.tolist() == [[1, 2, 3, 5]] * 3
        least = discrepancies(moe.layers[0], statistics.inputs[0], statistics.logits[0], kept[:1], 2, 2)
    assert least < 1e-3


def test_naee_draws_random_subsets_where_there_are_too_many():
    with MoeModel(build("Mixtral")) as moe:
        statistics = calibrate(moe)
        kept = naee(moe, statistics, 3, rng=np.random.default_rng(0), max_subsets=5)
        again = naee(moe, statistics, 3, rng=np.random.default_rng(0), max_subsets=5)
        best = naee(moe, statistics, 3, rng=np.random.default_rng(0))
        assert np.array_equal(kept, again)
        assert not np.array_equal(kept, best)
        assert kept.shape == (3, 3)


def test_naee_keeps_fewer_experts_than_are_active():
    with MoeModel(build("Mixtral")) as moe:
        statistics = calibrate(moe)
        assert naee(moe, statistics, 1, rng=np.random.default_rng(0)).shape == (3, 1)
        with pytest.raises(InvalidSettings, match=r"top_k must lie between 1 and keep \(3\), got 4"):
            naee(moe, statistics, 3, rng=np.random.default_rng(0), top_k=4)


def test_frequency_and_soft_activation_keep_the_largest():
    statistics = statistics_of([[5, 1, 9, 0], [1, 8, 2, 8]])
    assert frequency(statistics, 2).tolist() == [[0, 2], [1, 3]]
    assert soft_activation(statistics, 2).tolist() == [[1, 3], [0, 2]]
    assert frequency(statistics, 4).tolist() == [[0, 1, 2, 3]] * 2


def test_layers_of_a_group_are_pooled():
    statistics = statistics_of([[5, 1, 9, 0], [1, 8, 2, 8], [0, 0, 0, 1]])
    assert frequency(statistics, 2, [0, 0, 1]).tolist() == [[1, 2], [0, 3]]
    with pytest.raises(InvalidSettings, match="one integer for each of 3 layers"):
        frequency(statistics, 2, [0, 1])


def test_random_subsets_are_uniform_and_sorted():
    drawn = random_subsets(np.random.default_rng(0), experts=5, keep=2, groups=3, draws=2000)
    assert drawn.shape == (2000, 3, 2)
    assert (np.diff(drawn, axis=-1) > 0).all()
    _, counts = np.unique(drawn.reshape(-1, 2), axis=0, return_counts=True)
    # 10 subsets, 6000 draws: 600 each, standard deviation 23.
    assert len(counts) == 10
    assert abs(counts - 600).max() < 5 * 23


@pytest.mark.parametrize("keep", [0, 7])
def test_an_impossible_number_of_experts_is_refused(keep):
    with pytest.raises(InvalidSettings, match=rf"between 1 and the number of experts \(6\), got {keep}"):
        random_subsets(np.random.default_rng(0), experts=E, keep=keep, groups=1)
    with pytest.raises(InvalidSettings, match=f"got {keep}"):
        frequency(statistics_of(np.ones((2, E))), keep)


def test_baselines_plug_into_the_model():
    with MoeModel(build("Mixtral")) as moe:
        statistics = calibrate(moe)
        for kept in (frequency(statistics, 4), soft_activation(statistics, 4)):
            matrices = one_hot_matrices(kept, moe.experts)
            moe.apply(matrices, matrices)
