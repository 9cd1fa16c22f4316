import ast
import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import searchlib
from searchlib import spaces

ROOT = Path(__file__).parents[1]
TOPS = {"searchlib": "searchlib", "spaces": "searchlib.spaces", "objectives": "searchlib.objectives"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_in_the_tree():
    """Folders with an ``__init__.py``, under their import names; the links are followed by name, not on disk."""
    names = set()
    for top, prefix in TOPS.items():
        for init in (ROOT / top).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / top).parts
            if top == "searchlib" and inside[:1] in (("spaces",), ("objectives",)):
                continue
            names.add(".".join((prefix, *inside)))
    return names


def test_the_listed_packages_are_those_in_the_tree():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_the_tree()


def test_the_links_lead_to_the_folders_at_the_top():
    for name in ("spaces", "objectives"):
        link = ROOT / "searchlib" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_the_version_is_said_once_in_two_places():
    assert PROJECT["project"]["version"] == searchlib.__version__


WITH_WORKERS = """
import searchlib
from searchlib import search
from searchlib.spaces import Subset

if __name__ == "__main__":
    result = search(sum, space=Subset(6, k=2), budget=15, direction="maximize", workers=2)
    print(searchlib.__file__, sum(result.best))
"""


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name_and_all_adapters(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"searchlib"}
    for folder in ("spaces", "objectives"):
        sources = {f"searchlib/{folder}/{path.name}" for path in (ROOT / folder).glob("*.py")}
        assert sources
        assert sources <= set(names)
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "searchlib").rglob("*.py")} <= set(names)
    assert "searchlib/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = tmp_path / "program.py"
    program.write_text(WITH_WORKERS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, best = done.stdout.split()
    assert where.startswith(str(tmp_path / "site"))
    assert best == "9"


def public_modules():
    for top in ("searchlib", "spaces", "objectives"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if top != "searchlib" or path.relative_to(ROOT / top).parts[0] not in ("spaces", "objectives"):
                yield path


@pytest.mark.parametrize("path", list(public_modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_all_names_exist_and_are_sorted(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    listed = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    if path.name == "__main__.py":
        return
    assert len(listed) == 1, f"{path.name} has no __all__"
    names = ast.literal_eval(listed[0].value)
    defined = {getattr(node, "name", None) for node in ast.walk(tree)}
    defined |= {name.asname or name.name for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom | ast.Import) for name in node.names}  # fmt: skip
    defined |= {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    defined |= {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert set(names) <= defined
    assert len(names) == len(set(names))


@pytest.mark.parametrize("top", TOPS)
def test_no_public_name_is_that_of_a_module_which_would_take_its_place(top):
    # ``import package.name`` binds the module in the package, where lazy names are then no longer looked up.
    modules = {path.stem for path in (ROOT / top).glob("*.py")}
    assert len(modules) > 5
    assert not modules & set(importlib.import_module(TOPS[top]).__all__)


def test_the_public_names_are_those_that_were_promised():
    promised = {"search", "Search", "Result", "Study", "Objective", "Space", "Problem", "Cases", "Budget",
                "RandomSearch", "Evolution", "Stages", "Nevergrad"}  # fmt: skip
    assert promised <= set(searchlib.__all__)
    for name in searchlib.__all__:
        assert getattr(searchlib, name) is not None
    names = ["Binary", "Subset", "Categorical", "Integer", "Real", "Simplex", "Affine", "Permutation", "Product",
             "Grouped"]  # fmt: skip
    assert set(names) <= set(spaces.__all__)
