"""Arguments of the library's classes and functions, read from their source: nothing is loaded."""

import ast
import functools
from pathlib import Path

__all__ = ["arguments"]

ROOT = Path(__file__).parents[2]


@functools.lru_cache
def _tree(module):
    folder = ROOT.joinpath(*module.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")) if path.exists() else None


def _definition(module, name):
    """(module, node) of a class or function, through the imports of packages; None for anything else."""
    tree = _tree(module)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("searchlib"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(node.module, alias.name)
    return None


def arguments(module, name, method=None):
    """Names of arguments of a function, or of a class (or one of its methods); None where they cannot be told."""
    found = _definition(module, name)
    if found is None:
        return None
    home, node = found
    if isinstance(node, ast.FunctionDef):
        return _parameters(node)
    own = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    wanted = method or "__init__"
    if wanted in own:
        return _parameters(own[wanted])
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    inherited = [given for base in bases if (given := arguments(home, base, method)) is not None]
    if method is not None:
        return inherited[0] if inherited else None
    fields = {inner.target.id for inner in node.body if isinstance(inner, ast.AnnAssign)}
    return fields.union(*inherited) if fields or inherited else None


def _parameters(node):
    if node.args.kwarg is not None:
        return None
    return {argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
