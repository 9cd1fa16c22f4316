"""Worked examples in a prompt: what they say, how they are shown, and what a student made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from searchlib.errors import InvalidSettings
from searchlib.objectives.text_model import Prompt

__all__ = ["Exemplar", "ExemplarFormat", "ExemplarPrompt", "Failure", "first_line", "same_words", "yes_or_no"]


@final
@dataclass(frozen=True)
class Exemplar:
    """A question and its answer: shown as an example, or asked as an exam.

    Arguments:
        question: the text.
        answer: what is to be answered; the label of a classification, or a worked solution that ends in the answer
            (``ExemplarFormat.parse`` then finds it).

    Raises:
        InvalidSettings: one of them is empty or no string.

    Example:
        >>> Exemplar("My dog barks, so all dogs bark.", "Yes").answer
        'Yes'
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        for name, value in (("question", self.question), ("answer", self.answer)):
            if not isinstance(value, str) or not value.strip():
                raise InvalidSettings(f"an exemplar's {name} must be a string that says something, but is {value!r}")


@final
@dataclass(frozen=True)
class Failure:
    """One wrong answer, and who gave it to what.

    Arguments:
        student: which of the students, counted from 0.
        exemplars: what the student was shown.
        item: what it was asked, with the right answer.
        given: what it answered.
    """

    student: int
    exemplars: tuple[Exemplar, ...]
    item: Exemplar
    given: str


def first_line(completion: str) -> str:
    """The first line that says something; empty where none does.

    Example:
        >>> first_line("  Yes.\\n\\nQuestion: and what")
        'Yes.'
    """
    return next((line.strip() for line in completion.splitlines() if line.strip()), "")


def yes_or_no(completion: str) -> str:
    """``"Yes"`` where the completion begins so, else ``"No"``: the released reading of binary labels.

    Example:
        >>> yes_or_no(" yes, because"), yes_or_no("It depends")
        ('Yes', 'No')
    """
    return "Yes" if completion.strip().upper().startswith("YES") else "No"


def same_words(given: str, answer: str) -> bool:
    """Whether two answers agree but for case, spaces and a final period.

    Example:
        >>> same_words("faulty  generalization.", "Faulty generalization")
        True
    """
    first, second = (" ".join(text.casefold().split()).rstrip(".") for text in (given, answer))
    return first == second


@final
@dataclass(frozen=True, kw_only=True)
class ExemplarFormat:
    """How exemplars and questions are written, and how answers are read.

    Arguments:
        task: what comes first: the instruction, with the empty line behind it.
        exemplar: one worked example; ``{question}`` and ``{answer}`` are filled in.
        question: what the model continues; ``{question}`` is filled in.
        parse: the answer in a completion, and in an exemplar's answer; by default the first line.
        same: whether a given answer is the right one; by default :func:`same_words`.

    Raises:
        InvalidSettings: a template without its placeholders.

    Example:
        >>> form = ExemplarFormat(task="Is it a fallacy?\\n\\n", parse=yes_or_no)
        >>> print(form.prompt([Exemplar("All dogs bark.", "Yes")], "It rains.").full)
        Is it a fallacy?
        <BLANKLINE>
        Question: All dogs bark.
        Answer: Yes
        <BLANKLINE>
        Question: It rains.
        Answer:
        >>> form.right(" no", Exemplar("It rains.", "No"))
        True
    """

    task: str = ""
    exemplar: str = "Question: {question}\nAnswer: {answer}\n\n"
    question: str = "Question: {question}\nAnswer:"
    parse: Callable[[str], str] = field(default=first_line)
    same: Callable[[str, str], bool] = field(default=same_words)

    def __post_init__(self) -> None:
        for name, needed in (("exemplar", ("question", "answer")), ("question", ("question",))):
            template, filled = getattr(self, name), {key: f"<{key}>" for key in needed}
            try:
                shown = template.format(**filled)
            except (LookupError, ValueError):
                shown = ""
            if not all(mark in shown for mark in filled.values()):
                raise InvalidSettings(
                    f"{name} must hold {' and '.join('{' + key + '}' for key in needed)} and no other braces "
                    f"(double those that are meant), but is {template!r:.120}"
                )

    def prefix(self, exemplars: Sequence[Exemplar]) -> str:
        """The task and the exemplars, in this order."""
        shown = (self.exemplar.format(question=one.question, answer=one.answer) for one in exemplars)
        return self.task + "".join(shown)

    def prompt(self, exemplars: Sequence[Exemplar], question: str) -> Prompt:
        """A question behind exemplars."""
        return Prompt(self.question.format(question=question), self.prefix(exemplars))

    def right(self, completion: str, item: Exemplar) -> bool:
        """Whether a completion answers the item."""
        return bool(self.same(self.parse(completion), self.parse(item.answer)))


@final
@dataclass(frozen=True)
class ExemplarPrompt:
    """A set of exemplars, ready for questions: what a search over exemplar sets finds.

    Example:
        >>> ExemplarPrompt((Exemplar("1+1", "2"),), ExemplarFormat())("2+2").full
        'Question: 1+1\\nAnswer: 2\\n\\nQuestion: 2+2\\nAnswer:'
    """

    exemplars: tuple[Exemplar, ...]
    form: ExemplarFormat

    def __call__(self, question: str) -> Prompt:
        """The prompt for a question."""
        return self.form.prompt(self.exemplars, question)
