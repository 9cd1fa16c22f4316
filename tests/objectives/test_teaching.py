import random
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from searchlib import objectives
from searchlib.errors import InvalidSettings
from searchlib.objectives.teaching import (
    BASELINES,
    Exam,
    LearningByTeaching,
    Rationale,
    RationaleSample,
    TeachingFormat,
    TeachingProblem,
)
from searchlib.racing import Racing

PROBLEM = TeachingProblem("problem", [Exam("exam 0", "a0"), Exam("exam 1", "a1"), Exam("exam 2", "a2")])


class World:
    """A teacher with some rules, of which some argue for the same answer, and students who learn more from some."""

    def __init__(self, number, rules=6, grades=4):
        rng = random.Random(number)
        self.number, self.rules = number, rules
        self.often = [rng.random() for _ in range(rules)]
        self.answers = [rng.choice(["", "4", "5", "6"]) for _ in range(rules)]  # "" is no answer
        # what part of the exams is passed after a rule: few grades, so that ties are common
        self.grades = [Fraction(rng.randrange(grades), grades - 1) for _ in range(rules)]
        self.asked, self.sat = [], []  # prompts of the teacher; (rule, passed, seed) of the students

    def teacher(self, prompts, sampling, seeds):
        return [self.write(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def write(self, prompt, sampling, seed):
        self.asked.append((prompt.full, sampling, seed))
        rng = random.Random(f"{self.number} {prompt.full} {seed if sampling.temperature else 'greedy'}")
        if "Say yes or no" in prompt.full:
            return rng.choice(["yes", "no"])
        exam = re.search(r"exam (\d)", prompt.full)
        if exam:  # a vote
            return f"[[Final Answer]]: {rng.choice(['a0', 'a1', 'a2', 'wrong'])}"
        rule = rng.choices(range(self.rules), self.often)[0]
        answer = self.answers[rule]
        return f"rule {rule}" + (f"\n\n[[Final Answer]]:\n${answer}$" if answer else "")

    def student(self, prompts, sampling, seeds):
        """Passes the first exams, as many as the rule's grade says, whatever the seed."""
        return [self.sit(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def sit(self, prompt, seed):
        rule, exam = int(re.search(r"rule (\d)", prompt.prefix)[1]), int(re.search(r"exam (\d)", prompt.text)[1])
        passed = exam < self.grades[rule] * 3
        self.sat.append((rule, passed, seed))
        return f"[[Final Answer]]: {f'a{exam}' if passed else 'what'}"

    def method(self, **settings):
        given = {"rationales": 10, "repeats": 2, "baselines": ["self-consistency"], "votes": 5} | settings
        return LearningByTeaching(self.teacher, given.pop("students", self.student), **given)

    def rules_of(self, taught):
        """The rule of every draw."""
        return [int(re.search(r"rule (\d)", rationale.text)[1]) for rationale in taught.sample.draws]


def by_votes(world, rules, value):
    """The answer with the largest sum over draws; ties: never None, then the more frequent, then the first."""
    answers = [world.answers[rule] or None for rule in rules]
    counts, totals = Counter(answers), Counter()
    for rule, answer in zip(rules, answers, strict=True):
        totals[answer] += value(rule)
    return max(counts, key=lambda a: (totals[a], a is not None, counts[a], -answers.index(a)))


def by_best(world, rules, value):
    """The answer of the draw with the largest value; ties: as before."""
    answers = [world.answers[rule] or None for rule in rules]
    counts = Counter(answers)

    def rank(i):
        return value(rules[i]), answers[i] is not None, counts[answers[i]], -i

    return answers[max(range(len(rules)), key=rank)]


def test_the_rows_are_max_sum_and_self_consistency_by_brute_force():
    tied = unlike = 0
    for number in range(150):
        world = World(number)
        taught = world.method().answer(PROBLEM, seed=number)
        rules = world.rules_of(taught)
        assert len(rules) == 10
        assert taught.answers == {
            "self-consistency": by_votes(world, rules, lambda rule: 1),
            "LbT max": by_best(world, rules, world.grades.__getitem__),
            "LbT sum": by_votes(world, rules, world.grades.__getitem__),
        }
        grades = [world.grades[rule] for rule in set(rules)]
        tied += grades.count(max(grades)) > 1
        unlike += len(set(taught.answers.values())) > 1
    assert tied > 30
    assert unlike > 50


def test_the_scores_are_the_parts_of_the_exams_that_students_passed():
    for number in range(20):
        world = World(number)
        taught = world.method(repeats=3).answer(PROBLEM)
        rules = [int(rationale.text[5:]) for rationale in taught.rationales]
        assert [(rule, passed) for rule, passed, _ in world.sat] == [
            (rule, exam < world.grades[rule] * 3) for rule in rules for exam in range(3) for _ in range(3)
        ]
        np.testing.assert_allclose(taught.scores.mean(axis=1), [float(world.grades[rule]) for rule in rules])


def test_rationales_that_were_drawn_twice_are_examined_once_and_count_twice():
    world = World(3)
    taught = world.method(rationales=30, repeats=1).answer(PROBLEM)
    rules = world.rules_of(taught)
    assert len(taught.rationales) == len(set(rules)) < 30
    assert len(world.sat) == 3 * len(set(rules)) == taught.generations.exams
    assert dict(zip((int(r.text[5:]) for r in taught.rationales), taught.counts, strict=True)) == Counter(rules)


def test_two_students_are_the_mean_of_the_two():
    different = 0
    for number in range(40):
        world, other = World(number), World(number)
        other.grades = World(1000 + number).grades
        both = world.method(students=[world.student, other.student]).answer(PROBLEM)
        one, two = (world.method(students=student).answer(PROBLEM) for student in (world.student, other.student))
        means = [taught.scores.mean(axis=1) for taught in (both, one, two)]
        np.testing.assert_allclose(means[0], (means[1] + means[2]) / 2)
        rules = world.rules_of(both)
        pooled = [(a + b) / 2 for a, b in zip(world.grades, other.grades, strict=True)]
        assert both.answers["LbT sum"] == by_votes(world, rules, pooled.__getitem__)
        assert both.answers["LbT max"] == by_best(world, rules, pooled.__getitem__)
        different += one.answers != two.answers
    assert different > 5


@pytest.mark.parametrize("decision", ["max", "sum"])
def test_a_race_without_error_decides_as_all_exams_do_and_asks_for_fewer(decision):
    spared = 0
    for number in range(60):
        world, racer = World(number), World(number)
        whole = world.method().answer(PROBLEM)
        raced = racer.method(racing=Racing(error=0), decision=decision).answer(PROBLEM)
        assert raced.answers == {name: whole.answers[name] for name in ("self-consistency", f"LbT {decision}")}
        assert raced.sample == whole.sample
        sat = np.isfinite(raced.scores)
        np.testing.assert_array_equal(raced.scores[sat], whole.scores[sat])
        assert raced.generations.exams == len(racer.sat) == sat.sum()
        spared += whole.generations.exams - raced.generations.exams
    assert spared > 300


def test_with_labels_by_majority_the_answers_of_exams_are_never_read():
    differ = 0
    for number in range(20):
        taught = []
        for answers in (["a0", "a1", "a2"], [None, None, None], ["a2", "a0", "a1"], ["no", "no", "no"]):
            exams = [Exam(exam.question, answer) for exam, answer in zip(PROBLEM.exams, answers, strict=True)]
            problem = TeachingProblem("problem", exams, answer=answers[0])
            taught.append(World(number).method(labels="majority", baselines=BASELINES).answer(problem, seed=number))
        for other in taught[1:]:
            assert (other.answers, other.labels) == (taught[0].answers, taught[0].labels)
            np.testing.assert_array_equal(other.scores, taught[0].scores)
        known = World(number).method(baselines=BASELINES).answer(PROBLEM, seed=number)
        differ += (known.scores != taught[0].scores).any()
    assert differ > 10


def test_a_label_by_majority_is_what_the_teacher_answers_most_often_of_equals_first():
    def teacher(prompts, sampling, seeds):
        votes = {"exam 0": ["7", "8", "8"], "exam 1": ["", "", "9"], "exam 2": ["", "", ""], "exam 3": ["2", "1", ""]}
        (said,) = {name for name in votes if name in prompts[0].full}
        return [f"[[Final Answer]]: {vote}" for vote in votes[said]]

    problem = TeachingProblem("problem", [Exam(f"exam {i}") for i in range(4)])
    method = LearningByTeaching(teacher, teacher, labels="majority", votes=3)
    assert method.exam_labels(problem) == ("8", "9", None, "2")


def test_generations_are_all_that_models_were_asked_for():
    for settings in ({}, {"labels": "majority"}, {"racing": Racing()}, {"baselines": []}):
        world = World(5)
        taught = world.method(**{"baselines": BASELINES} | settings).answer(PROBLEM)
        spent = taught.generations
        assert spent.total == len(world.asked) + len(world.sat)
        assert spent.exams == len(world.sat)
        assert spent.labels == sum("exam" in prompt for prompt, _, _ in world.asked)
        assert spent.self_evaluation == sum("Say yes or no" in prompt for prompt, _, _ in world.asked)
        assert spent.teacher == 10 + ("baselines" not in settings)
        assert spent.labels == (15 if "labels" in settings else 0)
        assert str(spent.total) in str(taught)


def test_the_same_seed_is_the_same_result_and_another_seed_draws_anew():
    def run(seed, **settings):
        return World(6).method(baselines=BASELINES, rationales=20, **settings).answer(PROBLEM, seed=seed)

    for settings in ({}, {"labels": "majority"}, {"racing": Racing()}):
        first, again, numpys, other = run(3, **settings), run(3, **settings), run(np.int64(3), **settings), run(4)
        for same in (again, numpys):
            assert (same.answers, same.sample, same.labels) == (first.answers, first.sample, first.labels)
            np.testing.assert_array_equal(same.scores, first.scores)
        assert other.sample != first.sample


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    large = World(7).method(rationales=40).sample(PROBLEM, seed=2)
    small = World(7).method(rationales=9).sample(PROBLEM, seed=2)
    assert large.first(9) == small
    assert large.distinct[: len(small.distinct)] == small.distinct
    assert len(small.draws) == 9


def test_judging_the_first_rationales_is_answering_with_fewer():
    world = World(8)
    large = world.method(rationales=40)
    judged = large.judge(PROBLEM, large.sample(PROBLEM, seed=1).first(12), seed=1)
    answered = world.method(rationales=12).answer(PROBLEM, seed=1)
    assert judged.answers == answered.answers
    assert judged.generations == answered.generations
    np.testing.assert_array_equal(judged.scores, answered.scores)


def test_every_completion_is_asked_for_with_a_seed_of_its_own_and_the_greedy_one_without_temperature():
    world = World(9)
    world.method(labels="majority", baselines=BASELINES).answer(PROBLEM)
    assert len({seed for _, _, seed in world.asked}) == len(world.asked) > 25
    cold = [prompt for prompt, sampling, _ in world.asked if sampling.temperature == 0]
    assert len(cold) == 1 + sum("Say yes or no" in prompt for prompt in cold)
    assert len({seed for _, _, seed in world.sat}) == 6  # 3 exams, 2 repeats; the same for every rationale


def test_self_evaluation_takes_the_majority_of_what_the_teacher_likes():
    liked = {"rule 0", "rule 2", "rule 3"}

    def teacher(prompts, sampling, seeds):
        if "Say yes or no" in prompts[0].full:
            return ["yes" if any(rule in prompt.full for rule in liked) else "no" for prompt in prompts]
        return [f"rule {i} [[Final Answer]]: {answer}" for i, answer in enumerate("445566666")]

    method = LearningByTeaching(teacher, lambda p, s, seeds: [""] * len(p), rationales=9, baselines=BASELINES[1:])
    answers = method.answer(PROBLEM).answers
    assert answers["self-consistency"] == "6"
    # liked are one 4 (drawn twice) and two 5 (drawn twice): of equals the first
    assert answers["self-evaluation"] == "4"


def test_rationales_without_an_answer_lose_every_tie():
    sample = RationaleSample([Rationale("a", None), Rationale("b", None), Rationale("c", "3")])
    assert sample.answer(np.zeros(3), "max") == "3"
    assert sample.answer(np.zeros(3), "sum") == "3"
    assert sample.answer(np.ones(3), "sum") is None  # two of three have none, as in the released code
    assert sample.answer(np.array([1.0, 0.0, 0.5]), "max") is None


def test_a_sample_counts_its_draws_in_the_order_of_the_first_ones():
    a, b, c = Rationale("a", "1"), Rationale("b", None), Rationale("a", "2")
    sample = RationaleSample([b, a, a, c, b, a])
    assert sample.distinct == (b, a, c)
    assert sample.counts.tolist() == [2, 3, 1]
    assert sample.groups.tolist() == [0, 1, 2]
    assert sample.prefer.tolist() == [-1, 3, 1]


def test_exams_without_an_answer_are_refused_before_anything_is_asked():
    world = World(10)
    problem = TeachingProblem("problem", [Exam("exam 0", "a0"), Exam("exam 1")])
    with pytest.raises(InvalidSettings, match="the exam 'exam 1' has no answer"):
        world.method().answer(problem)
    assert world.asked == world.sat == []
    assert world.method(labels="majority").answer(problem).answers


@pytest.mark.parametrize(("settings", "message"), [
    ({"rationales": 0}, "rationales must be a whole number of at least 1, but is 0"),
    ({"repeats": 0}, "repeats must be"),
    ({"votes": 2.5}, "votes must be a whole number"),
    ({"labels": "vote"}, 'labels must be "known" or "majority", but is \'vote\''),
    ({"decision": "mean"}, 'decision must be "max" or "sum", but is \'mean\''),
    ({"baselines": ["greedy", "oracle"]}, r"baselines may name .*, but names \['oracle'\]"),
    ({"students": []}, "at least one text model"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        World(0).method(**settings)


def test_empty_samples_are_refused():
    with pytest.raises(InvalidSettings, match="at least one rationale"):
        RationaleSample([])
    with pytest.raises(InvalidSettings, match="n must be a whole number of at least 1"):
        RationaleSample([Rationale("a", "1")]).first(0)


def test_a_teacher_that_answers_too_little_is_named():
    def short(prompts, sampling, seeds):
        return ["rule 0"]

    with pytest.raises(InvalidSettings, match="short must return one completion per prompt, but returned 1 for 10"):
        LearningByTeaching(short, World(0).student, rationales=10).answer(PROBLEM)


def test_the_format_decides_how_answers_are_read():
    world = World(11)
    shouting = TeachingFormat(parse=lambda completion: Rationale(completion.split("\n")[0], "A0"), same=lambda a, b: (
        a.lower() == b))  # fmt: skip
    taught = world.method(format=shouting, repeats=1).answer(PROBLEM)
    np.testing.assert_array_equal(taught.scores, [[1, 0, 0]] * len(taught.rationales))


def test_the_public_names_are_there():
    for name in ("Exam", "LearningByTeaching", "TeachingProblem", "preference_pairs"):
        assert name in objectives.__all__
        assert getattr(objectives, name).__name__ == name
