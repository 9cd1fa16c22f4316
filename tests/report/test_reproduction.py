import ast
import contextlib
import io
import shlex
import textwrap

import pytest

import searchlib
from searchlib import Budget, Evolution, Study, search
from searchlib.__main__ import main
from searchlib.report.reproduction import reproduction, same_command, same_search, same_versions
from searchlib.spaces import Binary


def test_the_call_that_is_shown_makes_the_same_search(tmp_path, monkeypatch):
    def ones(bits):
        return float(sum(bits))

    made = search(ones, Evolution(population=6), space=Binary(8), budget=40, seed=3, study=tmp_path / "ones.db")
    with Study.open(tmp_path / "ones.db") as study:
        call = same_search("ones.db", study.settings)
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(searchlib, name) for name in searchlib.__all__}
    objective = searchlib.FunctionObjective(ones, Binary(8))
    again = eval(call, {**names, "objective": objective})
    assert again.history.digest == made.history.digest
    assert (tmp_path / "again-ones.db").exists()


def test_the_command_that_is_shown_makes_the_same_search(tmp_path, monkeypatch, capsys):
    script = """
        from searchlib import Evolution, FunctionObjective
        from searchlib.spaces import Binary

        def make():
            return FunctionObjective(sum, Binary(8)), Evolution(population=6)
    """
    (tmp_path / "ones.py").write_text(textwrap.dedent(script), encoding="utf-8")
    settings = {"space": Binary(8), "budget": Budget(evaluations=40, target=-1.0), "batch_size": 5, "seed": 3}
    made = search(sum, Evolution(population=6), study=tmp_path / "a b.db", **settings)
    with Study.open(tmp_path / "a b.db") as study:
        command = same_command("a b.db", study.settings)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("FILE.py:NAME", "ones.py:make"))
    assert words[:3] == ["python", "-m", "searchlib"]
    assert main(words[3:]) == 0
    with Study.open("again-a b.db") as study:
        assert study.history().digest == made.history.digest
    assert "40 evaluations" in capsys.readouterr().out


@pytest.mark.parametrize(
    "budget", [None, "Budget(cells=5)", "Budget(5)", "Budget(evaluations=True)", "Budget(evaluations='1; reboot')",
               "Evil(evaluations=1)", "5", "Budget(evaluations=1)\nreboot", ["Budget(evaluations=1)"]],
)  # fmt: skip
def test_a_budget_that_the_command_line_cannot_say_has_no_command(budget):
    assert same_command("a.db", {"budget": budget, "seed": 1}) == ""
    assert same_command("a.db", {"budget": "Budget(evaluations=1)", "seed": "1; reboot"}) == ""


@pytest.mark.parametrize(
    "hostile",
    ["__import__('os').system('x')", "Evolution(); import os", "A(b.c())", "(lambda: 1)()", "print('x')",
     "[x for x in ()]", "f'{1}'", "Evolution(population=os)", "(" * 500, "Evolution()\n)\nimport os\n("],
)  # fmt: skip
def test_a_hostile_setting_is_quoted_and_does_nothing_when_pasted(hostile):
    call = same_search("a.db", {"algorithm": hostile, "budget": "Budget(evaluations=1)", "seed": hostile})
    given = ast.parse(call, mode="eval").body
    arguments = {keyword.arg: keyword.value for keyword in given.keywords}
    assert ast.literal_eval(arguments["algorithm"]) == hostile
    assert ast.literal_eval(arguments["seed"]) == hostile


def test_only_versions_of_known_packages_are_installed():
    versions = {"python": "3.11.2; rm -rf ~", "numpy": "2.2.6", "scipy": "--index-url=http://x", "evil": "1.0"}
    assert same_versions({"versions": versions}) == "pip install numpy==2.2.6"
    for none in ({}, {"versions": None}, {"versions": ["numpy"]}, {"versions": {"numpy": 2}}):
        assert same_versions(none) == ""


def test_the_name_of_a_study_is_quoted_for_the_shell():
    text = reproduction("a; reboot.db", {"algorithm": "Evolution()"})
    assert "resume &#x27;a; reboot.db&#x27; --objective" in text


def test_the_shown_command_is_one_of_the_command_line(tmp_path):
    path = tmp_path / "ones.db"
    search(sum, space=Binary(3), budget=8, study=path)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) == 0
    assert printed.getvalue().strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
