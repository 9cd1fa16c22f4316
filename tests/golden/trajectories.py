"""What every algorithm proposes, as digests, so that a change that nobody meant is seen.

Candidates are scored by a function of whole numbers, and most of them consist of whole numbers, so that no other
processor, BLAS or ``exp`` has a say; those that are reals count to six digits. Algorithms that decide by linear algebra
are compared only on processors that round as that one did on which they were recorded. Every search is cut into parts
with a digest each, which say from where on it differs.

``python -m tests.golden.trajectories`` writes those of today into ``trajectories.json``, or only those that are named:
``python -m tests.golden.trajectories "NSGA2 on Binary"``. Do so where a change was meant, and say so in CHANGELOG.md.
"""

import hashlib
import importlib
import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import threadpoolctl

from searchlib import (
    AdditiveProfile,
    Cases,
    EvolutionStrategy,
    ExactAllocation,
    Objective,
    OneAtATime,
    Scores,
    Search,
    Split,
    Status,
)
from searchlib.spaces import Allocation, Integer, Real

__all__ = ["FILE", "SEARCHES", "digests", "needed", "recorded"]

every = importlib.import_module("tests.faults.every_search")

FILE = Path(__file__).with_name("trajectories.json")

BUDGET, BATCH = 192, 16
#: Of those that take long, or (with slopes) to where the last digits decide.
BUDGETS = {
    "Auto": 80, "BayesianOptimization": 64, "GaussNewton": 48, "Nevergrad": 64, "PredictorGuided": 112,
    "PredictorGuided by a process": 96, "PredictorGuided by trees": 48,
}  # fmt: skip
#: Candidates of a part that has a digest of its own.
PART = 48

#: Spaces beside those that every algorithm is tried on: whole numbers in the place of reals.
SPACES = {
    **every.SPACES,
    "Integer, wide": Integer(0, 4095, length=6),
    "Allocation, small": Allocation(tuple("abcdefgh"), (1, 2, 3), (((1, 2, 3),) * 8,), (18.0,)),
    "Allocation, unlimited": Allocation(tuple("abcdefgh"), (1, 2, 3)),
    "Real, long": Real(-1.0, 1.0, length=12),
}

_LOSS = np.array([[9.0, 3.0, 0.0], [4.0, 1.0, 0.0]] * 4) + np.arange(8)[:, None] * [2.0, 1.0, 0.0]

ALGORITHMS = {
    **every.ALGORITHMS,
    "ExactAllocation": ExactAllocation(AdditiveProfile.of(SPACES["Allocation, small"], _LOSS)),
    "EvolutionStrategy, SNES": EvolutionStrategy(method="snes", population=8),
    "EvolutionStrategy of seeds": EvolutionStrategy(method="pgpe", population=8, seeded=True),
    "OneAtATime": OneAtATime(),
}

#: On which spaces an algorithm is recorded; on those that it is tried on everywhere, where nothing else is said.
_ON = {
    "Auto": ("Binary", "Subset", "Allocation", "Product", "Integer, wide", "Permutation"),
    "CMAES": ("Integer, wide",),
    "CMAES, separable": ("Integer, wide",),
    "CatCMAwM": ("Product",),
    "EvolutionStrategy": ("Integer, wide",),
    "EvolutionStrategy, SNES": ("Real, long",),
    "EvolutionStrategy of seeds": ("PolicyParameters",),
    "EstimationOfDistribution": ("Binary", "Subset"),
    "EstimationOfDistribution, pairwise": ("Categorical",),
    "Evolution": tuple(every.SPACES),
    "ExactAllocation": ("Allocation, small",),
    "GaussNewton": ("Affine",),
    "LocalSearch": ("Binary", "Subset", "Allocation", "Permutation", "Categorical"),
    "Nevergrad": ("Binary",),
    "OneAtATime": ("Allocation, unlimited",),
    "OnePlusOneES": ("Real, long",),
    "ProbedAllocation": ("Allocation",),
    "RandomSearch": tuple(every.SPACES),
    "ShrinkingPool": ("Subset",),
    "Stages": ("ExpertMerges",),
}  # fmt: skip

#: Whose candidates follow the last digits of linear algebra, which processors round in ways of their own.
_ROUNDED = (
    "Auto", "BayesianOptimization", "CMAES", "CMAES, separable", "CatCMAwM", "EstimationOfDistribution",
    "EstimationOfDistribution, pairwise", "EvolutionStrategy", "EvolutionStrategy of seeds", "EvolutionStrategy, SNES",
    "ExactAllocation", "GaussNewton", "LocalSearch", "NSGA3", "Nevergrad", "OnePlusOneES", "Portfolio",
    "PredictorGuided", "PredictorGuided by a process", "PredictorGuided by trees", "ProbedAllocation",
)  # fmt: skip

