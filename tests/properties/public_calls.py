"""A valid call of every public name but those of pictures and adapters: what a bad argument is put into."""

import numpy as np

import searchlib
import searchlib.testing
from searchlib import algorithms, spaces
from searchlib.spaces import Allocation, Binary, SizedTensor, SolverStep, Subset

__all__ = ["CALLS", "LEFT_OUT", "SLOW_TO_IMPORT", "suited"]

SPACE = Binary(4)


def ones(mask):
    return float(sum(mask))


def objective():
    return searchlib.FunctionObjective(ones, SPACE)


def additive():
    space = Allocation(("a", "b"), (1, 2), (((1.0, 2.0), (1.0, 2.0)),), (3.0,))
    return searchlib.WithCost(searchlib.FunctionObjective(sum, space), sum)


def profile():
    return searchlib.AdditiveProfile(np.array([[[1.0, 0.0], [2.0, 0.0]]]), np.ones((1, 2, 2)), np.array([3.0]))


def tasks():
    return spaces.CurriculumTasks(("speed",), (0.0,), (1.0,))


def front(**changed):
    given = {"space": SPACE, "rows": np.eye(4, dtype=bool)[:2], "values": np.array([[0.0, 1.0], [1.0, 0.0]]),
             "direction": ("minimize", "minimize")}  # fmt: skip
    return {**given, **changed}


def evidence():
    n = 2
    return {"ids": np.arange(n), "population": np.zeros((n, 4), bool), "values": np.zeros((n, 1)),
            "status": np.ones(n, np.int8), "secondary": np.zeros(n), "standard_error": np.zeros((n, 1))}  # fmt: skip


#: By name: makes the arguments, made anew for every case. What has only defaults needs none.
_ARGUMENTS = {
    "searchlib.AdditiveProfile": lambda: {"loss": np.array([[[1.0, 0.0], [2.0, 0.0]]]), "costs": np.ones((1, 2, 2)),
                                          "budgets": np.array([3.0])},
    "searchlib.Budget": lambda: {"evaluations": 10},
    "searchlib.Candidates": lambda: {"space": SPACE, "array": np.zeros((2, 4), bool)},
    "searchlib.CaseRacing": dict,
    "searchlib.Cases": lambda: {"ids": ("a", "b"), "payload": (1, 2)},
    "searchlib.Curriculum": dict,
    "searchlib.CurriculumRun": lambda: {"settings": searchlib.Curriculum(), "tasks": tasks(),
                                        "rng": np.random.default_rng(0)},
    "searchlib.FreshCases": lambda: {"per_generation": 3},
    "searchlib.Front": front,
    "searchlib.FunctionObjective": lambda: {"function": ones, "space": SPACE},
    "searchlib.History": lambda: {"space": SPACE, "objectives": 1},
    "searchlib.Ladder": lambda: {"coordinate": "speed", "start": 0.0, "end": 1.0},
    "searchlib.SeededPopulation": lambda: {"center": np.zeros(3, np.float32), "sigma": 0.1,
                                           "seeds": np.arange(2), "signs": np.array([1, -1])},
    "searchlib.TaskArchive": dict,
    "searchlib.WithCost": lambda: {"objective": objective(), "cost": sum},
    "searchlib.measure_profile": lambda: {"objective": additive()},
    "searchlib.search": lambda: {"objective": ones, "space": SPACE, "budget": 6},
    "searchlib.Search": lambda: {"objective": ones, "space": SPACE, "budget": 6},
    "searchlib.algorithms.Archive": lambda: {"space": SPACE, "capacity": 3},
    "searchlib.algorithms.ExactAllocation": lambda: {"profile": profile()},
    "searchlib.algorithms.Portfolio": lambda: {"members": (algorithms.RandomSearch(), algorithms.QuasiRandom())},
    "searchlib.algorithms.Problem": lambda: {"space": SPACE},
    "searchlib.algorithms.Stages": lambda: {"first": algorithms.RandomSearch(), "second": algorithms.RandomSearch()},
    "searchlib.algorithms.pool_schedule": lambda: {"items": 100, "keep": 5},
    "searchlib.testing.check_algorithm": lambda: {"algorithm": algorithms.RandomSearch(), "space": SPACE, "rounds": 2},
    "searchlib.testing.check_objective": lambda: {"objective": objective(), "pickles": False},
    "searchlib.testing.check_space": lambda: {"space": SPACE, "n": 4},
    "searchlib.spaces.Affine": lambda: {"n": 3},
    "searchlib.spaces.Allocation": lambda: {"parts": ("a", "b"), "options": (1, 2),
                                            "costs": (((1.0, 2.0), (1.0, 2.0)),), "budgets": (3.0,)},
    "searchlib.spaces.AttentionConfigs": lambda: {"layers": 2, "heads": 2, "rules": ((0, 0.25), (8, 0)),
                                                  "lengths": (32,)},
    "searchlib.spaces.AttentionPlan": lambda: {"alphas": ((8.0, 0.0),), "betas": ((0.0, 0.5),)},
    "searchlib.spaces.Binary": lambda: {"n": 4},
    "searchlib.spaces.BitPlan": lambda: {"weight": (("a", 4),)},
    "searchlib.spaces.BitWidths": lambda: {
        "tensors": (SizedTensor("a", "weight", rows=4, columns=64),), "weight": (2, 4)},
    "searchlib.spaces.Categorical": lambda: {"choices": ("a", "b")},
    "searchlib.spaces.CheckpointCoefficients": lambda: {"checkpoints": 3},
    "searchlib.spaces.CurriculumTasks": lambda: {"names": ("speed",), "low": (0.0,), "high": (1.0,)},
    "searchlib.spaces.EvalSubsets": lambda: {"items": 5, "keep": 2},
    "searchlib.spaces.ExemplarSets": lambda: {"pool": 5, "k": 2},
    "searchlib.spaces.ExpertMatrices": lambda: {"router": np.eye(2)[None], "merging": np.eye(2)[None]},
    "searchlib.spaces.ExpertMerges": lambda: {"layers": 2, "experts": 4, "keep": 2, "groups": 1},
    "searchlib.spaces.ExpertSubsets": lambda: {"layers": 2, "experts": 4, "keep": 2, "groups": 1},
    "searchlib.spaces.Fixed": lambda: {"of": SPACE, "genes": (1, 0, 0, 1)},
    "searchlib.spaces.Grouped": lambda: {"part": SPACE, "groups": 2},
    "searchlib.spaces.Integer": lambda: {"low": 0, "high": 4},
    "searchlib.spaces.Monotone": lambda: {"length": 3, "low": 0.0, "high": 1.0},
    "searchlib.spaces.Multiset": lambda: {"part": SPACE, "slots": 2},
    "searchlib.spaces.OneOf": lambda: {"branches": {"a": SPACE}},
    "searchlib.spaces.Permutation": lambda: {"n": 3},
    "searchlib.spaces.PolicyParameters": lambda: {"shapes": (("weight", (2, 2)),)},
    "searchlib.spaces.Product": lambda: {"parts": {"a": SPACE}},
    "searchlib.spaces.Real": lambda: {"low": 0.0, "high": 1.0},
    "searchlib.spaces.Simplex": lambda: {"n": 3},
    "searchlib.spaces.SizedTensor": lambda: {"name": "a", "kind": "weight", "rows": 4, "columns": 64},
    "searchlib.spaces.SolverSchedule": lambda: {"sigmas": (10.0, 1.0, 0.1), "steps": (SolverStep(), SolverStep())},
    "searchlib.spaces.SolverSchedules": lambda: {"nfe": 3, "sigma_max": 80.0, "sigma_min": 0.002},
    "searchlib.spaces.SolverStep": dict,
    "searchlib.spaces.Subset": lambda: {"n": 5, "k": 2},
    "searchlib.spaces.elastic_rules": lambda: {"profile_lengths": (2048,)},
}  # fmt: skip

