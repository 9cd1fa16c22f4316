import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import Case, TokenCase  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_model  # noqa: E402
from searchlib.objectives.token_cases import batches_by_length, own_answers, token_cases  # noqa: E402


def test_answers_count_and_prompts_do_not(make_tokenizer):
    tokenizer = make_tokenizer(template="<s> $A")
    (case,) = token_cases([Case("abc", "de")], tokenizer)
    assert case.tokens == (2, *tokenizer("abcde", add_special_tokens=False)["input_ids"])
    assert case.response == (False, False, False, False, True, True)
    assert token_cases([case]) == [case]


@pytest.mark.parametrize(
    ("tokens", "response"), [((1, 2), (True, True)), ((1, 2), (False, False)), ((1, 2, 3), (False, True))]
)
def test_cases_that_nothing_can_predict_are_refused(tokens, response):
    with pytest.raises(InvalidSettings, match="one bool per token"):
        TokenCase(tokens, response)


def test_batches_are_of_one_length_and_hold_every_case_once():
    cases = [TokenCase.whole(range(n)) for n in (5, 3, 5, 5, 3)]
    batches = list(batches_by_length(cases, 10))
    assert [(index, tuple(tokens.shape)) for index, tokens in batches] == [
        ([1, 4], (2, 3)), ([0, 2], (2, 5)), ([3], (1, 5)),
    ]  # fmt: skip


def test_the_models_own_answers_are_those_of_generate():
    model, _ = _smoke_model()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(1, 20, (n,), generator=generator) for n in (6, 9, 6)]
    cases = [TokenCase.answered(prompt.tolist(), [1] * 4) for prompt in prompts]
    answered = own_answers(model, cases)
    for prompt, case, before in zip(prompts, answered, cases, strict=True):
        written = model.generate(prompt[None], attention_mask=torch.ones(1, len(prompt)).long(), max_new_tokens=4,
                                 do_sample=False, pad_token_id=0)  # fmt: skip
        assert list(case.tokens) == written[0].tolist()
        assert case.response == before.response
    assert len({case.tokens for case in answered}) == 3
    with pytest.raises(InvalidSettings, match="only at the end"):
        own_answers(model, [TokenCase((1, 2, 3), (False, True, False))])
