from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from searchlib.objectives.routing_rule import RoutingRule  # noqa: E402


def test_negative_and_vanishing_scores_are_guarded():
    scores = torch.tensor([[0.5, 0.3, 0.2]]).log()
    rule = RoutingRule("softmax", True)
    weights, slots = rule.route(scores, 2, torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, -1, 0]]))
    assert sorted(slots[0].tolist()) == [1, 2]
    assert weights[0].tolist() == [1, 0]
    weights, _ = rule.route(scores, 2, torch.tensor([[-1.0, 0, 0], [0, -1, 0]]))
    assert weights[0].tolist() == [0.5, 0.5]
    weights, _ = RoutingRule("softmax", False).route(scores, 2, torch.tensor([[-1.0, 0, 0], [0, -1, 0]]))
    assert weights[0].tolist() == [0, 0]


def test_unnormalized_routers_keep_the_share_of_the_softmax():
    scores = torch.tensor([[0.9, 0.06, 0.04]]).log()
    weights, _ = RoutingRule("softmax", False).route(scores, 2, torch.tensor([1, 2]))
    torch.testing.assert_close(weights, torch.tensor([[0.06, 0.04]]))
