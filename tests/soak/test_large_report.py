"""A page of 100,000 candidates opens, sorts and filters without delay (``make soak``)."""

import importlib
import os
import time

import numpy as np
import pytest

from searchlib import RandomSearch, search
from searchlib.report import write_report
from searchlib.spaces import Real

pytestmark = pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="half a minute; make soak runs it")

chromium = importlib.import_module("tests.report.conftest").chromium

CANDIDATES = 100_000


def test_a_page_of_a_hundred_thousand_candidates_stays_quick(chromium, tmp_path):
    result = search(lambda rows: (rows**2).sum(axis=1), RandomSearch(), space=Real(-1.0, 1.0, length=10), batched=True,
                    budget=CANDIDATES, batch_size=2000, study=tmp_path / "large.db")  # fmt: skip
    assert len(result.history) == CANDIDATES
    start = time.monotonic()
    page = write_report(tmp_path / "large.db", tmp_path / "large.html")
    assert time.monotonic() - start < 120
    assert page.stat().st_size < 40e6
    chromium.set_page_load_timeout(60)
    chromium.get(page.as_uri())
    timed = "const from = performance.now(); %s; return performance.now() - from;"
    for head in range(5):
        click = f"document.querySelectorAll('#table th button')[{head}].click()"
        assert chromium.execute_script(timed % click) < 3000
    first = chromium.execute_script("""
        document.querySelectorAll('#table th button')[3].click();
        return document.querySelector('#table tbody td:nth-child(4)').innerText;
    """)
    assert float(first) == pytest.approx(np.nanmin(result.history.values), rel=1e-5)
    spent = chromium.execute_script(timed % """
        const status = document.querySelector('#table select');
        document.querySelector('#table input[type=search]').value = '0.123';
        status.dispatchEvent(new Event('input'));
    """)
    assert spent < 3000
    assert "(100,000 in all)" in chromium.find_element("css selector", "#table .count").text
    assert chromium.get_log("browser") == []
