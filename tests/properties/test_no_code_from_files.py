"""A law on the source: no file of somebody else's is unpickled, evaluated or trusted with code."""

import ast
import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("searchlib", "spaces", "objectives", "benchmarks")

#: What a file must hold to be looked at closely.
SUSPICIOUS = re.compile(
    r"pickle|dill|marshal|shelve|yaml|runpy|joblib\.load|torch\.(load|jit|hub)|(np|numpy)\.load|trust_remote_code|"
    r"weights_only|os\.system|shell=|load_extension|ATTACH |(?<![\w.])(eval|exec|compile|__import__)\("
)

#: Where such a thing is meant, and why it is no file of somebody else's.
ALLOWED = {
    ("searchlib/worker.py", "pickle.loads"): "workers unpickle what this search's own driver made a moment ago",
    ("searchlib/evaluation.py", "pickle.loads"): "workers unpickle what this search's own driver made a moment ago",
    ("searchlib/testing/space.py", "pickle.loads"): "a conformance check round-trips what it made itself",
    ("searchlib/testing/space.py", "eval"): "a conformance check rebuilds a space from its own repr",
    ("searchlib/testing/objective.py", "pickle.loads"): "a conformance check round-trips what it made itself",
}


def sources():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if SUSPICIOUS.search(text):
                yield path.relative_to(ROOT).as_posix(), ast.parse(text)


def called(node):
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return f"{node.func.value.id}.{node.func.attr}"
    return node.func.id if isinstance(node.func, ast.Name) else ""


def keyword(node, name):
    return next((ast.unparse(one.value) for one in node.keywords if one.arg == name), None)


@functools.cache
def calls():
    """Every call in a suspicious file: where, of what, and the node."""
    return [(path, called(node), node) for path, tree in sources() for node in ast.walk(tree)
            if isinstance(node, ast.Call)]  # fmt: skip


def test_nothing_is_unpickled_or_evaluated_but_what_we_made_ourselves():
    forbidden = {
        "eval", "exec", "compile", "__import__", "os.system", "pickle.load", "pickle.loads", "pickle.Unpickler",
        "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads",
        "shelve.open", "joblib.load", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load",
        "numpy.load", "torch.jit.load", "torch.hub.load", "runpy.run_path",
    }  # fmt: skip
    found = {(path, name) for path, name, _ in calls() if name in forbidden}
    assert found <= set(ALLOWED)
    assert len(found) >= 4  # the law has something to look at


def test_torch_and_numpy_load_data_only():
    loads = [(path, name, node) for path, name, node in calls() if name in ("torch.load", "np.load")]
    assert len(loads) >= 3
    for path, name, node in loads:
        wanted = ("weights_only", "True") if name == "torch.load" else ("allow_pickle", "False")
        assert keyword(node, wanted[0]) == wanted[1], f"{path} calls {name} without {'='.join(wanted)}"


def test_nobody_trusts_remote_code_or_allows_pickles():
    for path, name, node in calls():
        assert keyword(node, "trust_remote_code") in (None, "False"), f"{path} sets trust_remote_code in {name}"
        assert keyword(node, "allow_pickle") in (None, "False"), f"{path} sets allow_pickle in {name}"
        assert keyword(node, "weights_only") in (None, "True"), f"{path} unsets weights_only in {name}"
        assert keyword(node, "shell") in (None, "False"), f"{path} opens a shell in {name}"


def test_sqlite_loads_no_extensions_and_attaches_nothing():
    databases = [path for path in (ROOT / "searchlib").glob("*.py") if "sqlite3" in path.read_text(encoding="utf-8")]
    assert len(databases) >= 2
    for path in databases:
        text = path.read_text(encoding="utf-8")
        assert "load_extension" not in text, path
        assert "ATTACH " not in text, path
