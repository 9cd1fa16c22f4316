"""searchlib: declare what may vary, plug in a way to score it, get the best candidate your budget can buy.

    from searchlib import search
    from searchlib.spaces import Subset

    result = search(my_function, space=Subset(32, k=8), budget=500)
    print(result)
"""

from typing import TYPE_CHECKING

from searchlib.algorithms import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.allocation_space import AllocationSpace
from searchlib.budget import Budget
from searchlib.case_source import CaseRun, CaseSource, FreshCases
from searchlib.cases import Cases, Split
from searchlib.evaluation_cache import EvaluationCache
from searchlib.front import Front, FrontPoint
from searchlib.history import History
from searchlib.holdout import Comparison, Holdout
from searchlib.lazy import lazy_names
from searchlib.loop import Search
from searchlib.objective import Direction, FunctionObjective, Objective, Scores
from searchlib.raced_rows import CaseRacing
from searchlib.result import Outcome, Record, Result
from searchlib.seeded_population import SeededPopulation
from searchlib.space import Candidates, ItemSpace, Population, Space, StagedSpace, WeightSpace
from searchlib.standing import Standing
from searchlib.study import Study
from searchlib.whole_search import search

if TYPE_CHECKING:
    from searchlib.additive_profile import AdditiveProfile
    from searchlib.algorithms import (
        CMAES,
        NSGA2,
        NSGA3,
        Auto,
        BayesianOptimization,
        Beam,
        CatCMAwM,
        EstimationOfDistribution,
        Evolution,
        EvolutionStrategy,
        ExactAllocation,
        GaussianProcess,
        GaussNewton,
        HingeRanker,
        LocalSearch,
        Nevergrad,
        OneAtATime,
        OnePlusOneES,
        Pool,
        Portfolio,
        Predictor,
        PredictorGuided,
        ProbedAllocation,
        QuasiRandom,
        RandomSearch,
        ScikitPredictor,
        ShrinkingPool,
        Stages,
    )
    from searchlib.curriculum import Curriculum, CurriculumBatch, CurriculumRun, Ladder
    from searchlib.profiling import measure_profile
    from searchlib.task_archive import TaskArchive
    from searchlib.with_cost import WithCost

__version__ = "0.1.0"

__all__ = [
    "CMAES",
    "NSGA2",
    "NSGA3",
    "AdditiveProfile",
    "Algorithm",
    "AllocationSpace",
    "Auto",
    "Batch",
    "BayesianOptimization",
    "Beam",
    "Budget",
    "Candidates",
    "CaseRacing",
    "CaseRun",
    "CaseSource",
    "Cases",
    "CatCMAwM",
    "Comparison",
    "Curriculum",
    "CurriculumBatch",
    "CurriculumRun",
    "Direction",
    "EstimationOfDistribution",
    "EvaluationCache",
    "Evidence",
    "Evolution",
    "EvolutionStrategy",
    "ExactAllocation",
    "FreshCases",
    "Front",
    "FrontPoint",
    "FunctionObjective",
    "GaussNewton",
    "GaussianProcess",
    "HingeRanker",
    "History",
    "Holdout",
    "ItemSpace",
    "Ladder",
    "LocalSearch",
    "Nevergrad",
    "Objective",
    "OneAtATime",
    "OnePlusOneES",
    "Outcome",
    "Pool",
    "Population",
    "Portfolio",
    "Predictor",
    "PredictorGuided",
    "ProbedAllocation",
    "Problem",
    "QuasiRandom",
    "RandomSearch",
    "Record",
    "Result",
    "Run",
    "ScikitPredictor",
    "Scores",
    "Search",
    "SeededPopulation",
    "ShrinkingPool",
    "Space",
    "Split",
    "StagedSpace",
    "Stages",
    "Standing",
    "Status",
    "Study",
    "TaskArchive",
    "WeightSpace",
    "WithCost",
    "measure_profile",
    "search",
]

#: Where a name outside of the algorithms lives.
_HOMES = {
    "AdditiveProfile": "searchlib.additive_profile",
    "Curriculum": "searchlib.curriculum",
    "CurriculumBatch": "searchlib.curriculum",
    "CurriculumRun": "searchlib.curriculum",
    "Ladder": "searchlib.curriculum",
    "TaskArchive": "searchlib.task_archive",
    "WithCost": "searchlib.with_cost",
    "measure_profile": "searchlib.profiling",
}

#: Every algorithm is loaded when it is first used.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "searchlib.algorithms") | _HOMES)


def __dir__() -> list[str]:
    return __all__
