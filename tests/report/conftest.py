"""A study in which every text is hostile, and one Chromium for all tests of pages."""

import shutil

import matplotlib
import numpy as np
import pytest

from searchlib import Budget, FunctionObjective, Study
from searchlib.algorithms import Status
from searchlib.cases import Split
from searchlib.description import describe
from searchlib.history import History, Told
from searchlib.holdout import Comparison, Holdout
from searchlib.report.page_sections import section
from searchlib.result import Outcome, Result
from searchlib.spaces import Categorical, Product, Real

matplotlib.use("Agg")

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def payload(where):
    """Text that runs, breaks out, loads or shows something else wherever it is not treated as text."""
    run = f"window.hacked=(window.hacked||[]).concat('{where}')"
    return (
        f"{where} <script>{run}</script><img src=x onerror=\"{run}\"><svg onload=\"{run}\">\"' onmouseover=\"{run}\" "
        f"</script></title></style><!-- javascript:{run} $\\frac{{ \u202e\x00\x1b[31m \ufffe -- &lt;b&gt; {{}} %s"
    )


class Payload(str):
    """Text as the repr of settings that are no settings."""

    def __repr__(self):
        return payload(str(self))


@pytest.fixture(scope="session")
def hostile_study(tmp_path_factory):
    """30 candidates, of which three failed, with a winner and two references."""
    path = tmp_path_factory.mktemp("hostile") / '<img src=x onerror="window.hacked=1">.db'
    choices = tuple(payload(f"choice{number}") for number in range(3))
    space = Product({payload("part"): Categorical(choices), "rate": Real(0.0, 1.0)})
    objective = FunctionObjective(lambda value: value["rate"], space, "maximize")
    cases = {split: objective.cases(split) for split in Split}
    settings = describe(objective, Payload("algorithm"), cases, Budget.of(30), seed=0, threads=1, shortlist=8)
    settings |= {
        "objective": {"objective": payload("objective"), payload("key"): [payload("nested")]},
        "algorithm": payload("algorithm"), "budget": payload("budget"), "racing": None, "case_source": None,
        "versions": {"numpy": payload("version"), payload("package"): "1.0"}, "given_seeds": [],
    }  # fmt: skip
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 30)
    values = rows[:, 1:2] + 0.1 * (rows[:, :1] == 1)
    status = np.full(30, Status.DONE, np.int8)
    status[[3, 4, 20]] = Status.FAILED
    values[status == Status.FAILED] = np.nan
    errors = ["" for _ in range(30)]
    errors[3] = errors[4] = f"Traceback (most recent call last):\n  File \"x.py\"\nValueError: {payload('error')}"
    errors[20] = f"{payload('another')}\r\nKeyError: 'last'"
    told = Told(np.arange(30), rows, values, np.full(30, np.nan), np.full((30, 1), np.nan), status,
                np.ones(30, np.bool_), tuple(errors))  # fmt: skip
    best = int(np.nanargmax(values[:, 0]))
    compared = (
        Comparison("best", 0.9, (0.8, 1.0), 0.0, (0.0, 0.0)),
        Comparison(payload("reference"), 0.5, (0.4, 0.6), 0.4, (0.2, 0.6)),
        Comparison("same", 0.9, (0.7, 1.1), 0.0, (-0.1, 0.1)),
    )
    history = History(space, 1)
    history.append(told)
    result = Result(space.decode(rows[best]), rows[best], float(values[best, 0]), Holdout(compared, 40, 1), history,
                    Outcome.EVALUATIONS, "", 1.0, {payload("note"): payload("noted")})  # fmt: skip
    with Study.create_or_resume(path, settings, ()) as study:
        number = study.write_batch("asked", 30, told.ids, rows, told.fresh)
        study.write_told(number, told, 1.5)
        study.write_result(result)
        study.flush()
    return path


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A headless Chromium that sees nothing but what a test shows it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pages are tested with selenium")
    if not all(map(shutil.which, (CHROMIUM, DRIVER))):
        pytest.skip(f"pages are tested in {CHROMIUM} with {DRIVER}, which are not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
             "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
             "window-size=1280,900",
             f"user-data-dir={tmp_path_factory.mktemp('profile')}")  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def without_pictures(monkeypatch):
    """Pages without pictures, which take most of the time."""
    monkeypatch.setattr("searchlib.report.page.pictures", lambda *_: section("pictures", "Pictures"))


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
