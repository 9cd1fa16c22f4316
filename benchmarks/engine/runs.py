"""What single runs brought home, kept beside the table so that runs made apart can be judged together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engine.families import FAMILIES
from benchmarks.engine.methods import METHODS
from benchmarks.table import environment, write_whole
from searchlib.errors import InvalidSettings

__all__ = ["FILE", "Job", "Outcome", "checkpoints", "merged", "read", "summarized", "write"]

#: Beside the table's JSON.
FILE = "engine_runs.json"
_LAYOUT = 1


class Job(NamedTuple):
    """One method on one instance."""

    family: str
    budget: int
    problem: str
    number: int
    method: str


class Outcome(NamedTuple):
    """What came of it.

    Arguments:
        value: true value of the recommended row.
        reached: the best true value (of the row that looked best) by a tenth, a third and all of the budget.
        milliseconds: of processor time per evaluation, without the objective; NaN: not measured.
    """

    value: float
    reached: tuple[float, ...]
    milliseconds: float


def checkpoints(budget: int) -> list[int]:
    """A tenth, a third and all of the evaluations."""
    return [max(1, budget // 10), max(1, budget // 3), budget]


def summarized(value: float, curve: Sequence[float], milliseconds: float, budget: int) -> Outcome:
    """An outcome from a whole curve. Nine digits are kept, in memory as in the file, so that ties stay ties."""
    best = tuple(_nine(min(curve[:count], default=math.inf)) for count in checkpoints(budget))
    return Outcome(_nine(value), best, round(milliseconds, 4))


def write(folder: Path, preset: str, outcomes: Mapping[Job, Outcome], environments: Sequence[Any] = ()) -> Path:
    """Write all outcomes into a folder, one line per method, problem and budget; a reader never sees half a file."""
    lines: dict[tuple[str, int, str, str], list[tuple[Job, Outcome]]] = {}
    for job, outcome in outcomes.items():
        lines.setdefault((job.family, job.budget, job.problem, job.method), []).append((job, outcome))
    runs = [
        {
            "family": family, "budget": budget, "problem": problem, "method": method,
            "numbers": [job.number for job, _ in line],
            "values": [_finite(outcome.value) for _, outcome in line],
            "reached": [[_finite(value) for value in outcome.reached] for _, outcome in line],
            "milliseconds": [_finite(outcome.milliseconds) for _, outcome in line],
        }
        for (family, budget, problem, method), line in lines.items()
    ]  # fmt: skip
    head = {"layout": _LAYOUT, "benchmark": "engine", "preset": preset, "environments": environments or [environment()]}
    body = ",\n".join(json.dumps(run, allow_nan=False, ensure_ascii=False) for run in runs)
    text = json.dumps(head)[:-1] + ', "runs": [\n' + body + "\n]}\n"
    return write_whole(folder / FILE, text)


def read(path: Path) -> tuple[str, dict[Job, Outcome], list[Any]]:
    """The preset, the outcomes and the environments of a file of runs, or of the one in a folder.

    Raises:
        InvalidSettings: it is not such a file.
    """
    file = path / FILE if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["layout"] != _LAYOUT or document["benchmark"] != "engine":
            raise KeyError("layout")
        outcomes = {
            _job(run, number): Outcome(
                _known(value), tuple(map(_known, reached)), math.nan if milliseconds is None else milliseconds
            )
            for run in document["runs"]
            for number, value, reached, milliseconds in zip(
                run["numbers"], run["values"], run["reached"], run["milliseconds"], strict=True
            )
        }
        return document["preset"], outcomes, document["environments"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidSettings(
            f"--merge takes folders that this benchmark wrote {FILE} into, or such files, but got {path} ({error!r})"
        ) from error


def _job(run: Mapping[str, Any], number: int) -> Job:
    job = Job(run["family"], run["budget"], run["problem"], number, run["method"])
    family = FAMILIES[job.family]
    if job.problem not in (*family.train, *family.test) or job.method not in METHODS[job.family]:
        raise KeyError(f"{job.method} on {job.problem}, which this version does not have")
    return job


def merged(paths: Iterable[Path]) -> tuple[str, dict[Job, Outcome], list[Any]]:
    """Several files as one; where two have the same run, the one named later counts.

    Raises:
        InvalidSettings: a file is none of these, or their presets differ.
    """
    together: dict[Job, Outcome] = {}
    presets: list[str] = []
    environments: list[Any] = []
    for path in paths:
        preset, outcomes, made_in = read(path)
        together |= outcomes
        presets.append(preset)
        environments += [one for one in made_in if one not in environments]
    if len(set(presets)) != 1:
        raise InvalidSettings(f"runs of one preset can be merged, but these are of {', '.join(sorted(set(presets)))}")
    return presets[0], together, environments


def _nine(value: float) -> float:
    return float(f"{value:.9g}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(value: float | None) -> float:
    return math.inf if value is None else float(value)
