"""The page on errors quotes messages that the library has, and names all of its exceptions."""

import importlib
import inspect
import re

import pytest

import searchlib.errors

pages = importlib.import_module("tests.docs.pages")
ROOT = pages.ROOT
every_message = pages.hook("every_message")
PAGE = pages.text("docs/errors.md")
KINDS = every_message.error_classes(ROOT)
MESSAGES = every_message.messages(ROOT)


def quotes():
    """(class, quoted message) of every row of every table."""
    kind = ""
    for line in PAGE.splitlines():
        heading = re.match(r"#+ (\w+)$", line)
        if heading and heading[1] in KINDS:
            kind = heading[1]
        elif cell := re.match(r"\| (?:`` (?P<double>.+?) ``|`(?P<single>[^`]+)`) \|", line):
            yield kind, cell["double"] or cell["single"]


QUOTES = list(quotes())


def is_a(kind, base):
    return kind == base or (bool(kind) and is_a(KINDS.get(kind, ""), base))


def says(message, quote):
    """Whether a message of the source has the parts of a quote that lie between ellipses, in this order."""
    place = 0
    for part in quote.split("…"):
        place = message.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def test_there_are_many_messages_and_quotes():
    assert len(MESSAGES) > 600
    assert len(QUOTES) > 90


def test_every_exception_of_the_library_is_on_the_page():
    defined = {name for name, kind in vars(searchlib.errors).items() if inspect.isclass(kind)}
    assert defined <= set(KINDS)
    for kind in KINDS:
        assert f"`{kind}`" in PAGE or re.search(rf"^##+ {kind}$", PAGE, re.MULTILINE), kind


@pytest.mark.parametrize(("kind", "quote"), QUOTES)
def test_every_quoted_message_is_one_of_the_library_and_of_that_class(kind, quote):
    assert any(is_a(message.kind, kind) and says(message.text, quote) for message in MESSAGES)


def test_a_message_that_nobody_raises_is_noticed():
    assert not any(says(message.text, "this … is never said") for message in MESSAGES)


def test_every_message_is_in_the_list_of_the_site():
    shown = every_message.on_page_markdown(PAGE, {"docs_dir": str(ROOT / "docs")})
    assert shown.count("\n- ") - PAGE.count("\n- ") == len(MESSAGES)
    assert "### StudyBusy: all messages" in shown
    assert "another process is writing to …; stop it, or use another file" in shown
    assert every_message.PLACE not in shown


def test_other_pages_stay_as_they_are():
    assert every_message.on_page_markdown("# A page", {"docs_dir": str(ROOT / "docs")}) == "# A page"
