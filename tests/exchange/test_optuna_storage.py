import json
import math
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import pytest

from searchlib import CaseRacing, Cases, Objective, RandomSearch, Scores, Search, Split, Study, search
from searchlib.algorithms import Status
from searchlib.errors import InvalidSettings, StudyDamaged
from searchlib.spaces import Binary, Categorical, Integer, Product, Real

optuna = pytest.importorskip("optuna")
to_optuna = pytest.importorskip("searchlib.exchange").to_optuna

COMPLETE, PRUNED, FAIL = (getattr(optuna.trial.TrialState, name) for name in ("COMPLETE", "PRUNED", "FAIL"))
N = 15
SPACE = Product(rate=Real(1e-3, 1.0, log=True), steps=Integer(5, 9), solver=Categorical(("euler", "heun")))


def bowl(value):
    if value["steps"] == 6:
        raise RuntimeError("six steps do not work")
    return (math.log(value["rate"]) + 3) ** 2 + value["steps"] + (value["solver"] == "euler")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "bowl.db"
    search(bowl, RandomSearch(), space=SPACE, budget=N, study=path, max_failures=100)
    return path


def test_the_best_trial_is_our_best_candidate(path):
    exported = to_optuna(path)
    with Study.open(path) as study:
        result = study.result()
    assert exported.best_value == np.nanmin(result.history.values)
    assert exported.best_params == result.best
    assert exported.best_trial.user_attrs["candidate"] == result.best
    assert exported.user_attrs["winner"] == result.best
    assert exported.direction == optuna.study.StudyDirection.MINIMIZE


def test_every_candidate_is_a_trial_in_the_order_of_telling(path):
    trials = to_optuna(path).trials
    with Study.open(path) as study:
        history = study.history()
    assert len(trials) == len(history) == N
    assert [trial.user_attrs["id"] for trial in trials] == history.ids.tolist()
    assert [trial.params for trial in trials] == [SPACE.decode(row) for row in history.population]
    done = [trial.state == COMPLETE for trial in trials]
    assert done == (history.status == Status.DONE).tolist()
    assert [trial.value for trial in trials if trial.state == COMPLETE] == history.values[done, 0].tolist()


def test_a_failed_candidate_is_a_failed_trial_with_its_error(path):
    failed = [trial for trial in to_optuna(path).trials if trial.params["steps"] == 6]
    assert failed
    for trial in failed:
        assert (trial.state, trial.values) == (FAIL, None)
        assert "six steps do not work" in trial.user_attrs["error"]


def test_dates_are_those_of_the_export_and_say_so(path):
    exported = to_optuna(path)
    assert {trial.datetime_start for trial in exported.trials} == {exported.trials[0].datetime_complete}
    assert "export" in exported.user_attrs["dates"]


@pytest.mark.parametrize("file", ["trials of #1.db", "trials.log"])
def test_a_file_is_read_back_and_exporting_again_adds_what_is_new(path, tmp_path, file):
    first = to_optuna(path, tmp_path / file)
    assert len(to_optuna(path, tmp_path / file).trials) == N
    search(bowl, RandomSearch(), space=SPACE, budget=N + 3, study=path, max_failures=100)
    again = to_optuna(path, str(tmp_path / file))
    assert len(again.trials) == N + 3
    assert [trial.params for trial in again.trials[:N]] == [trial.params for trial in first.trials[:N]]
    assert [trial.number for trial in again.trials] == list(range(N + 3))


def test_another_search_under_the_same_name_is_refused(path, tmp_path):
    to_optuna(path, tmp_path / "trials.log", name="bowl")
    search(bowl, RandomSearch(), space=SPACE, budget=3, seed=1, study=tmp_path / "other.db")
    with pytest.raises(InvalidSettings, match=r"'bowl' in this storage is another search's study"):
        to_optuna(tmp_path / "other.db", tmp_path / "trials.log", name="bowl")
    assert len(to_optuna(tmp_path / "other.db", tmp_path / "trials.log", name="other").trials) == 3


def test_trials_that_optuna_has_added_do_not_stand_for_candidates_of_ours(path):
    storage = optuna.storages.InMemoryStorage()
    exported = to_optuna(path, storage)
    exported.optimize(lambda trial: trial.suggest_float("rate", 1e-3, 1.0, log=True), n_trials=2)
    search(bowl, RandomSearch(), space=SPACE, budget=N + 1, study=path, max_failures=100)
    ids = [trial.user_attrs.get("id") for trial in to_optuna(path, storage).trials]
    assert ids == [*range(N), None, None, N]


def test_a_study_of_somebody_else_is_not_added_to(path):
    storage = optuna.storages.InMemoryStorage()
    theirs = optuna.create_study(storage=storage, study_name="bowl.db")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(InvalidSettings, match="another search's study"):
        to_optuna(path, storage)
    assert len(theirs.trials) == 1


