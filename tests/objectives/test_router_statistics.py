from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives.moe_model import MoeModel  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

E = 8


def test_statistics_equal_those_of_the_router_itself(family, tokens, build):
    model = build(family)
    mask = torch.ones_like(tokens)
    mask[1, :4] = 0
    valid = mask.bool()
    with MoeModel(model) as moe:
        records: list[list[Any]] = [[] for _ in moe.layers]
        handles = [
            layer.router.register_forward_hook(lambda _, __, output, store=store: store.append(output))
            for layer, store in zip(moe.layers, records, strict=True)
        ]
        # Steered before: statistics are those of the full model all the same.
        dense = np.random.default_rng(0).normal(size=(len(moe.layers), 4, E))
        moe.apply(dense, dense)
        statistics = moe.statistics([{"input_ids": tokens, "attention_mask": mask}])
        for handle in handles:
            handle.remove()
    assert statistics.tokens == 32
    for number, store in enumerate(records):
        scores, _, index = store[0]
        assert store[0][1].shape[-1] == 2
        scores = scores.float().sigmoid() if family == "deepseek-v3" else scores.float().softmax(-1)
        chosen = torch.bincount(index[valid.reshape(-1)].reshape(-1), minlength=E)
        assert statistics.frequency[number].tolist() == chosen.tolist()
        np.testing.assert_allclose(statistics.soft[number], scores[valid.reshape(-1)].sum(0).numpy(), rtol=1e-5)
        assert statistics.inputs[number].shape == (32, 32)
        assert statistics.logits[number].shape == (32, E)


def test_calibration_tokens_are_bounded_and_evenly_spaced(mixtral, tokens):
    with MoeModel(mixtral) as moe:
        every = moe.statistics([{"input_ids": tokens}, {"input_ids": tokens}])
        some = moe.statistics(lambda: [mixtral(input_ids=tokens) for _ in range(2)], sequences=5, tokens=15)
    assert np.array_equal(every.frequency, some.frequency)
    assert every.tokens == some.tokens == 72
    positions = np.concatenate([9 * row + np.array([0, 4, 8]) for row in range(5)])
    assert torch.equal(some.inputs[1], every.inputs[1][positions])
    assert torch.equal(some.logits[1], every.logits[1][positions])


def test_statistics_of_nothing_are_refused(mixtral):
    with MoeModel(mixtral) as moe, pytest.raises(InvalidSettings, match="at least one forward pass"):
        moe.statistics([])
