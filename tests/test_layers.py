"""Imports point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: A module may import from layers below its own (further right), and from its own package of algorithms or checks.
LAYERS = [
    "__main__",
    "testing",
    "__init__",
    "exchange",
    "named_objective",
    "rebuilt_settings",
    "report",
    "repair",
    "profiling",
    "whole_search",
    "progress_bar",
    "loop",
    "search_arguments",
    "standing",
    "committed_state",
    "batch_journal",
    "in_flight",
    "failure_count",
    "asked",
    "description",
    "spending",
    "winner",
    "raced_rows",
    "sourced_rows",
    "scoring",
    "evaluation_cache",
    "migration",
    "study",
    "damage",
    "sealed_file",
    "file_system",
    "result",
    "duplicates",
    "selection_bias",
    "scoretable",
    "front",
    "holdout",
    "racing",
    "forecast",
    "case_order",
    "decision",
    "evaluation",
    "executors",
    "worker",
    "devices",
    "chunks",
    "history",
    "algorithms",
    "with_cost",
    "hypervolume",
    "pareto",
    "curriculum",
    "task_archive",
    "case_source",
    "objective",
    "captured",
    "additive_profile",
    "case_overlap",
    "cases",
    "memo",
    "budget",
    "allocation_space",
    "space",
    "seeded_population",
    "noise_table",
    "knapsack",
    "operator_arguments",
    "json_data",
    "arguments",
    "lazy",
    "key_table",
    "errors",
]


def imports(path):
    """Modules of searchlib that a file imports outside of ``if TYPE_CHECKING``, functions included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked_only = {
        id(inner) for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (exact(node.module, name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def exact(package, name):
    """What ``from package import name`` imports: a module of that package, or a name of the package itself."""
    inside = package.split(".")
    folder = ROOT.joinpath(*inside)
    is_module = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
    return f"{package}.{name}" if is_module or package == "searchlib" else package


def layer(path):
    relative = path.relative_to(ROOT / "searchlib")
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


ENGINE = sorted(
    path for path in (ROOT / "searchlib").rglob("*.py")
    if path.relative_to(ROOT / "searchlib").parts[0] not in ("spaces", "objectives")
)  # fmt: skip


def test_every_module_of_the_engine_has_a_layer():
    assert {layer(path) for path in ENGINE} == set(LAYERS)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_imports_downwards_only(path):
    mine = LAYERS.index(layer(path))
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "searchlib" or len(parts) < 2:
            continue
        if parts[1] in ("spaces", "objectives"):
            # Who translates between spaces and those of other libraries, or names them on the command line.
            assert layer(path) in ("__main__", "exchange"), f"{path.name} imports the plug-in {module}"
            continue
        if parts[1] not in LAYERS:  # `from searchlib import Search`: a name of the package itself
            assert LAYERS.index("__init__") >= mine, f"{path.name} imports {module} from above"
            continue
        other = LAYERS.index(parts[1])
        same = other == mine and layer(path) in ("algorithms", "exchange", "knapsack", "report", "testing")
        assert other > mine or same, f"{path.name} imports {module} from its own layer or above"


@pytest.mark.parametrize(("folder", "allowed"), [("spaces", {"spaces"}), ("objectives", {"spaces", "objectives"})])
def test_plug_ins_import_the_engine_and_never_the_other_way(folder, allowed):
    paths = sorted((ROOT / folder).glob("*.py"))
    assert paths
    for path in paths:
        for module in imports(path):
            parts = module.split(".")
            assert parts[0] not in ("spaces", "objectives", "benchmarks", "tests"), f"{path} imports {module}"
            if parts[0] == "searchlib" and len(parts) > 1 and parts[1] in ("spaces", "objectives"):
                assert parts[1] in allowed, f"{path} imports {module}"


def test_no_module_imports_itself_in_a_circle():
    graph = {}
    for path in [*ENGINE, *(ROOT / "spaces").glob("*.py"), *(ROOT / "objectives").glob("*.py")]:
        inside = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(inside if inside[0] == "searchlib" else ("searchlib", *inside)).removesuffix(".__init__")
        graph[name] = {module for module in imports(path) if module.startswith("searchlib.")}
    assert len(graph) > 30
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, " → ".join([*trail, name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
