import sys
import types

import numpy as np
import pytest

from searchlib import RandomSearch, Search
from searchlib.errors import EvaluationFailed, InvalidSettings
from searchlib.exchange.record_log import passed_on, record_numbers, search_settings
from searchlib.spaces import Binary

SETTINGS = {"space": Binary(6), "direction": "maximize", "budget": 30, "batch_size": 10}


def total(bits):
    if bits[:3] == (1, 0, 1):
        raise RuntimeError("one, none, one")
    return float(sum(bits))


def told(records):
    """What a log is to hold: evaluations and numbers of every batch."""
    return [(record.evaluations, record_numbers(record)) for record in records]


@pytest.fixture
def run():
    return Search(total, RandomSearch(), **SETTINGS)


@pytest.fixture
def expected():
    return told(Search(total, RandomSearch(), **SETTINGS))


def without_time(numbers):
    return {name: number for name, number in numbers.items() if name != "batch/seconds"}


def test_the_numbers_are_those_of_the_batch(run):
    records = list(run)
    assert len(records) >= 3
    for record in records:
        numbers, done = record_numbers(record), record.values[np.isfinite(record.values)]
        assert numbers["best_value"] == record.best_value
        if len(done):
            assert (numbers["batch/min"], numbers["batch/max"]) == (done.min(), done.max())
            assert numbers["batch/mean"] == pytest.approx(done.mean())
        else:
            assert "batch/mean" not in numbers
        assert numbers["batch/failed"] == len(record.ids) - len(done)
    assert sum(record_numbers(record)["batch/failed"] for record in records) > 0


def test_several_objectives_have_numbers_of_their_own():
    run = Search(lambda bits: (sum(bits), -bits[0]), space=Binary(4), direction=("minimize", "maximize"), budget=8)
    numbers = record_numbers(next(iter(run)))
    assert {"batch/mean_0", "batch/max_1"} <= set(numbers)
    assert "batch/mean" not in numbers


def test_tensorboard_holds_every_number_of_every_batch(run, expected, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    from searchlib.exchange import track_tensorboard

    records = list(track_tensorboard(run, tmp_path / "runs" / "x"))
    assert [record.evaluations for record in records] == [step for step, _ in expected]
    (file,) = (tmp_path / "runs" / "x").iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.HasField("summary")]
    logged = [
        (event.step, {value.tag: value.tensor.float_val[0] for value in event.summary.value}) for event in events
    ]
    assert len(logged) == len(expected)
    for (step, numbers), (wanted_step, wanted) in zip(logged, expected, strict=True):
        assert step == wanted_step
        assert without_time(numbers) == pytest.approx(without_time(wanted))
    assert run.result().value == 6


