import subprocess
import sys
import textwrap

import pytest

HEAVY = ("torch", "diffusers", "transformers", "nevergrad", "pandas", "matplotlib", "scipy.stats", "joblib", "sklearn",
         "sqlalchemy")  # fmt: skip


def run(code):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["searchlib", "searchlib.spaces", "searchlib.objectives", "searchlib.testing",
                                    "searchlib.report", "searchlib.__main__"])  # fmt: skip
def test_importing_it_loads_nothing_heavy(module):
    done = run(f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_search_is_imported_without_scipy():
    done = run("import sys; from searchlib import search; print('numpy' in sys.modules, 'scipy' in sys.modules)")
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_an_import_costs_little_more_than_numpy():
    code = """
        import time, numpy
        start = time.process_time()
        from searchlib import search
        print(time.process_time() - start)
    """
    assert min(float(run(code).stdout) for _ in range(3)) < 0.15


def test_an_algorithm_is_loaded_when_it_is_first_used():
    done = run("""
        import sys, searchlib
        print("searchlib.algorithms.cma_es" in sys.modules, searchlib.CMAES is searchlib.algorithms.CMAES,
              "searchlib.algorithms.cma_es" in sys.modules, set(searchlib.__all__) <= set(dir(searchlib)))
    """)
    assert done.stdout.split() == ["False", "True", "True", "True"], done.stderr


def test_a_name_that_does_not_exist_is_an_attribute_error():
    done = run("import searchlib; searchlib.NoSuchName")
    assert "AttributeError: module 'searchlib' has no attribute 'NoSuchName'" in done.stderr


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_an_adapter_without_its_library_names_the_extra(missing):
    done = run(f"""
        import sys
        sys.modules[{missing!r}] = None
        import searchlib.objectives
        try:
            searchlib.objectives.ExpertPruning
        except searchlib.errors.MissingDependency as error:
            print(error)
    """)
    assert done.stdout.strip() == f"ExpertPruning needs {missing}: pip install 'searchlib[llm]'", done.stderr


def test_a_search_runs_without_any_optional_library():
    done = run(f"""
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in set({HEAVY!r}) - {{"scipy.stats", "joblib"}}:
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())  # None in sys.modules would not do: scipy looks there for torch
        from searchlib import search
        from searchlib.spaces import Binary
        print(search(sum, space=Binary(5), budget=32, direction="maximize").value)
    """)
    assert done.stdout.strip() == "5.0", done.stderr
