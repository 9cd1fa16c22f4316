"""Lessons: how well students do in exams after they were taught one or another rationale.

This is the score table of Learning by Teaching (arXiv 2406.14629, section 4.1): the rows are the rationales of one
teaching problem, the columns its exams, for every student and several times over.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.teaching_format import MATH_SAMPLING, Exam, Rationale, TeachingFormat, TeachingProblem
from searchlib.objectives.text_model import Sampling, TextModel, checked
from searchlib.space import Candidates
from searchlib.spaces import Integer

__all__ = ["Lessons", "derived_seed"]


def derived_seed(*parts: str | int) -> int:
    """A number below 2**31 that depends on nothing but ``parts``, in whatever process.

    Example:
        >>> derived_seed(0, "exam", 1, 2) == derived_seed(0, "exam", 1, 2) != derived_seed(0, "exam", 2, 1)
        True
    """
    plain = tuple(part if isinstance(part, str) else operator.index(part) for part in parts)  # numpy's 0 is 0
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=4).digest(), "big") >> 1


@final
class Lessons(Objective):
    """The rationales of one teaching problem, scored by the exams of its students.

    A candidate is the number of a rationale; a case is (student, exam, repeat). The score of a cell is 1 if the
    student, who reads the problem with that rationale and then the exam, answers as its label says, else 0. The value
    of a rationale, the mean over its row, is its LbT score: every student sits as many exams, so it is the mean of
    their scores, too.

    Arguments:
        problem: the question that was taught, and the exams. Its own answer is not read.
        rationales: at least one, all different.
        students: one text model, or several.
        labels: what counts as right, one per exam; None where there is no label, then nobody is right. By default the
            answers of the exams.
        repeats: how often a student sits each exam with each rationale, with different seeds.
        sampling: of the students.
        format: how lessons and exams are written.
        seed: decides the students' seeds, together with the numbers of student, exam and repeat.
        chunk_rows: rationales per call of a student.

    Raises:
        InvalidSettings: an exam without an answer where no labels are given, and other arguments that cannot be meant.

    Example:
        >>> from searchlib.objectives.teaching_format import Exam
        >>> def student(prompts, sampling, seeds):
        ...     return ["[[Final Answer]]: $7$" if "add" in prompt.prefix else "Hm." for prompt in prompts]
        >>> problem = TeachingProblem("1 + 2 = ?", [Exam("3 + 4 = ?", "7"), Exam("5 + 1 = ?", "6")])
        >>> lessons = Lessons(problem, [Rationale("I add.", "3"), Rationale("I guess.", "4")], student, repeats=1)
        >>> lessons.evaluate(Candidates(lessons.space, lessons.space.encode([0, 1])), lessons.cases(Split.SEARCH))
        array([[1., 0.],
               [0., 0.]])
    """

    direction = "maximize"

    def __init__(
        self,
        problem: TeachingProblem,
        rationales: Sequence[Rationale],
        students: TextModel | Sequence[TextModel],
        *,
        labels: Sequence[str | None] | None = None,
        repeats: int = 3,
        sampling: Sampling = MATH_SAMPLING,
        format: TeachingFormat | None = None,
        seed: int = 0,
        chunk_rows: int = 64,
    ) -> None:
        self.problem, self.rationales = problem, tuple(rationales)
        self.students = as_students(students)
        self.format = format or TeachingFormat()
        self.sampling = sampling
        self.repeats, self.chunk_rows = whole_number("repeats", repeats, 1), whole_number("chunk_rows", chunk_rows, 1)
        self.seed = operator.index(seed)
        self.labels = known_labels(problem.exams) if labels is None else tuple(labels)
        if len(self.labels) != len(problem.exams):
            raise InvalidSettings(
                f"there are {len(self.labels)} labels for {len(problem.exams)} exams; give one for each"
            )
        if not self.rationales or len(set(self.rationales)) < len(self.rationales):
            raise InvalidSettings(
                f"rationales must be at least one and all different, but of {len(self.rationales)} given, "
                f"{len(set(self.rationales))} are different"
            )
        self.space = Integer(0, len(self.rationales) - 1)

    def cases(self, split: Split) -> Cases:
        """Every (student, exam, repeat) for SEARCH; nothing is held out: exams judge rationales, not the answer."""
        if split is not Split.SEARCH:
            return Cases.none()
        students, exams = range(len(self.students)), range(len(self.problem.exams))
        cells = tuple((s, e, r) for s in students for e in exams for r in range(self.repeats))
        return Cases(tuple(f"student {s}, exam {e}, repeat {r}" for s, e, r in cells), cells)

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Which exams are passed, shape ``(n, c)``; one call per student, the exams on a rationale side by side."""
        scores = np.zeros((len(candidates), len(cases)))
        sittings: Sequence[tuple[int, int, int]] = cases.payload or ()
        for number, student in enumerate(self.students):
            columns = [column for column, sitting in enumerate(sittings) if sitting[0] == number]
            if columns and len(candidates):
                mine = [sittings[column] for column in columns]
                scores[:, columns] = self._sit(student, [self.rationales[i] for i in candidates], mine)
        return scores

    def _sit(
        self, student: TextModel, rationales: Sequence[Rationale], sittings: Sequence[tuple[int, int, int]]
    ) -> NDArray[np.float64]:
        exams = self.problem.exams
        prompts = [
            self.format.exam_prompt(self.problem.question, rationale, exams[exam].question)
            for rationale in rationales
            for _, exam, _ in sittings
        ]
        seeds = [derived_seed(self.seed, "exam", *sitting) for sitting in sittings] * len(rationales)
        completions = checked(student, prompts, self.sampling, seeds)
        labels = [self.labels[exam] for _, exam, _ in sittings] * len(rationales)
        passed = [self._passed(text, label) for text, label in zip(completions, labels, strict=True)]
        return np.array(passed, np.float64).reshape(len(rationales), len(sittings))

    def _passed(self, completion: str, label: str | None) -> bool:
        answer = self.format.parse(completion).answer
        return answer is not None and label is not None and self.format.same(answer, label)

    def artifact(self, value: Any) -> Rationale:
        """The winning rationale itself."""
        return self.rationales[value]

    def fingerprint(self) -> Mapping[str, Any]:
        """All that students read, the labels, and how the exams are sat; of the students only their number."""
        prompts = [
            self.format.exam_prompt(self.problem.question, rationale, exam.question).full
            for rationale in self.rationales
            for exam in self.problem.exams
        ]
        texts = repr((self.rationales, self.labels, prompts))
        return {
            "objective": "Lessons",
            "texts": hashlib.blake2b(texts.encode(), digest_size=8).hexdigest(),
            "students": len(self.students),
            "repeats": self.repeats,
            "sampling": repr(self.sampling),
            "seed": self.seed,
        }


def as_students(students: TextModel | Sequence[TextModel]) -> tuple[TextModel, ...]:
    """One text model or several as a tuple.

    Raises:
        InvalidSettings: none, or something that cannot be called.
    """
    several = tuple(students) if isinstance(students, Sequence) else (students,)
    if not several or not all(callable(student) for student in several):
        raise InvalidSettings(
            f"students must be at least one text model (prompts, sampling, seeds), but are {students!r}"
        )
    return several


def known_labels(exams: Sequence[Exam]) -> tuple[str, ...]:
    """The right answers of all exams.

    Raises:
        InvalidSettings: an exam has none.
    """
    for exam in exams:
        if exam.answer is None:
            raise InvalidSettings(
                f"the exam {exam.question!r:.80} has no answer; give it one, or let the teacher vote on what is right: "
                'LearningByTeaching(…, labels="majority")'
            )
    return tuple(exam.answer for exam in exams if exam.answer is not None)
