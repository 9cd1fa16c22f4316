"""Preference pairs: what a teacher should write rather than what, by its answer and by the exams of its students.

*Can LLMs Learn by Teaching for Better Reasoning? A Preliminary Study*, Ning, Wang, Li, Lin et al., NeurIPS 2024,
arXiv 2406.14629, https://github.com/imagination-research/lbt (MIT).

Reproduced: the data of M2 (section 4.2, appendix B.1). Every rationale of a problem (32 in the paper) has the score
½ · (its answer is right) + ½ · (its LbT score); two of them are a pair where their scores differ by more than 0.3; no
problem gives more than 8 pairs. ``correctness=1, teaching=0`` is the paper's baseline, which needs no students.
Not reproduced: the training itself, which is left to libraries for it, and the rule by which 8 of more pairs are
chosen, which is neither in the paper nor in its repository (M2 is not released). Here the largest gaps come first, and
among equal gaps the pair whose two rationales are in the fewest pairs so far, then the one that was drawn first.

The rows are what ``DPOTrainer`` of TRL reads (explicit prompts, standard format), and :data:`TRAINING` has the paper's
settings under the names of its ``DPOConfig``::

    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer
    from searchlib.objectives.preferences import TRAINING

    data = load_dataset("json", data_files="pairs.jsonl", split="train")
    DPOTrainer(model, args=DPOConfig("teacher-m2", **TRAINING), train_dataset=data, processing_class=tokenizer).train()

The paper adds the negative log-likelihood of the winner with the weight 50. TRL calls that ``loss_type=["sigmoid",
"sft"]`` with ``loss_weights``; versions before 0.20 have ``rpo_alpha=50`` instead, which 0.29 no longer knows. TRL's
"sft" is a mean over the winners' tokens; what the paper's is a mean of, it does not say. Raise ``max_length`` (1,024
tokens unless told) where prompts carry solved examples, else completions are cut. For a teacher that reads prompts in a
chat template, make each ``prompt`` a user's message and each completion an assistant's one; TRL then applies it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, listed, whole_number
from searchlib.decision import DIGITS
from searchlib.errors import InvalidSettings
from searchlib.objectives.teaching import Taught
from searchlib.objectives.teaching_format import Rationale, TeachingFormat, TeachingProblem

__all__ = ["TRAINING", "PreferencePair", "PreferencePairs", "preference_pairs"]

#: How the paper trains on the pairs (appendix B.1), as arguments of TRL's ``DPOConfig``.
TRAINING: Mapping[str, Any] = MappingProxyType({
    "learning_rate": 5e-7,
    "per_device_train_batch_size": 16,  # the whole batch; divide it among devices and accumulation steps
    "num_train_epochs": 1,
    "beta": 0.1,
    "loss_type": ["sigmoid", "sft"],
    "loss_weights": [1.0, 50.0],
})  # fmt: skip

_MATH = TeachingFormat()


@final
@dataclass(frozen=True)
class PreferencePair:
    """Two completions of one prompt, the better one and the worse one.

    Arguments:
        prompt: all that the teacher reads.
        chosen, rejected: what it would have written, with the final answer.
        score_chosen, score_rejected: their scores.
        gap: by how much they differ.
    """

    prompt: str
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float
    gap: float


@final
@dataclass(frozen=True)
class PreferencePairs:
    """Pairs of any number of problems, problem by problem.

    Example:
        >>> pairs = PreferencePairs((PreferencePair("1 + 1 =", " 2", " 3", 1.0, 0.0, 1.0),))
        >>> [pair.chosen for pair in pairs], len(pairs)
        ([' 2'], 1)
    """

    pairs: tuple[PreferencePair, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", listed("pairs", self.pairs))
        for pair in self.pairs:
            instance("each of pairs", pair, PreferencePair, "a PreferencePair")

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self.pairs)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one JSON object per line, with the fields of :class:`PreferencePair`; an old file is overwritten."""
        lines = "".join(json.dumps(asdict(pair)) + "\n" for pair in self.pairs)
        Path(path).write_text(lines, encoding="utf-8", newline="\n")


