"""The page on reports does what it says."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from searchlib.report import Plots
from searchlib.report.winner_picture import WINNER_PICTURES

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_program_runs_and_saves_its_pictures(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0], names)
    assert names["result"].value == 28
    assert {path.name for path in tmp_path.glob("*.png")} == {"convergence.png", "items.png", "importance.png"}


def test_every_picture_is_on_the_page():
    drawn = {name for name, member in vars(Plots).items() if inspect.isfunction(member) and not name.startswith("_")}
    assert len(drawn) > 8
    for name in drawn:
        assert f"`{name}(" in PAGE, name
    for name in WINNER_PICTURES:
        assert f"`{name}`" in PAGE, name
