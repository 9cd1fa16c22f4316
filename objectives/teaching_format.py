"""Teaching problems, exams and rationales, and how they are written down for a language model.

The defaults are the MATH prompts of *Can LLMs Learn by Teaching for Better Reasoning?* (arXiv 2406.14629, appendix B,
and the configurations at https://github.com/imagination-research/lbt): the same tags and blank lines, the lesson as the
last exemplar before the exam question, the beginning of the solution put into the model's mouth. The instruction is
worded anew, and the exemplars that stand before the lesson (four in the paper) are the user's to give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from searchlib.arguments import listed
from searchlib.errors import InvalidSettings
from searchlib.objectives.text_model import Prompt, Sampling

__all__ = ["MATH_SAMPLING", "Exam", "Rationale", "TeachingFormat", "TeachingProblem"]

#: How the paper draws completions on MATH, for teacher and students; nobody goes on to write another question.
MATH_SAMPLING = Sampling(temperature=0.7, top_k=20, top_p=1.0, max_tokens=1024, stop=("[[Question]]",))

#: Between exemplars.
GAP = "\n\n\n"
FINAL = "[[Final Answer]]"


@final
@dataclass(frozen=True)
class Exam:
    """A question for the students.

    Arguments:
        question: what they are asked.
        answer: the right answer; None where it is not known.
    """

    question: str
    answer: str | None = None


@final
@dataclass(frozen=True)
class TeachingProblem:
    """A question for the teacher, and exams on what a student can learn from its solution.

    Arguments:
        question: what the teacher is asked.
        exams: at least one; problems that the same way of thinking solves.
        answer: the right answer; no decision between rationales reads it. It is there for the user's own reports and
            for :func:`searchlib.objectives.preference_pairs`.

    Raises:
        InvalidSettings: no exams.

    Example:
        >>> problem = TeachingProblem("12 * 3 + 1 = ?", [Exam("15 * 3 + 1 = ?", "46")])
        >>> problem.exams[0].answer
        '46'
    """

    question: str
    exams: Sequence[Exam]
    answer: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "exams", listed("exams", self.exams))
        if not self.exams:
            raise InvalidSettings(
                f"a teaching problem needs at least one exam, but there is none: {self.question!r:.80}"
            )


@final
@dataclass(frozen=True)
class Rationale:
    """What the teacher wrote: the reasoning, and the answer it ends with (None where none could be found)."""

    text: str
    answer: str | None


def math_problem(question: str) -> str:
    """A question as the paper writes it.

    Example:
        >>> math_problem("1 + 1 = ?")
        '[[Question]]:\\n1 + 1 = ?\\n\\n'
    """
    return f"[[Question]]:\n{question}\n\n"


def math_lesson(question: str, rationale: Rationale) -> str:
    """A question with its rationale and answer as the paper writes them, and the gap after an exemplar."""
    return f"{math_problem(question)}[[Solution]]:\nLet's think step by step.\n\n{math_write(rationale)}\n{GAP}"


def math_write(rationale: Rationale) -> str:
    """A rationale as the completion that :func:`math_parse` reads it from.

    Example:
        >>> math_write(Rationale("Twice 21 is 42.", "42"))
        'Twice 21 is 42.\\n\\n[[Final Answer]]:\\n$42$'
        >>> math_write(Rationale("I do not know.", None))
        'I do not know.'
    """
    return rationale.text if rationale.answer is None else f"{rationale.text}\n\n{FINAL}:\n${rationale.answer}$"


def math_parse(completion: str) -> Rationale:
    """What stands before ``[[Final Answer]]``, and the line after it without its dollar signs.

    Example:
        >>> math_parse("Twice 21 is 42.\\n\\n[[Final Answer]]:\\n$42$\\n")
        Rationale(text='Twice 21 is 42.', answer='42')
        >>> math_parse("I do not know.").answer is None
        True
    """
    text, tag, rest = completion.partition(FINAL)
    lines = rest.removeprefix(":").strip().splitlines()
    # in one go, so that reading again what was written gives the same: "$ $4$ $" is 4
    answer = re.sub(r"^[\s$]+|[\s$]+$", "", lines[0]) if tag and lines else ""
    return Rationale(text.strip(), answer or None)


def same_text(first: str, second: str) -> bool:
    """Whether two answers are the same string, spaces around them aside."""
    return first.strip() == second.strip()


def math_rating(question: str, rationale: Rationale) -> str:
    """Ask the teacher whether a solution is right (self-evaluation; the wording is ours)."""
    return (
        f"{math_lesson(question, rationale)}Is every step of this solution right, and its final answer too? "
        "Say yes or no.\n\n[[Verdict]]:\n"
    )


def yes_or_no(completion: str) -> float:
    """1 for a completion that begins with yes, else 0.

    Example:
        >>> yes_or_no(" Yes, it is."), yes_or_no("It is not.")
        (1.0, 0.0)
    """
    return float(completion.strip().lstrip("$*\"'[(").lower().startswith("yes"))


@final
@dataclass(frozen=True, kw_only=True)
class TeachingFormat:
    """How prompts are written and completions read. Every part can be replaced by a function of the same kind.

    Arguments:
        instruction: stands before everything that the teacher and the students read.
        few_shot: solved examples that follow it, as text; :meth:`example` writes one.
        cue: the beginning of the solution, which the model continues.
        problem: question -> text, before the cue, for the teacher.
        lesson: (question, rationale) -> text, before an exam, for a student.
        exam: question -> text, after the lesson and before the cue.
        parse: completion -> :class:`Rationale`, of the teacher's and the students' completions alike.
        write: :class:`Rationale` -> completion; what ``parse`` would read it from. Only preference pairs need it.
        same: (answer, label) -> whether an exam was passed. Rationales are grouped by identical answers, as in the
            paper's code.
        rate: (question, rationale) -> text that asks the teacher to judge its own rationale.
        verdict: completion of such a text -> number, the higher the better.

    Example:
        >>> arithmetic = TeachingFormat(
        ...     instruction="", cue="", problem=lambda question: question + "=", exam=lambda question: question + "=",
        ...     lesson=lambda question, rationale: f"{question}={rationale.text}; ",
        ...     parse=lambda completion: Rationale(completion, completion[-1:] or None),
        ... )
        >>> arithmetic.exam_prompt("1+1", Rationale("2", "2"), "3+4").full
        '1+1=2; 3+4='
    """

    instruction: str = (
        "Answer the last of the questions below. Reason step by step before you answer, and end with your answer in "
        f"this form:\n'''\n{FINAL}:\n$ANSWER$\n'''\n\n\n\n"
    )
    few_shot: str = ""
    cue: str = "[[Solution]]:\nLet's think step by step.\n\n"
    problem: Callable[[str], str] = math_problem
    lesson: Callable[[str, Rationale], str] = math_lesson
    exam: Callable[[str], str] = math_problem
    parse: Callable[[str], Rationale] = math_parse
    write: Callable[[Rationale], str] = math_write
    same: Callable[[str, str], bool] = same_text
    rate: Callable[[str, Rationale], str] = math_rating
    verdict: Callable[[str], float] = yes_or_no

    @property
    def preamble(self) -> str:
        """What stands before everything."""
        return self.instruction + self.few_shot

    def example(self, question: str, text: str, answer: str) -> str:
        """A solved example for ``few_shot``."""
        return self.lesson(question, Rationale(text, answer))

    def teacher_prompt(self, question: str) -> Prompt:
        """What the teacher continues with a rationale."""
        return Prompt(self.cue, prefix=self.preamble + self.problem(question))

    def exam_prompt(self, question: str, rationale: Rationale, exam: str) -> Prompt:
        """What a student continues who was taught the rationale; all exams on one rationale share the prefix."""
        return Prompt(self.exam(exam) + self.cue, prefix=self.preamble + self.lesson(question, rationale))

    def rating_prompt(self, question: str, rationale: Rationale) -> Prompt:
        """What the teacher continues with a verdict on its own rationale."""
        return Prompt(self.rate(question, rationale))
