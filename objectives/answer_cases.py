"""Questions with known answers, and the tokens they are.

The prompt is tokenized the way the tokenizer does it on its own (with a beginning-of-sequence token where it adds one;
an end-of-sequence token that it would append is left out), and the answer as its continuation: prompt and answer are
tokenized together, and the answer's tokens are what follows the prompt's. Where the last token of the prompt merges
with the beginning of the answer, that cannot be told apart, and the answer is tokenized alone. Most tokenizers keep
the two apart when the prompt does not end, but the answer begins, with the space between them. An answer counts as its
tokens, so a model that spells the same text with other tokens is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from searchlib.arguments import listed, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["Case", "Text", "answer_tokens", "end_token", "option_tokens", "prompt_tokens"]

#: A string, or token ids where there is no tokenizer.
Text = str | tuple[int, ...]


@final
@dataclass(frozen=True)
class Case:
    """A question with its answer.

    Arguments:
        prompt: what the model reads; a string, or token ids for a model without a tokenizer.
        answer: what it is to continue with, beginning right where the prompt ends (often with a space).
        options: two or more different answers, the right one among them, for a multiple-choice question; None where
            the answer is to be produced.

    Raises:
        InvalidSettings: an empty answer, fewer than two options, options that repeat, an answer not among them.

    Example:
        >>> Case("The sky is", " blue", options=(" blue", " green")).options
        (' blue', ' green')
    """

    prompt: Text
    answer: Text
    options: tuple[Text, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", _text("prompt", self.prompt))
        object.__setattr__(self, "answer", _text("answer", self.answer))
        if not self.answer:
            raise InvalidSettings(f"the answer must not be empty, but it is for the prompt {self.prompt!r:.80}")
        if self.options is not None:
            given = listed("options", self.options)
            object.__setattr__(self, "options", tuple(_text("option", option) for option in given))
            self._check_options(self.options)

    def _check_options(self, options: tuple[Text, ...]) -> None:
        if len(options) < 2 or not all(options):
            raise InvalidSettings(
                f"options must be at least two answers, none empty, but got {options!r:.120}; "
                "leave them out where the answer is to be produced"
            )
        if len(set(options)) < len(options):
            twice = next(option for option in options if options.count(option) > 1)
            raise InvalidSettings(f"options must differ from each other, but {twice!r:.80} occurs twice")
        if self.answer not in options:
            raise InvalidSettings(f"the answer must be one of the options {options!r:.120}, but is {self.answer!r:.80}")


def prompt_tokens(tokenizer: Any, prompt: Text) -> tuple[int, ...]:
    """The prompt with what the tokenizer puts before it, without what it would append."""
    if not isinstance(prompt, str):
        return prompt
    plain = _plain(tokenizer, prompt)
    dressed = tuple(tokenizer(prompt)["input_ids"])
    for before in range(len(dressed) - len(plain) + 1):
        if dressed[before : before + len(plain)] == plain:
            return dressed[: before + len(plain)]
    return dressed


def answer_tokens(tokenizer: Any, prompt: Text, answer: Text) -> tuple[int, ...]:
    """The answer as the continuation of the prompt; alone where the two share a token."""
    if not isinstance(answer, str):
        return answer
    if isinstance(prompt, str):
        before, both = _plain(tokenizer, prompt), _plain(tokenizer, prompt + answer)
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
    tokens = _plain(tokenizer, answer)
    if not tokens:
        raise InvalidSettings(f"an answer must have tokens, but {answer!r:.80} has none for this tokenizer")
    return tokens


def option_tokens(tokenizer: Any, i: int, case: Case, end: int | None = None) -> list[tuple[int, ...]]:
    """The options of case ``i``, with the ``end`` token after each where one is the beginning of another.

    Raises:
        InvalidSettings: two options that are the same tokens, or one that begins another and no ``end``.
    """
    options = case.options or ()
    answers = [answer_tokens(tokenizer, case.prompt, option) for option in options]
    for j, one in enumerate(answers):
        for k, other in enumerate(answers):
            if j != k and one == other:
                raise InvalidSettings(
                    f"case {i} has options {options[j]!r:.60} and {options[k]!r:.60} that are the same tokens {one}"
                )
            if j != k and other[: len(one)] == one:
                if end is None:
                    raise InvalidSettings(
                        f"case {i} has an option {options[j]!r:.60} that is the beginning of {options[k]!r:.60}, "
                        "which could never be more likely: name the token that ends an answer (end=…)"
                    )
                return [(*answer, end) for answer in answers]
    return answers


def end_token(tokenizer: Any, end: str | int) -> int:
    """The id of the token that ends an answer, given as an id or as a string.

    Raises:
        InvalidSettings: a string that is not a single token.
    """
    if not isinstance(end, str):
        return int(end)
    known = None if tokenizer is None else tokenizer.get_vocab().get(end)
    tokens = (known,) if known is not None else _plain(tokenizer, end)
    if len(tokens) != 1:
        raise InvalidSettings(f"end must be a single token, but {end!r} is the {len(tokens)} tokens {tokens}")
    return tokens[0]


def _plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    if tokenizer is None:
        raise InvalidSettings(f"a case given as a string needs a tokenizer, but there is none for {text!r:.80}")
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _text(what: str, value: Any) -> Text:
    if isinstance(value, str):
        return value
    ids = listed(what, value, "a string or a sequence of token ids")
    return tuple(whole_number(f"a token id of {what}, a string or a sequence of token ids,", one, 0) for one in ids)
