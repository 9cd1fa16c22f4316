"""Every command in the documentation is understood by the program that it calls; none is run."""

import argparse
import importlib
import re
import shlex

import pytest

import benchmarks.__main__
import searchlib.__main__

pages = importlib.import_module("tests.docs.pages")
PAGES, text = pages.PAGES, pages.text

#: What a page writes where the reader puts something of one's own that has to be a number.
PLACEHOLDERS = {"N": "1"}


class Understood(Exception):
    """Raised in the place of running a command."""


def commands():
    """(page, program, words) of every ``python -m searchlib …`` and ``python -m benchmarks …``, in code or in text."""
    for page in (*PAGES, "CONTRIBUTING.md", "Makefile"):
        joined = re.sub(r" *\\\n *", " ", text(page))
        for program, rest in re.findall(r"python -m (searchlib|benchmarks)(?![\w.])([^`\n]*)", joined):
            words = rest.split("#")[0].replace("[", "").replace("]", "").rstrip(".,:;)")
            named = tuple(PLACEHOLDERS.get(word, word) for word in shlex.split(words))
            if not (program == "searchlib" and len(named) == 1 and named[0].isalpha()):  # a mention, not a call
                yield page, program, named


COMMANDS = sorted(set(commands()))


def parse(program, words, monkeypatch):
    """Let the program read the words, and stop it there; its exit status where it refuses them."""
    understood = argparse.ArgumentParser.parse_args

    def stop(parser, arguments=None, namespace=None):
        raise Understood(understood(parser, arguments, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    main = searchlib.__main__.main if program == "searchlib" else benchmarks.__main__.main
    try:
        return main(list(words))
    except Understood:
        return 0
    except SystemExit as refusal:
        return refusal.code or 0


def test_there_are_commands():
    assert len(COMMANDS) > 30
    assert {program for _, program, _ in COMMANDS} == {"searchlib", "benchmarks"}


@pytest.mark.parametrize(("page", "program", "words"), COMMANDS)
def test_every_documented_command_is_understood(page, program, words, monkeypatch, capsys):
    assert parse(program, words, monkeypatch) == 0, capsys.readouterr().err


def test_a_command_with_an_unknown_option_is_noticed(monkeypatch, capsys):
    assert parse("searchlib", ("report", "a.db", "--no-such-option"), monkeypatch) == 2
    assert parse("benchmarks", ("expert_pruning", "--no-such-option"), monkeypatch) == 2
    assert parse("benchmarks", ("no_such_benchmark",), monkeypatch) == 2
