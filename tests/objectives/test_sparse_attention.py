import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import AttentionInterface  # noqa: E402

from searchlib import AdditiveProfile, Candidates, ExactAllocation, Split, measure_profile, search  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import (  # noqa: E402
    SpanAttention,
    SpanPlan,
    SparseAttention,
    TokenCase,
    attention_mass_profile,
    taylor_profile,
)
from searchlib.objectives.sparse_attention import _smoke_cases, _smoke_model  # noqa: E402
from searchlib.spaces import AttentionPlan  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")


def own_model():
    return _smoke_model()[0]


def objective(**settings):
    return SparseAttention(own_model(), None, settings.pop("cases", _smoke_cases()), **{"sink": 1} | settings)


def test_it_keeps_the_contract():
    check_objective(SparseAttention.smoke())


def by_hand(model, plan, case):
    """The loss of one case, by a plain pass under the plan."""
    tokens = torch.tensor([case.tokens])
    with torch.inference_mode(), SpanAttention(model, plan, length=len(case)):
        output = model(tokens).logits[0].log_softmax(dim=-1)
    each = [-float(output[i - 1, case.tokens[i]]) for i, counts in enumerate(case.response) if counts]
    return np.mean(each)


def test_scores_are_losses_of_responses_under_the_plan_for_each_length():
    here = objective()
    cases = here.cases(Split.SEARCH)
    rows = here.space.sample(np.random.default_rng(0), 9)
    with here:
        scores = here.evaluate(Candidates(here.space, rows), cases)
    model = own_model()
    expected = [[by_hand(model, here.space.decode(row), case) for case in cases.payload] for row in rows]
    assert scores.shape == (9, 8)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert np.ptp(scores, axis=0).min() > 1e-3


def test_rows_over_the_budget_are_scored_too_as_profiles_need():
    here = objective()
    dense = here.space.unlimited.encode([AttentionPlan.uniform(2, 4, beta=1, sink=1, kv_groups=2)])
    with here:
        cases = here.cases(Split.SEARCH)
        scores = here.evaluate(Candidates(here.space.unlimited, dense), cases)
        assert np.array_equal(scores[0], here.evaluate_reference("dense", cases))
    expected = by_hand(own_model(), AttentionPlan.dense(2, 4), cases.payload[0])
    np.testing.assert_allclose(scores[0, 0], expected, rtol=1e-5)


def test_first_layers_that_agree_are_computed_once_and_change_nothing():
    space = objective().space.unlimited
    dense = int(space.rules.index((0.0, 1.0)))
    base = np.full((1, space.dimension), dense, space.dtype)
    rows = np.repeat(base, 8, axis=0)
    rows[np.arange(8), np.arange(8) % 4] = np.arange(8) // 4  # one part at a time, two rules
    tables, layers = [], []
    for reuse in (True, False):
        with objective(reuse=reuse) as here:
            tables.append(here.evaluate(Candidates(space, rows), here.cases(Split.SEARCH)))
            layers.append(here.layers_run)
    assert np.array_equal(*tables)
    assert layers[1] == 2 * 8 * 2  # two lengths, eight candidates, two layers
    assert layers[0] < layers[1]


def test_references_are_the_dense_model_and_the_widest_window_of_that_density():
    here = objective(density=0.5)
    for length in (12, 20, 24, 25):
        plan = here.uniform_plan(length)
        assert plan.density(length) <= 0.5 < plan.density(length) + 1 / length
        assert len({rule for layer in plan.distinct_rules() for rule in layer}) == 1
    with here:
        cases = here.cases(Split.HOLDOUT)
        uniform = here.evaluate_reference("uniform", cases)
    expected = [by_hand(own_model(), AttentionPlan.uniform(2, 4, alpha=11, sink=1), case) for case in cases.payload]
    np.testing.assert_allclose(uniform, expected, rtol=1e-5)


def test_the_dense_model_answers_for_itself():
    here = objective(supervision="model")
    given = objective()
    search_cases, holdout = here.cases(Split.SEARCH).payload, here.cases(Split.HOLDOUT).payload
    assert holdout == given.cases(Split.HOLDOUT).payload
    assert search_cases != given.cases(Split.SEARCH).payload
    with here:
        loss, right = here.score(AttentionPlan.dense(2, 4), here.cases(Split.SEARCH))
    assert right.tolist() == [1.0] * 8  # its own greedy answers are what it would say
    with given:
        assert loss.mean() < given.score(AttentionPlan.dense(2, 4), given.cases(Split.SEARCH))[0].mean()


