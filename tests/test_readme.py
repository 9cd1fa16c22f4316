import itertools
import re
import shlex
from pathlib import Path
from typing import Any

from searchlib.__main__ import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_program_runs_and_finds_the_best_subset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(PROGRAMS[0], names)
    best = max(map(names["total"], itertools.combinations(range(16), 5)))
    assert names["result"].value == best == 42
    assert (tmp_path / "total.db").exists()
    printed = capsys.readouterr().out
    assert "the budget of evaluations is spent" in printed
    assert len(printed.splitlines()) > 10


def test_the_program_is_as_short_as_it_says():
    lines = [line for line in PROGRAMS[0].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 12


def test_the_own_objective_runs_and_keeps_the_contract():
    names: dict[str, Any] = {}
    exec(PROGRAMS[2], names)
    best = names["result"].best
    assert best[:3] == (1, 1, 1)
    assert names["result"].holdout.value < 3
    from searchlib.testing import check_objective

    check_objective(names["FeatureChoice"](names["x"], names["y"]), pickles=False)


def test_the_own_objective_in_a_file_is_searched_shown_and_reported_by_the_commands_below_it(
    tmp_path, monkeypatch, capsys
):
    commands = re.findall(r"^\$ python -m searchlib (.+)$", README, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["run", "show", "report"]
    body = PROGRAMS[2].rstrip().splitlines()[:-2]  # "in the place of the last two"
    (tmp_path / "mine.py").write_text("\n".join([*body, PROGRAMS[3]]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert "200 evaluations" in capsys.readouterr().out
    assert (tmp_path / "mine.html").stat().st_size > 50_000


def test_the_own_objective_is_about_twenty_lines():
    body = PROGRAMS[2].split("class FeatureChoice")[1].split("\nrng =")[0]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20


def test_the_table_of_systems_names_adapters_that_exist():
    import searchlib.objectives

    named = re.findall(r"\| `(\w+)` \| here \|", README)
    assert named
    for name in named:
        assert name in searchlib.objectives.__all__


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[1] / link.partition("#")[0]).exists(), link
