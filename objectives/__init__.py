"""One adapter per paper. Importing this package imports no model library; each name loads its own when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from searchlib.errors import MissingDependency

if TYPE_CHECKING:
    from searchlib.objectives.answer_scoring import AnswerScorer, Case
    from searchlib.objectives.causal_text_model import CausalTextModel
    from searchlib.objectives.chat_endpoint import ChatEndpoint
    from searchlib.objectives.checkpoint_combination import CheckpointCombination
    from searchlib.objectives.checkpoint_store import CheckpointStore
    from searchlib.objectives.controlled_distance import ControlledFrechetDistance
    from searchlib.objectives.eval_subset import EvalSubset
    from searchlib.objectives.exemplar_search import ExemplarSearch
    from searchlib.objectives.expert_plan import ExpertPlan
    from searchlib.objectives.expert_pruning import ExpertPruning
    from searchlib.objectives.generated_images import GeneratedImages, PipelineSampler
    from searchlib.objectives.image_scores import FrechetDistance, ImageReward, KernelDistance, PairedDistance
    from searchlib.objectives.item_subset import ItemSubset
    from searchlib.objectives.known_solvers import known_schedules
    from searchlib.objectives.model_judges import CaseLoss
    from searchlib.objectives.noise_cases import NoiseCases
    from searchlib.objectives.preferences import PreferencePair, PreferencePairs, preference_pairs
    from searchlib.objectives.schedule_sampling import NoiseModel, sample_schedules
    from searchlib.objectives.score_matrix import ScoreMatrix
    from searchlib.objectives.searched_scheduler import SearchedScheduler
    from searchlib.objectives.sequence_predictor import SequencePredictor
    from searchlib.objectives.solver_search import SolverSearch
    from searchlib.objectives.teaching import Exam, LearningByTeaching, TeachingProblem
    from searchlib.objectives.text_model import Prompt, Sampling

__all__ = [
    "AnswerScorer",
    "Case",
    "CaseLoss",
    "CausalTextModel",
    "ChatEndpoint",
    "CheckpointCombination",
    "CheckpointStore",
    "ControlledFrechetDistance",
    "EvalSubset",
    "Exam",
    "ExemplarSearch",
    "ExpertPlan",
    "ExpertPruning",
    "FrechetDistance",
    "GeneratedImages",
    "ImageReward",
    "ItemSubset",
    "KernelDistance",
    "LearningByTeaching",
    "NoiseCases",
    "NoiseModel",
    "PairedDistance",
    "PipelineSampler",
    "PreferencePair",
    "PreferencePairs",
    "Prompt",
    "Sampling",
    "ScoreMatrix",
    "SearchedScheduler",
    "SequencePredictor",
    "SolverSearch",
    "TeachingProblem",
    "known_schedules",
    "preference_pairs",
    "sample_schedules",
]

#: Where each name lives, and the extra that installs what it needs.
_HOMES = {
    "AnswerScorer": ("answer_scoring", "llm"),
    "Case": ("answer_scoring", "llm"),
    "CaseLoss": ("model_judges", "diffusion"),
    "CausalTextModel": ("causal_text_model", "llm"),
    "ChatEndpoint": ("chat_endpoint", "endpoint"),
    "CheckpointCombination": ("checkpoint_combination", "diffusion"),
    "CheckpointStore": ("checkpoint_store", "diffusion"),
    "ControlledFrechetDistance": ("controlled_distance", "diffusion"),
    "EvalSubset": ("eval_subset", "report"),
    "Exam": ("teaching", "llm"),
    "ExemplarSearch": ("exemplar_search", "llm"),
    "ExpertPlan": ("expert_plan", "llm"),
    "ExpertPruning": ("expert_pruning", "llm"),
    "FrechetDistance": ("image_scores", "diffusion"),
    "GeneratedImages": ("generated_images", "diffusion"),
    "ImageReward": ("image_scores", "diffusion"),
    "ItemSubset": ("item_subset", "report"),
    "KernelDistance": ("image_scores", "diffusion"),
    "LearningByTeaching": ("teaching", "llm"),
    "NoiseCases": ("noise_cases", "diffusion"),
    "NoiseModel": ("schedule_sampling", "diffusion"),
    "PairedDistance": ("image_scores", "diffusion"),
    "PipelineSampler": ("generated_images", "diffusion"),
    "PreferencePair": ("preferences", "llm"),
    "PreferencePairs": ("preferences", "llm"),
    "Prompt": ("text_model", "llm"),
    "Sampling": ("text_model", "llm"),
    "ScoreMatrix": ("score_matrix", "report"),
    "SearchedScheduler": ("searched_scheduler", "diffusion"),
    "SequencePredictor": ("sequence_predictor", "diffusion"),
    "SolverSearch": ("solver_search", "diffusion"),
    "TeachingProblem": ("teaching", "llm"),
    "known_schedules": ("known_solvers", "diffusion"),
    "preference_pairs": ("preferences", "llm"),
    "sample_schedules": ("schedule_sampling", "diffusion"),
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
