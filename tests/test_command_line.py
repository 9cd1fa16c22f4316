import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import searchlib
from searchlib import Algorithm, Beam, Cases, Evolution, Objective, Search, ShrinkingPool, Study, search
from searchlib.__main__ import main
from searchlib.errors import StudyMismatch
from searchlib.spaces import Integer, Subset

OBJECTIVE = """
from searchlib import FunctionObjective
from searchlib.spaces import Subset

def total(kept):
    return float(sum(kept))

def make():
    return FunctionObjective(total, Subset(12, k=3), direction="maximize")
"""


MORE = """
def plain():
    return total

def stopped():
    def stop(kept):
        if 11 in kept:
            raise KeyboardInterrupt
        return 1.0
    return FunctionObjective(stop, Subset(12, k=3))
"""


@pytest.fixture
def study(tmp_path):
    def total(kept):
        return float(sum(kept))

    total.__qualname__ = "total"
    path = tmp_path / "total.db"
    search(total, Evolution(population=10), space=Subset(12, k=3), budget=40, direction="maximize", study=path)
    return path


def test_list_names_spaces_and_algorithms(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("Evolution", "Nevergrad", "Subset", "ExpertMerges"):
        assert name in printed


def test_list_names_every_public_algorithm(capsys):
    assert main(["list"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.split("spaces (")[0].splitlines()[1:]}
    public = {name: getattr(searchlib, name) for name in searchlib.__all__}
    abstract = {"Algorithm"}
    assert listed == {
        name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, Algorithm)
    } - abstract


@pytest.mark.parametrize("algorithm", [Beam(width=3, expansion=4), ShrinkingPool(samples=100)])
def test_resume_rebuilds_every_public_algorithm(algorithm, tmp_path, capsys):
    def total(kept):
        return float(sum(kept))

    total.__qualname__ = "total"
    path = tmp_path / "total.db"
    search(total, algorithm, space=Subset(12, k=3), budget=40, direction="maximize", study=path)
    script = tmp_path / "objective.py"
    script.write_text(OBJECTIVE)
    assert main(["resume", str(path), "--objective", f"{script}:make", "--budget", "50"]) == 0
    assert "50 evaluations" in capsys.readouterr().out


def test_resume_asks_as_often_as_the_search_did(tmp_path, capsys):
    """It handed on the batch size as if the user had given it, so that the default algorithm was asked for far more."""

    def total(kept):
        return float(sum(kept))

    total.__qualname__ = "total"
    settings = {"space": Subset(12, k=3), "budget": 100, "direction": "maximize"}
    whole = search(total, **settings)
    path, script = tmp_path / "total.db", tmp_path / "objective.py"
    first = Search(total, study=path, **settings)
    for _, record in zip(range(6), first, strict=False):
        assert record.evaluations < 30
    first.close()
    script.write_text(OBJECTIVE)
    assert main(["resume", str(path), "--objective", f"{script}:make"]) == 0
    assert "100 evaluations" in capsys.readouterr().out
    with Study.open(path) as opened:
        assert opened.history().digest == whole.history.digest
    with pytest.raises(StudyMismatch, match="batch_given"):
        search(total, study=path, batch_size=64, **settings)


def test_show_says_what_was_found(study, capsys):
    assert main(["show", str(study)]) == 0
    assert "the budget of evaluations is spent" in capsys.readouterr().out
    assert main(["show", str(study), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["evaluations"] == 40
    assert summary["winner"] == list(Study.open(study).result().best)
    assert summary["best"] == sum(summary["winner"])


def test_show_prints_the_held_out_table_as_a_result_does_and_as_json_where_asked(tmp_path, capsys):
    class Away(Objective):
        space = Integer(0, 40)

        def cases(self, split):
            return Cases(tuple(f"{split.value} {number}" for number in range(4)))

        def evaluate(self, candidates, cases):
            return np.abs(candidates.array - np.array([sum(map(ord, case)) % 41 for case in cases.ids])).astype(float)

        def references(self):
            return ("nobody",)

        def evaluate_reference(self, name, cases):
            return np.full(len(cases), 20.0)

    result = search(Away(), budget=20, study=tmp_path / "away.db")
    table = str(result)[str(result).index("held-out ") :]
    assert table.splitlines()[2].split()[0] == "nobody"
    assert main(["show", str(tmp_path / "away.db")]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"\n{table}\n")
    assert '"interval"' not in said
    assert main(["show", str(tmp_path / "away.db"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holdout"] == result.holdout.to_json()


def test_export_writes_every_candidate(study, tmp_path):
    assert main(["export", str(study), "--csv", str(tmp_path / "h.csv")]) == 0
    with open(tmp_path / "h.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 40
    assert all(float(row["value"]) == sum(json.loads(row["candidate"])) for row in rows)
    assert main(["export", str(study), "--json", str(tmp_path / "h.json")]) == 0
    assert len(json.loads((tmp_path / "h.json").read_text())) == 40


def test_resume_goes_on_with_the_stored_settings(study, tmp_path, capsys):
    script = tmp_path / "objective.py"
    script.write_text(OBJECTIVE)
    assert main(["resume", str(study), "--objective", f"{script}:make", "--budget", "60"]) == 0
    assert "60 evaluations" in capsys.readouterr().out
    with Study.open(study) as opened:
        resumed = opened.history()
    whole = search(lambda kept: float(sum(kept)), Evolution(population=10), space=Subset(12, k=3), budget=40,
                   direction="maximize")  # fmt: skip
    assert (resumed.population[:40] == whole.history.population).all()


def test_a_study_that_is_not_there_is_answered_with_a_sentence(capsys):
    assert main(["show", "nowhere.db"]) == 1
    assert "no study at" in capsys.readouterr().err


WRONG = """
import sys

def needs(model, *cases, keep, groups=None):
    raise AssertionError("called")

def raises():
    raise RuntimeError("no such\\nmodel")

def leaves():
    sys.exit(3)

def number():
    return 7

def forgets():
    make()

def kind():
    return FunctionObjective

def three():
    return make(), None, None

def swapped():
    return Evolution(), make()

class Built:
    def __init__(self, model):
        self.model = model
"""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:make", "FILE.py:NAME with an existing file"),
        ("SCRIPT", "FILE.py:NAME with an existing file"),
        ("SCRIPT:", "FILE.py:NAME with an existing file"),
        ("SCRIPT:nothing", "no function 'nothing'"),
        ("SCRIPT:Subset.k", "no function 'Subset.k'"),
        ("SCRIPT:needs", "without arguments, but needs model, keep;"),
        ("SCRIPT:Built", "without arguments, but needs model;"),
        ("SCRIPT:raises", "made no objective (line 17): RuntimeError: no such model"),
        ("SCRIPT:leaves", "SystemExit: 3"),
        ("SCRIPT:number", "must return an Objective, a function to search, or (objective, algorithm), but returned 7"),
        ("SCRIPT:forgets", "but returned None"),
        ("SCRIPT:kind", "but returned <class"),
        ("SCRIPT:three", "but returned (<"),
        ("SCRIPT:swapped", "but returned (Evolution("),
        ("TORN:make", "cannot be imported: SyntaxError"),
        ("LACKING:make", "cannot be imported (line 2): ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_an_objective_that_cannot_be_made_is_wrong_usage(target, message, study, tmp_path, capsys):
    texts = {"SCRIPT": "from searchlib import Evolution" + OBJECTIVE + WRONG, "TORN": "def make(:",
             "LACKING": "\nimport no_such_library"}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name.lower()}.py").write_text(text)
        target = target.replace(name, str(tmp_path / f"{name.lower()}.py"))
    assert main(["resume", str(study), "--objective", target]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("searchlib: ")
    assert said.count("\n") == 1


def test_a_wrong_objective_shows_no_traceback(study, tmp_path):
    script = tmp_path / "objective.py"
    script.write_text(OBJECTIVE + WRONG)
    command = [sys.executable, "-m", "searchlib", "resume", str(study), "--objective", f"{script}:raises"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such model" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_on_file_are_data_not_code(study, tmp_path, capsys):
    from searchlib.sealed_file import SealedFile

    script = tmp_path / "objective.py"
    script.write_text(OBJECTIVE)
    hostile = json.dumps(f"__import__('pathlib').Path('{tmp_path / 'pwned'}').touch()")
    file = SealedFile.writing(study)
    with file.transaction():
        file.insert("setting", "algorithm", hostile, replace=True)
    file.close()
    assert main(["resume", str(study), "--objective", f"{script}:make"]) == 1
    assert "cannot be rebuilt" in capsys.readouterr().err
    assert not (tmp_path / "pwned").exists()


def test_wrong_usage_has_its_own_exit_status():
    command = [sys.executable, "-m", "searchlib", "frobnicate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OBJECTIVE + MORE)
    return path


def test_a_search_of_ones_own_needs_no_driver(own, tmp_path, capsys):
    whole = ["run", f"{own}:make", "--budget", "60", "--seed", "3", "--study", str(tmp_path / "own.db")]
    assert main([*whole, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["evaluations"] == 60
    assert found["winner"] == [9, 10, 11]
    assert found["value"] == 30
    assert main(whole) == 0  # the study is there: nothing is evaluated again
    assert "60 evaluations" in capsys.readouterr().out
    with Study.open(tmp_path / "own.db") as study:
        assert study.history().evaluations == 60
        assert study.settings["seed"] == 3


def test_its_options_are_those_of_a_search(own, capsys):
    assert main(["run", f"{own}:make", "--target", "29", "--workers", "2", "--asynchronous", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "the target value is reached"
    assert found["value"] >= 29


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{own}:plain", "--budget", "4"], "return searchlib.FunctionObjective(function, space) instead"),
        (["{own}:make"], "a budget needs at least one limit"),
        (["{own}:make", "--budget", "-3"], "but is -3"),
        (["{own}:make", "--budget", "4", "--asynchronous", "--batch-size", "2"], "does not go with batch_size"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(words, said, own, capsys):
    assert main(["run", *(word.format(own=own) for word in words)]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_an_interrupted_search_prints_its_best_and_says_so_by_its_status(own, capsys):
    assert main(["run", f"{own}:stopped", "--budget", "60"]) == 130
    assert "it was interrupted" in capsys.readouterr().out


def test_the_list_is_there_for_programs_too(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "Evolution" in listed["algorithms"]
    assert "Subset" in listed["spaces"]
    assert all(line.endswith(".") for line in listed["spaces"].values())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_its_words(shell, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    for word in ("resume", "--asynchronous", "--budget"):
        assert word in script
