"""Learning by Teaching: a teacher's answer is as good as what its students learn from the way it was found.

*Can LLMs Learn by Teaching for Better Reasoning? A Preliminary Study*, Ning, Wang, Li, Lin et al., NeurIPS 2024,
arXiv 2406.14629, https://github.com/imagination-research/lbt (MIT).

Reproduced: M1, search-based output generation (Algorithm A1): rationales and answers are sampled, scored by the exam
accuracy of one student or the mean of several, and decided by MAX or SUM; the MATH settings (256 rationales, 3 repeats
of each exam, temperature 0.7, top-k 20) as defaults; the rows greedy, self-consistency and self-evaluation beside it.
Its score for preference learning (M2) is in :mod:`searchlib.objectives.preferences`.
Added: labels by the teacher's own vote, for those who do not know the answers of the exams (``labels="majority"``; the
paper uses the true ones, which plain self-consistency does not get to see); rationales that were drawn twice are scored
once; races (``racing=…``), which ask for fewer exams.
Not reproduced: exams chosen by similarity of the question, code problems with visible tests, LaTeX equivalence of
answers (give your own ``same``), and the wording of the instruction and of self-evaluation. Ties: the released code
takes the answer with the larger count, then the one that occurred last for the first time; here it is the first, and
rationales without an answer, which form a group as in the released code, lose every tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.cases import Split
from searchlib.chunks import plan_chunks
from searchlib.decision import Decision, decide
from searchlib.errors import InvalidSettings
from searchlib.objectives.lessons import Lessons, as_students, derived_seed, known_labels
from searchlib.objectives.teaching_format import MATH_SAMPLING, Exam, Rationale, TeachingFormat, TeachingProblem
from searchlib.objectives.text_model import Sampling, TextModel, checked
from searchlib.racing import Racing, race
from searchlib.space import Candidates

__all__ = [
    "Exam", "Generations", "LearningByTeaching", "Lessons", "Rationale", "RationaleSample", "Taught", "TeachingFormat",
    "TeachingProblem",
]  # fmt: skip

#: Rows that need no student.
BASELINES = ("greedy", "self-consistency", "self-evaluation")

_MATH = TeachingFormat()


@final
@dataclass(frozen=True)
class RationaleSample:
    """Rationales in the order in which a teacher drew them.

    Arguments:
        draws: at least one; the same rationale may occur several times.

    Example:
        >>> a, b = Rationale("2+2=4", "4"), Rationale("2+2=5", "5")
        >>> sample = RationaleSample((a, b, a))
        >>> sample.distinct == (a, b), sample.counts.tolist(), len(sample.first(1).draws)
        (True, [2, 1], 1)
    """

    draws: tuple[Rationale, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", tuple(self.draws))
        if not self.draws:
            raise InvalidSettings("a sample must hold at least one rationale, but is empty")

    def first(self, n: int) -> RationaleSample:
        """The first ``n`` draws: what a smaller sample would have been. Its distinct ones are the first of these."""
        whole_number("n", n, 1)
        return RationaleSample(self.draws[:n])

    @cached_property
    def distinct(self) -> tuple[Rationale, ...]:
        """Every rationale once, where it came first."""
        return tuple(dict.fromkeys(self.draws))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How often each of :attr:`distinct` was drawn."""
        places = {rationale: i for i, rationale in enumerate(self.distinct)}
        return np.bincount([places[rationale] for rationale in self.draws])

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The answers of :attr:`distinct` as numbers; rationales without an answer are one group, too."""
        places: dict[str | None, int] = {}
        return np.array([places.setdefault(rationale.answer, len(places)) for rationale in self.distinct])

    @cached_property
    def prefer(self) -> NDArray[np.int64]:
        """Who wins a tie: the answer that was drawn more often; rationales without an answer never."""
        total = np.bincount(self.groups, self.counts).astype(np.int64)[self.groups]
        unanswered = np.array([rationale.answer is None for rationale in self.distinct])
        return np.where(unanswered, -1, total)

    def answer(self, values: NDArray[np.float64], decision: Decision) -> str | None:
        """The answer of the best of :attr:`distinct`, or with the largest sum over all draws, by these values.

        Arguments:
            values: shape ``(n,)``, the higher the better; all ones with ``"sum"`` is self-consistency.
            decision: ``"max"`` or ``"sum"``.
        """
        row = decide(values, groups=self.groups, weights=self.counts, prefer=self.prefer, decision=decision)
        return self.distinct[row].answer


@final
@dataclass(frozen=True, kw_only=True)
class Generations:
    """How many completions were asked for, by what they were for."""

    teacher: int = 0  #: rationales, and the greedy one
    exams: int = 0  #: students' exams
    labels: int = 0  #: teacher's votes on the answers of exams
    self_evaluation: int = 0  #: teacher's verdicts on its own rationales

    @property
    def total(self) -> int:
        """All of them."""
        return self.teacher + self.exams + self.labels + self.self_evaluation


@final
@dataclass(frozen=True, eq=False)
class Taught:
    """What came out for one teaching problem.

    Arguments:
        answers: by row: "greedy", "self-consistency", "self-evaluation", "LbT max", "LbT sum" (with a race, only the
            row of the decision it ran for); None where a row's winner has no answer.
        sample: the rationales. Rows of ``scores`` are ``sample.distinct``.
        scores: shape ``(n, c)``: which exams were passed, with columns student by student, exam by exam, repeat by
            repeat; NaN where an exam was not sat.
        labels: what counted as right in the exams; None where the votes gave none.
        generations: what it took.
    """

    answers: Mapping[str, str | None]
    sample: RationaleSample
    scores: NDArray[np.float64]
    labels: tuple[str | None, ...]
    generations: Generations

    @property
    def rationales(self) -> tuple[Rationale, ...]:
        """The distinct rationales, one per row of ``scores``."""
        return self.sample.distinct

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of them was drawn."""
        return self.sample.counts

    def __str__(self) -> str:
        rows = [f"{name:<17} {answer}" for name, answer in self.answers.items()]
        return "\n".join([*rows, f"{'completions':<17} {self.generations.total}"])


