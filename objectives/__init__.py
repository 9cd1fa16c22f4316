"""One adapter per paper. Importing this package imports no model library; each name loads its own when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from searchlib.errors import MissingDependency

if TYPE_CHECKING:
    from searchlib.objectives.answer_scoring import AnswerScorer, Case
    from searchlib.objectives.causal_text_model import CausalTextModel
    from searchlib.objectives.chat_endpoint import ChatEndpoint
    from searchlib.objectives.eval_subset import EvalSubset
    from searchlib.objectives.exemplar_search import ExemplarSearch
    from searchlib.objectives.expert_plan import ExpertPlan
    from searchlib.objectives.expert_pruning import ExpertPruning
    from searchlib.objectives.item_subset import ItemSubset
    from searchlib.objectives.preferences import PreferencePair, PreferencePairs, preference_pairs
    from searchlib.objectives.score_matrix import ScoreMatrix
    from searchlib.objectives.teaching import Exam, LearningByTeaching, TeachingProblem
    from searchlib.objectives.text_model import Prompt, Sampling

__all__ = [
    "AnswerScorer",
    "Case",
    "CausalTextModel",
    "ChatEndpoint",
    "EvalSubset",
    "Exam",
    "ExemplarSearch",
    "ExpertPlan",
    "ExpertPruning",
    "ItemSubset",
    "LearningByTeaching",
    "PreferencePair",
    "PreferencePairs",
    "Prompt",
    "Sampling",
    "ScoreMatrix",
    "TeachingProblem",
    "preference_pairs",
]

#: Where each name lives, and the extra that installs what it needs.
_HOMES = {
    "AnswerScorer": ("answer_scoring", "llm"),
    "Case": ("answer_scoring", "llm"),
    "CausalTextModel": ("causal_text_model", "llm"),
    "ChatEndpoint": ("chat_endpoint", "endpoint"),
    "EvalSubset": ("eval_subset", "report"),
    "Exam": ("teaching", "llm"),
    "ExemplarSearch": ("exemplar_search", "llm"),
    "ExpertPlan": ("expert_plan", "llm"),
    "ExpertPruning": ("expert_pruning", "llm"),
    "ItemSubset": ("item_subset", "report"),
    "LearningByTeaching": ("teaching", "llm"),
    "PreferencePair": ("preferences", "llm"),
    "PreferencePairs": ("preferences", "llm"),
    "Prompt": ("text_model", "llm"),
    "Sampling": ("text_model", "llm"),
    "ScoreMatrix": ("score_matrix", "report"),
    "TeachingProblem": ("teaching", "llm"),
    "preference_pairs": ("preferences", "llm"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _HOMES[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library == "searchlib":
            raise
        raise MissingDependency(f"{name} needs {library}: pip install 'searchlib[{extra}]'") from error


def __dir__() -> list[str]:
    return __all__
