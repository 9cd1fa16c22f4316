import random
import re
import subprocess
import sys

import numpy as np
import pytest

from searchlib import Candidates, Outcome, Split, search
from searchlib.errors import InvalidSettings
from searchlib.objectives.lessons import Lessons, as_students, derived_seed, known_labels
from searchlib.objectives.teaching_format import Exam, Rationale, TeachingFormat, TeachingProblem
from searchlib.testing import check_objective

PROBLEM = TeachingProblem("problem", [Exam(f"exam {i}", f"a{i}") for i in range(3)], answer="secret")
RATIONALES = [Rationale(f"rule {i}", str(i % 2)) for i in range(5)]


def learner(prompts, sampling, seeds):
    """Answers the better the higher the number of the rule it was taught; by prompt and seed alone."""
    said = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        (rule,) = re.findall(r"rule (\d)", prompt.prefix)
        (exam,) = re.findall(r"exam (\d)", prompt.text)
        knows = random.Random(f"{seed} {prompt.full}").random() < (int(rule) + 0.5) / 5
        said.append(f"Hm.\n[[Final Answer]]:\n${'a' + exam if knows else 'what'}$")
    return said


def certain(prompts, sampling, seeds):
    """Passes exam e after rule r if e < r."""
    found = [re.search(r"rule (\d).*exam (\d)", prompt.full, re.DOTALL).groups() for prompt in prompts]
    return [f"[[Final Answer]]: ${'a' + exam if exam < rule else 'what'}$" for rule, exam in found]


def silent(prompts, sampling, seeds):
    return ["no answer"] * len(prompts)


def table(lessons):
    rows = np.arange(len(lessons.rationales))[:, None]
    return lessons.evaluate(Candidates(lessons.space, rows), lessons.cases(Split.SEARCH))


@pytest.mark.parametrize("students", [[learner], [learner, certain, silent]])
def test_the_contract_holds(students):
    check_objective(Lessons(PROBLEM, RATIONALES, students, repeats=2), cases=18)


def test_a_cell_is_whether_the_exam_was_passed_after_the_lesson():
    scores = table(Lessons(PROBLEM, RATIONALES, certain, repeats=2))
    expected = [[float(exam < rule) for exam in range(3) for _ in range(2)] for rule in range(5)]
    np.testing.assert_array_equal(scores, expected)


def test_columns_are_student_by_student_exam_by_exam_repeat_by_repeat():
    lessons = Lessons(PROBLEM, RATIONALES, [silent, certain], repeats=2)
    assert lessons.cases(Split.SEARCH).ids[:3] == (
        "student 0, exam 0, repeat 0", "student 0, exam 0, repeat 1", "student 0, exam 1, repeat 0",
    )  # fmt: skip
    scores = table(lessons)
    assert scores[:, :6].sum() == 0
    np.testing.assert_array_equal(scores[:, 6:], table(Lessons(PROBLEM, RATIONALES, certain, repeats=2)))
    assert len(lessons.cases(Split.HOLDOUT)) == len(lessons.cases(Split.SELECT)) == 0


def test_any_part_of_the_table_is_the_table():
    lessons = Lessons(PROBLEM, RATIONALES, [learner, certain], repeats=3)
    scores, cases = table(lessons), lessons.cases(Split.SEARCH)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = rng.integers(0, 5, 3), rng.permutation(len(cases))[: rng.integers(1, 9)]
        part = lessons.evaluate(Candidates(lessons.space, rows[:, None]), cases.take(columns))
        np.testing.assert_array_equal(part, scores[np.ix_(rows, columns)])
    assert 0 < scores[:, :9].mean() < 1


def test_all_rationales_are_examined_with_the_same_seeds_and_every_repeat_with_another():
    asked = []

    def student(prompts, sampling, seeds):
        rules = [re.findall(r"rule \d", prompt.prefix)[0] for prompt in prompts]
        asked.extend(zip(rules, seeds, strict=True))
        return silent(prompts, sampling, seeds)

    table(Lessons(PROBLEM, RATIONALES, [student, student], repeats=3, seed=4))
    by_rule = {rule: [seed for other, seed in asked if other == rule] for rule, _ in asked}
    assert len(by_rule) == 5
    assert len(set(map(tuple, by_rule.values()))) == 1
    assert len(set(by_rule["rule 0"])) == 2 * 3 * 3