@final
@dataclass(frozen=True)
class LearningByTeaching:
    """Answers questions by the exam results of students.

    Arguments:
        teacher: a text model.
        students: a text model or several, whose scores are averaged; the teacher may be one.
        rationales: how many the teacher draws.
        repeats: how often a student sits each exam with each rationale.
        format: how prompts are written and answers read.
        teacher_sampling, exam_sampling: how completions are drawn.
        labels: ``"known"`` takes the answers of the exams; ``"majority"`` never reads them: an exam's label is what the
            teacher answers most often. Results of the two do not rest on the same knowledge; show both.
        votes: for ``"majority"``, completions of the teacher per exam.
        baselines: which of "greedy", "self-consistency" and "self-evaluation" to show beside.
        racing: exams are sat by a race; None: every student sits every exam with every rationale.
        decision: what the race is about; without one, both are shown.

    Raises:
        InvalidSettings: a setting that cannot be meant.

    Example:
        >>> def teacher(prompts, sampling, seeds):
        ...     said = {0: "Guessing.\\n[[Final Answer]]:\\n$4$", 1: "Adding.\\n[[Final Answer]]:\\n$3$"}
        ...     return [said[int(seed % 3 == 0)] for seed in seeds]
        >>> def student(prompts, sampling, seeds):
        ...     return ["[[Final Answer]]: $7$" if "Adding" in prompt.prefix else "" for prompt in prompts]
        >>> method = LearningByTeaching(teacher, student, rationales=16, baselines=["self-consistency"])
        >>> taught = method.answer(TeachingProblem("1 + 2 = ?", [Exam("3 + 4 = ?", "7")]))
        >>> taught.answers
        {'self-consistency': '4', 'LbT max': '3', 'LbT sum': '3'}
        >>> taught.counts.tolist(), taught.generations
        ([7, 9], Generations(teacher=16, exams=6, labels=0, self_evaluation=0))
    """

    teacher: TextModel
    students: TextModel | Sequence[TextModel]
    _: KW_ONLY
    rationales: int = 256
    repeats: int = 3
    format: TeachingFormat = _MATH
    teacher_sampling: Sampling = MATH_SAMPLING
    exam_sampling: Sampling = MATH_SAMPLING
    labels: Literal["known", "majority"] = "known"
    votes: int = 16
    baselines: Sequence[str] = BASELINES
    racing: Racing | None = None
    decision: Decision = "sum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "students", as_students(self.students))
        object.__setattr__(self, "baselines", tuple(self.baselines))
        for name in ("rationales", "repeats", "votes"):
            whole_number(name, getattr(self, name), 1)
        if self.labels not in ("known", "majority"):
            raise InvalidSettings(f'labels must be "known" or "majority", but is {self.labels!r}')
        if self.decision not in ("max", "sum"):
            raise InvalidSettings(f'decision must be "max" or "sum", but is {self.decision!r}')
        unknown = [name for name in self.baselines if name not in BASELINES]
        if unknown:
            raise InvalidSettings(f"baselines may name {list(BASELINES)}, but names {unknown}")

    def answer(self, problem: TeachingProblem, seed: int = 0) -> Taught:
        """Sample rationales, and judge them by exams.

        Arguments:
            problem: the question and its exams.
            seed: decides all seeds that the models are given.
        """
        if self.labels == "known":
            known_labels(problem.exams)  # refused before the teacher has written anything
        return self.judge(problem, self.sample(problem, seed), seed)

    def sample(self, problem: TeachingProblem, seed: int = 0) -> RationaleSample:
        """Let the teacher write rationales. A smaller sample with the same seed is the beginning of a larger one."""
        return RationaleSample(tuple(self._drawn(problem.question, self.rationales, seed, "rationale")))

    def judge(self, problem: TeachingProblem, sample: RationaleSample, seed: int = 0) -> Taught:
        """Decide between rationales, as :meth:`answer` does after sampling.

        Arguments:
            problem: the question and its exams.
            sample: its rationales, from :meth:`sample` of this or any other instance.
            seed: decides the seeds of exams, votes and verdicts, and the order of a race.
        """
        labels = self.exam_labels(problem, seed)
        answers = {name: self._baseline(name, problem, sample, seed) for name in self.baselines}
        scores, decided = self._examine(problem, sample, labels, seed)
        spent = Generations(
            teacher=len(sample.draws) + self.baselines.count("greedy"),
            exams=int(np.isfinite(scores).sum()),
            labels=self.votes * len(problem.exams) if self.labels == "majority" else 0,
            self_evaluation=len(sample.distinct) * self.baselines.count("self-evaluation"),
        )
        return Taught(answers | decided, sample, scores, labels, spent)

    def exam_labels(self, problem: TeachingProblem, seed: int = 0) -> tuple[str | None, ...]:
        """What counts as right in each exam; None where no vote of the teacher had an answer.

        Raises:
            InvalidSettings: ``labels="known"``, and an exam without an answer.
        """
        if self.labels == "known":
            return known_labels(problem.exams)
        return tuple(
            _majority(self._drawn(exam.question, self.votes, seed, f"vote {number}"))
            for number, exam in enumerate(problem.exams)
        )

    def _baseline(self, name: str, problem: TeachingProblem, sample: RationaleSample, seed: int) -> str | None:
        if name == "greedy":
            (greedy,) = self._drawn(problem.question, 1, seed, name, replace(self.teacher_sampling, temperature=0))
            return greedy.answer
        if name == "self-consistency":
            return sample.answer(np.ones(len(sample.distinct)), "sum")
        return sample.answer(self._ratings(problem, sample, seed), "max")

    def _ratings(self, problem: TeachingProblem, sample: RationaleSample, seed: int) -> NDArray[np.float64]:
        """The teacher's verdict on each rationale, without sampling; of those it likes best, the majority wins."""
        prompts = [self.format.rating_prompt(problem.question, rationale) for rationale in sample.distinct]
        seeds = [derived_seed(seed, "verdict", i) for i in range(len(prompts))]
        verdicts = checked(self.teacher, prompts, replace(self.teacher_sampling, temperature=0), seeds)
        return np.array([self.format.verdict(verdict) for verdict in verdicts], np.float64)

    def _examine(
        self, problem: TeachingProblem, sample: RationaleSample, labels: tuple[str | None, ...], seed: int
    ) -> tuple[NDArray[np.float64], dict[str, str | None]]:
        lessons = self.lessons(problem, sample, labels, seed)
        rows = np.arange(len(sample.distinct))[:, None]
        if self.racing is None:
            scores = _whole_table(lessons, rows)
            values = scores.mean(axis=1)
            return scores, {"LbT max": sample.answer(values, "max"), "LbT sum": sample.answer(values, "sum")}
        result = race(
            lessons, rows, racing=self.racing, groups=sample.groups, weights=sample.counts, prefer=sample.prefer,
            decision=self.decision, seed=seed,
        )  # fmt: skip
        return result.scores, {f"LbT {self.decision}": sample.distinct[result.winner].answer}

    def lessons(
        self, problem: TeachingProblem, sample: RationaleSample, labels: Sequence[str | None], seed: int = 0
    ) -> Lessons:
        """The score table behind a decision, as an objective that any search of this library can work on."""
        return Lessons(
            problem, sample.distinct, as_students(self.students), labels=labels, repeats=self.repeats,
            sampling=self.exam_sampling, format=self.format, seed=seed,
        )  # fmt: skip

    def _drawn(
        self, question: str, n: int, seed: int, purpose: str, sampling: Sampling | None = None
    ) -> list[Rationale]:
        prompt = self.format.teacher_prompt(question)
        seeds = [derived_seed(seed, purpose, i) for i in range(n)]
        completions = checked(self.teacher, [prompt] * n, sampling or self.teacher_sampling, seeds)
        return [self.format.parse(completion) for completion in completions]


def _majority(votes: Sequence[Rationale]) -> str | None:
    """The answer that most of the votes with an answer agree on, of equals the first."""
    counts = Counter(vote.answer for vote in votes if vote.answer is not None)
    return max(counts, key=lambda answer: counts[answer], default=None)


def _whole_table(lessons: Lessons, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    cases = lessons.cases(Split.SEARCH)
    chunks = plan_chunks(len(rows), len(cases), lessons.chunk_rows, lessons.chunk_cases)
    parts = [lessons.evaluate(Candidates(lessons.space, rows[chunk.row : chunk.row_end]), cases) for chunk in chunks]
    return np.concatenate(parts)
