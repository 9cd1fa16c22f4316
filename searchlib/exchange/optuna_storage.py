"""A study as a study of Optuna's, so that optuna-dashboard and its plots open it."""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import instance, shown
from searchlib.errors import InvalidSettings, StudyError
from searchlib.exchange.opened_study import opened
from searchlib.exchange.optuna_parameters import OptunaParameters
from searchlib.exchange.tables import plain
from searchlib.history import History
from searchlib.objective import Direction
from searchlib.result import Result
from searchlib.study import Study

__all__ = ["to_optuna"]

#: Genes beyond which a trial does not carry its candidate as JSON.
_LONG = 10_000
#: The most that is read of a journal's first line.
_LINE = 1_000_000
#: What decides a history: where these differ, an Optuna study of the same name is another search's.
_SAME = ("space", "direction", "objective", "cases", "algorithm", "seed", "batch_size", "threads", "given_seeds")
_STATES = {Status.DONE: TrialState.COMPLETE, Status.INFEASIBLE: TrialState.PRUNED, Status.FAILED: TrialState.FAIL}


def to_optuna(
    study: Study | str | Path,
    storage: str | Path | optuna.storages.BaseStorage | None = None,
    *,
    name: str | None = None,
) -> optuna.Study:
    """Write everything that a study was told into an Optuna storage; returns the study there.

    One trial per candidate, in the order of telling. Parameters carry the space's bounds, scales and names
    (:class:`searchlib.exchange.OptunaParameters`). A failed candidate is a FAIL trial, an infeasible one a PRUNED trial
    without a value, and one that a race stopped a PRUNED trial with its estimate, so that ``best_trial`` is a candidate
    that has met all cases. User attributes: ``id``, ``batch``, ``status``, ``candidate`` (as JSON), and where there is
    one ``secondary``, ``standard_error``, ``error``; duplicates and answers of a cache say ``fresh`` and ``cached``.
    The study's own say how it was searched, and its winner and held-out table once there are.

    A study does not know at what time a candidate was evaluated, but Optuna demands dates: both dates of a trial
    are those of the export, so every duration is 0.

    Exporting again under the same name adds the candidates that are new.

    Arguments:
        study: a study or its path; its search may be running.
        storage: a URL (``"sqlite:///trials.db"``), the path of a file, or a storage; None keeps it in memory. A file is
            a SQLite database, or Optuna's journal where its name ends in ``.log``: twenty times faster to write.
        name: of the study there; by default the file name of the study.

    Raises:
        InvalidSettings: the name belongs to another search there, or the storage cannot be used.
        StudyError: the study cannot be read.

    Example:
        >>> import tempfile
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> path = Path(tempfile.mkdtemp()) / "sum.db"
        >>> result = search(sum, space=Binary(3), budget=8, direction="maximize", study=path)
        >>> to_optuna(path).best_trial.params
        {'x[0]': 1, 'x[1]': 1, 'x[2]': 1}
    """
    if name is not None:
        instance("name", name, str, "a text")
    with opened(study) as own:
        settings, result = own.settings, own.result()
        called = own.path.name if name is None else name
        try:
            there = _study(_storage(storage, own.path), called, settings)
            _describe(there, settings, result)
            # Somebody may have gone on with the study there: those trials carry no id of ours.
            known = sum("id" in trial.user_attrs for trial in there.get_trials(deepcopy=False))
            there.add_trials(_trials(result.history, known))
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidSettings(f"storage={_redacted(storage)} cannot be written: {reason:.300}") from error
    return there


def _storage(storage: Any, own: Path) -> Any:
    if not isinstance(storage, str | Path):
        return storage
    try:
        if isinstance(storage, str) and "://" in storage:
            return optuna.storages.RDBStorage(storage)
        return _file(Path(storage), own)
    except (ImportError, ValueError, OSError, RuntimeError, SQLAlchemyError) as error:
        if isinstance(error, InvalidSettings):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidSettings(f"storage={_redacted(storage)} cannot be opened: {reason:.300}") from error


