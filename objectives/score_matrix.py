"""A benchmark's scores, models × items, from an array, a DataFrame, a file, or an evaluation harness's logs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingDependency

__all__ = ["ScoreMatrix"]


@final
@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of models on the items of a benchmark, higher is better.

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
        shape = (len(self.models), len(self.items))
        if self.scores.shape != shape or min(shape) < 2:
            raise InvalidSettings(
                f"scores must have one row per model and one column per item, at least 2 of each, but have shape "
                f"{self.scores.shape} for {shape[0]} models and {shape[1]} items"
            )
        for what, names in (("model", self.models), ("item", self.items)):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise InvalidSettings(
                    f"every {what} must be there once, but {twice!r} is there {names.count(twice)} times"
                )
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
            data: the scores.
            models, items: names where ``data`` has none; by default "model 0" … and 0 …
        """
        if isinstance(data, cls):
            return data
        if isinstance(data, str | Path):
            return cls.read(data)
        if hasattr(data, "to_numpy") and hasattr(data, "columns"):
            models = [str(name) for name in data.index] if models is None else models
            items = list(data.columns) if items is None else items
            data = data.to_numpy()
        try:
            scores = np.array(data, np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidSettings(f"scores must be numbers, models x items, but are {data!r:.120} ({error})") from error
        if scores.ndim != 2:
            raise InvalidSettings(f"scores must have shape (models, items), but have shape {scores.shape}")
        rows, columns = scores.shape
        named = tuple(f"model {row}" for row in range(rows)) if models is None else tuple(str(name) for name in models)
        return cls(scores, named, tuple(range(columns)) if items is None else tuple(map(_id, items)))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a table: ``.csv`` or ``.tsv`` (header: item ids; first column: models; empty cells are missing),
        ``.npz`` (arrays ``scores`` and, where it has them, ``models`` or ``names``, and ``items``), ``.parquet``.

        Raises:
            InvalidSettings: there is no such file, an unknown ending, or a cell that is no number.
        """
        path = Path(path)
        if not path.is_file():
            raise InvalidSettings(f"there is no score table at {str(path)!r}")
        if path.suffix in (".csv", ".tsv"):
            return cls._read_text(path, "\t" if path.suffix == ".tsv" else ",")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as data:
                if "scores" not in data:
                    raise InvalidSettings(f"{str(path)!r} must hold an array 'scores', but holds {list(data)}")
                models = next((data[name] for name in ("models", "names") if name in data), None)
                return cls.of(data["scores"], models, data["items"].tolist() if "items" in data else None)
        if path.suffix == ".parquet":
            try:
                import pandas
            except ImportError as error:
                raise MissingDependency("a parquet file needs pandas: pip install 'searchlib[report]'") from error
            return cls.of(pandas.read_parquet(path))
        raise InvalidSettings(f"a score table is a .csv, .tsv, .npz or .parquet file, but the path is {str(path)!r}")

    @classmethod
    def _read_text(cls, path: Path, delimiter: str) -> Self:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
        if len(rows) < 2:
            raise InvalidSettings(f"{str(path)!r} must have a header with item ids and one line per model")
        items, models = rows[0][1:], [row[0] for row in rows[1:]]
        scores = np.full((len(models), len(items)), np.nan)
        for line, row in enumerate(rows[1:]):
            if len(row) != len(items) + 1:
                raise InvalidSettings(
                    f"line {line + 2} of {str(path)!r} has {len(row) - 1} scores for {len(items)} items"
                )
            for column, cell in enumerate(row[1:]):
                scores[line, column] = _number(cell, f"{models[line]!r} on {items[column]!r} in {str(path)!r}")
        return cls.of(scores, models, items)

    @classmethod
    def from_lm_eval(
        cls, folders: Mapping[str, str | Path], metric: str | None = None, filter: str | None = None
    ) -> Self:
        """Read the samples that lm-evaluation-harness writes with ``--log_samples``.

        Arguments:
            folders: for every model the folder with its ``samples_TASK_DATE.jsonl`` files; of several dates of a task
                the last one counts. Items are named ``TASK/DOC_ID``.
            metric: which metric of a sample, for example ``"acc"`` or ``"exact_match"``; by default the first one that
                the sample itself lists.
            filter: which of several answer filters, where a task has more than one.

        Raises:
            InvalidSettings: no samples, no such metric, or a choice between filters is needed.
        """
        scores = {model: _samples(Path(folder), metric, filter) for model, folder in folders.items()}
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
        known = ~np.isnan(self.scores)
        if known.all():
            return self.scores
        values, weight = np.where(known, self.scores, 0.0), known.astype(np.float64)
        model = np.zeros((len(self.models), 1))
        item = np.zeros((1, len(self.items)))
        for _ in range(1000):  # alternating least squares
            before = model + item.mean()
            item = (values - weight * model).sum(axis=0, keepdims=True) / weight.sum(axis=0, keepdims=True)
            model = (values - weight * item).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
            if np.abs(model + item.mean() - before).max() <= 1e-12 * (1 + np.abs(before).max()):
                break
        return np.where(known, self.scores, model + item)

    def take(self, models: Sequence[int] | NDArray[np.integer[Any]]) -> Self:
        """The models at these positions, with all items."""
        rows = [int(row) for row in models]
        return type(self)(self.scores[rows], tuple(self.models[row] for row in rows), self.items)

    def __repr__(self) -> str:
        absent = int(np.isnan(self.scores).sum())
        share = f"{absent} of {self.scores.size} cells missing ({100 * self.missing:.1f} %)"
        gaps = share if absent else "complete"
        return f"ScoreMatrix({len(self.models)} models x {len(self.items)} items, {gaps})"


def _id(name: Any) -> str | int:
    return int(name) if isinstance(name, int | np.integer) else str(name)


def _number(cell: str, where: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError as error:
        raise InvalidSettings(f"scores must be numbers or empty, but the score of {where} is {cell!r}") from error


def _samples(folder: Path, metric: str | None, chosen: str | None) -> dict[str, float]:
    """Scores by item of one model."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("samples_*.jsonl")):
        files[path.stem.removeprefix("samples_").rsplit("_", 1)[0]] = path  # the last date wins
    if not files:
        raise InvalidSettings(f"there are no samples_TASK_DATE.jsonl files in {str(folder)!r}; run with --log_samples")
    scores: dict[str, float] = {}
    for task, path in files.items():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        filters = sorted({str(sample.get("filter", "none")) for sample in lines})
        if chosen is None and len(filters) > 1:
            raise InvalidSettings(f"{str(path)!r} has the answer filters {filters}; choose one by filter=…")
        for sample in lines:
            if chosen is None or str(sample.get("filter", "none")) == chosen:
                scores[f"{task}/{sample['doc_id']}"] = _metric(sample, metric, path)
    return scores


def _metric(sample: Mapping[str, Any], metric: str | None, path: Path) -> float:
    listed = [str(name) for name in sample.get("metrics", ())]
    name = metric or (listed[0] if listed else None)
    value = sample.get(name) if name else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSettings(
            f"a sample of {str(path)!r} has no number under metric={name!r}; it lists the metrics {listed}"
        )
    return float(value)
