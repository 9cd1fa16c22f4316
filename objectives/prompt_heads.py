"""Which prompts begin alike: prompts in tokens, cut into heads that are computed once and tails that are not.

The *head* is what all prompts of a group begin with; each prompt keeps at least one token for its *tail*, as the model
must be fed something to say what comes next. A group is all prompts with the same prefix string, or, among prompts
without a prefix, those with the same text. The cut is made in tokens, after each prompt has been tokenized as a whole:
a token that spans the end of the prefix string just belongs to the tails, and the joined ids are those of the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from searchlib.objectives.text_model import Prompt

__all__ = ["PromptRow", "blocks", "prompt_rows"]


@final
@dataclass(frozen=True)
class PromptRow:
    """A prompt in tokens: ``head + tail``, where ``head`` is the same for all rows of the ``group``."""

    place: int  # in the caller's order
    group: int
    head: tuple[int, ...]
    tail: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole prompt."""
        return self.head + self.tail


def prompt_rows(prompts: Sequence[Prompt], tokens: Sequence[tuple[int, ...]], *, share: bool = True) -> list[PromptRow]:
    """A row per prompt, sorted: groups with long heads first, within a group long tails first.

    Arguments:
        prompts: the prompts.
        tokens: the tokens of each, none without any.
        share: False leaves every head empty.

    Example:
        >>> prompts = [Prompt("cat", "The "), Prompt("hat", "The "), Prompt("Hi")]
        >>> for row in prompt_rows(prompts, [(1, 2, 3), (1, 2, 4), (5, 6)]):
        ...     print(row)
        PromptRow(place=0, group=0, head=(1, 2), tail=(3,))
        PromptRow(place=1, group=0, head=(1, 2), tail=(4,))
        PromptRow(place=2, group=1, head=(5,), tail=(6,))
    """
    groups: dict[tuple[bool, str], list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault((bool(prompt.prefix), prompt.prefix or prompt.text), []).append(place)
    rows = []
    for group, places in enumerate(groups.values()):
        cut = _common([tokens[place] for place in places]) if share else 0
        rows += [PromptRow(place, group, tokens[place][:cut], tokens[place][cut:]) for place in places]
    return sorted(rows, key=lambda row: (-len(row.head), row.group if row.head else 0, -len(row.tail), row.place))


def blocks(rows: Sequence[PromptRow], most_heads: int) -> Iterator[list[PromptRow]]:
    """Consecutive rows with at most so many different heads (any number of rows); empty heads have their own blocks.

    Example:
        >>> rows = prompt_rows([Prompt("aa"), Prompt("bb"), Prompt("aa"), Prompt("c")], [(1, 1), (2, 2), (1, 1), (3,)])
        >>> [[row.place for row in block] for block in blocks(rows, 2)]
        [[0, 2, 1], [3]]
    """
    block: list[PromptRow] = []
    groups: set[int] = set()
    for row in rows:
        full = row.group not in groups and len(groups) == most_heads
        if block and (full or bool(row.head) != bool(block[0].head)):
            yield block
            block, groups = [], set()
        block.append(row)
        groups.add(row.group)
    if block:
        yield block


def _common(members: list[tuple[int, ...]]) -> int:
    """How many tokens all of them begin with, each keeping at least one more."""
    first, last = min(members), max(members)  # what the two ends of the lexicographic order share, all share
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return min(sum(1 for _ in alike), min(map(len, members)) - 1)
