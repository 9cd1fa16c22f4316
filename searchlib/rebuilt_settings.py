"""Settings, read back from what a study has written of them: names that are known here and literals, nothing else."""

from __future__ import annotations

import ast
from typing import Any

from searchlib import algorithms
from searchlib.budget import Budget
from searchlib.case_source import FreshCases
from searchlib.curriculum import Curriculum, Ladder
from searchlib.errors import StudyDamaged
from searchlib.raced_rows import CaseRacing
from searchlib.task_archive import TaskArchive

__all__ = ["CONSTRUCTORS", "rebuilt", "rebuilt_or_none"]

#: The settings that a study writes as ``repr``; read back with these names and nothing else.
CONSTRUCTORS: dict[str, Any] = {
    "Auto": algorithms.Auto,
    "BayesianOptimization": algorithms.BayesianOptimization,
    "Beam": algorithms.Beam,
    "Budget": Budget,
    "CMAES": algorithms.CMAES,
    "CaseRacing": CaseRacing,
    "CatCMAwM": algorithms.CatCMAwM,
    "Curriculum": Curriculum,
    "EstimationOfDistribution": algorithms.EstimationOfDistribution,
    "Evolution": algorithms.Evolution,
    "EvolutionStrategy": algorithms.EvolutionStrategy,
    "ExactAllocation": algorithms.ExactAllocation,
    "FreshCases": FreshCases,
    "GaussianProcess": algorithms.GaussianProcess,
    "HingeRanker": algorithms.HingeRanker,
    "Ladder": Ladder,
    "LocalSearch": algorithms.LocalSearch,
    "Nevergrad": algorithms.Nevergrad,
    "Pool": algorithms.Pool,
    "GaussNewton": algorithms.GaussNewton,
    "NSGA2": algorithms.NSGA2,
    "NSGA3": algorithms.NSGA3,
    "OneAtATime": algorithms.OneAtATime,
    "OnePlusOneES": algorithms.OnePlusOneES,
    "Portfolio": algorithms.Portfolio,
    "ProbedAllocation": algorithms.ProbedAllocation,
    "PredictorGuided": algorithms.PredictorGuided,
    "QuasiRandom": algorithms.QuasiRandom,
    "RandomSearch": algorithms.RandomSearch,
    "ScikitPredictor": algorithms.ScikitPredictor,
    "ShrinkingPool": algorithms.ShrinkingPool,
    "Stages": algorithms.Stages,
    "TaskArchive": TaskArchive,
}

def rebuilt(text: str, kind: type[Any]) -> Any:
    """Rebuild settings from their ``repr``: constructor calls of known names with literal arguments, nothing else."""
    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
            return float(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONSTRUCTORS:
            named = {keyword.arg: build(keyword.value) for keyword in node.keywords if keyword.arg}
            return CONSTRUCTORS[node.func.id](*map(build, node.args), **named)
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(map(build, node.elts)) if isinstance(node, ast.Tuple) else list(map(build, node.elts))
        return ast.literal_eval(node)

    try:
        value = build(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError) as error:
        raise StudyDamaged(
            f"the study's settings cannot be rebuilt from {text!r:.200}; if the algorithm is your own, let the "
            f"function given as --objective return (objective, algorithm)"
        ) from error
    if not isinstance(value, kind):
        raise StudyDamaged(f"the study should hold a {kind.__name__}, but holds {text!r:.200}")
    return value


def rebuilt_or_none(text: str | None, kind: type[Any]) -> Any:
    """The same, of what need not be there."""
    return None if text is None else rebuilt(text, kind)