#: Public names without a call of their own, and why.
LEFT_OUT = {
    "searchlib.AllocationSpace": "abstract",
    "searchlib.CaseRun": "abstract",
    "searchlib.CaseSource": "abstract",
    "searchlib.Comparison": "the engine makes it",
    "searchlib.CurriculumBatch": "CurriculumRun.ask makes it",
    "searchlib.Direction": "a type",
    "searchlib.EvaluationCache": "opens a file: hostile files have tests of their own",
    "searchlib.FrontPoint": "Front makes it",
    "searchlib.Holdout": "the engine makes it",
    "searchlib.ItemSpace": "abstract",
    "searchlib.Objective": "abstract",
    "searchlib.Outcome": "an enumeration",
    "searchlib.Population": "a type",
    "searchlib.Record": "the engine makes it",
    "searchlib.Result": "the engine makes it",
    "searchlib.Scores": "read when evaluate has returned it: lying objectives have tests of their own",
    "searchlib.Space": "abstract",
    "searchlib.Split": "an enumeration",
    "searchlib.StagedSpace": "abstract",
    "searchlib.Standing": "the engine makes it",
    "searchlib.Study": "opens a file: hostile files have tests of their own",
    "searchlib.WeightSpace": "abstract",
    "searchlib.algorithms.Algorithm": "abstract",
    "searchlib.algorithms.Batch": "runs make it",
    "searchlib.algorithms.Evidence": "the engine makes it",
    "searchlib.algorithms.FittedPredictor": "a protocol",
    "searchlib.algorithms.Predictor": "abstract",
    "searchlib.algorithms.Run": "abstract",
    "searchlib.algorithms.Status": "an enumeration",
}

#: Algorithms that import a library for a second or more when they begin.
SLOW_TO_IMPORT = (algorithms.CMAES, algorithms.CatCMAwM, algorithms.EvolutionStrategy, algorithms.Nevergrad)

def suited(algorithm):
    """A small space that an algorithm works on."""
    if isinstance(algorithm, algorithms.ExactAllocation | algorithms.OneAtATime | algorithms.ProbedAllocation):
        return Allocation(("a", "b"), (1, 2), (((1.0, 2.0), (1.0, 2.0)),), (3.0,))
    if isinstance(algorithm, algorithms.Stages):
        return spaces.ExpertMerges(2, 4, 2, 1)
    if isinstance(algorithm, algorithms.ShrinkingPool):
        return Subset(30, 3)
    if isinstance(algorithm, algorithms.EvolutionStrategy | algorithms.GaussNewton):
        return spaces.Real(0, 1, 3)
    return SPACE


#: By qualified name: the function and a maker of valid arguments.
CALLS: dict[str, tuple] = {}


def _listed():
    for package in (searchlib, algorithms, spaces, searchlib.testing):
        for name in package.__all__:
            qualified = f"{package.__name__}.{name}"
            twin = package is searchlib and name in algorithms.__all__
            if qualified not in LEFT_OUT and not twin:
                default = dict if package is algorithms else None
                CALLS[qualified] = (getattr(package, name), _ARGUMENTS.get(qualified, default))


_listed()
