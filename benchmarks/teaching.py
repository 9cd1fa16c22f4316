"""Learning by teaching: rationales judged by students' exams against greedy decoding and self-consistency.

Real GPT-2 architectures, trained from scratch at small scale (``tiny_teachers.py``), not the paper's models: a teacher
who has read a corrupted book, and two students who copy what an example does, not without errors. Every search seed is
another world of problem types with its own teacher and students. A type's four questions take turns as the teaching
problem, the other three are its exams; neither teacher nor students were trained on any of them, nor on a student's
side on any right rule.

How the students were stopped and how races eliminate was chosen on other worlds (seeds from 100 on).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Table, paired_lower_bound
from searchlib.decision import Decision
from searchlib.objectives.lessons import as_students
from searchlib.objectives.teaching import LearningByTeaching, RationaleSample, Taught
from searchlib.objectives.teaching_format import Exam, Rationale, TeachingFormat, TeachingProblem
from searchlib.objectives.text_model import Prompt, Sampling, TextModel
from searchlib.racing import Racing

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = "which rationale is right, told by how well it teaches (LbT)"

#: What "at least as good" tolerates, in accuracy.
TOLERATED = 0.01
#: Questions of a type that are taught or examined.
PLACES = 4
_TEST = "one-sided 95 % bound, paired t over problem types (each the mean over its questions)"
DECISIONS: tuple[Decision, ...] = ("max", "sum")
CONSISTENT, EQUAL = "self-consistency", "self-consistency, equal completions"
BOTH = "A & B"
#: The right answer wherever any rationale has it: what a perfect judge would reach.
ORACLE = "right answer among them"


@dataclass(frozen=True)
class Preset:
    """How much is run."""

    types: int = 140
    teacher_steps: int = 800
    student_steps: int = 2000
    places: int = PLACES  # how many questions of a type are taught
    rationales: tuple[int, ...] = (8, 24, 64)
    claimed: int = 24  # the number of rationales that the claims are about
    repeats: int = 3


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(8, 40, 60, 1, (6,), 6, 1),
    "small": Preset(places=1, rationales=(8, 24)),
    "paper": Preset(places=2),
}


class Row(NamedTuple):
    """One way of answering, on all problems of a world; arrays have shape ``(types, places)``."""

    right: NDArray[np.float64]
    generations: NDArray[np.float64]  # completions of the teacher and of students per problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worlds side by side (%(default)s)")
    group = parser.add_argument_group("preset full: models and problems of one's own")
    group.add_argument("--teacher", help="name or path of a transformers causal language model")
    group.add_argument("--student", action="append", help="the same, once per student (by default the teacher)")
    shape = '{"question", "answer", "exams": [{"question", "answer"}]}'
    group.add_argument("--problems", type=Path, help=f"JSON lines: {shape}")
    group.add_argument("--rationales", type=int, default=24, help="per problem (%(default)s)")
    group.add_argument("--labels", choices=("known", "majority"), default="known", help="what counts as right in exams")
    group.add_argument("--plain", action="store_true", help="do not use the models' chat templates")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("teaching", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        return _run_full(table, arguments)
    preset = PRESETS[arguments.preset]
    calls = (joblib.delayed(_world)(preset, seed) for seed in range(arguments.seeds))
    worlds: list[dict[tuple[str, str], Row]] = []
    for rows, seconds in joblib.Parallel(n_jobs=arguments.jobs, return_as="generator")(calls):
        for (task, method), row in rows.items():
            accuracy, generations = float(row.right.mean()), float(row.generations.mean())
            table.add(task, method, holdout_accuracy=accuracy, generations=generations)
        table.add("all rows together", "training and completions", cpu_seconds=seconds)
        worlds.append(rows)
    _claim(table, preset, worlds)
    return table


def _task(rationales: int, labels: str) -> str:
    return f"{rationales} rationales, exam labels {labels}"


# the tiny models ------------------------------------------------------------------------------------------------------


class Remembered:
    """A text model that writes no completion twice, so that every row of the table can read the same ones."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._known: dict[tuple[str, int, Sampling], str] = {}

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
        keys = [(prompt.full, int(seed), sampling) for prompt, seed in zip(prompts, seeds, strict=True)]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        if new:
            completions = self._model(list(new.values()), sampling, [seed for _, seed, _ in new])
            self._known.update(zip(new, completions, strict=True))
        return [self._known[key] for key in keys]

    def forget(self) -> None:
        """Make room: what was written for one problem is of no use for another."""
        self._known.clear()


