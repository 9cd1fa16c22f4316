"""How failures become new exemplar sets: by replacement, or by a language model that reflects on them.

An operator is called as ``operator(failures, exemplars, rng)`` and returns new sets as tuples of exemplars, each of
the old set's size. A plain function is one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.objectives.exemplars import Exemplar, Failure
from searchlib.objectives.text_model import Prompt, Sampling, TextModel, checked

__all__ = ["ExemplarOperator", "FailureReplacement", "LLMRewriter", "Operator", "read_exemplars", "tagged"]

logger = logging.getLogger("searchlib")

#: New exemplar sets from what students got wrong with an old one.
Operator = Callable[[Sequence[Failure], tuple[Exemplar, ...], np.random.Generator], list[tuple[Exemplar, ...]]]

#: Draws per wanted child before an operator returns fewer.
_ATTEMPTS = 4
#: The released code drops reflections of at most this many words.
_SHORT = 5

REFLECT = """\
You are choosing {k} worked examples that teach somebody a task by showing it.
{task}
These are the examples at present:

{exemplars}
After reading them, students answered the following questions wrong:

{failures}
Give {reasons} different reasons why these examples may have led to these mistakes.
Write each reason between <START> and <END>.
"""

REWRITE = """\
You are choosing {k} worked examples that teach somebody a task by showing it.
{task}
These are the examples at present:

{exemplars}
After reading them, students answered the following questions wrong:

{failures}
A reason for these mistakes: {reason}

Write a new list of exactly {k} better examples, of as many different answers as the task has.
Write <START> before the list and <END> behind it, and nothing in between but the examples, each as
Question: (the question)
Answer: (the answer)
"""


class ExemplarOperator(ABC):
    """An operator with more to say than a plain function."""

    #: Whether it may return exemplars that are not in the pool.
    writes: bool = True

    @abstractmethod
    def __call__(
        self, failures: Sequence[Failure], exemplars: tuple[Exemplar, ...], rng: np.random.Generator
    ) -> list[tuple[Exemplar, ...]]:
        """New sets, each as large as ``exemplars``, the most promising first; none where nothing comes to mind."""

    def remember(self, memo: Memo) -> None:  # noqa: B027  an empty default: most operators can be called again
        """Called before the first call with the memo of the search."""

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which operator this is."""
        return {"operator": type(self).__name__}


@final
class FailureReplacement(ExemplarOperator):
    """Put what students failed on in the place of an exemplar or two; asks no language model.

    For models that cannot reflect in words, and the control for those that can. An item takes the place itself where
    it is in the pool; with a ``similarity``, otherwise the most similar exemplar of the pool that is not shown yet. An
    item that more students fail on is more likely to be chosen. Answers are not balanced.

    Arguments:
        pool: exemplars to choose from.
        similarity: of two questions, larger is nearer; symmetric or not. None: only failed items that are in the
            pool are used.
        children: most sets per call.
        most: most exemplars replaced at once; how many is drawn evenly from 1 up.

    Raises:
        InvalidSettings: an empty pool, or numbers below 1.

    Example:
        >>> pool = [Exemplar(str(i), "even" if i % 2 == 0 else "odd") for i in range(6)]
        >>> shown = (pool[0], pool[1])
        >>> sets = FailureReplacement(pool)([Failure(0, shown, pool[5], "even")], shown, np.random.default_rng(0))
        >>> sorted("".join(one.question for one in child) for child in sets)
        ['05', '51']
    """

    writes = False

    def __init__(
        self,
        pool: Sequence[Exemplar],
        similarity: Callable[[str, str], float] | None = None,
        *,
        children: int = 8,
        most: int = 2,
    ) -> None:
        if not len(pool):
            raise InvalidSettings("the pool must hold exemplars, but is empty")
        self.pool, self.similarity = tuple(pool), similarity
        self.children, self.most = whole_number("children", children, 1), whole_number("most", most, 1)
        self._members = frozenset(self.pool)

    def __call__(
        self, failures: Sequence[Failure], exemplars: tuple[Exemplar, ...], rng: np.random.Generator
    ) -> list[tuple[Exemplar, ...]]:
        """Up to ``children`` different sets."""
        found = {failure.item: self._stand_in(failure.item, exemplars) for failure in failures}
        useful = [one for failure in failures if (one := found[failure.item]) is not None]
        sets: dict[frozenset[Exemplar], tuple[Exemplar, ...]] = {}
        for _ in range(_ATTEMPTS * self.children if useful else 0):
            child = self._replaced(useful, exemplars, rng)
            sets.setdefault(frozenset(child), child)
            if len(sets) == self.children:
                break
        return list(sets.values())

    def _stand_in(self, item: Exemplar, shown: tuple[Exemplar, ...]) -> Exemplar | None:
        if item in self._members and item not in shown:
            return item
        others = [one for one in self.pool if one not in shown]
        if self.similarity is None or not others:
            return None
        scores = [self.similarity(item.question, one.question) for one in others]
        return others[int(np.argmax(scores))]

    def _replaced(
        self, useful: list[Exemplar], exemplars: tuple[Exemplar, ...], rng: np.random.Generator
    ) -> tuple[Exemplar, ...]:
        count = int(rng.integers(1, min(self.most, len(exemplars)) + 1))
        drawn = list(dict.fromkeys(useful[i] for i in rng.permutation(len(useful))))[:count]
        child = list(exemplars)
        for slot, one in zip(rng.permutation(len(child)), drawn, strict=False):
            child[slot] = one
        return tuple(child)

    def fingerprint(self) -> Mapping[str, Any]:
        """The settings; the pool is the objective's."""
        name = None if self.similarity is None else getattr(self.similarity, "__qualname__", "similarity")
        return {"operator": "FailureReplacement", "similarity": name, "children": self.children, "most": self.most}


