import html.parser
import json
import re

import pytest

from searchlib.report.markup import Markup, data_block, element, join

NASTY = ("<script>x</script>", "\"><img src=x onerror=1>", "' onload='1", "&lt;", "</script><!--", "a\x00b\x1b[0m\x85",
         "\ud800 half", "\u202egpj.exe", "]]>", "line\r\nline")  # fmt: skip


class Reader(html.parser.HTMLParser):
    """What another parser makes of a page: its tags and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("nasty", NASTY)
def test_text_and_attributes_are_only_ever_text(nasty):
    page = element("p", nasty, element("b", nasty), title=nasty)
    read = Reader(page)
    expected = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202e]", "\ufffd", nasty.replace("\r\n", "\n"))
    assert read.tags == [("p", {"title": expected}), ("b", {})]
    assert read.text == expected * 2
    page.encode("utf-8")


@pytest.mark.parametrize("nasty", NASTY)
def test_data_cannot_end_its_block_and_comes_back_as_it_was(nasty):
    block = data_block("data", {"key" + nasty: [nasty, 1.5, None]})
    inside = re.fullmatch(r'<script type="application/json" id="data">(.*)</script>', block, re.DOTALL)
    assert inside
    assert not re.search("[<>&]", inside[1])
    assert json.loads(inside[1]) == {"key" + nasty: [nasty, 1.5, None]}


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        data_block("data", [float("nan")])


def test_attributes_may_be_left_out_and_markup_stays():
    attributes = {"class_": "a b", "data_key": 3, "hidden": True, "id": None, "title": False}
    made = element("td", None, Markup("<i>x</i>"), ["y", 2], **attributes)
    assert made == '<td class="a b" data-key="3" hidden><i>x</i>y2</td>'
    assert join([]) == ""
    assert element("br") == "<br>"
