"""HTML that is put together without a way to forget escaping."""

from __future__ import annotations

import html
import json
import re
from typing import Any, final

__all__ = ["Markup", "data_block", "element", "join"]

#: What a page cannot hold: control characters (except tab and line feeds), halves of surrogate pairs, and the marks
#: that turn the reading direction of what follows (a name could otherwise look like another one).
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_VOID = {"br", "hr", "img", "input", "link", "meta"}


@final
class Markup(str):
    """A string that is HTML already; every other string is escaped where it meets one."""

    __slots__ = ()


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. Strings become text, :class:`Markup` stays what it is, None vanishes, sequences are joined.

    Arguments:
        tag: what it is.
        children: what is inside.
        attributes: ``class_`` means ``class``, other underscores are hyphens; True stands for an attribute without a
            value, False and None leave it out. Names come from the program, values may come from anywhere.

    Example:
        >>> element("p", "1 < 2 ", element("b", "yes"), title='say "it"')
        '<p title="say &quot;it&quot;">1 &lt; 2 <b>yes</b></p>'
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    start = f"<{tag}{written}>"
    return Markup(start if tag in _VOID else f"{start}{join(children)}</{tag}>")


def join(children: Any) -> Markup:
    """Children one after the other, as in :func:`element`."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, list | tuple):
        return Markup("".join(map(join, children)))
    return Markup(_escaped(str(children)))


def data_block(name: str, value: Any) -> Markup:
    """JSON that the page's own script reads: no text in it can end the element, begin a comment or run."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{_escaped(name)}">{text}</script>')


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_escaped(str(value))}"'


def _escaped(text: str) -> str:
    return html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")))