def _file(path: Path, own: Path) -> optuna.storages.BaseStorage:
    """A file of Optuna's; one that is anything else already is refused, not written to."""
    if path.exists() and path.samefile(own):
        raise InvalidSettings(f"storage={str(path)!r} is the study itself; name another file")
    if path.is_file() and _is_study(path):
        raise InvalidSettings(f"storage={str(path)!r} is a study of this library; name another file")
    if path.suffix == ".log":
        if path.exists() and not _is_journal(path):
            raise InvalidSettings(f"storage={str(path)!r} is a file, but no journal of Optuna's; name another file")
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string(hide_password=False))


def _is_journal(path: Path) -> bool:
    """Whether a file is one, or empty: Optuna appends to a file before it reads it."""
    with path.open("rb") as stream:
        first = stream.readline(_LINE)
    try:
        return not first or "op_code" in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return False


def _is_study(path: Path) -> bool:
    try:
        with Study.open(path):
            return True
    except StudyError:
        return False


def _redacted(storage: Any) -> str:
    """A storage without the password that its URL may hold."""
    if isinstance(storage, str) and "@" in storage:
        kind, _, rest = storage.partition("://")
        return repr(f"{kind}://…@{rest.rpartition('@')[2]}")
    return shown(str(storage) if isinstance(storage, Path) else storage)


def _study(storage: Any, name: str, settings: Mapping[str, Any]) -> optuna.Study:
    """A new study, or the one that an earlier export of the same search has begun."""
    given: Any = settings["direction"]
    directions: list[Direction] = list(np.atleast_1d(given).tolist())
    there = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    own = {key: settings.get(key) for key in _SAME}
    known = there.user_attrs.get("searchlib")
    if known is None and not there.get_trials(deepcopy=False):
        there.set_user_attr("searchlib", own)
    elif known != json.loads(json.dumps(own)):
        raise InvalidSettings(
            f"{name!r} in this storage is another search's study; give another name=…, or another storage"
        )
    return there


def _describe(there: optuna.Study, settings: Mapping[str, Any], result: Result) -> None:
    told = {
        "algorithm": result.algorithm,
        "budget": settings["budget"],
        "seed": settings["seed"],
        "versions": settings["versions"],
        "outcome": result.outcome.value,
        "dates": "those of the export: the study does not know when a candidate was evaluated",
        "omitted": result.history.omitted or None,
        "winner": None if result.row is None or len(result.row) > _LONG else plain(result.best),
        "value": None if np.isnan(result.value) else result.value,
        "holdout": None if result.holdout is None else result.holdout.to_json(),
    }
    before = there.user_attrs
    for key, value in told.items():
        if value is not None and before.get(key) != value:
            there.set_user_attr(key, value)
    names = () if result.front is None else result.front.names
    if len(names) == len(there.directions) and there.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            there.set_metric_names(list(names))


def _trials(history: History, known: int) -> Iterator[FrozenTrial]:
    """Everything told but the first ``known`` candidates."""
    rows = list(history.rows())
    parameters = OptunaParameters(history.space, rows)
    now, errors = datetime.datetime.now(), history.errors
    for place in range(known, len(rows)):
        status, values = Status(history.status[place]), history.values[place].tolist()
        stopped = status == Status.DONE and bool(history.stopped[place])
        named = parameters.of(rows[place])
        yield FrozenTrial(
            number=-1,  # the storage gives it
            trial_id=-1,
            state=TrialState.PRUNED if stopped else _STATES[status],
            value=None,
            values=values if status == Status.DONE else None,
            datetime_start=now,
            datetime_complete=now,
            params={name: parameter.value for name, parameter in named.items()},
            distributions={name: parameter.distribution for name, parameter in named.items()},
            user_attrs=_attributes(history, place, rows[place], errors[place]),
            system_attrs={},
            intermediate_values={},
        )


def _attributes(history: History, place: int, row: Any, error: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "id": int(history.ids[place]),
        "batch": int(history.batch[place]),
        "status": Status(history.status[place]).name,
    }
    if row is not None and len(row) <= _LONG:
        attributes["candidate"] = plain(history.space.decode(row))
    if not np.isnan(history.secondary[place]):
        attributes["secondary"] = float(history.secondary[place])
    spread = history.standard_error[place]
    if not np.isnan(spread).any():
        attributes["standard_error"] = spread.tolist() if len(spread) > 1 else float(spread[0])
    if not history.fresh[place]:
        attributes["fresh"] = False
    if history.cached[place]:
        attributes["cached"] = True
    if error:
        attributes["error"] = error
    return attributes
