import dataclasses

import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.teaching_format import (
    MATH_SAMPLING,
    Exam,
    Rationale,
    TeachingFormat,
    TeachingProblem,
    math_parse,
    math_write,
    same_text,
    yes_or_no,
)

RATIONALE = Rationale("12 * 3 is 36.\nOne more is 37.", "37")


def test_a_student_reads_the_lesson_as_the_last_exemplar_before_the_exam():
    written = TeachingFormat(instruction="Answer.\n\n", few_shot="EXAMPLES\n\n\n").exam_prompt(
        "12 * 3 + 1 = ?", RATIONALE, "15 * 3 + 1 = ?"
    )
    assert written.full == (
        "Answer.\n\n"
        "EXAMPLES\n\n\n"
        "[[Question]]:\n12 * 3 + 1 = ?\n\n"
        "[[Solution]]:\nLet's think step by step.\n\n"
        "12 * 3 is 36.\nOne more is 37.\n\n"
        "[[Final Answer]]:\n$37$\n\n\n\n"
        "[[Question]]:\n15 * 3 + 1 = ?\n\n"
        "[[Solution]]:\nLet's think step by step.\n\n"
    )
    assert written.text.startswith("[[Question]]:\n15 * 3")  # the lesson is in the prefix that all exams share


def test_a_teacher_is_asked_as_a_student_is_and_never_sees_the_answer():
    asked = TeachingFormat(instruction="", few_shot="").teacher_prompt("1 + 1 = ?")
    assert asked.full == "[[Question]]:\n1 + 1 = ?\n\n[[Solution]]:\nLet's think step by step.\n\n"


def test_a_lesson_is_the_teachers_prompt_its_completion_and_a_gap():
    written = TeachingFormat(instruction="", few_shot="")
    for rationale in (RATIONALE, Rationale("I give up.", None)):
        lesson = written.lesson("1 + 1 = ?", rationale)
        assert lesson == written.teacher_prompt("1 + 1 = ?").full + written.write(rationale) + "\n\n\n\n"
    assert "Final Answer" not in written.lesson("1 + 1 = ?", Rationale("I give up.", None))


def test_a_solved_example_looks_like_a_lesson():
    written = TeachingFormat()
    assert written.example("1 + 1 = ?", "Two ones.", "2") == written.lesson("1 + 1 = ?", Rationale("Two ones.", "2"))
    assert TeachingFormat(instruction="A", few_shot="B").preamble == "AB"


@pytest.mark.parametrize(("completion", "text", "answer"), [
    ("Twice.\n\n[[Final Answer]]:\n$42$\n", "Twice.", "42"),
    ("Twice.\n[[Final Answer]]: 42", "Twice.", "42"),
    ("Twice.[[Final Answer]]\n\n $ \\frac{1}{2} $ \nand more", "Twice.", "\\frac{1}{2}"),
    ("[[Final Answer]]:\n$42$", "", "42"),
    ("Twice.\n[[Final Answer]]:\n$42$\n[[Final Answer]]:\n$43$", "Twice.", "42"),
    ("Twice.\n[[Final Answer]]:\n$$", "Twice.", None),
    ("Twice.\n[[Final Answer]]:\n", "Twice.", None),
    ("  No idea. \n", "No idea.", None),
    ("", "", None),
    ("Costs.\n[[Final Answer]]:\n$ $4$ $", "Costs.", "4"),
])  # fmt: skip
def test_a_completion_is_read_up_to_its_tag_and_the_line_behind_it(completion, text, answer):
    assert math_parse(completion) == Rationale(text, answer)


@pytest.mark.parametrize("completion", [
    "Twice.\n\n[[Final Answer]]:\n$42$\n", "No idea.", "", "[[Final Answer]]:\n$42$", "A [[Final Answer]]:: 5",
    "A\n[[Final Answer]]: $ $4$ $", "A\n[[Final Answer]]:\n$\n$5$", "A [[Final Answer]] [[Final Answer]]", "$[[Fin",
    "A [[Final Answer]]: \u00a0$7$\u00a0$ ", "A\u2028B [[Final Answer]]:\n1\u20282",
])  # fmt: skip
def test_what_was_read_is_written_so_that_it_is_read_again(completion):
    rationale = math_parse(completion)
    assert math_parse(math_write(rationale)) == rationale


def test_answers_are_compared_as_text_and_verdicts_begin_with_yes():
    assert same_text(" 42", "42 ")
    assert not same_text("42", "42.0")
    verdicts = ["Yes.", "yes", "**Yes**", "$yes$", '"Yes"', "No, yes?", "", "It is, yes"]
    assert [yes_or_no(verdict) for verdict in verdicts] == [1, 1, 1, 1, 1, 0, 0, 0]


def test_the_papers_sampling_on_math():
    assert (MATH_SAMPLING.temperature, MATH_SAMPLING.top_k, MATH_SAMPLING.top_p) == (0.7, 20, 1.0)
    assert MATH_SAMPLING.max_tokens == 1024
    assert MATH_SAMPLING.stop == ("[[Question]]",)


def test_a_problem_needs_exams():
    with pytest.raises(InvalidSettings, match="needs at least one exam, but there is none: '1 \\+ 1"):
        TeachingProblem("1 + 1 = ?", [])
    assert TeachingProblem("1 + 1 = ?", [Exam("2 + 2 = ?")]).exams == (Exam("2 + 2 = ?", None),)


def test_every_part_of_a_format_can_be_replaced():
    parts = {
        "instruction": "I", "few_shot": "F", "cue": "C", "problem": "P{}".format, "exam": "E{}".format,
        "lesson": lambda q, r: f"L{q}{r.text}", "rate": lambda q, r: f"R{q}{r.text}",
    }  # fmt: skip
    written = dataclasses.replace(TeachingFormat(), **parts)
    assert written.teacher_prompt("q").full == "IFPqC"
    assert written.exam_prompt("q", Rationale("t", None), "e").full == "IFLqtEeC"
    assert written.rating_prompt("q", Rationale("t", None)).full == "Rqt"
