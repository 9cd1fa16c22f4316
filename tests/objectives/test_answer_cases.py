from __future__ import annotations

import re

import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.answer_cases import Case, answer_tokens, end_token, option_tokens, prompt_tokens


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Case("abc", ""), "the answer must not be empty, but it is for the prompt 'abc'"),
        (lambda: Case("abc", ()), "the answer must not be empty"),
        (lambda: Case("abc", "x", ("y", "z")), "the answer must be one of the options ('y', 'z'), but is 'x'"),
        (lambda: Case("abc", "x", ("x", "y", "x")), "options must differ from each other, but 'x' occurs twice"),
        (lambda: Case("abc", "x", ("x",)), "options must be at least two answers, none empty, but got ('x',)"),
        (lambda: Case("abc", "x", ("x", "")), "options must be at least two answers, none empty"),
        (lambda: Case(5, "x"), "prompt must be a string or a sequence of token ids, but is 5"),  # type: ignore[arg-type]
    ],
)
def test_a_case_that_cannot_be_meant_is_refused(make, sentence):
    with pytest.raises(InvalidSettings, match=re.escape(sentence)):
        make()


@pytest.mark.parametrize(
    ("template", "begin"), [(None, ()), ("<s> $A", (2,)), ("<s> $A </s>", (2,)), ("$A </s>", ())], ids=repr
)
def test_the_prompt_begins_as_the_tokenizer_lets_it_and_is_never_closed(make_tokenizer, template, begin):
    letters = tuple(make_tokenizer()("xyz")["input_ids"])
    assert prompt_tokens(make_tokenizer(template=template), "xyz") == begin + letters
    assert prompt_tokens(None, (7, 8)) == (7, 8)


def test_an_answer_that_merges_with_the_prompt_is_tokenized_alone(make_tokenizer):
    tokenizer = make_tokenizer(merges=True)
    assert tokenizer("xab")["input_ids"] == [29, 5]
    assert answer_tokens(tokenizer, "xa", "bc") == (7, 8)
    assert answer_tokens(tokenizer, "x", "abc") == (5, 8)
    assert answer_tokens(None, (7,), (8, 9)) == (8, 9)


def test_options_are_ended_only_where_one_begins_another(make_tokenizer):
    tokenizer = make_tokenizer()
    x, y = tokenizer("xy")["input_ids"]
    apart, nested = Case("a", "x", ("x", "y")), Case("a", "x", ("x", "xy"))
    assert option_tokens(tokenizer, 0, apart, end=1) == [(x,), (y,)]
    assert option_tokens(tokenizer, 0, nested, end=1) == [(x, 1), (x, y, 1)]
    with pytest.raises(InvalidSettings, match="case 5 has an option 'x' that is the beginning of 'xy'"):
        option_tokens(tokenizer, 5, nested)


def test_an_end_token_is_an_id_or_a_single_token(make_tokenizer):
    tokenizer = make_tokenizer()
    assert [end_token(tokenizer, end) for end in (9, "</s>", "x")] == [9, 1, tokenizer("x")["input_ids"][0]]
    with pytest.raises(InvalidSettings, match="end must be a single token, but 'xy' is the 2 tokens"):
        end_token(tokenizer, "xy")


def test_strings_without_a_tokenizer_are_refused():
    with pytest.raises(InvalidSettings, match="a case given as a string needs a tokenizer, but there is none for 'a'"):
        prompt_tokens(None, "a")
