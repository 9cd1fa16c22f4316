"""Answers scored in one prefill are right exactly where greedy generation produces them, case by case."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest

from searchlib.errors import InvalidSettings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.answer_scoring import AnswerScorer, Case  # noqa: E402

END = "</s>"
LETTERS = string.ascii_lowercase


SIZES = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}


def make_mixtral(seed: int = 0):
    """Random weights, large enough that predictions are far from ties."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.MixtralForCausalLM(
            transformers.MixtralConfig(num_local_experts=4, initializer_range=0.3, **SIZES)
        )
    return model.eval()


def make_qwen_moe():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.Qwen2MoeForCausalLM(
            transformers.Qwen2MoeConfig(
                num_experts=4,
                moe_intermediate_size=32,
                shared_expert_intermediate_size=32,
                initializer_range=0.3,
                **SIZES,
            )
        )
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def model():
    return make_mixtral()


def greedy(model, ids: list[int], n: int) -> list[int]:
    """What the model's own ``generate`` appends to one unpadded prompt; it stops after the end token."""
    tokens = torch.tensor([ids])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, do_sample=False)
    return out[0, len(ids) :].tolist()


def random_words(n: int, shortest: int, longest: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS), rng.integers(shortest, longest + 1))) for _ in range(n)]


def log_likelihood(model, context: list[int], continuation: list[int]) -> float:
    """Summed over the continuation's tokens; one row, no padding, all logits."""
    with torch.no_grad():
        logits = model(torch.tensor([context + continuation])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(context) - 1 + j, token]) for j, token in enumerate(continuation))


