"""What the adapters ask of a language model."""

import dataclasses
import math

import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.text_model import Prompt, Sampling, before_stop, checked


def echo(prompts, sampling, seeds):
    return [f"{prompt.full}|{seed}|{sampling.max_tokens}" for prompt, seed in zip(prompts, seeds, strict=True)]


def test_a_prompt_is_its_prefix_and_its_text():
    assert Prompt("b", "a").full == "ab"
    assert Prompt("b").full == "b"


@pytest.mark.parametrize("arguments", [{"text": 3}, {"text": None}, {"text": "a", "prefix": None}])
def test_a_prompt_is_made_of_strings(arguments):
    with pytest.raises(InvalidSettings, match="must be a string, but is"):
        Prompt(**arguments)


def test_the_defaults_are_those_of_the_paper():
    assert dataclasses.astuple(Sampling()) == (0.7, 20, 1.0, 1024, ())


def test_settings_are_values_that_their_repr_rebuilds():
    sampling = Sampling(temperature=0.5, top_k=None, top_p=0.9, max_tokens=3, stop=["a", "b"])
    assert eval(repr(sampling)) == sampling
    assert len({sampling, eval(repr(sampling)), Sampling()}) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"temperature": math.inf}, "temperature.*inf"),
        ({"temperature": math.nan}, "temperature.*nan"),
        ({"top_k": 0}, "top_k.*None for all tokens.*0"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], but is 0"),
        ({"top_p": 1.5}, "top_p.*1.5"),
        ({"max_tokens": 0}, "max_tokens.*0"),
        ({"stop": "###"}, r"use \('###',\)"),
        ({"stop": ("",)}, "not empty"),
        ({"stop": (3,)}, "strings"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(InvalidSettings, match=said):
        Sampling(**settings)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", (), "one two three"),
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "o"), ""),
        ("one two three", ("wo t", "two"), "one "),
        ("one two three", ("four",), "one two three"),
    ],
)
def test_text_is_cut_where_the_first_stop_string_begins(text, stop, expected):
    assert before_stop(text, stop) == expected


def test_a_plain_function_is_a_text_model():
    sampling = Sampling(max_tokens=5)
    assert checked(echo, [Prompt("x", "y"), Prompt("z")], sampling, [1, 2]) == ["yx|1|5", "z|2|5"]


def test_no_prompts_have_no_completions():
    assert checked(echo, [], Sampling(), []) == []


def test_there_is_a_seed_per_prompt():
    with pytest.raises(InvalidSettings, match="one seed per prompt, but there are 1 for 2"):
        checked(echo, [Prompt("x"), Prompt("y")], Sampling(), [0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("xy", "must return a list of strings, but returned 'xy'"),
        (None, "must return a list of strings, but returned None"),
        (["x"], "returned 1 for 2 prompts"),
        (["x", 7], "item 1 is 7"),
    ],
)
def test_a_model_that_returns_something_else_is_named(given, said):
    def broken(prompts, sampling, seeds):
        return given

    with pytest.raises(InvalidSettings, match=said) as caught:
        checked(broken, [Prompt("x"), Prompt("y")], Sampling(), [0, 1])
    assert "broken" in str(caught.value)


def test_a_tuple_of_strings_will_do():
    assert checked(lambda *_: ("x",), [Prompt("y")], Sampling(), [0]) == ["x"]
