from __future__ import annotations

import re

import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.answer_cases import Case, answer_tokens, end_token, option_tokens, prompt_tokens


class Letters:
    """A tokenizer of one token per letter, and one for the pair ``ab``; it begins texts with 2 and ends them with 1."""

    def __call__(self, text, add_special_tokens=True):
        ids = [3 if piece == "ab" else ord(piece) for piece in re.findall("ab|.", text)]
        return {"input_ids": [2, *ids, 1] if add_special_tokens else ids}

    def get_vocab(self):
        return {"</s>": 1}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Case("abc", ""), "the answer must not be empty, but it is for the prompt 'abc'"),
        (lambda: Case("abc", ()), "the answer must not be empty"),
        (lambda: Case("abc", "x", ("y", "z")), "the answer must be one of the options ('y', 'z'), but is 'x'"),
        (lambda: Case("abc", "x", ("x", "y", "x")), "options must differ from each other, but 'x' occurs twice"),
        (lambda: Case("abc", "x", ("x",)), "options must be at least two answers, none empty, but got ('x',)"),
        (lambda: Case("abc", "x", ("x", "")), "options must be at least two answers, none empty"),
        (lambda: Case(5, "x"), "prompt must be a string or a sequence of token ids, but is 5"),
    ],
)
def test_a_case_that_cannot_be_meant_is_refused(make, sentence):
    with pytest.raises(InvalidSettings, match=re.escape(sentence)):
        make()


def test_a_prompt_begins_as_the_tokenizer_lets_it_and_is_never_closed():
    assert prompt_tokens(Letters(), "xy") == (2, ord("x"), ord("y"))
    assert prompt_tokens(None, (7, 8)) == (7, 8)


def test_an_answer_continues_its_prompt_and_is_tokenized_alone_where_they_merge():
    assert answer_tokens(Letters(), "x", "abc") == (3, ord("c"))
    assert answer_tokens(Letters(), "xa", "bc") == (ord("b"), ord("c"))
    assert answer_tokens(None, (7,), (8, 9)) == (8, 9)


def test_options_are_ended_only_where_one_begins_another():
    apart, nested = Case("x", "y", ("y", "z")), Case("x", "y", ("y", "yz"))
    assert option_tokens(Letters(), 0, apart, end=1) == [(ord("y"),), (ord("z"),)]
    assert option_tokens(Letters(), 0, nested, end=1) == [(ord("y"), 1), (ord("y"), ord("z"), 1)]
    with pytest.raises(InvalidSettings, match="case 5 has an option 'y' that is the beginning of 'yz'"):
        option_tokens(Letters(), 5, nested)


def test_an_end_token_is_an_id_or_a_single_token():
    assert [end_token(Letters(), end) for end in (9, "</s>", "ab", "x")] == [9, 1, 3, ord("x")]
    with pytest.raises(InvalidSettings, match="end must be a single token, but 'xy' is the 2 tokens"):
        end_token(Letters(), "xy")