@pytest.fixture(scope="module")
def produced(model, tokenizer) -> list[Case]:
    """Prompts of many lengths; half of the answers are what the model says, half have one letter changed."""
    cases = []
    for i, prompt in enumerate(random_words(60, 1, 20, seed=3)):
        said = greedy(model, tokenizer(prompt)["input_ids"], 1 + i % 5)
        said = [token for token in said if token > 5] or [6]
        if i % 2:
            said[(i // 2) % len(said)] = 6 + (said[(i // 2) % len(said)] - 5) % 26
        cases.append(Case(prompt, tokenizer.decode(said)))
    return cases


@pytest.mark.parametrize("make", [make_mixtral, make_qwen_moe])
def test_one_prefill_is_right_exactly_where_greedy_generation_is(make, produced, tokenizer):
    model = make()
    accuracy, _ = AnswerScorer(model, tokenizer, produced, batch_tokens=200).score()
    for case, right in zip(produced, accuracy, strict=True):
        answer = tokenizer(case.answer)["input_ids"]
        assert right == (greedy(model, tokenizer(case.prompt)["input_ids"], len(answer)) == answer)
    if make is make_mixtral:
        assert 20 <= accuracy.sum() <= 40


def test_with_an_end_token_going_on_talking_is_wrong(model, tokenizer, produced):
    scorer = AnswerScorer(model, tokenizer, produced, end=END)
    expected = []
    for case in produced:
        answer = [*tokenizer(case.answer)["input_ids"], tokenizer.eos_token_id]
        expected.append(greedy(model, tokenizer(case.prompt)["input_ids"], len(answer)) == answer)
    assert scorer.score()[0].tolist() == expected
    assert sum(expected) < AnswerScorer(model, tokenizer, produced).score()[0].sum()
    ended = next(
        (prompt, said[:-1])
        for prompt in random_words(500, 1, 12, seed=5)
        if (said := greedy(model, tokenizer(prompt)["input_ids"], 6))[-1] == 1 and len(said) > 1 and min(said[:-1]) > 5
    )
    stops = Case(ended[0], tokenizer.decode(ended[1]))
    assert AnswerScorer(model, tokenizer, [stops], end=END).score()[0] == [1.0]


def test_the_loss_is_the_mean_negative_log_likelihood_per_answer_token(model, tokenizer, produced):
    _, loss = AnswerScorer(model, tokenizer, produced, end=tokenizer.eos_token_id, batch_tokens=100).score()
    for case, value in zip(produced, loss, strict=True):
        answer = [*tokenizer(case.answer)["input_ids"], 1]
        expected = -log_likelihood(model, tokenizer(case.prompt)["input_ids"], answer) / len(answer)
        assert value == pytest.approx(expected, abs=1e-4)


def option_cases(longest: int) -> list[Case]:
    cases = []
    for i, prompt in enumerate(random_words(40, 1, 15, seed=7)):
        words = random_words(4, 1, longest, seed=100 + i)
        # no option may begin another one: give each its own first letter
        options = tuple(dict.fromkeys("abcd"[j] + option[1:] for j, option in enumerate(words)))
        cases.append(Case(prompt, options[i % len(options)], options))
    return cases


@pytest.mark.parametrize("longest", [1, 5])
def test_options_score_as_brute_force_does_one_by_one(model, tokenizer, longest):
    cases = option_cases(longest)
    accuracy, loss = AnswerScorer(model, tokenizer, cases, batch_tokens=150).score()
    for case, right, value in zip(cases, accuracy, loss, strict=True):
        context = tokenizer(case.prompt)["input_ids"]
        scores = np.array([log_likelihood(model, context, tokenizer(option)["input_ids"]) for option in case.options])
        index = case.options.index(case.answer)
        assert right == (np.argmax(scores) == index)
        assert value == pytest.approx(np.log(np.exp(scores).sum()) - scores[index], abs=1e-4)
    assert 0 < accuracy.sum() < len(cases)


def test_options_of_one_token_cost_one_row(model, tokenizer):
    short, long = Case("abc", "x", ("x", "y", "z")), Case("abc", "xy", ("xy", "yx", "yz"))
    batch = next(AnswerScorer(model, tokenizer, [short]).inputs())
    assert batch["input_ids"].tolist() == [tokenizer("abc")["input_ids"]]
    rows = next(AnswerScorer(model, tokenizer, [long]).inputs())["input_ids"]
    assert len(rows) == 2, "options yx and yz are both predicted from the row that ends with y"
    assert AnswerScorer(model, tokenizer, [short, long]).tokens.tolist() == [3, 8]


def test_an_option_that_begins_another_one_can_win_with_an_end_token(model, tokenizer):
    case = Case("abc", "xyz", ("x", "xyz"))
    with pytest.raises(InvalidSettings, match=re.escape("is the beginning of 'xyz', which could never be more likely")):
        AnswerScorer(model, tokenizer, [case])
    _, loss = AnswerScorer(model, tokenizer, [case], end=END).score()
    context = tokenizer("abc")["input_ids"]
    scores = [log_likelihood(model, context, [*tokenizer(option)["input_ids"], 1]) for option in case.options]
    assert loss[0] == pytest.approx(np.logaddexp(*scores) - scores[1], abs=1e-4)


def test_scores_do_not_depend_on_the_company_of_a_case(model, tokenizer, produced):
    cases = produced + option_cases(5)
    together = AnswerScorer(model, tokenizer, cases).score()
    split = AnswerScorer(model, tokenizer, cases, batch_tokens=64).score()
    alone = [AnswerScorer(model, tokenizer, [case], batch_tokens=1).score() for case in cases]
    np.testing.assert_array_equal(together[0], split[0])
    np.testing.assert_allclose(together[1], split[1], atol=1e-5)
    np.testing.assert_allclose(together[1], [loss[0] for _, loss in alone], atol=1e-5)
    np.testing.assert_array_equal(together[0], [accuracy[0] for accuracy, _ in alone])


def test_columns_select_cases_in_the_order_asked_for(model, tokenizer, produced):
    scorer = AnswerScorer(model, tokenizer, produced, batch_tokens=300)
    accuracy, loss = scorer.score()
    columns = np.array([17, 3, 59, 3, 0])
    some_accuracy, some_loss = scorer.score(columns)
    np.testing.assert_array_equal(some_accuracy, accuracy[columns])
    np.testing.assert_allclose(some_loss, loss[columns], atol=1e-5)
    assert accuracy.dtype == loss.dtype == np.float64
    assert [part.shape for part in scorer.score([])] == [(0,), (0,)]


def test_a_batch_holds_no_more_tokens_than_the_budget(model, tokenizer, produced):
    batches = list(AnswerScorer(model, tokenizer, produced, batch_tokens=120).inputs())
    assert len(batches) > 3
    assert all(batch["input_ids"].numel() <= 120 for batch in batches)
    assert sum(int(batch["attention_mask"].sum()) for batch in batches) == sum(
        len(case.prompt) + len(case.answer) - 1 for case in produced
    )


def test_only_the_places_of_answers_get_logits(model, tokenizer):
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    try:
        AnswerScorer(model, tokenizer, [Case("abcdefghij", "xyz"), Case("bcdefghijk", "abc")]).score()
    finally:
        hook.remove()
    assert seen == [3]


def test_models_that_do_not_trim_logits_score_the_same(tokenizer, produced):
    """A wrapper whose forward hides the argument (as adapters' do), and one that ignores it."""

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_mixtral()
            self.config = self.inner.config
            self.get_input_embeddings = self.inner.get_input_embeddings

    class Hiding(Wrapper):
        def forward(self, **inputs):
            return self.inner(**inputs)

    class Ignoring(Wrapper):
        def forward(self, logits_to_keep=0, **inputs):
            return self.inner(**inputs)

    accuracy, loss = AnswerScorer(make_mixtral(), tokenizer, produced).score()
    for wrapped in (Hiding().eval(), Ignoring().eval()):
        other_accuracy, other_loss = AnswerScorer(wrapped, tokenizer, produced).score()
        np.testing.assert_array_equal(other_accuracy, accuracy)
        np.testing.assert_allclose(other_loss, loss, atol=1e-5)


def test_token_ids_score_as_their_strings_do(model, tokenizer, produced):
    ids = [Case(tokenizer(case.prompt)["input_ids"], tokenizer(case.answer)["input_ids"]) for case in produced]
    np.testing.assert_array_equal(
        AnswerScorer(model, tokenizer, produced, end=END).score(), AnswerScorer(model, None, ids, end=1).score()
    )


def test_a_metric_function_gets_what_greedy_generation_says(model, tokenizer, produced):
    heard = {}

    def metric(text, case):
        heard[case] = text
        return 0.25

    cases = list(dict.fromkeys(produced))
    scorer = AnswerScorer(model, tokenizer, cases, metric=metric, max_new_tokens=7, end=END, batch_tokens=200)
    accuracy, loss = scorer.score()
    assert set(accuracy) == {0.25}
    assert len(heard) == len(cases)
    for case in cases:
        said = [token for token in greedy(model, tokenizer(case.prompt)["input_ids"], 7) if token != 1]
        assert heard[case] == tokenizer.decode(said, skip_special_tokens=True)
    np.testing.assert_array_equal(loss, AnswerScorer(model, tokenizer, cases, end=END, batch_tokens=200).score()[1])


def test_an_exact_match_metric_over_generated_text_equals_the_prefill(model, tokenizer, produced):
    def begins(ids, case):
        return float(ids[: len(case.answer)] == case.answer)

    cases = [Case(tokenizer(case.prompt)["input_ids"], tokenizer(case.answer)["input_ids"]) for case in produced]
    generated, _ = AnswerScorer(model, None, cases, metric=begins, max_new_tokens=5).score([5, 4, 9, 30, 31])
    prefilled, _ = AnswerScorer(model, None, cases).score([5, 4, 9, 30, 31])
    np.testing.assert_array_equal(generated, prefilled)


def test_penalties_among_a_models_generation_settings_do_not_change_greedy_decoding(tokenizer, produced):
    model = make_mixtral()
    heard = []

    def metric(text, case):
        heard.append(text)
        return 1.0

    for penalty in (1.0, 5.0):
        model.generation_config.repetition_penalty = penalty
        AnswerScorer(model, tokenizer, produced[:10], metric=metric).score()
    assert len(heard) == 20
    assert heard[:10] == heard[10:]


def test_a_model_in_half_precision_scores_near_the_full_one(tokenizer, produced):
    model = make_mixtral().to(torch.bfloat16)
    cases = produced + option_cases(5)
    accuracy, loss = AnswerScorer(model, tokenizer, cases).score()
    exact_accuracy, exact_loss = AnswerScorer(make_mixtral(), tokenizer, cases).score()
    assert accuracy.dtype == np.float64
    assert np.isfinite(loss).all()
    assert np.mean(accuracy == exact_accuracy) > 0.9
    assert np.median(np.abs(loss - exact_loss)) < 0.2


def test_a_broken_model_is_never_right_and_has_no_loss(tokenizer):
    model = make_mixtral()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    cases = [Case("ab", "c"), Case("a", "b", ("b", "c")), Case((6,), (0,))]
    accuracy, loss = AnswerScorer(model, tokenizer, cases).score()
    assert np.isnan(loss).all()
    assert accuracy.tolist() == [0, 0, 0]


def test_scoring_leaves_the_model_and_the_random_state_alone(model, tokenizer, produced):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    AnswerScorer(model, tokenizer, produced).score()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("cases", "settings", "sentence"),
    [
        ([], {}, "cases must not be empty"),
        ([Case("a", "b")], {"batch_tokens": 0}, "batch_tokens and max_new_tokens must be at least 1, but got 0 and 32"),
        ([Case("a", "b")], {"metric": "f1"}, "a function (generated, case) -> float, not 'f1'"),
        ([Case("a" * 60, "bcdefg")], {}, "case 0 needs 65 positions, but the model has 64: shorten its prompt of 60"),
        ([Case("a" * 60, "b")], {"metric": len}, "case 0 needs 91 positions, but the model has 64: shorten"),
        ([Case("", "b")], {}, "case 0 has a prompt without tokens"),
        ([Case((1, 99), (2,))], {}, "case 0 has token ids 1..99, but the model knows 0..31"),
        ([Case("a", "?", ("?", "!"))], {}, "case 0 has options '?' and '!' that are the same tokens (3,)"),
        ([Case("a", "b")], {"end": "xyz"}, "end must be a single token, but 'xyz' is the 3 tokens"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(model, tokenizer, cases, settings, sentence):
    with pytest.raises(InvalidSettings, match=re.escape(sentence)):
        AnswerScorer(model, tokenizer, cases, **settings)


def test_the_longest_case_that_fits_is_scored(model, tokenizer):
    assert np.isfinite(AnswerScorer(model, tokenizer, [Case("a" * 60, "bcdef")]).score()[1]).all()


def test_a_model_in_training_mode_is_refused(tokenizer):
    model = make_mixtral().train()
    with pytest.raises(InvalidSettings, match=re.escape("is in training mode: call model.eval()")):
        AnswerScorer(model, tokenizer, [Case("a", "b")]).score()


@pytest.mark.parametrize("columns", [[2], [-1]])
def test_columns_that_do_not_exist_are_refused(model, tokenizer, columns):
    scorer = AnswerScorer(model, tokenizer, [Case("a", "b"), Case("b", "c")])
    with pytest.raises(InvalidSettings, match=re.escape(f"columns must lie in 0..1, but got {columns}")):
        scorer.score(columns)


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_a_metric_that_returns_nonsense_is_refused(model, tokenizer, value):
    scorer = AnswerScorer(model, tokenizer, [Case("a", "b")], metric=lambda text, case: value)
    with pytest.raises(InvalidSettings, match=re.escape(f"must return a number in [0, 1], but returned {value} for")):
        scorer.score()
