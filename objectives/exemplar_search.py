"""Learning by Teaching, M3: find the exemplars that teach best, by looking at what students get wrong with them.

*Can LLMs Learn by Teaching for Better Reasoning? A Preliminary Study*, Ning et al., arXiv 2406.14629 (Algorithm A2 in
Appendix C.3), https://github.com/imagination-research/lbt (MIT).

Reproduced: a beam of 4 sets of 8 exemplars over 5 rounds; all students answer a minibatch of 64 training items with
each set; their wrong answers together become up to 8 new sets; the teacher scores all sets on the training items.
Improving is a plug-in: :class:`~searchlib.objectives.exemplar_operators.LLMRewriter` reflects in words, as in the
paper; without a model that can, failed items replace exemplars.

Where paper and released code differ, and what is done here:

* The paper reports the teacher's F1; the released code selects by accuracy. Both are offered, ``"accuracy"`` first.
* The released code scores a round's sets on newly drawn examples (57 to 100 of them), so that values of different
  rounds do not compare. Here every set is scored once, on all training items.
* The released code draws one minibatch per round, the paper one per set and round; so do we.
* Added: a training item is never answered with itself among the exemplars, which would reward copying (the exemplar
  is left out for that item); a SELECT split for the winner; held-out cases and baselines.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms import Algorithm, Beam
from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.objective import Objective
from searchlib.objectives.exemplar_operators import ExemplarOperator, FailureReplacement, Operator
from searchlib.objectives.exemplars import Exemplar, ExemplarFormat, ExemplarPrompt, Failure
from searchlib.objectives.text_model import Prompt, Sampling, TextModel, checked
from searchlib.space import Candidates, Population
from searchlib.spaces import ExemplarSets

__all__ = ["ExemplarSearch"]

logger = logging.getLogger("searchlib")

#: Draws behind the reference "random exemplars".
RANDOM_DRAWS = 8

#: Exemplars that an operator may write beyond the pool; 5 rounds of 32 sets of 8 are 1,280.
_WRITTEN = 2**14


@final
class ExemplarSearch(Objective):
    """How well the teacher answers with a set of exemplars in its prompt.

    A set is written in the order of its ids, whatever order it was proposed in, so that equal sets are equal prompts.
    What depends on language models outside of the table (students' failures, the operator's sets) is
    journaled in the study's memo, so a resumed search calls neither students nor operator again for what it had.
    Such calls are not counted by any budget but time.

    Arguments:
        teacher: answers with the exemplars; its score is the value.
        students: produce the failures; ``[teacher]`` is the paper's baseline without weaker students.
        pool: exemplars known from the start, all different; the first ``k`` are the seed.
        train: items of the SEARCH split; they may be in the pool.
        k: exemplars per set, fewer than there are in the pool.
        select: items on which the winner is picked among the finalists; not in the pool.
        holdout: items for the comparison at the end; not in the pool.
        operator: called as ``operator(failures, exemplars, rng)``, returns sets of ``k`` exemplars; by default
            :class:`~searchlib.objectives.exemplar_operators.FailureReplacement` with the pool.
        minibatch: training items that the students answer per set and round.
        metric: ``"accuracy"``, or ``"f1"`` of the answer ``positive``.
        positive: the answer that F1 is about.
        form: how exemplars and questions are written, and answers read.
        sampling: of all answers; greedy and short by default (released: 4 tokens).
        capacity: how many exemplars, those of the pool included, there may ever be; a set beyond is dropped with a
            warning. By default the pool's number, or 16,384 more where the operator writes new ones.

    Raises:
        InvalidSettings: items that repeat or overlap, too few of them, or a metric without its answer.

    Example:
        >>> from searchlib import search
        >>> objective = ExemplarSearch.smoke()
        >>> result = search(objective, budget=60)
        >>> sorted(row.name for row in result.holdout.rows)
        ['best', 'random exemplars', 'seed exemplars']
        >>> sorted(one.answer for one in result.best.exemplars)
        ['a', 'b', 'c']
    """

    space: ExemplarSets
    direction = "maximize"
    chunk_rows = 1
    shareable = False  # new exemplars are numbered in the order of their making
    chunk_cases = 256

    def __init__(
        self,
        teacher: TextModel,
        students: Sequence[TextModel],
        pool: Sequence[Exemplar],
        train: Sequence[Exemplar],
        *,
        k: int = 8,
        select: Sequence[Exemplar] = (),
        holdout: Sequence[Exemplar] = (),
        operator: Operator | ExemplarOperator | None = None,
        minibatch: int = 64,
        metric: Literal["accuracy", "f1"] = "accuracy",
        positive: str | None = None,
        form: ExemplarFormat | None = None,
        sampling: Sampling | None = None,
        capacity: int | None = None,
    ) -> None:
        self.teacher, self.students = teacher, tuple(students)
        self.pool, self.form = tuple(pool), form or ExemplarFormat()
        self.minibatch = whole_number("minibatch", minibatch, 1)
        self.sampling = sampling or Sampling(temperature=0, max_tokens=16)
        self._items = {Split.SEARCH: tuple(train), Split.SELECT: tuple(select), Split.HOLDOUT: tuple(holdout)}
        self._check_items()
        self._cases = _numbered(self._items)
        self.operator = FailureReplacement(self.pool) if operator is None else operator
        if operator is None and not set(self.pool) & set(train):
            raise InvalidSettings(
                "without an operator, failed training items become exemplars, but none of them is in the pool; add "
                "them to it, or pass operator=FailureReplacement(pool, similarity=…)"
            )
        writes = self.operator.writes if isinstance(self.operator, ExemplarOperator) else True
        room = len(self.pool) + (_WRITTEN if writes else 0)
        self.space = ExemplarSets(len(self.pool), k, room if capacity is None else capacity)
        self.metric, self.positive, self.additive = metric, positive, metric == "accuracy"
        self._check_metric()
        self._ids = {exemplar: number for number, exemplar in enumerate(self.pool)}
        self._memo = Memo()

    @classmethod
    def smoke(cls) -> Self:
        """Numbers named by their size, by models that copy the nearest exemplar; for tests and examples."""
        named = [Exemplar(str(number), "abc"[number // 20]) for number in np.random.default_rng(0).permutation(60)]
        weak = _Nearest(reads=2)
        return cls(_Nearest(), [weak], named[:20], named[:30], k=3, select=named[30:40], holdout=named[40:])

    def cases(self, split: Split) -> Cases:
        """The items of a split, numbered over all splits."""
        return self._cases[split]

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Right or wrong ``(n, c)``, or for F1 the counts ``(n, c, 3)``, of the teacher with every set."""
        return np.stack([self.score(self.exemplars(row), cases) for row in candidates.array])

    def score(self, exemplars: Sequence[Exemplar], cases: Cases) -> NDArray[np.float64]:
        """Observations of the teacher with these exemplars: whether it is right ``(c,)``; for F1 whether it says
        ``positive`` rightly, says it, and should say it ``(c, 3)``.
        """
        items: Sequence[Exemplar] = cases.payload or ()
        completions = checked(
            self.teacher, self._prompts(exemplars, items), self.sampling, [int(case) for case in cases.ids]
        )
        if self.metric == "accuracy":
            return np.array([self.form.right(text, item) for text, item in zip(completions, items, strict=True)], float)
        said = np.array([self._is_positive(self.form.parse(text)) for text in completions])
        meant = np.array([self._is_positive(self.form.parse(item.answer)) for item in items])
        return np.stack([said & meant, said, meant], axis=1).astype(np.float64)

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy, or F1: twice the right positives over the said and the meant ones; 0 where there are none."""
        if self.metric == "accuracy":
            return super().aggregate(scores)
        right, said, meant = np.moveaxis(scores.sum(axis=1), -1, 0)
        return np.asarray(2 * right / np.maximum(said + meant, 1))[:, None]

    def exemplars(self, row: Iterable[int]) -> tuple[Exemplar, ...]:
        """The exemplars with these ids.

        Raises:
            InvalidSettings: an id that nobody has written in this search.
        """
        return tuple(self._exemplar(int(number)) for number in row)

    def seeds(self) -> Population:
        """The first ``k`` exemplars of the pool."""
        return self.space.encode([range(self.space.k)])

    def references(self) -> tuple[str, ...]:
        """The seed, and the mean of random sets from the pool."""
        return ("seed exemplars", "random exemplars")

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(c,)`` or ``(c, 3)`` of a reference; for ``"random exemplars"`` the mean over 8 draws."""
        random = self.space.sample(np.random.default_rng(0), RANDOM_DRAWS)
        rows = self.seeds() if name == "seed exemplars" else random
        return np.asarray(np.mean([self.score(self.exemplars(row), cases) for row in rows], axis=0))

    def algorithm(self, evaluations: int | None) -> Algorithm:
        """The paper's beam: 4 sets, 8 new ones from each, 5 rounds; at most 164 evaluations."""
        del evaluations
        return Beam(width=4, expansion=8, rounds=5, vary=self.vary)

    def vary(self, rng: np.random.Generator, parents: Population) -> tuple[Population, NDArray[np.integer]]:
        """New sets from what the students get wrong with each parent, and whose they are; what a beam varies by."""
        children: list[tuple[int, ...]] = []
        owners: list[int] = []
        for owner, row in enumerate(parents):
            # One number per set and round: whatever happens below, the run's generator goes on alike.
            seed = int(rng.integers(2**62))
            sets = self._improved(row.tolist(), seed)
            children += sets
            owners += [owner] * len(sets)
        rows = np.array(children, self.space.dtype).reshape(-1, self.space.dimension)
        return self.space.canonical(rows), np.array(owners, np.int64)

    def remember(self, memo: Memo) -> None:
        """Journal failures and new sets in this memo, and number new exemplars by it."""
        self._memo = memo
        if isinstance(self.operator, ExemplarOperator):
            self.operator.remember(memo)

    def artifact(self, value: Any) -> ExemplarPrompt:
        """The winner as a prompt: its exemplars, and a call that puts a question behind them."""
        return ExemplarPrompt(self.exemplars(value), self.form)

    def fingerprint(self) -> Mapping[str, Any]:
        """Content of pool and items, names of the models, settings. Weights of the models are not looked into."""
        text = repr([self.pool, *self._items.values()])
        own = self.operator
        named = own.fingerprint() if isinstance(own, ExemplarOperator) else {"operator": _name(own)}
        form = [self.form.task, self.form.exemplar, self.form.question, _name(self.form.parse), _name(self.form.same)]
        return {
            "objective": "ExemplarSearch",
            "items": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
            "teacher": _name(self.teacher),
            "students": [_name(student) for student in self.students],
            "minibatch": self.minibatch,
            "metric": [self.metric, self.positive],
            "form": form,
            "sampling": repr(self.sampling),
            **named,
        }

    def __getstate__(self) -> dict[str, Any]:
        if self.space.capacity > self.space.pool:
            raise InvalidSettings(
                "exemplars that are written during the search are known to this process alone; search with workers=1 "
                "(the models work on many prompts at once), or pass capacity=len(pool) to keep to the pool"
            )
        return {**self.__dict__, "_memo": Memo()}

    def _prompts(self, exemplars: Sequence[Exemplar], items: Sequence[Exemplar]) -> list[Prompt]:
        """One prompt per item; an exemplar that gives the item's own answer away is left out."""
        questions = {one.question.strip() for one in exemplars}
        prefix = self.form.prefix(exemplars)
        prompts = []
        for item in items:
            before = prefix
            if item.question.strip() in questions:
                before = self.form.prefix([e for e in exemplars if e.question.strip() != item.question.strip()])
            prompts.append(Prompt(self.form.question.format(question=item.question), before))
        return prompts

    def _improved(self, row: list[int], seed: int) -> list[tuple[int, ...]]:
        """New sets of ids from one set; read from the memo where it has them."""
        exemplars, train, name = self.exemplars(row), self._items[Split.SEARCH], f"{row} {seed}"
        wrong = self._memo.recall(f"failures {name}", lambda: self._wrong(exemplars, seed))
        failures = [Failure(student, exemplars, train[item], given) for student, item, given in wrong]

        def improve() -> list[list[list[str]]]:
            sets = self.operator(failures, exemplars, np.random.default_rng([seed, 1]))
            return [[[one.question, one.answer] for one in self._checked_set(child)] for child in sets]

        sets = self._memo.recall(f"sets {name}", improve)
        numbered = [tuple(self._number(Exemplar(*one)) for one in child) for child in sets]
        kept = [child for child in numbered if max(child) < self.space.capacity]
        if len(kept) < len(numbered):
            logger.warning(
                "%d sets are dropped: they hold exemplars beyond capacity=%d",
                len(numbered) - len(kept), self.space.capacity,
            )  # fmt: skip
        return kept

    def _wrong(self, exemplars: tuple[Exemplar, ...], seed: int) -> list[tuple[int, int, str]]:
        """Students, items and answers that were wrong, on a minibatch that all students share."""
        rng, train = np.random.default_rng([seed, 0]), self._items[Split.SEARCH]
        chosen = rng.choice(len(train), size=min(self.minibatch, len(train)), replace=False).tolist()
        prompts = self._prompts(exemplars, [train[item] for item in chosen])
        wrong = []
        for number, student in enumerate(self.students):
            completions = checked(student, prompts, self.sampling, rng.integers(2**31, size=len(prompts)).tolist())
            wrong += [
                (number, item, self.form.parse(text))
                for item, text in zip(chosen, completions, strict=True) if not self.form.right(text, train[item])
            ]  # fmt: skip
        return wrong

    def _checked_set(self, child: Sequence[Exemplar]) -> Sequence[Exemplar]:
        if not all(isinstance(one, Exemplar) for one in child) or not len(child) == len(set(child)) == self.space.k:
            raise InvalidSettings(
                f"the operator must return sets of {self.space.k} different exemplars, but returned {child!r:.200}"
            )
        return child

    def _exemplar(self, number: int) -> Exemplar:
        if number < len(self.pool):
            return self.pool[number]
        return Exemplar(*json.loads(self._memo.item(number - len(self.pool))))

    def _number(self, exemplar: Exemplar) -> int:
        """The id of an exemplar: its place in the pool, or behind the pool its place in the memo."""
        known = self._ids.get(exemplar)
        if known is not None:
            return known
        return len(self.pool) + self._memo.intern(json.dumps([exemplar.question, exemplar.answer]))

    def _is_positive(self, answer: str) -> bool:
        return bool(self.form.same(answer, str(self.positive)))

    def _check_items(self) -> None:
        train, select, holdout = self._items.values()
        for name, given in (("pool", self.pool), ("train", train), ("students", self.students)):
            if not given:
                raise InvalidSettings(f"{name} must not be empty")
        if len(set(self.pool)) < len(self.pool):
            twice = next(one for one in self.pool if self.pool.count(one) > 1)
            raise InvalidSettings(f"the exemplars of the pool must be different, but {twice!r:.120} is there twice")
        seen = {one.question.strip() for one in (*self.pool, *train)}
        for name, items in (("select", select), ("holdout", holdout)):
            for item in items:
                if item.question.strip() in seen:
                    raise InvalidSettings(f"{name} must hold items found nowhere else, but has {item.question!r:.120}")
            seen |= {item.question.strip() for item in items}

    def _check_metric(self) -> None:
        if self.metric not in ("accuracy", "f1"):
            raise InvalidSettings(f'metric must be "accuracy" or "f1", but is {self.metric!r}')
        if self.metric == "accuracy":
            return
        answers = [self.form.parse(item.answer) for item in self._items[Split.SEARCH]]
        if self.positive is None or not any(map(self._is_positive, answers)):
            raise InvalidSettings(
                f'metric="f1" needs positive=…, an answer of some training item, but positive is {self.positive!r} '
                f"and the answers are {sorted(set(answers))[:8]!r}"
            )


def _numbered(items: Mapping[Split, Sequence[Exemplar]]) -> dict[Split, Cases]:
    numbered, start = {}, 0
    for split, mine in items.items():
        numbered[split] = Cases(tuple(range(start, start + len(mine))), mine)
        start += len(mine)
    return numbered


def _name(model: Callable[..., Any]) -> str:
    return str(getattr(model, "__qualname__", type(model).__qualname__))


@final
@dataclass(frozen=True)
class _Nearest:
    """A model that reads numbers and copies the answer of the nearest one, of the last ``reads`` exemplars."""

    reads: int = 100

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
        return [self._answer(prompt.full) for prompt in prompts]

    def _answer(self, text: str) -> str:
        shown = re.findall(r"Question: (\d+)\nAnswer: (\w+)", text)[-self.reads :]
        asked = int(text.rsplit("Question: ", 1)[1].split()[0])
        return min(shown, key=lambda one: abs(int(one[0]) - asked), default=("", ""))[1]
