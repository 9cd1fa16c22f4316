"""Runs that were made apart are judged as if they had been made together."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.__main__ import WRONG_USAGE, main
from benchmarks.engine.runs import FILE, Job, checkpoints, read, summarized, write

CELL = ["engine", "--preset", "paper", "--family", "b", "--budget", "12", "--instances", "3"]
PROBLEMS = ["--problem", "products, 40 layers", "--problem", "redundant, 60 layers"]


def run(folder, *options):
    assert main([*CELL, *options, "--out", str(folder)]) in (0, 3)
    return judged(folder)


def judged(folder):
    """Everything but what the clock said."""
    written = json.loads((folder / "engine.json").read_text())
    for row in written["rows"]:
        row["metrics"].pop("ms_per_evaluation", None)
    return written["rows"], written["claims"]


def test_parts_merged_are_the_whole(tmp_path):
    switch, program = ["--method", "level switch (1+1)"], ["--method", "additive program, then switches"]
    rows, claims = run(tmp_path / "whole", *PROBLEMS, *switch, *program)
    assert {row["method"] for row in rows} == {
        "auto", "random", "level switch (1+1)", "additive program, then switches",
    }  # fmt: skip
    assert len(claims) > 3
    run(tmp_path / "second", *PROBLEMS[2:], *switch)
    run(tmp_path / "first", *PROBLEMS[:2], *switch)
    alone, none = run(tmp_path / "alone", *PROBLEMS, *program, "--alone")
    assert alone == []
    assert not any("not inferior" in claim["claim"] for claim in none)
    parts = [str(tmp_path / name) for name in ("second", "alone", "first")]
    assert main(["engine", "--merge", *parts, "--out", str(tmp_path / "merged")]) in (0, 3)
    assert judged(tmp_path / "merged") == (rows, claims)
    # and what was merged can be merged again
    assert main(["engine", "--merge", str(tmp_path / "merged" / FILE), "--out", str(tmp_path / "again")]) in (0, 3)
    assert judged(tmp_path / "again") == (rows, claims)


def test_what_is_done_is_kept_when_a_later_problem_breaks(tmp_path, monkeypatch):
    import benchmarks.engine

    run_one = benchmarks.engine._run_one

    def breaks(job, **settings):
        if job.problem == "redundant, 60 layers":
            raise RuntimeError("no more memory")
        return run_one(job, **settings)

    monkeypatch.setattr(benchmarks.engine, "_run_one", breaks)
    options = ["--method", "level switch (1+1)", "--alone", "--out", str(tmp_path)]
    with pytest.raises(RuntimeError, match="no more memory"):
        main([*CELL, *PROBLEMS, *options])
    _, outcomes, _ = read(tmp_path)
    assert {job.problem for job in outcomes} == {"products, 40 layers"}
    assert len(outcomes) == 3


def outcome(value):
    return summarized(value, [3.0, 5.0, value], 1.0, 3)


def test_a_file_keeps_what_came_of_every_run_and_of_two_the_later_counts(tmp_path):
    job, other = (Job("b", 3, "products, 40 layers", number, "random") for number in (0, 1))
    assert checkpoints(100) == [10, 33, 100]
    assert outcome(4.0).reached == (3.0, 3.0, 3.0)
    write(tmp_path / "a", "small", {job: outcome(1 / 3), other: outcome(float("inf"))})
    write(tmp_path / "b", "small", {job: outcome(0.25)})
    preset, outcomes, environments = read(tmp_path / "a")
    assert preset == "small"
    assert outcomes == {job: outcome(1 / 3), other: outcome(float("inf"))}
    assert environments[0]["versions"]["numpy"]
    assert main(["engine", "--merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "ab")]) == 0
    assert read(tmp_path / "ab")[1] == {job: outcome(0.25), other: outcome(float("inf"))}
    assert len(read(tmp_path / "ab")[2]) == 1


def test_what_cannot_be_merged_or_run_says_why(tmp_path, capsys):
    job = Job("b", 3, "products, 40 layers", 0, "random")
    write(tmp_path / "a", "small", {job: outcome(1.0)})
    write(tmp_path / "b", "paper", {job: outcome(1.0)})
    write(tmp_path / "c", "small", {job._replace(method="no such row"): outcome(1.0)})
    merge = ["engine", "--merge"]
    for words, complaint in (
        ([*merge, str(tmp_path / "a"), str(tmp_path / "b")], "of one preset can be .* these are of paper, small"),
        ([*merge, str(tmp_path / "nowhere")], f"--merge takes folders .*{FILE}.*nowhere"),
        ([*merge, str(tmp_path / "c")], "no such row on products, 40 layers"),
        ([*CELL, "--method", "no such row"], "--method must be one of .*level switch"),
        ([*CELL, "--problem", "no such one"], "--problem must be one of .*products, 40 layers"),
        ([*CELL, "--alone"], "--alone says .* name one"),
    ):
        assert main([*words, "--out", str(tmp_path / "out")]) == WRONG_USAGE
        assert re.search(complaint, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
