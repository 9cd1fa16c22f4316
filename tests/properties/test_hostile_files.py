"""Somebody else's file is data: nothing in it runs, and nothing in it leads out of its folder."""

import importlib
import io
import json
import os
import pathlib
import pickle
import shutil
import sqlite3
import struct
import zipfile

import numpy as np
import pytest

from searchlib import AdditiveProfile, EvaluationCache, Study, search
from searchlib.errors import CacheError, InvalidCandidate, InvalidSettings, SearchlibError, StudyError
from searchlib.space import space_from_json
from searchlib.spaces import AttentionPlan, Binary, BitPlan, SolverSchedule

hostile = importlib.import_module("tests.properties.hostile_studies")
verdict = importlib.import_module("tests.properties.verdict")

CODE = "__import__('pathlib').Path('canary').touch()"


class Payload:
    """Whoever unpickles it makes the canary."""

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("canary"),))


@pytest.fixture(autouse=True)
def no_canary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not pathlib.Path("canary").exists(), "something in the file has run"


def test_the_payload_would_run_where_anybody_unpickled_it(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pickle.loads(pickle.dumps(Payload()))
    assert pathlib.Path("canary").exists()
    monkeypatch.chdir(tmp_path)


def pickled(path):
    path.write_bytes(pickle.dumps({"a": Payload()}))


def pickled_by_torch(path):
    import torch

    torch.save({"a": Payload()}, path)


def pickled_by_torch_of_old(path):
    import torch

    torch.save({"a": Payload()}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("make", [pickled, pickled_by_torch, pickled_by_torch_of_old])
@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.safetensors", "model.ckpt"])
def test_a_checkpoint_that_holds_code_is_refused(make, name, tmp_path):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    make(tmp_path / name)
    with pytest.raises(InvalidSettings, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_folder_with_a_checkpoint_that_holds_code_is_refused(name, tmp_path):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    (tmp_path / "model").mkdir()
    pickled_by_torch(tmp_path / "model" / name)
    with pytest.raises(InvalidSettings, match=name):
        read_checkpoint(tmp_path / "model")


def header(text, size=None):
    data = text.encode()
    return struct.pack("<Q", len(data) if size is None else size) + data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, b"\0" * 8, header("{}", 2**63), header("{}", 3), header("[]"), header("not JSON"),
        header('{"a": 5}'), header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
        header('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}') + bytes(4),
        header('{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 4]}}') + bytes(4),
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}') + bytes(4),
        header('{"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4),
        header('{"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4),
        header("[" * 100_000),
    ],
)  # fmt: skip
def test_a_broken_header_of_safetensors_is_refused(data, tmp_path):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(InvalidSettings, match=r"a\.safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", 5, None, ["x"]])
def test_an_index_of_shards_leads_to_no_file_but_those_beside_it(file, tmp_path):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    (tmp_path / "secret.safetensors").write_bytes(header("{}"))
    (tmp_path / "model" / "a").mkdir(parents=True)
    index = {"weight_map": {"w": file}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidSettings, match="beside it"):
        read_checkpoint(tmp_path / "model")


def with_objects(path):
    np.savez(path, loss=np.array([Payload()], object), scores=np.array([Payload()], object))


@pytest.mark.parametrize("read", [AdditiveProfile.load, lambda path: score_matrix().read(path)])
def test_arrays_that_hold_objects_are_refused(read, tmp_path):
    with_objects(tmp_path / "a.npz")
    with pytest.raises(InvalidSettings, match=r"a\.npz"):
        read(tmp_path / "a.npz")


def score_matrix():
    from searchlib.objectives.score_matrix import ScoreMatrix

    return ScoreMatrix


@pytest.mark.parametrize("read", [AdditiveProfile.load, lambda path: score_matrix().read(path)])
def test_an_archive_of_something_else_is_refused(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../../canary", b"")
        archive.writestr("loss.npy", pickle.dumps(Payload()))
        archive.writestr("scores.npy", pickle.dumps(Payload()))
    with pytest.raises(InvalidSettings):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["Payload", "os.system", "builtins.eval", "object", "Space", CODE])
def test_a_space_in_json_is_one_of_those_that_are_imported(name):
    with pytest.raises(InvalidSettings, match="no imported space"):
        space_from_json({"space": name, "n": CODE})


@pytest.mark.parametrize(
    "data",
    [
        None, 5, [], "Binary", {}, {"space": None}, {"space": ["Binary"]}, {"space": "Binary"},
        {"space": "Binary", "n": CODE}, {"space": "Binary", "n": 3, "m": 4},
        {"space": "Binary", "n": {"space": "Binary", "n": 1}},
        {"space": "Grouped", "part": {"space": "Grouped", "part": 1, "groups": 2}, "groups": 2},
        {"space": "Product", "parts": {"space": "Binary", "n": -1}}, {"space": "Subset", "n": 2, "k": 1, 3: 4},
    ],
)  # fmt: skip
def test_json_that_is_no_space_is_refused(data):
    with pytest.raises(SearchlibError):
        space_from_json(data)


@pytest.mark.parametrize(
    "text", [CODE, f'"{CODE}"', f'{{"sigmas": ["{CODE}"], "steps": []}}', "[" * 99_999, "1" * 5000, '{"plan": []}']
)
def test_code_in_the_json_of_plans_and_schedules_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    for read in (SolverSchedule.from_json, BitPlan.from_json):
        with pytest.raises(InvalidCandidate):
            read(text)
    for load in loaders():
        with pytest.raises((InvalidCandidate, InvalidSettings)):
            load(tmp_path / "a.json")


def loaders():
    from searchlib.objectives.item_subset import ItemSubset
    from searchlib.objectives.quantized_model import QuantizationPlan

    return AttentionPlan.load, ItemSubset.load, QuantizationPlan.load


def test_a_file_that_is_not_there_is_named():
    for load in (*loaders(), AdditiveProfile.load, lambda path: score_matrix().read(path)):
        with pytest.raises((InvalidCandidate, InvalidSettings), match=r"nowhere\.npz"):
            load("nowhere.npz")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return hostile.made(tmp_path_factory.mktemp("good") / "good.db")


def tampered(good, path, *change):
    shutil.copy(good, path)
    return hostile.tampered(path, *change)


LABELS = ("code", "code as JSON", "a pickle", "a path upwards", "a space of code in JSON", "the type of objects")
CASES = [
    (table, column, label) for table, columns in hostile.CELLS.items() for column in columns for label in LABELS
]  # fmt: skip
#: What every run of the tests tries; ``make soak`` tries all.
FEW = CASES[:: 1 if os.environ.get("SEARCHLIB_SLOW") == "1" else 29]


def test_reading_or_resuming_a_study_with_code_in_any_cell_runs_nothing(good, tmp_path):
    tried = 0
    for number, (table, column, label) in enumerate(FEW):
        for use in (hostile.read_all, hostile.resume):
            path = tmp_path / f"{number} {use.__name__}.db"
            if tampered(good, path, table, column, hostile.JUNK[label]):
                with verdict.within(20):
                    use_anyhow(use, path)
                assert not pathlib.Path("canary").exists(), (table, column, label, use.__name__)
                tried += 1
    assert tried > 5


def use_anyhow(use, path):
    """Read or resume it; only what runs counts here, not what is said."""
    try:
        use(path)
    except Exception:
        return


def test_a_study_that_was_tampered_with_is_refused_in_a_sentence(good, tmp_path):
    said = {}
    for number, (table, column, label) in enumerate(FEW):
        path = tmp_path / f"{number}.db"
        if tampered(good, path, table, column, hostile.JUNK[label]):
            try:
                hostile.read_all(path)
            except SearchlibError:
                continue
            except Exception as error:
                said[table, column, label] = repr(error)
    assert not said


def test_the_untampered_study_is_read_and_resumed(good, tmp_path):
    shutil.copy(good, tmp_path / "copy.db")
    assert hostile.resume(tmp_path / "copy.db").value == hostile.read_all(good).value == 5


SQL = {
    "a view in the place of a table": "DROP TABLE told; CREATE VIEW told AS SELECT * FROM batch;",
    "a view of itself": "DROP TABLE told; CREATE VIEW told AS SELECT * FROM told;",
    "an endless view": "DROP TABLE setting; CREATE VIEW setting AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT "
    "i + 1 FROM n) SELECT 'name' || i AS name, '{}' AS value, 0 AS seal FROM n LIMIT 100000;",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON setting BEGIN DELETE FROM batch; END;",
    "a trigger that attaches": "CREATE TRIGGER t BEFORE DELETE ON array BEGIN SELECT load_extension('evil'); END;",
    "a column too many": "ALTER TABLE batch ADD COLUMN more TEXT;",
    "a column too few": "ALTER TABLE setting DROP COLUMN seal;",
    "an index on a function": "CREATE INDEX i ON setting (abs(length(value)));",
    "no tables": "DROP TABLE told; DROP TABLE chunk;",
    "a generated column": "ALTER TABLE setting ADD COLUMN g TEXT GENERATED ALWAYS AS (upper(name)) VIRTUAL;",
    "another version": "PRAGMA user_version = 77;",
    "a negative version": "PRAGMA user_version = -1;",
}


@pytest.mark.parametrize("name", SQL)
def test_a_study_with_another_schema_runs_nothing_and_does_not_hang(name, good, tmp_path):
    path = tmp_path / "s.db"
    shutil.copy(good, path)
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA journal_mode=DELETE; {SQL[name]}")
    connection.close()
    for use in (hostile.read_all, hostile.resume):
        with verdict.within(20):
            use_anyhow(use, path)


NO_DATABASES = [b"SQLite format 3\0" + bytes(5000), pickle.dumps(Payload()), b"{}", b"\0" * 100_000]


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", *NO_DATABASES])
def test_a_file_that_is_no_study_is_refused(data, tmp_path):
    (tmp_path / "s.db").write_bytes(data)
    with pytest.raises(StudyError):
        Study.open(tmp_path / "s.db")
    if data:
        with pytest.raises(StudyError):
            search(sum, space=Binary(3), budget=3, study=tmp_path / "s.db")


@pytest.mark.parametrize("data", NO_DATABASES)
def test_a_file_that_is_no_cache_is_refused(data, tmp_path):
    (tmp_path / "c.db").write_bytes(data)
    with pytest.raises(CacheError):
        EvaluationCache(tmp_path / "c.db")


def test_a_study_of_a_folder_or_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    for path in (tmp_path, tmp_path / "loop.db", tmp_path / "no" / "folder.db"):
        with pytest.raises(StudyError):
            Study.open(path)
        with pytest.raises(StudyError):
            search(sum, space=Binary(3), budget=3, study=path)


def test_a_study_that_is_a_link_is_written_where_it_leads_and_nothing_else_is(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "s.db").symlink_to(tmp_path / "target" / "real.db")
    search(sum, space=Binary(3), budget=3, study=tmp_path / "s.db")
    assert {path.name for path in tmp_path.rglob("*")} == {"s.db", "target", "real.db"}


def test_a_subset_whose_path_leads_upwards_is_written_where_it_says_and_read_back(tmp_path):
    text = io.StringIO()
    json.dump({"items": ["../../etc/passwd"], "models": ["a", "b", "c"], "subset_scores": [0, 1, 2],
               "full_scores": [0, 1, 2], "noise": 0}, text)  # fmt: skip
    (tmp_path / "s.json").write_text(text.getvalue())
    subset = loaders()[1](tmp_path / "s.json")
    assert subset.items == ("../../etc/passwd",)