@final
class LLMRewriter(ExemplarOperator):
    """Let the teacher reflect on failures and write new lists of exemplars.

    The improvement step of Learning by Teaching's M3 (arXiv 2406.14629, Algorithm A2; ProTeGi, arXiv 2305.03495): for
    each of some groups of failures the teacher gives reasons, and for each reason it writes a new list. The sentences
    of the prompts are our own. ``groups`` × ``reasons`` = 8 lists per set are what the paper describes; the released
    default of one reason makes 4. The released code keeps a list as free text; here it is read strictly into
    exemplars, and dropped where that fails: no tags or twice, another number than asked for, a repeated exemplar,
    anything between them.

    All completions go through the search's memo, two entries per call, so that a resumed search does not ask again.

    Arguments:
        teacher: the model that reflects and writes.
        task: says what the task is; part of the prompts.
        groups: reflections per call, each on other failures.
        errors: most failures per group.
        reasons: asked for per group; reasons of five words or fewer are ignored, as released.
        sampling: of both steps (released: temperature 0.7, 1024 tokens).
        reflect: the first prompt; ``{k}``, ``{task}``, ``{exemplars}``, ``{failures}``, ``{reasons}`` are filled in.
        rewrite: the second one; with ``{reason}`` instead of ``{reasons}``.

    Attributes:
        lists: lists read since this object was made.
        malformed: lists that were dropped.

    Raises:
        InvalidSettings: numbers below 1, or a template with other placeholders.
    """

    def __init__(
        self,
        teacher: TextModel,
        task: str = "",
        *,
        groups: int = 4,
        errors: int = 4,
        reasons: int = 2,
        sampling: Sampling | None = None,
        reflect: str = REFLECT,
        rewrite: str = REWRITE,
    ) -> None:
        self.teacher, self.task = teacher, task
        self.groups, self.errors = whole_number("groups", groups, 1), whole_number("errors", errors, 1)
        self.reasons = whole_number("reasons", reasons, 1)
        self.sampling = sampling or Sampling()
        self.reflect, self.rewrite = reflect, rewrite
        common = {"k": 1, "task": "", "exemplars": "", "failures": ""}
        _check_template("reflect", reflect, {**common, "reasons": 1})
        _check_template("rewrite", rewrite, {**common, "reason": ""})
        self.lists = self.malformed = 0
        self._memo = Memo()

    def remember(self, memo: Memo) -> None:
        """Write completions down in this memo from now on."""
        self._memo = memo

    def __call__(
        self, failures: Sequence[Failure], exemplars: tuple[Exemplar, ...], rng: np.random.Generator
    ) -> list[tuple[Exemplar, ...]]:
        """The lists that could be read, in the order of groups and reasons."""
        if not failures:
            return []
        common = {"k": len(exemplars), "task": self.task, "exemplars": "\n".join(map(_shown, exemplars))}
        shown = [self._group(failures, rng) for _ in range(self.groups)]
        asked = [self.reflect.format(**common, failures=group, reasons=self.reasons) for group in shown]
        reflections = zip(shown, self._ask(asked, rng), strict=True)
        reasons = [(group, reason) for group, text in reflections for reason in self._reasons(text)]
        asked = [self.rewrite.format(**common, failures=group, reason=reason) for group, reason in reasons]
        return self._read(self._ask(asked, rng), len(exemplars))

    def _group(self, failures: Sequence[Failure], rng: np.random.Generator) -> str:
        chosen = rng.choice(len(failures), size=min(self.errors, len(failures)), replace=False)
        return "\n".join(f"{_shown(failures[i].item)}Given: {failures[i].given}\n" for i in chosen)

    def _ask(self, texts: list[str], rng: np.random.Generator) -> list[str]:
        if not texts:
            return []
        seeds = [int(seed) for seed in rng.integers(2**31, size=len(texts))]
        asked = json.dumps([texts, seeds, repr(self.sampling)]).encode()
        key = f"rewriter {hashlib.blake2b(asked, digest_size=16).hexdigest()}"
        prompts = [Prompt(text) for text in texts]
        return list(self._memo.recall(key, lambda: checked(self.teacher, prompts, self.sampling, seeds)))

    def _reasons(self, completion: str) -> list[str]:
        return [text for text in tagged(completion) if len(text.split()) > _SHORT][: self.reasons]

    def _read(self, completions: list[str], k: int) -> list[tuple[Exemplar, ...]]:
        read = [read_exemplars(completion, k) for completion in completions]
        sets = [found for found in read if found is not None]
        self.lists += len(read)
        self.malformed += len(read) - len(sets)
        if len(sets) < len(read):
            logger.info("%d of %d rewritten lists could not be read", len(read) - len(sets), len(read))
        return sets

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings, and the content of both prompts."""
        prompts = hashlib.blake2b(repr([self.task, self.reflect, self.rewrite]).encode(), digest_size=8).hexdigest()
        return {
            "operator": "LLMRewriter", "groups": self.groups, "errors": self.errors, "reasons": self.reasons,
            "sampling": repr(self.sampling), "prompts": prompts,
        }  # fmt: skip


def tagged(text: str) -> list[str]:
    """What stands between <START> and <END>, stripped; nothing at all where the tags do not pair.

    Example:
        >>> tagged("First <START> one <END> and <START>two<END>."), tagged("<START> one <START> two <END>")
        (['one', 'two'], [])
    """
    marks = re.findall(r"<START>|<END>", text)
    if marks != ["<START>", "<END>"] * (len(marks) // 2):
        return []
    return [found.strip() for found in re.findall(r"<START>(.*?)<END>", text, re.DOTALL)]


def read_exemplars(completion: str, k: int) -> tuple[Exemplar, ...] | None:
    """The one tagged list of ``k`` different exemplars in a completion; None where it is anything else.

    Example:
        >>> read_exemplars("Here you are: <START>Question: 1+1\\nAnswer: 2\\n\\nQuestion: 2+2\\nAnswer: 4<END>", 2)
        (Exemplar(question='1+1', answer='2'), Exemplar(question='2+2', answer='4'))
        >>> read_exemplars("<START>1. Question: 1+1\\nAnswer: 2<END>", 1) is None
        True
    """
    blocks = tagged(completion)
    if len(blocks) != 1:
        return None
    before, *parts = re.split(r"^Question:", blocks[0], flags=re.MULTILINE)
    pairs = [[piece.strip() for piece in re.split(r"^Answer:", part, flags=re.MULTILINE)] for part in parts]
    if before.strip() or len(pairs) != k or not all(len(pair) == 2 and all(pair) for pair in pairs):
        return None
    exemplars = tuple(Exemplar(*pair) for pair in pairs)
    return exemplars if len(set(exemplars)) == k else None


def _shown(exemplar: Exemplar) -> str:
    return f"Question: {exemplar.question}\nAnswer: {exemplar.answer}\n"


def _check_template(name: str, template: str, values: Mapping[str, Any]) -> None:
    try:
        template.format(**values)
    except (LookupError, ValueError) as error:
        raise InvalidSettings(
            f"{name} may hold {', '.join('{' + key + '}' for key in values)} and no other braces "
            f"(double those that are meant), but there is {error!r} in {template!r:.120}"
        ) from error
