"""A benchmark's scores, models × items, from an array, a DataFrame, a file, or an evaluation harness's logs."""

from __future__ import annotations

import csv
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import file_path, listed, shown
from searchlib.errors import InvalidSettings, MissingDependency

__all__ = ["ScoreMatrix"]


@final
@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of models on the items of a benchmark, higher is better: negate an error or a perplexity first.

    Arguments:
        scores: shape ``(models, items)``; NaN where a cell is missing.
        models: distinct names.
        items: distinct ids.

    Raises:
        InvalidSettings: shapes or names do not fit, fewer than 2 models or items, an infinite score, or a model or
            an item without any score.

    Example:
        >>> ScoreMatrix.of([[0.5, 1.0, 0.0], [0.0, 1.0, float("nan")]], models=["a", "b"])
        ScoreMatrix(2 models x 3 items, 1 of 6 cells missing (16.7 %))
    """

    scores: NDArray[np.float64]
    models: tuple[str, ...]
    items: tuple[str | int, ...]

    def __post_init__(self) -> None:
        for name in ("models", "items"):
            object.__setattr__(self, name, listed(name, getattr(self, name)))
            if not all(isinstance(one, str | int | np.integer) for one in getattr(self, name)):
                raise InvalidSettings(f"{name} must be texts or whole numbers, but are {shown(getattr(self, name))}")
        if not isinstance(self.scores, np.ndarray) or self.scores.dtype.kind not in "biuf":
            raise InvalidSettings(f"scores must be an array of numbers, but are {shown(self.scores)}")
        shape = (len(self.models), len(self.items))
        if self.scores.shape != shape or min(shape) < 2:
            raise InvalidSettings(
                f"scores must have one row per model and one column per item, at least 2 of each, but have shape "
                f"{self.scores.shape} for {shape[0]} models and {shape[1]} items"
            )
        for what, names in (("model", self.models), ("item", self.items)):
            if len(set(names)) < len(names):
                twice, times = Counter(names).most_common(1)[0]
                raise InvalidSettings(f"every {what} must be there once, but {twice!r} is there {times} times")
        self._check_cells()

    def _check_cells(self) -> None:
        infinite = np.argwhere(np.isinf(self.scores))
        if len(infinite):
            model, item = infinite[0]
            raise InvalidSettings(
                f"scores must be finite (or NaN where missing), but {self.models[model]!r} has "
                f"{self.scores[model, item]} on {self.items[item]!r}"
            )
        known = ~np.isnan(self.scores)
        for what, names, any_known in (("model", self.models, known.any(1)), ("item", self.items, known.any(0))):
            if not any_known.all():
                empty = names[int(np.flatnonzero(~any_known)[0])]
                raise InvalidSettings(f"the {what} {empty!r} has no score at all; leave it out")

    @classmethod
    def of(cls, data: Any, models: Sequence[Any] | None = None, items: Sequence[Any] | None = None) -> Self:
        """A matrix from a matrix, a path, a DataFrame (index models, columns items), or a nested sequence.

        Arguments:
            data: the scores; NaN, None or a mask where a cell is missing.
            models, items: names where ``data`` has none; by default "model 0" … and 0 …

        Raises:
            InvalidSettings: not a table of numbers, or names for a table that has its own.
        """
        if isinstance(data, cls | str | Path) and not (models is None and items is None):
            raise InvalidSettings(f"models= and items= name the rows and columns of an array, not of {data!r:.120}")
        if isinstance(data, cls):
            return data
        if isinstance(data, str | Path):
            return cls.read(data)
        try:
            if all(hasattr(data, part) for part in ("to_numpy", "columns", "index")):
                models = [str(name) for name in data.index] if models is None else models
                items = list(data.columns) if items is None else items
                data = data.to_numpy(dtype=np.float64, na_value=np.nan)
            elif isinstance(data, np.ma.MaskedArray):
                data = np.ma.filled(data.astype(np.float64), np.nan)
            scores = np.array(data)
            if scores.dtype.kind not in "biufO":
                raise TypeError(f"they are of type {scores.dtype}")
            scores = scores.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidSettings(
                f"scores must be numbers, models x items, but are {shown(data)} ({error}); the names of models "
                f"belong into the index of a DataFrame, or into models="
            ) from error
        if scores.ndim != 2:
            raise InvalidSettings(f"scores must have shape (models, items), but have shape {scores.shape}")
        rows, columns = scores.shape
        named = tuple(f"model {row}" for row in range(rows)) if models is None else tuple(str(name) for name in models)
        return cls(scores, named, tuple(range(columns)) if items is None else tuple(map(_id, items)))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a table: ``.csv`` or ``.tsv`` (header: item ids; first column: models; empty cells are missing),
        ``.npz`` (arrays ``scores`` and, where it has them, ``models`` or ``names``, and ``items``), ``.parquet``
        (models: the index, or a first column of text). Item ids of text files are text.

        Raises:
            InvalidSettings: there is no such file, an unknown ending, a damaged file, or a cell that is no number.
            MissingDependency: a parquet file, without pandas and pyarrow.
        """
        path = file_path("scores", path)
        kind = path.suffix.lower()
        if not os.path.isfile(path):
            raise InvalidSettings(f"there is no score table at {str(path)!r}")
        if kind in (".csv", ".tsv"):
            return cls._read_text(path, "\t" if kind == ".tsv" else ",")
        if kind == ".npz":
            return cls._read_npz(path)
        if kind == ".parquet":
            return cls._read_parquet(path)
        raise InvalidSettings(f"a score table is a .csv, .tsv, .npz or .parquet file, but the path is {str(path)!r}")

    @classmethod
    def _read_npz(cls, path: Path) -> Self:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                if "scores" not in data:
                    raise InvalidSettings(f"{str(path)!r} must hold an array 'scores', but holds {list(data)}")
                models = next((data[name].tolist() for name in ("models", "names") if name in data), None)
                scores, items = data["scores"], data["items"].tolist() if "items" in data else None
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, NotImplementedError) as error:
            raise InvalidSettings(f"{str(path)!r} is not a file that numpy.savez wrote ({error})") from error
        except ValueError as error:  # InvalidSettings is one, too
            if isinstance(error, InvalidSettings):
                raise
            raise InvalidSettings(f"{str(path)!r} must hold arrays of numbers and text ({error})") from error
        return cls.of(scores, models, items)

    @classmethod
    def _read_parquet(cls, path: Path) -> Self:
        try:
            import pandas

            table = pandas.read_parquet(path)
        except ImportError as error:
            raise MissingDependency("parquet needs pandas and pyarrow: pip install 'searchlib[report]'") from error
        except (OSError, ValueError) as error:
            raise InvalidSettings(f"{str(path)!r} cannot be read as a parquet file ({error})") from error
        first = None if not len(table.columns) else table[table.columns[0]]
        if first is not None and not pandas.api.types.is_numeric_dtype(first):
            table = table.set_index(table.columns[0])
        return cls.of(table)

    @classmethod
    def _read_text(cls, path: Path, delimiter: str) -> Self:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=delimiter)
                rows = [(reader.line_num, row) for row in reader if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvalidSettings(f"{str(path)!r} is not a text file of separated values in UTF-8 ({error})") from error
        if len(rows) < 2:
            raise InvalidSettings(f"{str(path)!r} must have a header with item ids and one line per model")
        items, models = rows[0][1][1:], [row[0] for _, row in rows[1:]]
        if not items:
            raise InvalidSettings(
                f"the header of {str(path)!r} has one cell only; cells are separated by {delimiter!r}"
            )
        scores = np.full((len(models), len(items)), np.nan)
        for model, (line, row) in enumerate(rows[1:]):
            if len(row) != len(items) + 1:
                raise InvalidSettings(f"line {line} of {str(path)!r} has {len(row) - 1} scores for {len(items)} items")
            for column, cell in enumerate(row[1:]):
                scores[model, column] = _number(cell, f"{models[model]!r} on {items[column]!r} in {str(path)!r}")
        return cls.of(scores, models, items)

    @classmethod
    def from_lm_eval(
        cls,
        folders: Mapping[str, str | Path],
        metric: str | Sequence[str] | None = None,
        filter: str | Sequence[str] | None = None,
    ) -> Self:
        """Read the samples that lm-evaluation-harness writes with ``--log_samples``.

        Arguments:
            folders: for every model the folder with its ``samples_TASK_DATE.jsonl`` files; of several dates of a task
                the last one counts. Items are named ``TASK/DOC_ID``; those that a model lacks are missing.
            metric: which metric of a sample, for example ``"acc"`` or ``"exact_match"``; of several names the first one
                that the sample has, for tasks that are scored differently. By default the first one that it lists.
                Higher must be better.
            filter: which of several answer filters, where a task has more than one; of several names the first one
                that the task has.

        Raises:
            InvalidSettings: no samples, a damaged file, a document twice, no such metric, samples of several models in
                one folder, or a choice between filters is needed.
        """
        if not isinstance(folders, Mapping) or not folders:
            raise InvalidSettings(
                f"from_lm_eval needs a folder by model, {{'model-a': 'logs/a', …}}, but got {folders!r}"
            )
        metrics, filters = _names("metric", metric), _names("filter", filter)
        scores = {str(model): _samples(Path(folder), metrics, filters) for model, folder in folders.items()}
        items = list(dict.fromkeys(item for found in scores.values() for item in found))
        rows = [[found.get(item, np.nan) for item in items] for found in scores.values()]
        return cls.of(np.array(rows, np.float64).reshape(len(scores), len(items)), list(scores), items)

    @property
    def missing(self) -> float:
        """Share of missing cells."""
        return float(np.isnan(self.scores).mean())

    def filled(self) -> NDArray[np.float64]:
        """The scores with missing cells filled by model effect + item effect, least squares on the known cells.

        A model that has only the easy items keeps neither their easiness nor a penalty for the others. Shape
        ``(models, items)``.
        """
        return additively_filled(self.scores)

    def take(self, models: Sequence[int] | NDArray[np.integer[Any]]) -> Self:
        """The models at these positions, with all items."""
        rows = [int(row) for row in models]
        return type(self)(self.scores[rows], tuple(self.models[row] for row in rows), self.items)

    def __repr__(self) -> str:
        absent = int(np.isnan(self.scores).sum())
        share = f"{absent} of {self.scores.size} cells missing ({100 * self.missing:.1f} %)"
        gaps = share if absent else "complete"
        return f"ScoreMatrix({len(self.models)} models x {len(self.items)} items, {gaps})"


def additively_filled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``scores`` ``(models, items)`` with NaN replaced by model effect + item effect, least squares on the known cells.

    An item that no model has counts as one of mean difficulty.

    Example:
        >>> additively_filled(np.array([[1.0, 2.0, 4.0], [2.0, 3.0, float("nan")]])).round(6).tolist()
        [[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]]
    """
    known = ~np.isnan(scores)
    if known.all():
        return scores
    values, weight = np.where(known, scores, 0.0), known.astype(np.float64)
    seen = known.any(axis=0)
    count = np.maximum(weight.sum(axis=0, keepdims=True), 1.0)
    model = np.zeros((len(scores), 1))
    item = np.zeros((1, scores.shape[1]))
    for _ in range(1000):  # alternating least squares
        before = model + item.mean()
        item = (values - weight * model).sum(axis=0, keepdims=True) / count
        item[:, ~seen] = item[:, seen].mean()
        model = (values - weight * item).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
        if np.abs(model + item.mean() - before).max() <= 1e-12 * (1 + np.abs(before).max()):
            break
    return np.where(known, scores, model + item)


def _id(name: Any) -> str | int:
    return int(name) if isinstance(name, int | np.integer) and not isinstance(name, bool) else str(name)


def _names(argument: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(isinstance(name, str) for name in names):
        raise InvalidSettings(f"{argument}= is a name or several, but is {given!r}")
    return names


def _number(cell: str, where: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError as error:
        raise InvalidSettings(f"scores must be numbers or empty, but the score of {where} is {cell!r}") from error


def _samples(folder: Path, metrics: Sequence[str], filters: Sequence[str]) -> dict[str, float]:
    """Scores by item of one model."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda path: path.stem.rsplit("_", 1)[-1]):  # by date
        files.setdefault(path.stem.removeprefix("samples_").rsplit("_", 1)[0], []).append(path)
    if not files:
        raise InvalidSettings(f"there are no samples_TASK_DATE.jsonl files in {str(folder)!r}; run with --log_samples")
    scores: dict[str, float] = {}
    for task, paths in files.items():
        several = sorted({path.parent.name for path in paths})  # the harness names a folder after the model
        if len(several) > 1:
            raise InvalidSettings(f"{str(folder)!r} has samples of {task!r} in {several}; name one folder per model")
        samples = list(_lines(paths[-1]))
        chosen = _filter(paths[-1], {str(sample.get("filter", "none")) for _, sample in samples}, filters)
        for where, sample in samples:
            if str(sample.get("filter", "none")) == chosen:
                item = f"{task}/{sample['doc_id']}"
                if item in scores:
                    raise InvalidSettings(f"{where} is a second sample of the document {item!r}; every one counts once")
                scores[item] = _metric(sample, metrics, where)
    return scores


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every sample of a file and where it stands."""
    with path.open(encoding="utf-8", errors="replace") as file:  # not splitlines: a sample may hold U+2028
        for number, line in enumerate(file, start=1):
            where = f"line {number} of {str(path)!r}"
            try:
                sample = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError) as error:
                raise InvalidSettings(f"{where} is no JSON ({error}); the file may have been cut off") from error
            if sample is not None and (not isinstance(sample, dict) or "doc_id" not in sample):
                raise InvalidSettings(f"{where} is not a sample of lm-evaluation-harness: it has no 'doc_id'")
            if sample is not None:
                yield where, sample


def _filter(path: Path, there: set[str], wanted: Sequence[str]) -> str:
    found = next((name for name in wanted if name in there), None)
    if found is not None or len(there) <= 1:
        return found or next(iter(there), "none")
    raise InvalidSettings(f"{str(path)!r} has the answer filters {sorted(there)}; choose one by filter=…")


def _metric(sample: Mapping[str, Any], metrics: Sequence[str], where: str) -> float:
    listed = [str(name) for name in sample.get("metrics", ())]
    name = next((name for name in metrics or listed if name in sample), None)
    value = sample.get(name) if name is not None else None
    try:  # the harness writes a bool of numpy as the text "True", and its single precision as text, too
        return float({"True": 1.0, "False": 0.0}.get(value, value) if isinstance(value, str) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidSettings(
            f"{where} has no number under metric={list(metrics) or name!r} but {value!r}; it lists the metrics {listed}"
        ) from None