def preference_pairs(
    lessons: Iterable[tuple[TeachingProblem, Taught]],
    *,
    correctness: float = 0.5,
    teaching: float = 0.5,
    gap: float = 0.3,
    limit: int = 8,
    format: TeachingFormat = _MATH,
) -> PreferencePairs:
    """Pairs of rationales of the same problem of which one is clearly better.

    Arguments:
        lessons: problems, and what :class:`~searchlib.objectives.LearningByTeaching` found for each.
        correctness: weight of a right answer (as ``format.same`` says) in a rationale's score.
        teaching: weight of the LbT score, the part of the exams that were passed after it was taught.
        gap: the scores of a pair differ by more than this.
        limit: pairs per problem, at most.
        format: the teacher's; its ``write`` must give what its ``parse`` reads.

    Raises:
        InvalidSettings: a setting that cannot be meant; a problem without an answer; rationales that did not sit all
            exams, because a race dropped them (what is known of a loser are its worst exams, so its score would not
            be comparable); a format that cannot write what it reads.

    Example:
        >>> from searchlib.objectives import Exam, LearningByTeaching
        >>> def teacher(prompts, sampling, seeds):
        ...     said = ["Guessing.\\n[[Final Answer]]:\\n$4$", "Adding.\\n[[Final Answer]]:\\n$3$"]
        ...     return [said[seed % 2] for seed in seeds]
        >>> def student(prompts, sampling, seeds):
        ...     return ["[[Final Answer]]: $7$" if "Adding" in prompt.prefix else "" for prompt in prompts]
        >>> problem = TeachingProblem("1 + 2 = ?", [Exam("3 + 4 = ?", "7")], answer="3")
        >>> method = LearningByTeaching(teacher, student, rationales=32, baselines=[])
        >>> (pair,) = preference_pairs([(problem, method.answer(problem))])
        >>> pair.chosen, pair.gap
        ('Adding.\\n\\n[[Final Answer]]:\\n$3$', 1.0)
    """
    for name, value in (("correctness", correctness), ("teaching", teaching), ("gap", gap)):
        if not 0 <= value < math.inf:
            raise InvalidSettings(f"{name} must be a finite number from 0 up, but is {value!r}")
    if not correctness + teaching > 0:
        raise InvalidSettings("correctness and teaching are both 0, so all scores are; give one of them a weight")
    whole_number("limit", limit, 1)
    found: list[PreferencePair] = []
    for problem, taught in lessons:
        scores = _scores(problem, taught, correctness, teaching, format)
        prompt = format.teacher_prompt(problem.question).full
        for winner, loser in _chosen(scores, gap, limit):
            chosen, rejected = (_written(taught.rationales[row], format) for row in (winner, loser))
            better, worse = float(scores[winner]), float(scores[loser])
            found.append(PreferencePair(prompt, chosen, rejected, better, worse, round(better - worse, DIGITS)))
    return PreferencePairs(tuple(found))


def _scores(
    problem: TeachingProblem, taught: Taught, correctness: float, teaching: float, format: TeachingFormat
) -> NDArray[np.float64]:
    """The score of every distinct rationale; a part that has no weight need not be known."""
    if len(taught.labels) != len(problem.exams):
        raise InvalidSettings(
            f"the problem {problem.question!r:.80} has {len(problem.exams)} exams, but what it is paired with was "
            f"taught with {len(taught.labels)}; give each problem its own results"
        )
    scores = np.zeros(len(taught.rationales))
    if correctness:
        scores += correctness * _right(problem, taught, format)
    if teaching:
        absent = int(np.isnan(taught.scores).any(axis=1).sum())
        if absent:
            raise InvalidSettings(
                f"{absent} of {len(scores)} rationales of {problem.question!r:.80} did not sit all exams, as happens "
                "in a race; judge them again with LearningByTeaching(…, racing=None)"
            )
        scores += teaching * taught.scores.mean(axis=1)
    return scores.round(DIGITS)


def _right(problem: TeachingProblem, taught: Taught, format: TeachingFormat) -> NDArray[np.float64]:
    if problem.answer is None:
        raise InvalidSettings(
            f"the problem {problem.question!r:.80} has no answer, so nobody knows which rationales are right; give it "
            "one, TeachingProblem(…, answer=…), or score by teaching alone: correctness=0"
        )
    answers = [rationale.answer for rationale in taught.rationales]
    return np.array([answer is not None and bool(format.same(answer, problem.answer)) for answer in answers], float)


def _chosen(scores: NDArray[np.float64], gap: float, limit: int) -> list[tuple[int, int]]:
    """(winner, loser) by the largest gap, then by how rarely both were chosen, then by the order of the draws."""
    gaps = (scores[:, None] - scores).round(DIGITS)
    open_, uses = gaps > gap, np.zeros(len(scores), np.int64)
    chosen: list[tuple[int, int]] = []
    while open_.any() and len(chosen) < limit:
        winners, losers = np.nonzero(open_ & (gaps == gaps[open_].max()))
        first = int(np.argmin(uses[winners] + uses[losers]))
        pair = int(winners[first]), int(losers[first])
        open_[pair] = False
        uses[list(pair)] += 1
        chosen.append(pair)
    return chosen


def _written(rationale: Rationale, format: TeachingFormat) -> str:
    completion = format.write(rationale)
    again = format.parse(completion)
    if (again.text.strip(), again.answer) != (rationale.text.strip(), rationale.answer):
        raise InvalidSettings(
            f"the format writes {rationale!r:.160} as {completion!r:.160}, which it reads as {again!r:.160}; give it "
            "the counterpart of its parse: TeachingFormat(write=…)"
        )
    return completion
