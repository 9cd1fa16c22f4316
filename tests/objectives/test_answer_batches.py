from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from searchlib.objectives.answer_batches import AnswerBatch, TokenizedCase, within_budget  # noqa: E402


def test_continuations_that_share_their_beginning_share_the_row():
    case = TokenizedCase.of((1, 2), [(3, 4), (4, 3), (4, 5), (4,)], right=1)
    assert case.rows == ((1, 2, 3), (1, 2, 4))
    assert case.continuations[0] == ((0, 1, 3), (0, 2, 4))
    assert case.continuations[2] == ((1, 1, 4), (1, 2, 5))
    assert case.width == 3


def test_a_batch_reads_every_answer_token_where_it_is_predicted():
    cases = [TokenizedCase.of((1, 2), [(3, 4)], None), TokenizedCase.of((5,), [(6,), (7, 8)], 0)]
    batch = AnswerBatch.of([4, 9], cases)
    assert batch.tokens.tolist() == [[1, 2, 3], [5, 7, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    read = zip(batch.rows[batch.which].tolist(), batch.places[batch.which].tolist(), strict=True)
    assert list(zip(read, batch.targets.tolist(), strict=True)) == [
        ((0, 1), 3),
        ((0, 2), 4),
        ((1, 0), 6),
        ((1, 0), 7),
        ((1, 1), 8),
    ]
    assert torch.equal(batch.columns[batch.places_trimmed], batch.places)


def test_scores_of_tokens_become_scores_of_cases():
    cases = [TokenizedCase.of((1, 2), [(3, 4)], None), TokenizedCase.of((5,), [(6,), (7, 8)], 0)]
    batch = AnswerBatch.of([4, 9], cases)
    accuracy, loss = batch.reduce(np.log([0.5, 0.25, 0.5, 0.5, 0.5]), np.array([True, False, True, True, True]))
    assert accuracy.tolist() == [0, 1]
    np.testing.assert_allclose(loss, [-np.log(0.125) / 2, -np.log(2 / 3)])
    accuracy, loss = batch.reduce(np.full(5, np.nan), np.ones(5, bool))
    assert accuracy.tolist() == [0, 0]
    assert np.isnan(loss).all()


def test_groups_stay_within_the_budget_or_hold_one_item():
    assert list(within_budget([(1, 2), (1, 3), (2, 3), (1, 20), (1, 20)], 12)) == [[0, 1, 2], [3], [4]]
    assert list(within_budget([], 12)) == []
