from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.expert_matrices import one_hot_matrices  # noqa: E402
from searchlib.objectives.moe_layers import find_moe_layers  # noqa: E402
from searchlib.objectives.router_hook import RouterHook  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8
KEPT = [6, 1, 3, 4]


@pytest.fixture
def layer(mixtral):
    return find_moe_layers(mixtral)[0]


@pytest.fixture
def hidden():
    return torch.randn(12, 32, generator=torch.Generator().manual_seed(2))


def run(layer, hidden):
    with torch.no_grad():
        return layer.router(hidden)


def test_a_hook_is_inert_until_set_and_after_it_was_cleared(layer, hidden):
    before = run(layer, hidden)
    hook = RouterHook(layer)
    layer.router.register_forward_hook(hook)
    assert all(map(torch.equal, run(layer, hidden), before))
    hook.set(one_hot_matrices(KEPT, E), None, 2)
    assert not torch.equal(run(layer, hidden)[2], before[2])
    hook.clear()
    assert all(map(torch.equal, run(layer, hidden), before))


def test_one_hot_slots_share_the_probabilities_of_their_experts(layer, hidden):
    logits = run(layer, hidden)[0]
    hook = RouterHook(layer)
    layer.router.register_forward_hook(hook)
    hook.set(one_hot_matrices(KEPT, E), np.array(KEPT), 2)
    passed, weights, index = run(layer, hidden)
    assert torch.equal(passed, logits)
    masked = torch.full_like(logits, float("-inf"))
    masked[:, KEPT] = logits[:, KEPT]
    expected, chosen = masked.softmax(-1).topk(2, -1)
    assert torch.equal(index, chosen)
    torch.testing.assert_close(weights, expected / expected.sum(-1, keepdim=True))


def test_slots_are_numbered_unless_their_stored_experts_are_given(layer, hidden):
    hook = RouterHook(layer)
    layer.router.register_forward_hook(hook)
    hook.set(one_hot_matrices(KEPT, E), None, 3)
    slots = run(layer, hidden)[2]
    hook.set(one_hot_matrices(KEPT, E), np.array(KEPT), 3)
    assert slots.shape == (12, 3)
    assert torch.equal(run(layer, hidden)[2], torch.tensor(KEPT)[slots])
