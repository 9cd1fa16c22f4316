import csv
import json
import subprocess
import sys

import pytest

from searchlib import Evolution, search
from searchlib.__main__ import main
from searchlib.spaces import Subset


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "total.db"
    search(sum, Evolution(population=20), space=Subset(12, k=3), budget=20, direction="maximize", study=path)
    return path


def test_optuna_opens_what_the_command_wrote_and_a_second_call_adds_nothing(path, tmp_path, capsys):
    optuna = pytest.importorskip("optuna")
    for _ in range(2):
        assert main(["export", str(path), "--optuna", str(tmp_path / "trials.log")]) == 0
        assert capsys.readouterr().out == "20 trials in the Optuna study 'total.db'\n"
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "trials.log")))
    (summary,) = optuna.get_all_study_summaries(journal)
    best = summary.best_trial
    assert best.value == sum(best.params.values()) == sum(best.user_attrs["candidate"])


def test_parquet_is_written_and_the_console_is_no_place_for_it(path, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["export", str(path), "--parquet", str(tmp_path / "total.parquet")]) == 0
    assert parquet.read_table(tmp_path / "total.parquet").num_rows == 20
    assert main(["export", str(path), "--parquet", "-"]) == 2
    assert "Parquet is no text for the console" in capsys.readouterr().err


def test_csv_and_json_hold_the_same_candidates(path, tmp_path, capsys):
    assert main(["export", str(path), "--csv", str(tmp_path / "total.csv")]) == 0
    assert main(["export", str(path), "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    with open(tmp_path / "total.csv", encoding="utf-8", newline="") as stream:
        written = list(csv.DictReader(stream))
    assert len(rows) == 20
    assert [json.loads(row["candidate"]) for row in written] == [row["candidate"] for row in rows]


@pytest.mark.parametrize("option", ["--csv", "--json", "--parquet", "--optuna"])
def test_an_export_never_takes_the_place_of_its_study(option, path, capsys):
    """``--csv`` opened the study for writing and emptied it."""
    before = path.read_bytes()
    assert main(["export", str(path), option, str(path)]) == 2
    assert "is the study itself" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_folder_that_does_not_exist_is_answered_with_a_sentence(option, path, tmp_path, capsys):
    """It ended in a traceback."""
    assert main(["export", str(path), option, str(tmp_path / "nowhere" / "total")]) == 2
    assert "its folder must exist" in capsys.readouterr().err


def test_a_fresh_process_loads_nothing_heavy_knows_the_spaces_and_names_the_extra_of_a_missing_library(path, tmp_path):
    code = """
import sys
from searchlib.exchange import model_card
heavy = ("optuna", "nevergrad", "pandas", "pyarrow", "tensorboard", "torch", "matplotlib", "sklearn", "yaml", "joblib")
print([name for name in heavy if name in sys.modules])
sys.modules["optuna"] = None
print(model_card(sys.argv[2], name="total").count("Subset(n=12, k=3)"))
from searchlib.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["export", str(path), "--optuna", str(tmp_path / "trials.db")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "[]\n1\n")
    assert done.stderr == "searchlib: to_optuna needs optuna: pip install 'searchlib[optuna]'\n"
