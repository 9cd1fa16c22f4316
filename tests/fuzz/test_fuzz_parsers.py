"""No bytes bring a parser to anything but an answer or one of our exceptions."""

import ast
import importlib
import os
import pathlib
import random
import subprocess
import sys
import warnings

import pytest

from searchlib.errors import SearchlibError

fuzz = importlib.import_module("tests.fuzz.parsers")
verdict = importlib.import_module("tests.properties.verdict")

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"
ROOT = pathlib.Path(__file__).parents[2]

#: The parsers; one that imports a library for seconds only with ``make soak``.
NAMES = [name for name in fuzz.PARSERS if MANY or name != "expert plan"]
#: Bytes that have broken parsers elsewhere.
CORPUS = [
    b"", b"\0", b"{}", b"[]", b"null", b"NaN", b'"\\ud800"', b"1" * 5000, b"[" * 200_000, b'{"a":' * 100_000,
    b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\x80" * 9, b"PK\x03\x04", b"SQLite format 3\0" + bytes(100),
    b'{"space": 1}', b'{"space": "Binary"}', b'{"space": "Binary", "n": {"space": "Binary", "n": 3}}',
    b'{"space": ["Binary"]}',
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0{}", b"cos\nsystem\n(S'touch canary'\ntR.",
    b'{"sigmas": 5, "steps": [5]}', b'{"sigmas": [1e999, 1], "steps": [{}]}', b'{"weight_map": {"a": 1}}',
    b'{"weight_map": {"a": "../../x"}}', b'{"weight": {"a": 1e999}}', b'{"ranges": [NaN]}',
    b'{"alphas": {}, "betas": 0}',
]  # fmt: skip


def broken(data, rng):
    """One small change of some bytes."""
    kind, place = rng.randrange(5), rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + data[rng.randrange(len(data) + 1) :]
    if kind == 3:
        return data[:place] + rng.choice([b"-1", b"null", b"1e999", b"{}", b"[]", b'""', b"\xff" * 8]) + data[place:]
    return data[:place] + data[place + rng.randrange(1, 9) :]


def fed(name, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of odd files
        with verdict.within(5):
            return fuzz.parse(name, data)


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Some parsers import much when they are first used, which takes longer than any may."""
    for name in NAMES:
        fuzz.parse(name, fuzz.SEEDS[name][0]())


def test_every_parser_has_seeds_and_takes_them():
    assert set(fuzz.SEEDS) == set(fuzz.PARSERS)
    for name in set(NAMES) - {"expert plan", "index of shards", "adapter"}:  # these miss what lies beside
        assert not isinstance(fed(name, fuzz.SEEDS[name][0]()), SearchlibError), name


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_have_broken_parsers_elsewhere_break_none(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in CORPUS:
        fed(name, data)
    assert not list(tmp_path.iterdir())  # no payload has run


@pytest.mark.parametrize("name", NAMES)
def test_seeds_with_small_changes_are_read_or_refused(name):
    rng, refused = random.Random(0), 0
    seeds = [make() for make in fuzz.SEEDS[name]]
    for _ in range(2000 if MANY else 12):
        data = rng.choice(seeds)
        for _ in range(rng.randrange(1, 4)):
            data = broken(data, rng)
        refused += isinstance(fed(name, data), SearchlibError)
    assert refused or name in ("exemplars", "rationale")


def fuzzed(name, folder):
    """What atheris finds in a fixed number of runs; an empty text where that is nothing."""
    (folder / "corpus").mkdir()
    command = [sys.executable, str(ROOT / "tests/fuzz/fuzz_parsers.py"), name, "corpus", "-runs=3000", "-seed=1",
               "-max_len=4096", "-timeout=10", "-max_total_time=60"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return "" if done.returncode == 0 and "Done" in done.stderr else done.stderr[-3000:]


#: Calls that turn what others wrote into values.
READERS = {
    "json.loads", "json.load", "np.load", "torch.load", "safe_open", "sqlite3.connect", "np.loadtxt", "csv.reader",
    "read_json", "parsed_json",
}  # fmt: skip


#: Functions that do.
MAKERS = ("from_json", "load", "read", "space_from_json")


def called(node):
    """The name of what is called, with that of its module."""
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return f"{node.func.value.id}.{node.func.attr}"
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_every_reader_of_files_and_json_in_the_library_is_among_the_parsers():
    """Whoever adds a reader adds a parser here."""
    known = {
        "json_data.py", "checkpoint_files.py", "score_matrix.py", "expert_plan.py", "quantized_model.py",
        "span_plan.py", "item_subset.py", "attention_plan.py", "bit_plan.py", "solver_schedule.py",
        "additive_profile.py", "space.py", "study.py", "sealed_file.py", "memo.py", "repair.py", "migration.py",
        "evaluation_cache.py", "solver_schedules.py",
    }  # fmt: skip
    elsewhere = {
        "front.py", "holdout.py", "case_overlap.py", "selection_bias.py",  # parts of a study's result
        "chat_endpoint.py",  # a service's answer: test_chat_endpoint.py
        "exemplar_search.py",  # of a study's memo
        "exploration_maps.py", "navigation_layouts.py",  # pictures and tables that numpy and pillow read
    }  # fmt: skip
    found = set()
    for folder in ("searchlib", "searchlib/algorithms", "searchlib/knapsack", "spaces", "objectives"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            reads = any(name.rpartition(".")[2] + "(" in text for name in (*READERS, *MAKERS))
            for node in ast.walk(ast.parse(text)) if reads else ():
                if isinstance(node, ast.FunctionDef) and node.name in MAKERS:
                    found.add(path.name)
                if isinstance(node, ast.Call) and called(node) in READERS:
                    found.add(path.name)
    assert found - known - elsewhere <= {"lazy.py", "solver_latent.py", "checkpoint_store.py", "uav_inner_loop.py",
                                         "uav_pursuit.py", "navigation.py"}  # fmt: skip
    assert len(found) > 15
