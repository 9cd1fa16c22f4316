import json
from fractions import Fraction

import numpy as np
import pytest

from searchlib import objectives
from searchlib.errors import InvalidSettings
from searchlib.objectives.preferences import TRAINING, PreferencePairs, preference_pairs
from searchlib.objectives.teaching import (
    Exam,
    Generations,
    LearningByTeaching,
    Rationale,
    RationaleSample,
    Taught,
    TeachingFormat,
    TeachingProblem,
)
from searchlib.racing import Racing


def problem(number=0, answer="7", exams=3):
    return TeachingProblem(f"question {number}", [Exam(f"exam {i}", "1") for i in range(exams)], answer)


def taught(rationales, scores):
    labels = ("1",) * (np.shape(scores)[1] // 3)
    return Taught({}, RationaleSample(rationales), np.asarray(scores, float), labels, Generations())


def random_lesson(seed, n=8, repeats=3):
    """A problem, its rationales (some draws twice, some without answer), and a table of exams of 3 × repeats."""
    rng = np.random.default_rng(seed)
    rationales = [Rationale(f"text {i}", ["7", "8", None][rng.integers(3)]) for i in range(n)]
    scores = rng.integers(0, 2, (n, 3 * repeats))
    draws = rationales + [rationales[i] for i in rng.integers(0, n, 3)]
    return problem(seed), taught(draws, scores)


def brute_force(lesson, gap=Fraction(3, 10), correctness=Fraction(1, 2), teaching=Fraction(1, 2)):
    """All pairs of one problem with their gaps, in exact arithmetic."""
    _, result = lesson
    score = {
        rationale.text: correctness * (rationale.answer == "7") + teaching * Fraction(int(sum(row)), len(row))
        for rationale, row in zip(result.rationales, result.scores.tolist(), strict=True)
    }
    return {(a, b): score[a] - score[b] for a in score for b in score if score[a] - score[b] > gap}


def texts(pairs):
    return [(pair.chosen.split("\n")[0], pair.rejected.split("\n")[0]) for pair in pairs]


def test_pairs_are_those_of_exact_arithmetic_whose_scores_differ_enough():
    total = 0
    for seed in range(60):
        lesson = random_lesson(seed)
        expected = brute_force(lesson)
        pairs = preference_pairs([lesson], limit=1000)
        assert sorted(texts(pairs)) == sorted(expected)
        for pair, names in zip(pairs, texts(pairs), strict=True):
            assert pair.gap == pytest.approx(float(expected[names]), abs=1e-9)
            assert pair.score_chosen - pair.score_rejected == pytest.approx(pair.gap, abs=1e-9)
        total += len(pairs)
    assert total > 500


def test_of_more_than_eight_pairs_those_with_the_largest_gaps_are_kept():
    cut = 0
    for seed in range(60):
        lesson = random_lesson(seed)
        expected = sorted(map(float, brute_force(lesson).values()), reverse=True)
        pairs = preference_pairs([lesson])
        np.testing.assert_allclose([pair.gap for pair in pairs], expected[:8])
        assert len(set(texts(pairs))) == len(pairs) == min(8, len(expected))
        cut += len(expected) > 8
    assert cut > 20


def test_equal_gaps_are_spread_over_the_rationales():
    rationales = [Rationale(f"text {i}", "7" if i < 4 else "8") for i in range(12)]
    lesson = problem(), taught(rationales, [[1] * 9] * 4 + [[0] * 9] * 8)
    pairs = texts(preference_pairs([lesson]))
    assert len(pairs) == 8
    assert sorted(rejected for _, rejected in pairs) == sorted(f"text {i}" for i in range(4, 12))  # each once
    assert {sum(chosen == f"text {i}" for chosen, _ in pairs) for i in range(4)} == {2}
    assert pairs[0] == ("text 0", "text 4")
    assert texts(preference_pairs([lesson])) == pairs


def test_a_gap_that_is_just_reached_is_too_small():
    # 0.5 * 0.8 - 0.5 * 0.2 is 0.3 and a little more in floating point
    scores = [[1] * 12 + [0] * 3, [1] * 3 + [0] * 12]
    assert 0.5 * 0.8 - 0.5 * 0.2 > 0.3
    lesson = problem(exams=5), taught([Rationale("a", "8"), Rationale("b", "8")], scores)
    assert len(preference_pairs([lesson])) == 0
    assert len(preference_pairs([lesson], gap=0.29)) == 1


def test_the_weights_of_the_papers_baseline_leave_correctness_alone():
    for seed in range(20):
        lesson = random_lesson(seed)
        pairs = preference_pairs([lesson], correctness=1, teaching=0, limit=1000)
        assert sorted(texts(pairs)) == sorted(brute_force(lesson, correctness=1, teaching=0))
        assert {pair.gap for pair in pairs} <= {1.0}


def test_without_weight_a_part_need_not_be_known():
    scores = np.full((2, 9), np.nan)
    raced = problem(), taught([Rationale("a", "7"), Rationale("b", "8")], scores)
    assert texts(preference_pairs([raced], correctness=1, teaching=0)) == [("a", "b")]
    unknown = problem(answer=None), taught([Rationale("a", "7"), Rationale("b", "8")], [[0] * 9, [1] * 9])
    assert texts(preference_pairs([unknown], correctness=0, teaching=1)) == [("b", "a")]


def test_answers_are_right_where_the_format_says_so():
    lesson = problem(answer="7.0"), taught([Rationale("a", "7"), Rationale("b", None)], np.ones((2, 9)))
    assert len(preference_pairs([lesson])) == 0
    loose = TeachingFormat(same=lambda answer, label: float(answer) == float(label))
    assert texts(preference_pairs([lesson], format=loose)) == [("a", "b")]


def said(i):
    """Completions with odd blanks, several tags, and none."""
    return [
        "\n Adding.\nDone. \n[[Final Answer]]:  $ 7 $\nThat is all.", "Guessing.\n\n[[Final Answer]]:\n$8$\n", "Hm.  ",
    ][i % 3]  # fmt: skip


def method(**settings):
    def teacher(prompts, sampling, seeds):
        return [said(i) for i in range(len(prompts))]

    def student(prompts, sampling, seeds):
        return ["[[Final Answer]]: 1" if "Adding" in prompt.prefix else "" for prompt in prompts]

    return LearningByTeaching(teacher, student, rationales=6, repeats=1, baselines=[], **settings)


def test_prompt_and_completion_are_what_the_teacher_read_and_would_have_written():
    given = method()
    pairs = list(preference_pairs([(problem(), given.answer(problem()))]))
    prompt = given.format.teacher_prompt("question 0").full
    assert prompt.endswith("[[Question]]:\nquestion 0\n\n[[Solution]]:\nLet's think step by step.\n\n")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        (prompt, "Adding.\nDone.\n\n[[Final Answer]]:\n$7$", "Guessing.\n\n[[Final Answer]]:\n$8$"),
        (prompt, "Adding.\nDone.\n\n[[Final Answer]]:\n$7$", "Hm."),
    ]
    for pair in pairs:  # and it reads as what the teacher really wrote
        assert given.format.parse(pair.chosen) == given.format.parse(said(0))
    assert given.format.parse(pairs[1].rejected) == given.format.parse(said(2))