def test_leaving_the_loop_early_closes_the_file(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    from searchlib.exchange import track_tensorboard

    for _ in track_tensorboard(run, tmp_path):
        break
    (file,) = tmp_path.iterdir()
    assert [event.step for event in EventFileLoader(str(file)).Load() if event.HasField("summary")] == [10]


@pytest.fixture
def mlflow(monkeypatch):
    """The functions of MLflow's client that are used, as its documentation describes them."""
    calls = []

    class MlflowClient:
        def __init__(self, tracking_uri=None):
            calls.append(("client", tracking_uri))

        def get_experiment_by_name(self, name):
            return types.SimpleNamespace(experiment_id="7") if name == "known" else None

        def create_experiment(self, name):
            calls.append(("experiment", name))
            return "8"

        def create_run(self, experiment_id, run_name=None):
            calls.append(("run", experiment_id, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

        def log_batch(self, run_id, metrics=(), params=()):
            calls.append(("batch", run_id, list(metrics), list(params)))

        def set_terminated(self, run_id, status=None):
            calls.append(("end", run_id, status))

    module = types.ModuleType("mlflow")
    entities = types.ModuleType("mlflow.entities")
    module.MlflowClient = MlflowClient
    entities.Metric = lambda key, value, timestamp, step: (key, value, step)
    entities.Param = lambda key, value: (key, value)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delitem(sys.modules, "searchlib.exchange.mlflow_tracker", raising=False)
    from searchlib.exchange.mlflow_tracker import track_mlflow

    yield types.SimpleNamespace(track=track_mlflow, calls=calls)
    sys.modules.pop("searchlib.exchange.mlflow_tracker", None)


def test_mlflow_is_told_every_number_of_every_batch(run, expected, mlflow):
    records = list(mlflow.track(run, "prune", run_name="first", tracking_uri="file:runs"))
    assert len(records) == len(expected)
    assert mlflow.calls[:3] == [("client", "file:runs"), ("experiment", "prune"), ("run", "8", "first")]
    params = dict(mlflow.calls[3][3])
    assert (params["algorithm"], params["seed"]) == (repr(RandomSearch()), "0")
    batches = [metrics for kind, *_, metrics, params in mlflow.calls[4:-1] if kind == "batch"]
    assert [{step for _, _, step in metrics} for metrics in batches] == [{step} for step, _ in expected]
    logged = [{name: value for name, value, _ in metrics} for metrics in batches]
    assert list(map(without_time, logged)) == [without_time(numbers) for _, numbers in expected]
    assert mlflow.calls[-1] == ("end", "r", "FINISHED")


def test_mlflow_uses_an_experiment_that_is_there_and_ends_a_loop_that_was_left(run, mlflow):
    for _ in mlflow.track(run, "known"):
        break
    assert ("run", "7", None) in mlflow.calls
    assert mlflow.calls[-1] == ("end", "r", "FINISHED")


def test_a_search_that_raises_is_a_failed_run(mlflow):
    run = Search(lambda bits: 1 / 0, space=Binary(8), budget=100, max_failures=3)
    with pytest.raises(EvaluationFailed):
        list(mlflow.track(run))
    assert mlflow.calls[-1] == ("end", "r", "FAILED")


@pytest.mark.filterwarnings("default")
def test_mlflow_itself_keeps_what_it_was_told(run, expected, tmp_path):
    real = pytest.importorskip("mlflow")
    from searchlib.exchange import track_mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    list(track_mlflow(run, "prune", tracking_uri=uri))
    client = real.MlflowClient(uri)
    (kept,) = client.search_runs([client.get_experiment_by_name("prune").experiment_id])
    history = client.get_metric_history(kept.info.run_id, "best_value")
    assert [(metric.step, metric.value) for metric in history] == [(s, n["best_value"]) for s, n in expected]
    assert kept.info.status == "FINISHED"
    assert kept.data.params["seed"] == "0"


@pytest.fixture
def wandb(monkeypatch):
    """The functions of W&B that are used, as its documentation describes them."""
    calls = []

    class Run:
        def define_metric(self, name, step_metric=None):
            calls.append(("axis", name, step_metric))

        def log(self, data):
            calls.append(("log", data))

        def finish(self, exit_code=None):
            calls.append(("finish", exit_code))

    def init(**given):
        calls.append(("init", given))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delitem(sys.modules, "searchlib.exchange.wandb_tracker", raising=False)
    from searchlib.exchange.wandb_tracker import track_wandb

    yield types.SimpleNamespace(track=track_wandb, calls=calls)
    sys.modules.pop("searchlib.exchange.wandb_tracker", None)


def test_wandb_is_told_every_number_of_every_batch(run, expected, wandb):
    list(wandb.track(run, project="prune", mode="offline", config={"mine": 1}))
    (_, given), axis, *logs, end = wandb.calls
    assert (given["project"], given["mode"], given["config"]["mine"]) == ("prune", "offline", 1)
    assert given["config"]["algorithm"] == repr(RandomSearch())
    assert axis == ("axis", "*", "evaluations")
    assert [(data.pop("evaluations"), without_time(data)) for _, data in logs] == [
        (step, without_time(numbers)) for step, numbers in expected
    ]
    assert end == ("finish", 0)


def test_wandb_itself_takes_what_it_is_told_offline(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from searchlib.exchange import track_wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    assert len(list(track_wandb(run, project="prune", mode="offline", dir=tmp_path))) >= 3
    assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize("replayed", [True, False])
def test_what_was_read_from_a_study_is_logged_or_not_as_you_like(tmp_path, replayed):
    settings = SETTINGS | {"study": tmp_path / "total.db"}
    before = told(Search(total, RandomSearch(), **settings))
    logged = _Noted()
    records = list(passed_on(Search(total, RandomSearch(), **settings | {"budget": 40}), lambda: logged, replayed))
    old, new = ([step for step, _ in logged.calls if (step <= 30) == early] for early in (True, False))
    assert old == ([step for step, _ in before] if replayed else [])
    assert new[-1] == records[-1].evaluations == 40


class _Noted:
    def __init__(self):
        self.calls = []

    def write(self, step, numbers):
        self.calls.append((step, numbers))

    def close(self, failed):
        assert not failed


def test_settings_are_those_of_a_search_and_of_nothing_else(run):
    assert search_settings(run)["direction"] == "'maximize'"
    assert search_settings(iter(run)) == {}
    wide = Search(total, RandomSearch(), space=Binary(6), budget=3)
    assert all(len(text) <= 500 for text in search_settings(wide).values())


def test_wrong_arguments_are_refused_before_the_loop_begins(run):
    pytest.importorskip("tensorboard")
    from searchlib.exchange import track_tensorboard

    with pytest.raises(InvalidSettings, match="folder must be the path of a file, but is 3"):
        track_tensorboard(run, 3)
