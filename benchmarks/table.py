"""What a benchmark brings home: a table of methods, claims with their statistics, and one JSON file of both."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, final

import numpy as np
from numpy.typing import ArrayLike

from searchlib.errors import InvalidSettings

__all__ = ["PRESETS", "Claim", "Table", "environment", "paired_bootstrap", "paired_lower_bound", "write_whole"]

#: How much is run: seconds; minutes; hours and every claim; the paper's own models.
PRESETS = ("smoke", "small", "paper", "full")

_PACKAGES = (
    "numpy", "scipy", "torch", "transformers", "diffusers", "nevergrad", "cma", "cmaes", "pymoo", "optuna", "smac",
    "ConfigSpace", "evotorch", "ioh", "coco-experiment", "jax", "crazyflow", "jaxmarl", "numba", "libsumo", "sumo-rl",
    "searchlib",
)  # fmt: skip


@final
@dataclass(frozen=True)
class Claim:
    """One sentence with the statistics that it stands on.

    Arguments:
        claim: the sentence.
        value: what was measured.
        bound: what it is held against; None where the interval alone decides.
        interval: (low, high) around the value; None for an open or unknown end, or for no interval.
        n: how many independent things the statistics count.
        test: which test, in words.
        preset: the preset whose claim this is; another run only shows it.
        holds: the verdict.
    """

    claim: str
    value: float | None
    bound: float | None
    interval: tuple[float | None, float | None] | None
    n: int
    test: str
    preset: str
    holds: bool


@final
class Table:
    """Values per task, method and metric, one for each search seed, and the claims drawn from them.

    Arguments:
        benchmark: its name, also that of the JSON file.
        preset: one of :data:`PRESETS`.
        seeds: how many search seeds there are.

    Example:
        >>> table = Table("demonstration", "smoke", 2)
        >>> for accuracy in (0.75, 0.25):
        ...     table.add("sort", "random", accuracy=accuracy)
        >>> table.rows()
        [{'task': 'sort', 'method': 'random', 'metrics': {'accuracy': {'mean': 0.5, 'std': 0.3535533905932738, \
'values': [0.75, 0.25]}}}]
    """

    def __init__(self, benchmark: str, preset: str, seeds: int) -> None:
        if preset not in PRESETS:
            raise InvalidSettings(f"preset must be one of {', '.join(PRESETS)}, but got {preset!r}")
        self.benchmark = benchmark
        self.preset = preset
        self.seeds = seeds
        #: How long the run took; what has passed since the table was made where nobody sets it.
        self.seconds: float | None = None
        self.claims: list[Claim] = []
        self._values: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        self._row: tuple[str, str] | None = None
        self._start = time.perf_counter()

    def add(self, task: str, method: str, **metrics: float | None) -> None:
        """Append one value per metric to a row: called once per seed, or once for a method without chance.

        A value that is missing (None) or not finite is kept as missing; mean and spread leave it out. Progress is said
        where a row begins, goes on after another one, or has a value for every seed; a terminal shows every value.
        """
        row = self._values.setdefault((task, method), {})
        for name, value in metrics.items():
            row.setdefault(name, []).append(_number(value))
        begun, self._row = self._row != (task, method), (task, method)
        complete = max(map(len, row.values()), default=0) == self.seeds
        if begun or complete or sys.stderr.isatty():
            self.progress(f"{task}: {method}")

    def claim(
        self,
        sentence: str,
        *,
        value: float | None,
        holds: bool,
        n: int,
        test: str,
        bound: float | None = None,
        interval: tuple[float | None, float | None] | None = None,
        preset: str | None = None,
    ) -> Claim:
        """Record a claim; ``preset`` names another preset where this run is too small to be held to it."""
        ends = None if interval is None else (_number(interval[0]), _number(interval[1]))
        claim = Claim(
            sentence, _number(value), _number(bound), ends, int(n), test, preset or self.preset, bool(holds)
        )
        self.claims.append(claim)
        return claim

    @property
    def broken_claims(self) -> list[Claim]:
        """The claims of this run's preset that do not hold."""
        return [claim for claim in self.claims if claim.preset == self.preset and not claim.holds]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the JSON file; the standard deviation is that of a sample, null for fewer than two values."""
        return [
            {"task": task, "method": method, "metrics": {name: _summary(values) for name, values in metrics.items()}}
            for (task, method), metrics in self._values.items()
        ]

    def progress(self, text: str) -> None:
        """Say on stderr what has just been done; a terminal shows the last line only."""
        line = f"{self.benchmark} ({self.preset}) {time.perf_counter() - self._start:7.1f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def print(self, file: TextIO | None = None) -> None:
        """Print rows and claims for people, to stdout unless told otherwise."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        plural = "" if self.seeds == 1 else "s"
        print(f"{self.benchmark}, preset {self.preset}, {self.seeds} seed{plural}\n", file=file)
        print("\n".join(_aligned(self._cells())), file=file)
        for claim in self.claims:
            print(f"\n{_spoken(claim, self.preset)}", file=file)

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``NAME.json`` into the directory, made if need be; a reader never sees half a file."""
        text = json.dumps(self._document(), indent=1, allow_nan=False) + "\n"
        return write_whole(Path(directory) / f"{self.benchmark}.json", text)

    def _document(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "preset": self.preset,
            "seeds": self.seeds,
            "environment": environment(),
            "seconds": time.perf_counter() - self._start if self.seconds is None else self.seconds,
            "rows": self.rows(),
            "claims": [_claim_fields(claim) for claim in self.claims],
        }

    def _cells(self) -> list[list[str]]:
        names = list(dict.fromkeys(name for metrics in self._values.values() for name in metrics))
        lines = [["task", "method", *names]]
        for (task, method), metrics in self._values.items():
            lines.append([task, method, *(_shown(_summary(metrics.get(name, []))) for name in names)])
        return lines


def write_whole(path: Path, text: str) -> Path:
    """Write a file, its folder made if need be; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as part:
        part.write(text)
    Path(part.name).chmod(0o644)
    return Path(part.name).replace(path)


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code; nothing that tells whose computer it was."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def paired_lower_bound(differences: ArrayLike, level: float = 0.95) -> float:
    """The one-sided lower confidence bound of a mean difference, by the paired t-test.

    "A is at least as good as B" holds at this level where the bound lies above minus the margin that is tolerated.

    Arguments:
        differences: A − B, one per pair (per search seed, per case), shape ``(n,)`` with n ≥ 2.
        level: one-sided confidence.

    Example:
        >>> round(paired_lower_bound([1.0, 2.0, 3.0, 4.0]), 4)
        0.9809
    """
    values = _finite(differences)
    if np.ptp(values) == 0.0:
        return float(values[0])
    from scipy import stats

    result = stats.ttest_1samp(values, 0.0, alternative="greater")
    return float(result.confidence_interval(level).low)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """A two-sided interval of ``statistic(first) − statistic(second)``, by resampling pairs (percentile method).

    For many pairs (a hundred held-out cases), and for statistics that are not a mean. For a handful of search seeds
    it is too narrow: take :func:`paired_lower_bound`.

    Arguments:
        first, second: values of the two methods on the same cases, both of shape ``(n,)`` with n ≥ 2.
        statistic: of one sample, with an ``axis`` argument.
        level: two-sided confidence.
        resamples: how many.
        seed: of the resampling.
    """
    a, b = _finite(first), _finite(second)
    if a.shape != b.shape:
        raise InvalidSettings(f"pairs are needed, but there are {a.size} values and {b.size} values")
    from scipy import stats

    result = stats.bootstrap(
        (a, b),
        lambda x, y, axis: statistic(x, axis=axis) - statistic(y, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // a.size),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _finite(values: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(values, np.float64).reshape(-1)
    if array.size < 2 or not np.isfinite(array).all():
        raise InvalidSettings(f"at least two finite values are needed for an interval, but got {array.tolist()!r:.120}")
    return array


def _number(value: Any) -> float | None:
    """A finite float, or None: JSON has no word for the others."""
    return float(value) if value is not None and math.isfinite(value) else None


def _summary(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "values": list(values),
    }


def _claim_fields(claim: Claim) -> dict[str, Any]:
    return {
        "claim": claim.claim,
        "value": claim.value,
        "bound": claim.bound,
        "interval": None if claim.interval is None else list(claim.interval),
        "n": claim.n,
        "test": claim.test,
        "preset": claim.preset,
        "holds": claim.holds,
    }


def _shown(summary: dict[str, Any]) -> str:
    if summary["mean"] is None:
        return "-"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2g}"
    return f"{summary['mean']:.4g}{spread}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in [lines[0], rule, *lines[1:]])
    ]


def _spoken(claim: Claim, preset: str) -> str:
    verdict = "holds" if claim.holds else "DOES NOT HOLD" if claim.preset == preset else "not shown at this size"
    aside = "" if claim.preset == preset else f" (a claim of the {claim.preset} preset)"
    facts = [f"value {_plain(claim.value)}"]
    if claim.bound is not None:
        facts.append(f"bound {_plain(claim.bound)}")
    if claim.interval is not None:
        facts.append(f"interval [{_plain(claim.interval[0])}, {_plain(claim.interval[1])}]")
    return f"{verdict}: {claim.claim}{aside}\n    {', '.join(facts)}, n = {claim.n}, {claim.test}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
