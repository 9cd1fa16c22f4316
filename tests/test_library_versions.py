"""The core works with the oldest libraries that ``pyproject.toml`` allows, with numpy 2.0, and with the newest ones.

``make versions``: a venv for each, with what the core needs and nothing else, and warnings as errors. Every Python from
3.11 on that this machine has is tried with the newest libraries.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: What is tried: spaces, algorithms, the loop, studies, caches, and the trajectories on file.
CORE = (
    *(f"tests/spaces/test_{name}.py" for name in ("space_conformance", "exact_by_construction", "space_neighbors")),
    *(f"tests/algorithms/test_{name}.py" for name in (
        "conformance", "local_search", "quasi_random", "evolution_strategy", "exact_allocation", "nsga",
    )),
    *(f"tests/test_{name}.py" for name in ("loop", "study", "evaluation_cache", "history", "ask_and_tell", "repair")),
    "tests/compatibility", "tests/golden", "tests/knapsack",
)  # fmt: skip


def lowest(requirement):
    """The oldest version that a requirement allows, as one that is pinned: ``numpy==1.26``."""
    name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
    return f"{name}=={version}"


OLDEST = [lowest(requirement) for requirement in PROJECT["dependencies"]]

#: By name, what pip is told beside the names of the libraries.
LIBRARIES = {"oldest": OLDEST, "numpy 2.0": ["numpy==2.0.*"], "newest": []}


def pythons():
    """Every Python that this machine has and that is new enough, the running one first."""
    first = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = [f"3.{minor}" for minor in range(11, 20) if f"3.{minor}" != first and runs(f"python3.{minor}")]
    return [(first, sys.executable), *((version, f"python{version}") for version in others)]


def runs(python):
    """Whether a Python is there and no empty shell of a version manager."""
    return shutil.which(python) is not None and not subprocess.run([python, "-c", ""], capture_output=True).returncode


MATRIX = [
    (libraries, version, python)
    for version, python in pythons()
    for libraries in LIBRARIES
    if libraries == "newest" or version == f"{sys.version_info.major}.{sys.version_info.minor}"
]


def made(folder, python, libraries):
    """A venv with these libraries; its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    names = [requirement.partition(">=")[0] for requirement in PROJECT["dependencies"]]
    install = [inside, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*install, *names, *LIBRARIES[libraries], "pytest", "hypothesis"], check=True)
    return inside


def counts(report):
    """How many tests there were, and how many of them were skipped."""
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    return int(suite.get("tests")), int(suite.get("skipped"))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="make versions")
@pytest.mark.parametrize(("libraries", "version", "python"), MATRIX, ids=[" ".join(row[:2]) for row in MATRIX])
def test_the_core_works_with(libraries, version, python, tmp_path):
    inside = made(tmp_path / "venv", python, libraries)
    shown = subprocess.run([inside, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    print(f"Python {version}: {', '.join(shown.split())}")
    if libraries == "oldest":
        assert {pin.split("==")[0] for pin in OLDEST} <= {line.split("==")[0] for line in shown.split()}
    ran = subprocess.run(
        [inside, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={tmp_path / 'report.xml'}", *CORE],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "SEARCHLIB_SLOW": ""},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    tests, skipped = counts(tmp_path / "report.xml")
    print(f"{tests - skipped} passed, {skipped} skipped")
    assert tests - skipped > 900
    assert skipped < tests // 5


def test_the_libraries_that_are_tried_are_those_that_the_core_requires():
    assert len(OLDEST) == len(PROJECT["dependencies"]) == 5
    assert all((ROOT / path).exists() for path in CORE)
