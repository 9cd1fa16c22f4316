"""One adapter per paper. Importing this package imports no model library; each name loads its own when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchlib.errors import MissingDependency
from searchlib.lazy import lazy_names

if TYPE_CHECKING:
    from searchlib.objectives.answer_scoring import AnswerScorer, Case
    from searchlib.objectives.causal_text_model import CausalTextModel
    from searchlib.objectives.channel_balancing import ChannelBalancing
    from searchlib.objectives.chat_endpoint import ChatEndpoint
    from searchlib.objectives.checkpoint_combination import CheckpointCombination
    from searchlib.objectives.checkpoint_store import CheckpointStore
    from searchlib.objectives.controlled_distance import ControlledFrechetDistance
    from searchlib.objectives.eval_subset import EvalSubset
    from searchlib.objectives.exemplar_search import ExemplarSearch
    from searchlib.objectives.expert_counts import with_kept_experts
    from searchlib.objectives.expert_plan import ExpertPlan
    from searchlib.objectives.expert_pruning import ExpertPruning
    from searchlib.objectives.exploration import Exploration
    from searchlib.objectives.exploration_maps import FloorPlan, generated_plan, load_floor_plan
    from searchlib.objectives.exploration_policy import ExplorationPolicy
    from searchlib.objectives.exploration_settings import ExplorationSettings
    from searchlib.objectives.generated_images import GeneratedImages, PipelineSampler
    from searchlib.objectives.grouped_cache import GroupedCache
    from searchlib.objectives.image_scores import FrechetDistance, ImageReward, KernelDistance, PairedDistance
    from searchlib.objectives.item_subset import ItemSubset
    from searchlib.objectives.known_solvers import known_schedules
    from searchlib.objectives.metric_decoupling import decoupled_allocations, decoupled_weights
    from searchlib.objectives.mixed_precision import MixedPrecision
    from searchlib.objectives.model_judges import CaseLoss
    from searchlib.objectives.navigation import Navigation
    from searchlib.objectives.navigation_executor import NavigationExecutor
    from searchlib.objectives.navigation_layouts import NavigationLayouts, random_layouts
    from searchlib.objectives.navigation_matcher import GoalMatcher
    from searchlib.objectives.navigation_settings import NavigationSettings
    from searchlib.objectives.noise_cases import NoiseCases
    from searchlib.objectives.paired_error import PairedError
    from searchlib.objectives.preferences import PreferencePair, PreferencePairs, preference_pairs
    from searchlib.objectives.pursuit import Pursuit
    from searchlib.objectives.pursuit_settings import PursuitSettings
    from searchlib.objectives.pursuit_tasks import PursuitRange, PursuitTasks
    from searchlib.objectives.quantization_tables import QuantizedModels
    from searchlib.objectives.quantized_llm import QuantizedLLM
    from searchlib.objectives.quantized_model import QuantizationPlan
    from searchlib.objectives.schedule_sampling import NoiseModel, sample_schedules
    from searchlib.objectives.score_matrix import ScoreMatrix
    from searchlib.objectives.searched_scheduler import SearchedScheduler
    from searchlib.objectives.sequence_predictor import SequencePredictor
    from searchlib.objectives.solver_search import SolverSearch
    from searchlib.objectives.span_attention import SpanAttention
    from searchlib.objectives.span_plan import SpanPlan
    from searchlib.objectives.span_profiles import attention_mass_profile, taylor_profile
    from searchlib.objectives.sparse_attention import SparseAttention
    from searchlib.objectives.teaching import Exam, LearningByTeaching, TeachingProblem
    from searchlib.objectives.text_model import Prompt, Sampling
    from searchlib.objectives.token_cases import TokenCase
    from searchlib.objectives.traffic import Traffic
    from searchlib.objectives.traffic_network import TrafficNetwork, resco
    from searchlib.objectives.traffic_policy import TrafficNetworkPolicy
    from searchlib.objectives.traffic_settings import TrafficSettings
    from searchlib.objectives.traffic_tasks import FreshTraffic
    from searchlib.objectives.uav_pursuit import UavPursuit
    from searchlib.objectives.uav_settings import UavSettings
    from searchlib.objectives.uav_tasks import UavTasks
    from searchlib.objectives.uniform_grid import QuantizationTable, quantization_grid, recommended_bits

__all__ = [
    "AnswerScorer",
    "Case",
    "CaseLoss",
    "CausalTextModel",
    "ChannelBalancing",
    "ChatEndpoint",
    "CheckpointCombination",
    "CheckpointStore",
    "ControlledFrechetDistance",
    "EvalSubset",
    "Exam",
    "ExemplarSearch",
    "ExpertPlan",
    "ExpertPruning",
    "Exploration",
    "ExplorationPolicy",
    "ExplorationSettings",
    "FloorPlan",
    "FrechetDistance",
    "FreshTraffic",
    "GeneratedImages",
    "GoalMatcher",
    "GroupedCache",
    "ImageReward",
    "ItemSubset",
    "KernelDistance",
    "LearningByTeaching",
    "MixedPrecision",
    "Navigation",
    "NavigationExecutor",
    "NavigationLayouts",
    "NavigationSettings",
    "NoiseCases",
    "NoiseModel",
    "PairedDistance",
    "PairedError",
    "PipelineSampler",
    "PreferencePair",
    "PreferencePairs",
    "Prompt",
    "Pursuit",
    "PursuitRange",
    "PursuitSettings",
    "PursuitTasks",
    "QuantizationPlan",
    "QuantizationTable",
    "QuantizedLLM",
    "QuantizedModels",
    "Sampling",
    "ScoreMatrix",
    "SearchedScheduler",
    "SequencePredictor",
    "SolverSearch",
    "SpanAttention",
    "SpanPlan",
    "SparseAttention",
    "TeachingProblem",
    "TokenCase",
    "Traffic",
    "TrafficNetwork",
    "TrafficNetworkPolicy",
    "TrafficSettings",
    "UavPursuit",
    "UavSettings",
    "UavTasks",
    "attention_mass_profile",
    "decoupled_allocations",
    "decoupled_weights",
    "generated_plan",
    "known_schedules",
    "load_floor_plan",
    "preference_pairs",
    "quantization_grid",
    "random_layouts",
    "recommended_bits",
    "resco",
    "sample_schedules",
    "taylor_profile",
    "with_kept_experts",
]

#: Where each name lives, and the extra that installs what it needs.
_HOMES = {
    "AnswerScorer": ("answer_scoring", "llm"),
    "Case": ("answer_scoring", "llm"),
    "CaseLoss": ("model_judges", "diffusion"),
    "CausalTextModel": ("causal_text_model", "llm"),
    "ChannelBalancing": ("channel_balancing", "diffusion"),
    "ChatEndpoint": ("chat_endpoint", "endpoint"),
    "CheckpointCombination": ("checkpoint_combination", "diffusion"),
    "CheckpointStore": ("checkpoint_store", "diffusion"),
    "ControlledFrechetDistance": ("controlled_distance", "diffusion"),
    "EvalSubset": ("eval_subset", "report"),
    "Exam": ("teaching", "llm"),
    "ExemplarSearch": ("exemplar_search", "llm"),
    "ExpertPlan": ("expert_plan", "llm"),
    "ExpertPruning": ("expert_pruning", "llm"),
    "with_kept_experts": ("expert_counts", "llm"),
    "FrechetDistance": ("image_scores", "diffusion"),
    "GeneratedImages": ("generated_images", "diffusion"),
    "GroupedCache": ("grouped_cache", "llm"),
    "ImageReward": ("image_scores", "diffusion"),
    "ItemSubset": ("item_subset", "report"),
    "KernelDistance": ("image_scores", "diffusion"),
    "LearningByTeaching": ("teaching", "llm"),
    "MixedPrecision": ("mixed_precision", "diffusion"),
    "NoiseCases": ("noise_cases", "diffusion"),
    "NoiseModel": ("schedule_sampling", "diffusion"),
    "PairedDistance": ("image_scores", "diffusion"),
    "PairedError": ("paired_error", "diffusion"),
    "PipelineSampler": ("generated_images", "diffusion"),
    "PreferencePair": ("preferences", "llm"),
    "PreferencePairs": ("preferences", "llm"),
    "Prompt": ("text_model", "llm"),
    "Pursuit": ("pursuit", "rollout"),
    "PursuitRange": ("pursuit_tasks", "rollout"),
    "PursuitSettings": ("pursuit_settings", "rollout"),
    "PursuitTasks": ("pursuit_tasks", "rollout"),
    "QuantizationPlan": ("quantized_model", "diffusion"),
    "QuantizationTable": ("uniform_grid", "llm"),
    "QuantizedLLM": ("quantized_llm", "llm"),
    "QuantizedModels": ("quantization_tables", "report"),
    "Sampling": ("text_model", "llm"),
    "ScoreMatrix": ("score_matrix", "report"),
    "SearchedScheduler": ("searched_scheduler", "diffusion"),
    "SequencePredictor": ("sequence_predictor", "diffusion"),
    "SolverSearch": ("solver_search", "diffusion"),
    "SpanAttention": ("span_attention", "llm"),
    "SpanPlan": ("span_plan", "llm"),
    "SparseAttention": ("sparse_attention", "llm"),
    "TeachingProblem": ("teaching", "llm"),
    "TokenCase": ("token_cases", "llm"),
    "UavPursuit": ("uav_pursuit", "rollout"),
    "UavSettings": ("uav_settings", "rollout"),
    "UavTasks": ("uav_tasks", "rollout"),
    "attention_mass_profile": ("span_profiles", "llm"),
    "decoupled_allocations": ("metric_decoupling", "report"),
    "decoupled_weights": ("metric_decoupling", "report"),
    "known_schedules": ("known_solvers", "diffusion"),
    "preference_pairs": ("preferences", "llm"),
    "quantization_grid": ("uniform_grid", "llm"),
    "recommended_bits": ("uniform_grid", "llm"),
    "sample_schedules": ("schedule_sampling", "diffusion"),
    "taylor_profile": ("span_profiles", "llm"),
    "Exploration": ("exploration", "rollout"),
    "ExplorationPolicy": ("exploration_policy", "rollout"),
    "ExplorationSettings": ("exploration_settings", "rollout"),
    "FloorPlan": ("exploration_maps", "rollout"),
    "FreshTraffic": ("traffic_tasks", "traffic"),
    "GoalMatcher": ("navigation_matcher", "rollout"),
    "Navigation": ("navigation", "rollout"),
    "NavigationExecutor": ("navigation_executor", "rollout"),
    "NavigationLayouts": ("navigation_layouts", "rollout"),
    "NavigationSettings": ("navigation_settings", "rollout"),
    "Traffic": ("traffic", "traffic"),
    "TrafficNetwork": ("traffic_network", "traffic"),
    "TrafficNetworkPolicy": ("traffic_policy", "traffic"),
    "TrafficSettings": ("traffic_settings", "traffic"),
    "generated_plan": ("exploration_maps", "rollout"),
    "load_floor_plan": ("exploration_maps", "rollout"),
    "random_layouts": ("navigation_layouts", "rollout"),
    "resco": ("traffic_network", "traffic"),
}


_load = lazy_names(__name__, {name: f"{__name__}.{module}" for name, (module, _) in _HOMES.items()})


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library == "searchlib":
            raise
        raise MissingDependency(f"{name} needs {library}: pip install 'searchlib[{_HOMES[name][1]}]'") from error


def __dir__() -> list[str]:
    return __all__