#: What searches take from a library whose next version may do otherwise.
_NEEDS = {
    "Auto on Product": "cma", "CMAES on Integer, wide": "cma", "CMAES, separable on Integer, wide": "cma",
    "EvolutionStrategy on Integer, wide": "cma", "CatCMAwM on Product": "cmaes", "Nevergrad on Binary": "nevergrad",
    "PredictorGuided by trees on Binary": "scikit-learn",
}  # fmt: skip

#: By name, an algorithm and a space.
SEARCHES = {
    f"{algorithm} on {space}": (algorithm, space)
    for algorithm in ALGORITHMS
    for space in _ON.get(algorithm, ("Binary",))
}


class WholeNumbers(Objective):
    """A rugged function of whole numbers: of the genes, or of 1024ths of them where they are reals; one in 16 fails."""

    chunk_rows = 8

    def __init__(self, space, kind):
        self.space, self.kind = space, kind
        self.direction = ("minimize", "maximize") if kind in every.SEVERAL else "minimize"
        self.differentiable = self.additive = kind in every.SLOPED

    def cases(self, split):
        return Cases.of([1, 2, 3, 5]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        if self.kind in every.SLOPED:  # which takes steps that differ by what the last digit of a slope is
            return np.stack([(candidates.array - case / 7).sum(axis=1) ** 2 for case in cases.payload], axis=1)
        genes = whole(candidates.array)
        weights = np.arange(genes.shape[1]) * 7 % 11 + 1
        plain, odd = (genes * weights).sum(axis=1), (genes * weights[::-1]).sum(axis=1) % 13
        scores = np.stack([np.abs(plain - 20 * case) + case * odd for case in cases.payload], axis=1).astype(float)
        scores[odd == 12] = np.nan
        return np.stack([scores, odd[:, None] + 0 * scores], axis=2) if self.kind in every.SEVERAL else Scores(scores)

    def aggregate(self, scores):
        return scores.reshape(*scores.shape[:2], -1).sum(axis=1)

    def slope(self, scores):
        return float(scores.sum()), np.ones(scores.shape)

    def fingerprint(self):
        return {"objective": "whole numbers", "kind": self.kind}


def whole(rows):
    """Genes as whole numbers; 1024ths of reals are told apart exactly, and those that are no number are nothing."""
    genes = np.nan_to_num(np.asarray(rows, float), posinf=0.0, neginf=0.0)
    return np.floor(genes * (1024 if np.asarray(rows).dtype.kind == "f" else 1)).astype(np.int64)


def needed(name):
    """On what here a search depends: a library and its version, and how numbers are rounded; None: on nothing."""
    needs = [arithmetic()] if SEARCHES[name][0] in _ROUNDED else []
    library = _NEEDS.get(name)
    if library is not None:
        try:
            needs.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            needs.append(f"no {library}")
    return ", ".join(needs) or None


def arithmetic():
    """The version of numpy, and the processors for which its linear algebra and its functions were chosen."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"]
    cores = {str(pool.get("architecture")) for pool in pools}
    features = np._core._multiarray_umath.__cpu_features__
    widest = next((name for name in ("AVX512_SKX", "AVX2", "ASIMD") if features.get(name)), "no vectors")
    return " ".join(["numpy", np.__version__, *sorted(cores), widest])


def searched(name):
    """The candidates of a search, its history and its winner."""
    algorithm, space = SEARCHES[name]
    objective = WholeNumbers(SPACES[space], algorithm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that are asked for little
        run = Search(
            objective, ALGORITHMS[algorithm], budget=BUDGETS.get(algorithm, BUDGET), seed=11, batch_size=BATCH,
            max_failures=10**6,
        )  # fmt: skip
        with run:  # at once, because a history keeps no more than the seeds of some
            rows = np.concatenate([np.asarray(record.population, float) for record in run])
        return rows, run.history, run.result().row


def digests(name):
    """One for every part of a search, and one for its winner."""
    rows, history, row = searched(name)
    values = history.values
    assert (history.status == Status.DONE).sum() >= 8, name
    parts = [slice(start, start + PART) for start in range(0, len(rows), PART)]
    told = [digest(rows[part], values[part], history.status[part]) for part in parts]
    return [*told, digest(np.empty(0) if row is None else np.asarray(row, float))]


def digest(*arrays):
    """Of arrays, to six digits."""
    found = hashlib.blake2b(digest_size=6)
    for array in arrays:
        found.update((np.round(array.astype(float), 6) + 0.0).tobytes())  # there are two zeros
    return found.hexdigest()


def recorded():
    """What is on file: digests by search, and the libraries that they depend on."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main(names):
    """Write the trajectories of today, all or some."""
    on_file = recorded() if names else {}
    for name in names or SEARCHES:
        library = needed(name)
        on_file[name] = {"digests": digests(name), **({} if library is None else {"needs": library})}
    lines = [f"{json.dumps(name)}: {json.dumps(on_file[name])}" for name in SEARCHES]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
