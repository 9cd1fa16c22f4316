"""Files as this version writes them, kept for those that will have to read them.

``python -m tests.compatibility.written`` writes today's beside this module: studies and a cache, packed, and JSON that
says what they hold. Do so when a format gets a new number, and keep the files of the numbers before: they are read or
refused with a sentence. Otherwise nobody writes them again, for then they would say nothing of what was written before.
"""

import gzip
import importlib
import json
import tempfile
from pathlib import Path

import numpy as np

from searchlib import Cases, Evolution, LocalSearch, Objective, Scores, search
from searchlib.evaluation_cache import _FORMAT as CACHE_FORMAT
from searchlib.spaces import Subset
from searchlib.study import FORMAT

__all__ = ["CACHED", "FOLDER", "SEARCHES", "Items", "expected"]

every = importlib.import_module("tests.faults.every_search")

FOLDER = Path(__file__).parent


class Items(Objective):
    """Sums of whole numbers over the items of a subset; those that hold the items 0 and 1 fail, 2 and 3 may not be."""

    space, direction, chunk_rows, chunk_cases = Subset(14, k=4), "maximize", 4, 2

    def __init__(self):
        self.seen = []

    def cases(self, split):
        return Cases(tuple(f"{split.value} {number}" for number in range(3)))

    def evaluate(self, candidates, cases):
        rows = candidates.array.astype(np.int64)
        self.seen += [(row.tobytes(), case) for row in rows for case in cases.ids]
        weights = np.array([sum(map(ord, case)) % 5 + 1 for case in cases.ids])
        values = ((rows * 7 % 11).sum(axis=1)[:, None] * weights).astype(float)
        values[np.isin(rows, (0, 1)).sum(axis=1) == 2] = np.nan
        secondary = np.nan_to_num(values) % 3
        return Scores(values, secondary=secondary, infeasible=np.isin(rows, (2, 3)).sum(axis=1) == 2)

    def references(self):
        return ("nothing",)

    def evaluate_reference(self, name, cases):
        return np.zeros(len(cases))

    def fingerprint(self):
        return {"objective": "items of the compatibility files"}


#: By name, what a search is asked for beside its objective and its study.
SEARCHES = {
    "study": {"algorithm": Evolution(population=8, offspring=6), "budget": 48, "batch_size": 8, "seed": 2},
    "asynchronous": {"algorithm": LocalSearch(), "budget": 24, "asynchronous": True, "seed": 2},
}
CACHED = {"algorithm": Evolution(population=8, offspring=6), "budget": 48, "batch_size": 8, "seed": 2}


def expected(result):
    """What a study says, as JSON values."""
    return {
        "digest": result.history.digest, "told": len(result.history), "evaluations": result.history.evaluations,
        "failures": result.history.failures, "best": list(result.best), "value": result.value,
        "outcome": result.outcome.name, "holdout": result.holdout.to_json(),
    }  # fmt: skip


def packed(path, name):
    """Keep a file under a name."""
    (FOLDER / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


def main():
    """Write them."""
    holds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in SEARCHES.items():
            path = Path(folder) / name
            holds[f"{name}-{FORMAT}"] = expected(search(Items(), study=path, max_failures=1000, **settings))
            packed(path, f"{name}-{FORMAT}")
        path = Path(folder) / "cache"
        search(Items(), cache=path, max_failures=1000, **CACHED)
        packed(path, f"cache-{CACHE_FORMAT}")
    written(f"holds-{FORMAT}.json", holds)
    written("spaces.json", {name: space.to_json() for name, space in every.SPACES.items()})


def written(name, data):
    """Keep JSON, a line for every entry."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
    (FOLDER / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