def test_a_study_is_never_its_own_storage(path):
    before = path.read_bytes()
    with pytest.raises(InvalidSettings, match="is the study itself"):
        to_optuna(path, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("file", ["notes.db", "notes.log", "number.log", "other.db", "folder"])
def test_a_file_that_is_something_else_stays_what_it_is(path, tmp_path, file):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.db").write_text("a text\n" * 100)
    (tmp_path / "notes.log").write_text("a text\n")
    (tmp_path / "number.log").write_text("7\n")
    search(bowl, RandomSearch(), space=SPACE, budget=2, seed=1, study=tmp_path / "other.db")
    before = None if file == "folder" else (tmp_path / file).read_bytes()
    with pytest.raises(InvalidSettings, match=r"storage='.*(notes|number|other|folder)"):
        to_optuna(path, tmp_path / file)
    assert before is None or (tmp_path / file).read_bytes() == before


def test_a_storage_that_cannot_be_opened_is_answered_without_its_password(path, tmp_path):
    with pytest.raises(InvalidSettings, match="cannot be opened") as caught:
        to_optuna(path, tmp_path / "nowhere" / "trials.db")
    assert "nowhere" in str(caught.value)
    with pytest.raises(InvalidSettings, match="cannot be opened") as caught:
        to_optuna(path, "nosuch://me:secret@host/db")
    assert "secret" not in str(caught.value)
    with pytest.raises(StudyDamaged, match="no study at"):
        to_optuna(tmp_path / "none.db")


def test_several_objectives_keep_their_directions_and_their_front(tmp_path):
    def two(bits):
        return float(sum(bits)), float(sum(place * bit for place, bit in enumerate(bits)))

    path = tmp_path / "two.db"
    result = search(two, space=Binary(4), direction=("minimize", "maximize"), budget=16, study=path)
    exported = to_optuna(path)
    assert [way.name for way in exported.directions] == ["MINIMIZE", "MAXIMIZE"]
    fronts = {tuple(trial.values) for trial in exported.best_trials}
    assert fronts == {tuple(values) for values in result.front.values.tolist()}
    assert len(fronts) > 2


class Guarded(Objective):
    """Bits to be on; candidates with the first bit are infeasible; several cases to race on."""

    space, direction = Binary(6), "maximize"

    def cases(self, split):
        return Cases(tuple(range(12))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        sums = candidates.array.sum(axis=1, dtype=float)[:, None]
        noise = np.array([[0.01 * (case % 3) for case in cases.ids]])
        return Scores(sums + noise, secondary=sums + 0 * noise, infeasible=candidates.array[:, 0])


def test_infeasible_candidates_are_pruned_and_carry_no_value(tmp_path):
    search(Guarded(), RandomSearch(), budget=20, study=tmp_path / "guarded.db")
    trials = to_optuna(tmp_path / "guarded.db").trials
    pruned = [trial for trial in trials if trial.params["x[0]"] == 1]
    assert pruned
    assert {(trial.state, trial.values is None, trial.user_attrs["status"]) for trial in pruned} == {
        (PRUNED, True, "INFEASIBLE")
    }
    assert all("secondary" in trial.user_attrs for trial in trials if trial.state == COMPLETE)


def test_what_a_race_stopped_is_never_the_best_trial(tmp_path):
    path = tmp_path / "raced.db"
    search(Guarded(), RandomSearch(), budget=40, study=path, racing=CaseRacing(), batch_size=40)
    with Study.open(path) as study:
        stopped = study.history().stopped
    assert stopped.any()
    trials = to_optuna(path).trials
    assert {trials[place].state for place in np.flatnonzero(stopped)} == {PRUNED}
    assert all(trials[place].values for place in np.flatnonzero(stopped))


def test_a_search_that_is_still_running_is_exported_as_far_as_it_is(tmp_path):
    run = Search(bowl, RandomSearch(), space=SPACE, budget=30, batch_size=5, study=tmp_path / "half.db")
    next(iter(run))
    exported = to_optuna(tmp_path / "half.db")
    run.close()
    assert len(exported.trials) == 5
    assert "winner" not in exported.user_attrs


class Silent(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("file", "url"), [("trials.db", "sqlite:///{}"), ("trials.log", "{}")])
def test_the_dashboard_opens_an_exported_study(path, tmp_path, file, url):
    dashboard = pytest.importorskip("optuna_dashboard")
    to_optuna(path, tmp_path / file, name="<b>bowl</b>")
    app = dashboard.wsgi(url.format(tmp_path / file))
    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answers = [_asked(server.server_port, "/api/studies")]
            number = answers[0]["study_summaries"][0]["study_id"]
            answers.append(_asked(server.server_port, f"/api/studies/{number}?after=0"))
        finally:
            server.shutdown()
            thread.join()
    assert answers[0]["study_summaries"][0]["study_name"] == "<b>bowl</b>"
    shown = answers[1]
    assert len(shown["trials"]) == N
    best = min(shown["trials"], key=lambda trial: trial.get("values", [math.inf])[0])
    assert [trial["number"] for trial in shown["best_trials"]] == [best["number"]]
    assert {item["name"] for item in shown["intersection_search_space"]} == {"rate", "steps", "solver"}


def _asked(port, what):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{what}", timeout=30) as answer:
        return json.load(answer)
