"""Equations 5 and 6 of the paper, in every family, against a plain loop over tokens and slots."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8


def dense_matrices(groups, keep, seed=0):
    rng = np.random.default_rng(seed)
    return (np.eye(E)[:keep] + 0.1 * rng.normal(size=(groups, keep, E))).astype(np.float32)


def reference_block(layer, hidden, router, merging, top_k):
    """Equations 5 and 6 for one layer, token by token and slot by slot."""
    rule = layer.rule
    gate_up = torch.einsum("ke,eab->kab", merging, layer.experts.gate_up_proj.detach())
    down = torch.einsum("ke,eab->kab", merging, layer.experts.down_proj.detach())
    output = torch.zeros_like(hidden)
    for number, state in enumerate(hidden):
        scores = layer.router.weight.detach() @ state
        scores = scores.softmax(0) if rule.scoring == "softmax" else scores.sigmoid()
        mapped = router @ scores
        choice = mapped if layer.correction is None else router @ (scores + layer.correction)
        slots = choice.argsort(descending=True)[:top_k]
        weights = mapped[slots].clamp_min(0)
        weights = rule.scaling * (weights / weights.sum() if rule.renormalize else weights)
        for slot, weight in zip(slots, weights, strict=True):
            gate, up = (gate_up[slot] @ state).chunk(2)
            output[number] += weight * (down[slot] @ (torch.nn.functional.silu(gate) * up))
    return output


def routed_output(layer, hidden):
    _, weights, index = layer.router(hidden)
    return layer.experts(hidden, index, weights)


@pytest.mark.parametrize("lazy", [False, True])
def test_merged_layers_equal_a_plain_loop(family, lazy, build):
    model = build(family)
    hidden = torch.randn(12, 32, generator=torch.Generator().manual_seed(2))
    with MoeModel(model, lazy=lazy) as moe:
        layers = len(moe.layers)
        router, merging = dense_matrices(layers, 5, seed=1), dense_matrices(layers, 5, seed=2)
        pairs = list(zip(torch.from_numpy(router), torch.from_numpy(merging), strict=True))
        expected = [reference_block(layer, hidden, *pair, 3) for layer, pair in zip(moe.layers, pairs, strict=True)]
        moe.apply(router, merging, range(layers), top_k=3)
        with torch.no_grad():
            for layer, output in zip(moe.layers, expected, strict=True):
                torch.testing.assert_close(routed_output(layer, hidden), output, atol=1e-4, rtol=1e-4)
                assert output.abs().max() > 0.1


def test_pruned_layers_equal_a_plain_loop_and_move_no_weights(family, build):
    model = build(family)
    hidden = torch.randn(12, 32, generator=torch.Generator().manual_seed(2))
    with MoeModel(model) as moe:
        layers = len(moe.layers)
        router = one_hot_matrices([[6, 1, 3]] * layers, E)
        merging = one_hot_matrices([[2, 1, 7]] * layers, E)
        pairs = list(zip(torch.from_numpy(router), torch.from_numpy(merging), strict=True))
        places = [weight.data_ptr() for layer in moe.layers for weight in layer.weights()]
        expected = [reference_block(layer, hidden, *pair, 2) for layer, pair in zip(moe.layers, pairs, strict=True)]
        moe.apply(router, merging)
        with torch.no_grad():
            for layer, output in zip(moe.layers, expected, strict=True):
                torch.testing.assert_close(routed_output(layer, hidden), output, atol=1e-4, rtol=1e-4)
        assert [weight.data_ptr() for layer in moe.layers for weight in layer.weights()] == places
        assert moe.merges == 0
