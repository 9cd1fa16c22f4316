import argparse
import json
import os

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import teaching
from benchmarks.__main__ import main
from benchmarks.table import Table
from benchmarks.teaching import Remembered, Row
from searchlib.objectives.teaching import LearningByTeaching
from searchlib.objectives.teaching_format import Exam, Rationale, TeachingFormat, TeachingProblem
from searchlib.objectives.text_model import Prompt, Sampling


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
def test_the_smoke_preset_prints_a_table_and_writes_its_json(tmp_path, capsys):
    assert main(["teaching", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "teaching.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    known = "6 rationales, exam labels known"
    for name in ("greedy", "self-consistency", "LbT max, A & B", "LbT sum, A & B, raced"):
        assert name in printed
        assert 0 <= rows[known, name]["holdout_accuracy"]["mean"] <= 1
    assert rows[known, "self-consistency"]["generations"]["values"] == [6]
    assert rows["6 rationales, exam labels majority", "LbT sum, A"]["generations"]["mean"] > 6 + 16 * 3
    assert {claim["preset"] for claim in written["claims"]} == {"smoke", "paper"}
    assert all(claim["holds"] for claim in written["claims"] if claim["preset"] == "smoke")


def toy():
    """A teacher that is right once in three times, students that copy what they are shown, one of them badly."""

    def teacher(prompts, sampling, seeds):
        return [str(seed % 3) for seed in seeds]

    def student(error):
        def answer(prompts, sampling, seeds):
            return ["0" if prompt.prefix.endswith("0;") and seed % 10 >= error else "9"
                    for prompt, seed in zip(prompts, seeds, strict=True)]  # fmt: skip

        return answer

    form = TeachingFormat(
        instruction="", cue="", problem=lambda question: question, exam=lambda question: question,
        lesson=lambda question, rationale: f"{question}{rationale.text};",
        parse=lambda completion: Rationale(completion, completion or None),
    )  # fmt: skip
    return LearningByTeaching(teacher, [student(1), student(4)], rationales=12, repeats=2, format=form)


def test_rows_of_fewer_rationales_are_what_asking_for_fewer_gives():
    method = toy()
    problem = TeachingProblem("q", [Exam("a", "0"), Exam("b", "0")], "0")
    preset = teaching.Preset(rationales=(4, 12), claimed=12, repeats=2)
    rows = {key: (answer, spent) for key, answer, spent in teaching._answers(method, problem, preset, seed=3)}
    for n in (4, 12):
        fewer = LearningByTeaching(
            method.teacher, method.students, rationales=n, repeats=2, format=method.format,
            baselines=("greedy", "self-consistency"),
        ).answer(problem, 3)  # fmt: skip
        task = f"{n} rationales, exam labels known"
        assert rows[task, "LbT max, A & B"][0] == fewer.answers["LbT max"]
        assert rows[task, "LbT sum, A & B"][0] == fewer.answers["LbT sum"]
        assert rows[task, "self-consistency"] == (fewer.answers["self-consistency"], n)
        assert rows[task, "LbT sum, A & B"][1] == n + fewer.generations.exams
        assert rows[task, "LbT sum, A & B, raced"][1] <= rows[task, "LbT sum, A & B"][1]
    assert rows["12 rationales, exam labels known", "self-consistency, equal completions"][1] == 12 * (1 + 2 * 2 * 2)


def test_what_is_remembered_is_not_written_again():
    asked = []

    def model(prompts, sampling, seeds):
        asked.append(len(prompts))
        return [f"{prompt.full}{seed}" for prompt, seed in zip(prompts, seeds, strict=True)]

    remembered, sampling = Remembered(model), Sampling()
    prompts = [Prompt("a"), Prompt("b"), Prompt("a")]
    assert remembered(prompts, sampling, [1, 1, 1]) == ["a1", "b1", "a1"]
    assert remembered(prompts, sampling, [1, 2, 1]) == ["a1", "b2", "a1"]
    assert asked == [2, 1]
    remembered.forget()
    assert remembered(prompts[:1], sampling, [1]) == ["a1"]
    assert asked == [2, 1, 1]


def worlds(gain, raced_loss, saving):
    """Rows in which LbT is right so much more often than self-consistency."""
    rng, found = np.random.default_rng(0), []
    for _ in range(3):
        base = rng.random((50, 2))
        rows = {}
        for decision in ("max", "sum"):
            ours = (base < 0.5 + gain).astype(float)
            for name in ("A", "B", "A & B"):
                rows[f"LbT {decision}, {name}"] = Row(ours, np.full((50, 2), 300.0))
            rows[f"LbT {decision}, A & B, raced"] = Row(
                (base < 0.5 + gain - raced_loss).astype(float), np.full((50, 2), 300.0 / saving)
            )
        for name in (teaching.CONSISTENT, teaching.EQUAL):
            rows[name] = Row((base < 0.5).astype(float), np.full((50, 2), 24.0))
        found.append({("24 rationales, exam labels known", name): row for name, row in rows.items()})
    return found


@pytest.mark.parametrize(("gain", "loss", "saving", "holding"), [
    (0.3, 0.0, 4.0, 12), (0.0, 0.0, 4.0, 8), (0.3, 0.2, 4.0, 10), (0.3, 0.0, 2.0, 10),
])  # fmt: skip
def test_claims_hold_exactly_where_the_rows_say_so(gain, loss, saving, holding):
    table = Table("teaching", "paper", 3)
    teaching._claim(table, teaching.PRESETS["paper"], worlds(gain, loss, saving))
    assert len(table.claims) == 12
    assert sum(claim.holds for claim in table.claims) == holding
    assert all(claim.n in (3, 150) for claim in table.claims)


def test_models_of_ones_own_answer_problems_from_a_file(tmp_path, monkeypatch):
    problems = [{"question": "q", "answer": "0", "exams": [{"question": "a", "answer": "0"}]}] * 2
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, problems)))
    said = "It is so.\n[[Final Answer]]:\n$0$"
    monkeypatch.setattr(teaching, "_loaded", lambda name, plain: lambda prompts, sampling, seeds: [said] * len(prompts))
    assert main(["teaching", "--preset", "full", "--teacher", "some/model", "--problems", str(path),
                 "--rationales", "3", "--seeds", "1", "--out", str(tmp_path)]) == 0  # fmt: skip
    rows = {row["method"]: row["metrics"] for row in json.loads((tmp_path / "teaching.json").read_text())["rows"]}
    assert rows["LbT sum"]["holdout_accuracy"]["mean"] == 1.0
    assert rows["all rows together"]["generations"]["mean"] > 3


def test_the_full_preset_says_what_it_needs():
    arguments = argparse.Namespace(preset="full", seeds=1, teacher=None, problems=None)
    with pytest.raises(SystemExit, match="--teacher and --problems"):
        teaching.run(arguments)
