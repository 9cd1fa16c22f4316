"""A valid call of every adapter, and of what belongs to one, that needs no model of its own."""

import os

import numpy as np

from searchlib import AdditiveProfile, objectives
from searchlib.spaces import AttentionPlan, BitPlan, SizedTensor, SolverSchedule, SolverStep

__all__ = ["CALLS", "LEFT_OUT"]

PLAN = AttentionPlan(((8.0, 0.0),), ((0.0, 0.5),))
SCHEDULE = SolverSchedule((10.0, 1.0, 0.1), (SolverStep(), SolverStep()))


def profile():
    return AdditiveProfile(np.array([[[1.0, 0.0], [2.0, 0.0]]]), np.ones((1, 2, 2)), np.array([3.0]))


def pair():
    return objectives.PreferencePair("p", "a", "b", 0.9, 0.1, 0.8)


def layouts():
    n, agents = 2, 2
    return {"starts": np.zeros((n, agents, 2)), "velocities": np.zeros((n, agents, 2)),
            "goals": np.ones((n, agents, 2)), "pillars": np.zeros((n, 0, 2)), "seeds": np.arange(n)}  # fmt: skip


def noise_model():
    from searchlib.objectives.noise_schedules import NoiseSchedule

    return {"network": lambda x, t: x, "schedule": NoiseSchedule("flow")}


#: By name: makes the arguments, anew for every case.
_ARGUMENTS = {
    "Case": lambda: {"prompt": "2+2=", "answer": "4"},
    "ChannelBalancing": dict,
    "EvalSubset": lambda: {"scores": np.random.default_rng(0).random((8, 9)), "size": 2},
    "Exam": lambda: {"question": "1+1?"},
    "ExplorationPolicy": dict,
    "ExplorationSettings": dict,
    "FloorPlan": lambda: {"name": "a", "walls": np.pad(np.zeros((18, 18), bool), 1, constant_values=True)},
    "FreshTraffic": lambda: {"per_generation": 2},
    "GoalMatcher": dict,
    "ImageReward": lambda: {"reward": len},
    "ItemSubset": lambda: {"items": ("a", "b"), "models": ("m", "n", "o"), "subset_scores": np.array([0.1, 0.2, 0.4]),
                           "full_scores": np.array([0.2, 0.3, 0.5]), "noise": 0.01},
    "Navigation": lambda: {"search": 4, "holdout": 4},
    "NavigationExecutor": dict,
    "NavigationLayouts": layouts,
    "NavigationSettings": dict,
    "NoiseCases": lambda: {"search": 3, "holdout": 3},
    "NoiseModel": noise_model,
    "PairedDistance": lambda: {"sample": lambda noise, conditions: noise},
    "PairedError": lambda: {"sample": lambda noise, conditions: noise},
    "PreferencePair": lambda: {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 0.9,
                               "score_rejected": 0.1, "gap": 0.8},
    "PreferencePairs": lambda: {"pairs": (pair(),)},
    "Prompt": lambda: {"text": "a"},
    "Pursuit": lambda: {"search": 4, "select": 0, "holdout": 4},
    "PursuitRange": dict,
    "PursuitSettings": dict,
    "PursuitTasks": lambda: {"vectors": np.array([[1.5, 0.6, 1.0, 0.15]]), "seeds": np.array([1])},
    "QuantizationPlan": lambda: {"plan": BitPlan(weight=(("a", 4),)),
                                 "tensors": (SizedTensor("a", "weight", rows=4, columns=64),)},
    "QuantizedModels": lambda: {"scores": {"task": {"OPT_1B3": (5.0, 4.0)}}, "bits": (16, 8)},
    "Sampling": dict,
    "ScoreMatrix": lambda: {"scores": np.eye(3), "models": ("a", "b", "c"), "items": (0, 1, 2)},
    "SequencePredictor": lambda: {"steps": 3, "features_per_step": 2},
    "SpanPlan": lambda: {"plan": PLAN},
    "TeachingProblem": lambda: {"question": "q", "exams": (objectives.Exam("1+1?"),)},
    "TokenCase": lambda: {"tokens": (1, 2), "response": (False, True)},
    "TrafficNetworkPolicy": dict,
    "TrafficSettings": dict,
    "UavSettings": dict,
    "UavTasks": lambda: {"vectors": np.ones((1, 24)), "seeds": np.array([1])},
    "decoupled_allocations": lambda: {"profile": profile(), "assignment": {"loss": ".*"}},
    "decoupled_weights": lambda: {"profile": profile(), "assignment": {"loss": ".*"}},
    "generated_plan": lambda: {"kind": "offices", "seed": 0, "height": 30, "width": 40},
    "known_schedules": lambda: {"nfe": 3, "noise": [0.1, 1.0, 10.0]},
    "random_layouts": lambda: {"settings": objectives.NavigationSettings(), "agents": 2, "n": 2,
                               "rng": np.random.default_rng(0)},
    "recommended_bits": lambda: {"table": objectives.QuantizationTable(())},
    "QuantizationTable": lambda: {"rows": ()},
    "resco": lambda: {"name": "cologne1"},
}  # fmt: skip

#: Public names that only make sense around somebody's model, file or service.
LEFT_OUT = dict.fromkeys((
    "AnswerScorer", "CaseLoss", "CausalTextModel", "CheckpointCombination", "ControlledFrechetDistance",
    "ExemplarSearch", "ExpertPlan", "ExpertPruning", "FrechetDistance", "GeneratedImages", "GroupedCache",
    "KernelDistance", "LearningByTeaching", "MixedPrecision", "PipelineSampler", "QuantizedLLM", "SolverSearch",
    "SpanAttention", "SparseAttention", "attention_mass_profile", "preference_pairs", "quantization_grid",
    "sample_schedules", "taylor_profile", "with_kept_experts",
), "needs a model") | {
    "ChatEndpoint": "needs a service",
    "CheckpointStore": "needs checkpoints: hostile files have tests of their own",
    "Exploration": "needs maps and a compiler",
    "SearchedScheduler": "a scheduler of diffusers, whose configuration diffusers reads",
    "Traffic": "needs a simulator's network",
    "TrafficNetwork": "needs a simulator's network",
    "UavPursuit": "needs a simulator",
    "load_floor_plan": "needs a picture",
}  # fmt: skip
if os.environ.get("SEARCHLIB_SLOW") != "1":
    LEFT_OUT["SpanPlan"] = "imports a library for seconds: make soak tries it"
CALLS = {name: (getattr(objectives, name), make) for name, make in _ARGUMENTS.items() if name not in LEFT_OUT}
