"""searchlib: declare what may vary, plug in a way to score it, get the best candidate your budget can buy.

    from searchlib import search
    from searchlib.spaces import Subset

    result = search(my_function, space=Subset(32, k=8), budget=500)
    print(result)
"""

from searchlib.algorithms import (
    CMAES,
    Algorithm,
    Batch,
    Beam,
    Evidence,
    Evolution,
    GaussianProcess,
    GaussNewton,
    HingeRanker,
    Nevergrad,
    Pool,
    Predictor,
    PredictorGuided,
    Problem,
    RandomSearch,
    Run,
    ScikitPredictor,
    ShrinkingPool,
    Stages,
    Status,
)
from searchlib.budget import Budget
from searchlib.cases import Cases, Split
from searchlib.history import History
from searchlib.holdout import Comparison, Holdout
from searchlib.loop import Search, search
from searchlib.objective import Direction, FunctionObjective, Objective, Scores
from searchlib.result import Outcome, Record, Result
from searchlib.space import Candidates, ItemSpace, Population, Space, StagedSpace
from searchlib.study import Study

__version__ = "0.1.0"

__all__ = [
    "CMAES",
    "Algorithm",
    "Batch",
    "Beam",
    "Budget",
    "Candidates",
    "Cases",
    "Comparison",
    "Direction",
    "Evidence",
    "Evolution",
    "FunctionObjective",
    "GaussNewton",
    "GaussianProcess",
    "HingeRanker",
    "History",
    "Holdout",
    "ItemSpace",
    "Nevergrad",
    "Objective",
    "Outcome",
    "Pool",
    "Population",
    "Predictor",
    "PredictorGuided",
    "Problem",
    "RandomSearch",
    "Record",
    "Result",
    "Run",
    "ScikitPredictor",
    "Scores",
    "Search",
    "ShrinkingPool",
    "Space",
    "Split",
    "StagedSpace",
    "Stages",
    "Status",
    "Study",
    "search",
]