def test_seeds_are_uniform_and_rules_and_lengths_come_from_the_cases():
    here = objective()
    assert here.space.lengths == (12, 20, 24)
    assert (0.0, 1.0) in here.space.rules
    assert here.space.kv_groups == 2
    seeds = here.seeds()
    assert len(seeds) >= 1
    assert (seeds == seeds[:, :1]).all()
    assert len(objective(seeded=False).seeds()) == 0


def test_a_search_leaves_the_model_as_it_was_and_gives_a_plan(tmp_path):
    model = own_model()
    model.train()
    before = [(name, tensor.data_ptr(), tensor.clone()) for name, tensor in model.named_parameters()]
    names = set(AttentionInterface._global_mapping)
    result = search(SparseAttention(model, None, _smoke_cases(), sink=1), budget=12)
    assert model.training
    assert set(AttentionInterface._global_mapping) == names
    assert model.config._attn_implementation == "sdpa"
    assert len(before) > 10
    for (_, place, tensor), now in zip(before, model.parameters(), strict=True):
        assert place == now.data_ptr()
        assert torch.equal(tensor, now)
    best = result.best
    assert isinstance(best, SpanPlan)
    assert all(best.plan.density(length) <= 0.5 for length in (12, 20, 24))
    best.save(tmp_path / "plan.json")
    assert SpanPlan.load(tmp_path / "plan.json") == best


def test_an_applied_plan_stays_until_it_is_taken_back():
    model, tokens = own_model(), torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    plan = SpanPlan(AttentionPlan.uniform(2, 4, alpha=2, sink=1))
    with torch.inference_mode():
        own = model(tokens).logits
        with plan.attached(model):
            expected = model(tokens).logits
        assert plan.apply(model) is model
        assert torch.equal(model(tokens).logits, expected)
        assert not torch.equal(expected, own)
        model.set_attn_implementation("sdpa")
        assert torch.equal(model(tokens).logits, own)


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(InvalidSettings, match="no SEARCH cases"):
        SparseAttention(own_model(), None, {})
    with pytest.raises(InvalidSettings, match="supervision"):
        objective(supervision="teacher")
    with pytest.raises(InvalidSettings, match="not open"):
        objective().score(AttentionPlan.dense(2, 4), objective().cases(Split.SEARCH))
    with pytest.raises(InvalidSettings, match=r"cases\[0\] is 'text'"):
        SparseAttention(own_model(), None, {"search": ["text"]})
    assert len(objective(cases={"search": [TokenCase.whole(range(1, 9))]}).cases(Split.HOLDOUT)) == 0


def test_heads_are_profiled_by_masking_each_alone_and_allocated_within_the_budget():
    here = objective()
    profile = measure_profile(here)
    space, cases = here.space, here.cases(Split.SEARCH)
    dense = space.rules.index((0.0, 1.0))
    assert profile.loss.shape == (1, 4, len(space.rules))
    assert (profile.base == dense).all()
    row = np.full((1, 4), dense, space.dtype)
    row[0, 2] = option = int(np.argmax(profile.loss[0, 2]))
    with here:
        alone = here.evaluate(Candidates(space.unlimited, row), cases) - here.evaluate_reference("dense", cases)
    assert profile.loss[0, 2, option] == pytest.approx(alone.mean(), abs=1e-6)
    assert alone.mean() > 0.01
    result = search(here, ExactAllocation(profile), budget=20)
    assert result.notes["additive"]["gap"] <= 1e-3
    assert all(result.best.plan.density(length) <= 0.5 for length in space.lengths)


@pytest.mark.parametrize("estimate", [attention_mass_profile, taylor_profile])
def test_estimated_profiles_allocate_too(estimate):
    here = objective(max_rules_per_layer=1)
    profile = AdditiveProfile.of(here.space, estimate(here))
    plan = here.space.decode(profile.allocate().choice)
    assert here.space.encode([plan]).shape == (1, 4)
    assert {len(rules) for rules in plan.distinct_rules()} == {1}


def test_the_uniform_window_counts_the_cache_of_key_value_heads():
    own = objective()
    plan = own.uniform_plan(24)
    assert plan.kv_groups == own.space.kv_groups > 1
    assert plan.kv_bytes(24, 4) * own.space.kv_groups == AttentionPlan(plan.alphas, plan.betas, sink=1).kv_bytes(24, 4)


def test_a_split_of_another_name_is_refused():
    with pytest.raises(InvalidSettings, match="search, select, holdout"):
        objective(cases={"train": _smoke_cases()["search"]})


def test_what_is_no_model_is_refused():
    with pytest.raises(InvalidSettings, match="model must be a module"):
        SparseAttention(None, None, _smoke_cases())