def test_rows_are_written_as_trainers_read_them(tmp_path):
    lessons = [random_lesson(seed) for seed in range(5)]
    lessons.append((TeachingProblem("Größe\u2028x?", [Exam("e", "1")] * 3, "7"), lessons[0][1]))
    pairs = preference_pairs(iter(lessons))
    pairs.save(tmp_path / "pairs.jsonl")
    lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(pairs) > 20
    assert [list(row) for row in rows] == [
        ["prompt", "chosen", "rejected", "score_chosen", "score_rejected", "gap"]
    ] * len(rows)  # fmt: skip
    for row, pair in zip(rows, pairs, strict=True):
        assert all(isinstance(row[name], str) for name in ("prompt", "chosen", "rejected"))
        assert row == vars(pair)
    assert "Größe\u2028x?" in rows[-1]["prompt"]
    assert {row["prompt"].count("[[Question]]") for row in rows} == {1}


def test_every_problem_gives_its_own_pairs_in_its_turn():
    lessons = [random_lesson(seed) for seed in range(10)]
    together = preference_pairs(lessons)
    apart = [pair for lesson in lessons for pair in preference_pairs([lesson])]
    assert list(together) == apart
    assert len(preference_pairs([])) == 0
    assert isinstance(together, PreferencePairs)


def test_no_pair_is_made_where_all_rationales_are_as_good():
    lesson = problem(), taught([Rationale("a", "7"), Rationale("b", "7")], np.ones((2, 9)))
    assert len(preference_pairs([lesson], gap=0)) == 0


def test_the_papers_training_settings():
    assert dict(TRAINING) == {
        "learning_rate": 5e-7, "per_device_train_batch_size": 16, "num_train_epochs": 1, "beta": 0.1,
        "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 50.0],
    }  # fmt: skip


def test_rationales_that_a_race_dropped_are_refused():
    asked = TeachingProblem("question 0", [Exam(f"exam {i}", "1") for i in range(20)], "7")
    raced = method(racing=Racing()).answer(asked)
    assert np.isnan(raced.scores).any()
    with pytest.raises(InvalidSettings, match=r"of 3 rationales of 'question 0' did not sit all exams.*racing=None"):
        preference_pairs([(asked, raced)])
    again = method().judge(asked, raced.sample)
    assert len(preference_pairs([(asked, again)])) == 2


def test_a_problem_without_an_answer_is_refused():
    _, result = random_lesson(0)
    with pytest.raises(InvalidSettings, match=r"'question 0' has no answer.*correctness=0"):
        preference_pairs([(problem(answer=None), result)])


def test_results_of_another_problem_are_noticed_by_their_exams():
    _, result = random_lesson(0)
    with pytest.raises(InvalidSettings, match="has 2 exams, but what it is paired with was taught with 3"):
        preference_pairs([(problem(exams=2), result)])


def test_a_format_that_cannot_write_what_it_reads_is_refused():
    lesson = random_lesson(0)
    odd = TeachingFormat(parse=lambda completion: Rationale(completion, completion[-1:] or None))
    with pytest.raises(InvalidSettings, match=r"counterpart of its parse: TeachingFormat\(write="):
        preference_pairs([lesson], format=odd)


@pytest.mark.parametrize(("settings", "message"), [
    ({"gap": -0.1}, "gap must be a finite number from 0 up, but is -0.1"),
    ({"gap": float("nan")}, "gap must be"),
    ({"correctness": -1}, "correctness must be"),
    ({"teaching": float("inf")}, "teaching must be"),
    ({"correctness": 0, "teaching": 0}, "both 0"),
    ({"limit": 0}, "limit must be a whole number of at least 1, but is 0"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        preference_pairs([], **settings)


def test_the_name_of_the_package_is_the_function():
    assert objectives.preference_pairs is preference_pairs
