"""Which prompts begin alike, against brute force."""

import itertools
import random

import pytest

from searchlib.objectives.prompt_heads import blocks, prompt_rows
from searchlib.objectives.text_model import Prompt


def letters(prompt):
    return tuple(map(ord, prompt.full))


def rows_of(prompts, **settings):
    return prompt_rows(prompts, [letters(prompt) for prompt in prompts], **settings)


def longest_shared(texts):
    """Every length tried."""
    lengths = range(min(map(len, texts)))
    return max(n for n in lengths if len({text[:n] for text in texts}) == 1)


@pytest.fixture
def many():
    rng = random.Random(0)
    prefixes = ["", *("".join(rng.choices("ab", k=rng.randint(1, 6))) for _ in range(6))]
    return [Prompt("".join(rng.choices("ab", k=rng.randint(1, 4))), rng.choice(prefixes)) for _ in range(60)]


def test_a_head_is_the_longest_beginning_of_its_group_that_leaves_every_row_a_token(many):
    rows = rows_of(many)
    for row in rows:
        prompt = many[row.place]
        if prompt.prefix:
            group = [other.full for other in many if other.prefix == prompt.prefix]
        else:
            group = [prompt.full]
        assert len(row.head) == longest_shared(group)
    assert len({row.group for row in rows}) > 8


def test_head_and_tail_are_the_prompt_and_no_prompt_is_lost(many):
    rows = rows_of(many)
    assert [row.tokens for row in sorted(rows, key=lambda row: row.place)] == [letters(prompt) for prompt in many]
    assert all(row.tail for row in rows)


def test_a_token_that_spans_the_end_of_the_prefix_belongs_to_the_tails():
    prompts = [Prompt("b", "xa"), Prompt("c", "xa")]
    rows = prompt_rows(prompts, [(1, 12), (1, 2, 3)])  # x|ab and x|a|c
    assert [(row.head, row.tail) for row in rows] == [((1,), (2, 3)), ((1,), (12,))]


def test_repetitions_of_a_prompt_share_all_but_the_last_token():
    assert {(row.head, row.tail) for row in rows_of([Prompt("abc")] * 5)} == {(letters(Prompt("ab")), (ord("c"),))}


def test_a_prompt_without_prefix_is_not_mixed_up_with_a_prefix_of_the_same_text():
    rows = rows_of([Prompt("abc"), Prompt("xy", "abc"), Prompt("z", "abc")])
    assert {row.place: len(row.head) for row in rows} == {0: 2, 1: 3, 2: 3}


def test_without_sharing_all_heads_are_empty_and_long_prompts_come_first(many):
    rows = rows_of(many, share=False)
    assert {row.head for row in rows} == {()}
    lengths = [len(row.tail) for row in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_long_heads_come_first_and_groups_stay_together(many):
    rows = rows_of(many)
    lengths = [len(row.head) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    with_heads = [row.group for row in rows if row.head]
    assert len(list(itertools.groupby(with_heads))) == len(set(with_heads)) > 5


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_blocks_hold_every_row_once_and_at_most_so_many_heads(many, most):
    rows = rows_of([*many, Prompt("a"), Prompt("b")])  # one token each: empty heads
    parts = list(blocks(rows, most))
    assert [row for part in parts for row in part] == rows
    assert all(len({row.group for row in part}) <= most for part in parts)
    assert all(len({bool(row.head) for row in part}) == 1 for part in parts)
    groups = [{row.group for row in part if row.head} for part in parts]
    assert sum(map(bool, groups)) >= len(set.union(*groups)) / most
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(groups, 2))


def test_no_prompts_make_no_blocks():
    assert list(blocks(rows_of([]), 4)) == []
