"""The page on allocations does what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "allocation.md").read_text(encoding="utf-8")


def test_the_first_program_runs_and_the_search_improves_on_the_exact_allocation(capsys):
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0], names)
    exact, result = names["exact"], names["result"]
    assert exact.gap < 1e-3
    assert exact.cost[0] <= 48
    assert sum(result.best) <= 48
    notes = result.notes
    assert notes["additive"]["loss"] == pytest.approx(exact.loss)
    assert notes["best"]["joint"] < 0.9 * notes["additive"]["joint"]
    assert str(result.best[0]) in capsys.readouterr().out