def _world(preset: Preset, seed: int) -> tuple[dict[tuple[str, str], Row], float]:
    """All rows of the table in one world, and the processor time they took."""
    from benchmarks import tiny_teachers
    from benchmarks.speed_clock import threads
    from searchlib.objectives import CausalTextModel

    start = time.process_time()
    world = tiny_teachers.World(seed, preset.types)
    pairs = [tiny_teachers.teacher(world, preset.teacher_steps)]
    pairs += [tiny_teachers.student(world, name, preset.student_steps) for name in sorted(tiny_teachers.STUDENTS)]
    teacher, *students = (Remembered(CausalTextModel(*pair, batch_size=256)) for pair in pairs)
    sampling = Sampling(max_tokens=24, stop=(tiny_teachers.END,))
    method = LearningByTeaching(
        teacher, students, rationales=max(preset.rationales), repeats=preset.repeats, format=_tiny_format(),
        teacher_sampling=sampling, exam_sampling=sampling, baselines=("greedy",),
    )  # fmt: skip
    found: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    with threads(1):  # models this small gain nothing by more
        for kind, place in itertools.product(range(preset.types), range(preset.places)):
            problem = _tiny_problem(world, kind, place)
            for key, answer, generations in _answers(method, problem, preset, seed=kind * PLACES + place):
                found.setdefault(key, []).append((answer == problem.answer, generations))
            for model in (teacher, *students):
                model.forget()
    shape = (preset.types, preset.places)
    rows = {
        key: Row(*(np.array(column, np.float64).reshape(shape) for column in zip(*values, strict=True)))
        for key, values in found.items()
    }
    return rows, time.process_time() - start


def _tiny_format() -> TeachingFormat:
    from benchmarks.tiny_teachers import END, answer_of

    return TeachingFormat(
        instruction="", cue="", problem=lambda question: question,
        exam=lambda question: question[1:],  # students never see types
        lesson=lambda question, rationale: f"{question[1:]}{rationale.text}{END}",
        parse=lambda completion: Rationale(completion, answer_of(completion)),
    )  # fmt: skip


def _tiny_problem(world: Any, kind: int, place: int) -> TeachingProblem:
    others = [other for other in range(PLACES) if other != place]
    exams = [Exam(world.question(kind, other), world.answer(kind, other)) for other in others]
    return TeachingProblem(world.question(kind, place), tuple(exams), world.answer(kind, place))


def _answers(
    method: LearningByTeaching, problem: TeachingProblem, preset: Preset, seed: int
) -> Iterator[tuple[tuple[str, str], str | None, float]]:
    """(task, row), answer and completions, for every row of the table."""
    drawn = method.sample(problem, seed)
    for labels in ("known", "majority"):
        judging = dataclasses.replace(method, labels=labels)
        taught = judging.judge(problem, drawn, seed)
        for n in preset.rationales if labels == "known" else (preset.claimed,):
            for row, answer, completions in _decided(judging, problem, taught, n):
                yield (_task(n, labels), row), answer, completions
            for decision in DECISIONS:
                raced = dataclasses.replace(judging, racing=Racing(), decision=decision, baselines=())
                result = raced.judge(problem, drawn.first(n), seed)
                answer = result.answers[f"LbT {decision}"]
                yield (_task(n, labels), f"LbT {decision}, {BOTH}, raced"), answer, result.generations.total
    exams = len(as_students(method.students)) * len(problem.exams) * preset.repeats
    paid = preset.claimed * (1 + exams)  # every rationale and every exam, none of them shared
    more = dataclasses.replace(method, rationales=paid).sample(problem, seed)
    yield (_task(preset.claimed, "known"), EQUAL), _voted(more), paid


def _decided(
    method: LearningByTeaching, problem: TeachingProblem, taught: Taught, n: int
) -> Iterator[tuple[str, str | None, float]]:
    """What the first ``n`` rationales come to without a race: (row, answer, completions)."""
    sample = taught.sample.first(n)
    table = taught.scores[: len(sample.distinct)]  # the distinct ones of a beginning are the beginning of all
    yield "greedy", taught.answers["greedy"], 1
    yield CONSISTENT, _voted(sample), n
    known = any(rationale.answer == problem.answer for rationale in sample.distinct)
    yield ORACLE, problem.answer if known else None, n
    own = table.shape[1] // len(as_students(method.students))
    groups = {"A": table[:, :own], "B": table[:, own:], BOTH: table}
    for (name, scores), decision in itertools.product(groups.items(), DECISIONS):
        completions = n + scores.size + taught.generations.labels
        yield f"LbT {decision}, {name}", sample.answer(scores.mean(axis=1), decision), completions


