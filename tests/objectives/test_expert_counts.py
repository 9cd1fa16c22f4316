"""Accuracy versus size as two objectives: kept experts, bytes, spans."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib import Candidates, Evolution, Split, WithCost, search  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import Case, ExpertPruning, QuantizedLLM, SparseAttention, with_kept_experts  # noqa: E402
from searchlib.objectives.expert_pruning import _smoke_model  # noqa: E402
from searchlib.objectives.quantized_llm import _smoke_model as _smoke_llm  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_cases  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_model as _smoke_sparse  # noqa: E402
from searchlib.objectives.token_cases import TokenCase  # noqa: E402
from searchlib.pareto import nondominated  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")


def cases(n=24):
    rng = np.random.default_rng(0)
    words = [tuple(int(token) for token in rng.integers(2, 20, size=5)) for _ in range(n)]
    return [Case(word[:-1], word[-1:]) for word in words]


def pruning(**settings):
    return ExpertPruning(_smoke_model, None, cases(), **({"keep": 4} | settings))


def kept_row(space, kept):
    """The row that keeps the experts ``(groups, any number)``."""
    row = np.zeros(space.dimension, space.dtype)
    for group, experts in enumerate(kept):
        row[[4 * group + expert for expert in experts]] = 1
    return row


def test_the_contract_holds():
    check_objective(with_kept_experts(pruning()))


def test_kept_experts_score_as_the_pruned_model_does():
    fixed, free = pruning(keep=2, phases=("prune",)), with_kept_experts(pruning())
    kept = [((0, 2), (1, 3)), ((0, 1), (2, 3)), ((2, 3), (0, 1))]
    rows = np.stack([kept_row(free.space, each) for each in kept])
    split = fixed.cases(Split.SEARCH)
    with fixed:
        expected = fixed.evaluate(Candidates(fixed.space, fixed.space.encode(kept)), split)
    with free:
        scores = free.evaluate(Candidates(free.space, rows), split)
    np.testing.assert_array_equal(scores.secondary, expected.secondary)
    np.testing.assert_array_equal(scores.values[:, :, 0], expected.values)
    assert (scores.values[:, :, 1] == 4).all()
    assert len(set(expected.secondary.mean(axis=1))) == 3


def test_every_group_keeps_enough_experts_and_the_count_is_over_layers():
    free = with_kept_experts(pruning(groups=1), least=3)
    rows = free.space.sample(np.random.default_rng(0), 200)
    counts = rows.reshape(200, 1, 4).sum(axis=2)
    assert counts.min() == 3
    assert free.costs(Candidates(free.space, rows)).tolist() == (2.0 * counts).tolist()  # one group of two layers


def test_a_search_gives_a_front_of_accuracy_and_kept_experts():
    free = with_kept_experts(pruning())
    result = search(free, budget=60)
    assert result.front.names == ("accuracy", "kept experts")
    assert result.history.population[0].tolist() == [1] * 8  # the model as it is comes first
    assert result.history.values[0, 1] == 8
    assert result.history.values[:, 1].min() == 4
    assert nondominated(result.front.values, free.direction).all()
    (sizes,) = result.holdout.others
    assert [(row.name, row.value) for row in sizes][1:] == [("full", 8.0)]
    kept = np.count_nonzero(result.best.router, axis=(1, 2))
    assert kept.sum() == result.front.values[result.front.chosen, 1]


@pytest.mark.parametrize("settings", [{"keep": 2}, {"keep": 4, "phases": ("prune",)}], ids=str)
def test_an_objective_that_drops_by_itself_is_refused(settings):
    with pytest.raises(InvalidSettings, match="all experts"):
        with_kept_experts(pruning(**settings))


def test_fewer_experts_than_are_active_are_refused():
    with pytest.raises(InvalidSettings, match="least"):
        with_kept_experts(pruning(), least=1)
    with pytest.raises(InvalidSettings, match="at most"):
        with_kept_experts(pruning(), least=5)


def test_loss_and_bytes_of_a_quantized_model_form_a_front():
    rng = np.random.default_rng(0)
    made = [TokenCase.whole(tuple(rng.integers(40, size=12).tolist())) for _ in range(10)]
    objective = QuantizedLLM(
        _smoke_llm(), {"search": made[:5], "select": made[5:7], "holdout": made[7:]}, weight=(2, 4, 8), metric="kl",
        batch=4,
    )  # fmt: skip
    tensors = objective.tensors
    both = WithCost(objective, lambda plan: plan.memory(tensors), name="bytes", value_name="kl")
    result = search(both, budget=120)
    front = result.front
    # The front rises as bytes fall, from the best loss to the smallest model.
    assert len(front) >= 5
    assert (np.diff(front.values[:, 0]) > 0).all()
    assert (np.diff(front.values[:, 1]) < 0).all()
    every = [objective.space.decode(row) for row in front.rows]
    assert front.values[:, 1].tolist() == [plan.memory(tensors) for plan in every]
    assert front.values[:, 1].min() == min(objective.space.uniform(weight=bits).memory(tensors) for bits in (2, 4, 8))
    # A search within the bytes of the knee does not find much better in as many evaluations.
    knee = front.knee()
    within = QuantizedLLM(
        _smoke_llm(), {"search": made[:5], "select": made[5:7], "holdout": made[7:]}, weight=(2, 4, 8), metric="kl",
        batch=4, memory=float(knee.values[1]),
    )  # fmt: skip
    assert knee.values[0] < 1.5 * search(within, Evolution(), budget=120).value


def test_loss_and_mean_span_of_sparse_attention_form_a_front():
    objective = SparseAttention(_smoke_sparse()[0], None, _smoke_cases(), sink=1, density=None)
    length = max(objective.space.lengths)
    both = WithCost(objective, lambda plan: plan.density(length), name="density", value_name="loss")
    result = search(both, budget=60)
    densities = result.front.values[:, 1]
    assert len(result.front) >= 3
    assert densities.tolist() == [objective.space.decode(row).density(length) for row in result.front.rows]
    assert densities.min() < 0.5 < densities.max() <= 1
