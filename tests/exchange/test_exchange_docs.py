"""The page on other programs does what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

from searchlib import exchange

PAGE = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text(encoding="utf-8")


def test_the_programs_run(tmp_path, monkeypatch, capsys):
    for library in ("optuna", "nevergrad", "pandas", "pyarrow", "tensorboard"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(programs) == 6
    names: dict[str, Any] = {}
    for program in programs:
        exec(program, names)
    assert names["exported"].best_params == names["result"].best
    assert names["study"].best_params["kind"] == "gelu"
    assert len(names["frame"]) >= 40
    assert {"error.db", "trials.log", "error.parquet", "runs"} <= {path.name for path in tmp_path.iterdir()}
    assert "# fast-sampler" in capsys.readouterr().out


def test_every_public_name_is_on_the_page_or_in_its_table():
    for name in exchange.__all__:
        if name not in ("OptunaParameters", "history_rows"):
            assert re.search(rf"\b{name}\(", PAGE), name