def test_without_a_label_nobody_is_right():
    scores = table(Lessons(PROBLEM, RATIONALES, certain, repeats=1, labels=["a0", None, "what"]))
    np.testing.assert_array_equal(scores[:, 0], [0, 1, 1, 1, 1])
    assert scores[:, 1].sum() == 0
    np.testing.assert_array_equal(scores[:, 2], [1, 1, 1, 0, 0])


def test_answers_are_compared_as_the_format_says():
    loose = TeachingFormat(same=lambda answer, label: answer[:1] == label[:1])
    assert table(Lessons(PROBLEM, RATIONALES, certain, repeats=1, format=loose)).sum() == 3 + 3 + 2 + 1
    assert table(Lessons(PROBLEM, RATIONALES, certain, repeats=1)).sum() == 0 + 1 + 2 + 3 + 3


def test_a_search_finds_the_rationale_that_teaches_best():
    result = search(Lessons(PROBLEM, RATIONALES, certain, repeats=1), budget=20, seed=0)
    assert result.best in RATIONALES[3:]
    assert result.value == 1
    assert result.outcome is Outcome.EXHAUSTED


def test_a_fingerprint_changes_with_everything_that_a_student_reads():
    def lessons(problem=PROBLEM, rationales=RATIONALES, **settings):
        return Lessons(problem, rationales, certain, **settings).fingerprint()["texts"]

    others = [
        lessons(TeachingProblem("other", PROBLEM.exams)),
        lessons(TeachingProblem("problem", [Exam("exam 0", "a0"), Exam("exam 1", "a1"), Exam("exam 3", "a2")])),
        lessons(labels=["a0", "a1", None]),
        lessons(rationales=RATIONALES[:4]),
        lessons(format=TeachingFormat(few_shot="x")),
        lessons(format=TeachingFormat(cue="x")),
        lessons(format=TeachingFormat(lesson=lambda question, rationale: rationale.text)),
    ]
    assert len({lessons(), *others}) == 1 + len(others)
    assert lessons(TeachingProblem("problem", PROBLEM.exams, answer="another")) == lessons()


def test_seeds_do_not_depend_on_the_process_or_on_the_type_of_a_number():
    code = "from searchlib.objectives.lessons import derived_seed; print(derived_seed(7, 'exam', 1, 2))"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert derived_seed(7, "exam", 1, 2) == int(other)
    assert derived_seed(np.int64(7), "exam", np.uint8(1), 2) == int(other)
    many = {derived_seed(seed, purpose, i) for seed in range(4) for purpose in ("exam", "vote") for i in range(200)}
    assert len(many) == 1600
    assert all(0 <= seed < 2**31 for seed in many)


@pytest.mark.parametrize(("settings", "message"), [
    ({"rationales": []}, "at least one and all different, but of 0 given, 0"),
    ({"rationales": [RATIONALES[0]] * 2}, "of 2 given, 1 are different"),
    ({"labels": ["a0"]}, "1 labels for 3 exams"),
    ({"repeats": 0}, "repeats must be a whole number of at least 1, but is 0"),
    ({"repeats": 1.5}, "repeats must be a whole number"),
    ({"chunk_rows": 0}, "chunk_rows must be a whole number of at least 1"),
    ({"students": []}, "at least one text model"),
    ({"students": "gpt"}, "at least one text model"),
    ({"students": [certain, None]}, "at least one text model"),
    ({"problem": TeachingProblem("problem", [Exam("exam 0")])}, "the exam 'exam 0' has no answer; .*majority"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    given = {"problem": PROBLEM, "rationales": RATIONALES, "students": certain} | settings
    with pytest.raises(InvalidSettings, match=message):
        Lessons(**given)


def test_one_student_or_several_become_a_tuple():
    assert as_students(certain) == (certain,)
    assert as_students([certain, learner]) == (certain, learner)
    assert known_labels(PROBLEM.exams) == ("a0", "a1", "a2")