def _voted(sample: RationaleSample) -> str | None:
    return sample.answer(np.ones(len(sample.distinct)), "sum")


# claims ---------------------------------------------------------------------------------------------------------------


def _claim(table: Table, preset: Preset, worlds: Sequence[Mapping[tuple[str, str], Row]]) -> None:
    """What the table must show, at the preset that can carry it."""
    known = _task(preset.claimed, "known")

    def differences(first: str, second: str) -> NDArray[np.float64]:
        """Accuracies minus accuracies, by problem type: the questions of a type are not independent."""
        return np.concatenate([(rows[known, first].right - rows[known, second].right).mean(axis=1) for rows in worlds])

    def claim_above(sentence: str, first: str, second: str, bound: float) -> None:
        pairs = differences(first, second)
        low = paired_lower_bound(pairs)
        table.claim(sentence, value=float(pairs.mean()), bound=bound, interval=(low, None), n=len(pairs), test=_TEST,
                    preset="paper", holds=low > bound)  # fmt: skip

    for decision in DECISIONS:
        ours = f"LbT {decision}, {BOTH}"
        claim_above(f"{ours} beats self-consistency at equal teacher samples", ours, CONSISTENT, 0.0)
        claim_above(f"{ours} beats self-consistency at equal completions", ours, EQUAL, 0.0)
        for one in "AB":
            claim_above(f"{ours} is at least as good as student {one} alone (within 1 point)", ours,
                        f"LbT {decision}, {one}", -TOLERATED)  # fmt: skip
        raced = f"{ours}, raced"
        claim_above(f"{raced}, is at least as good as {ours} (within 1 point)", raced, ours, -TOLERATED)
        spent = [[float(rows[known, row].generations.sum()) for row in (ours, raced)] for rows in worlds]
        whole, less = np.sum(spent, axis=0)
        table.claim(f"{raced}, asks for a third of the completions", value=whole / less, bound=3.0, n=len(spent),
                    test="ratio of totals, rationales included", preset="paper", holds=whole >= 3 * less)  # fmt: skip
    if table.preset == "smoke":
        rows = [row for world in worlds for (_, name), row in world.items() if name != ORACLE]
        least = min(float(row.generations.min()) for row in rows)
        table.claim("every row was answered and paid for", value=least, bound=1.0, n=len(rows),
                    test="least completions", holds=least >= 1)  # fmt: skip


# models of one's own --------------------------------------------------------------------------------------------------


def _run_full(table: Table, arguments: argparse.Namespace) -> Table:
    """The user's own models and problems."""
    if arguments.teacher is None or arguments.problems is None:
        raise SystemExit("--preset full needs --teacher and --problems")
    names = [arguments.teacher, *(arguments.student or [])]
    models = {name: _loaded(name, plain=arguments.plain) for name in dict.fromkeys(names)}
    method = LearningByTeaching(
        models[arguments.teacher], [models[name] for name in names[1:] or names], rationales=arguments.rationales,
        labels=arguments.labels,
    )  # fmt: skip
    problems = list(_read(arguments.problems))
    task = _task(arguments.rationales, arguments.labels)
    for seed in range(arguments.seeds):
        results = [method.answer(problem, seed) for problem in problems]
        for row in results[0].answers:
            right = [result.answers[row] == problem.answer for result, problem in zip(results, problems, strict=True)]
            table.add(task, row, holdout_accuracy=float(np.mean(right)))
        table.add(task, "all rows together", generations=float(np.mean([r.generations.total for r in results])))
    return table


def _loaded(name: str, *, plain: bool) -> TextModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from searchlib.objectives import CausalTextModel

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
    return CausalTextModel(model, tokenizer, chat=not plain and tokenizer.chat_template is not None)


def _read(path: Path) -> Iterator[TeachingProblem]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            exams = tuple(Exam(exam["question"], exam.get("answer")) for exam in fields["exams"])
            yield TeachingProblem(fields["question"], exams, fields["answer"])
