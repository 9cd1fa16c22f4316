"""The runs behind the benchmark of quantized language models: the family, its cases, the grid, and the searches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.small_llamas import Recipe, copies, plain, trained
from benchmarks.speed_clock import threads
from searchlib import (
    AdditiveProfile,
    Algorithm,
    Evolution,
    ExactAllocation,
    RandomSearch,
    Split,
    measure_profile,
    search,
)
from searchlib.cases import Cases
from searchlib.objectives import QuantizationTable, QuantizedLLM, TokenCase, quantization_grid
from searchlib.spaces import BitPlan, SizedTensor

__all__ = [
    "ADDITIVE",
    "BEST_UNIFORM",
    "EVOLUTION",
    "FAMILIES",
    "METHODS",
    "OURS",
    "RANDOM",
    "UNIFORM",
    "Preset",
    "Searched",
    "cases_of",
    "copied",
    "grid",
    "held_out",
    "mixed",
    "model_of",
    "searched",
    "split_cases",
    "weights_of",
]

#: Kinds of cases: ordinary text, and a chunk copied from far back, of which only what can be known is scored.
FAMILIES = ("text", "copies")
METHODS = ("rtn", "smoothquant", "awq", "gptq")
UNIFORM, BEST_UNIFORM, RANDOM = "uniform", "best uniform per kind", "best of random draws"
ADDITIVE, EVOLUTION, OURS = "additive optimum alone", "evolution, equal evaluations", "profile and exact allocation"


@dataclass(frozen=True)
class Preset:
    """How much is run.

    Arguments:
        sizes: of the family, from small to large.
        length: tokens of a sequence.
        search, select, holdout: sequences of each kind per split.
        bits: memory budgets, as if every weight and cache had so many bits.
        options: bits that weights and caches are searched over.
        evaluations: of ours, those of the profile not counted.
        draws: of random search.
        tokens: length of the cache that counts as memory.
        metric: what is searched by.
        methods: rows of the grid.
        group: weights that share a scale.
        batch: sequences per pass; so many calibrate AWQ, GPTQ and SmoothQuant.
        searched: how many of the smallest sizes have their bits searched; None: all.
    """

    sizes: tuple[Recipe, ...]
    length: int = 160
    search: int = 6
    select: int = 32
    holdout: int = 96
    bits: tuple[int, ...] = (4, 3)
    options: tuple[int, ...] = (2, 3, 4, 5, 6)
    evaluations: int = 100
    draws: int = 30
    tokens: int = 512
    metric: str = "kl"
    methods: tuple[str, ...] = METHODS
    group: int = 32
    batch: int = 12
    searched: int | None = None


class Searched(NamedTuple):
    """What the methods found for one model, budget and seed.

    Arguments:
        plans: by method.
        evaluations: by method, on the SEARCH cases; the profile's own are counted in.
        seconds: of processor time, by method.
        memory: the budget in bytes.
        promised, joint: the loss of the additive optimum by the profile's sum, and as it is.
        tensors: what has bits.
    """

    plans: dict[str, BitPlan]
    evaluations: dict[str, int]
    seconds: dict[str, float]
    memory: float
    promised: float
    joint: float | None
    tensors: tuple[SizedTensor, ...]


@lru_cache(maxsize=8)
def model_of(recipe: Recipe) -> Any:
    """The trained model."""
    return trained(recipe)


def cases_of(preset: Preset, split: Split, n: int, seed: int = 0) -> dict[str, list[TokenCase]]:
    """Sequences of a split, by kind."""
    texts = plain(n, preset.length, split, seed=seed)
    tokens, known = copies(n, preset.length, split, chunk=min(40, preset.length // 2), seed=seed)
    copied_cases = [TokenCase(tuple(row), tuple(mark)) for row, mark in zip(tokens, known, strict=True)]
    return {"text": [TokenCase.whole(row.tolist()) for row in texts], "copies": copied_cases}


def copied(tokens: Sequence[int], rng: np.random.Generator, cue: int = 8) -> TokenCase:
    """A sequence of any tokens whose last quarter is copied from further up; after a cue, the copy counts."""
    row = np.array(tokens)
    size = len(row) // 4
    source = int(rng.integers(len(row) - 2 * size + 1))
    row[-size:] = row[source : source + size]
    known = np.arange(len(row)) >= len(row) - size + min(cue, size - 1)
    return TokenCase(tuple(row.tolist()), tuple(known.tolist()))


def weights_of(model: Any) -> int:
    """How many weights are quantized."""
    from searchlib.objectives.quantizable_layers import LANGUAGE_FULL, find_layers

    return sum(layer.weight.numel() for layer in find_layers(model, LANGUAGE_FULL).values())


def split_cases(preset: Preset, seed: int) -> dict[str, list[TokenCase]]:
    """SEARCH and SELECT sequences of a seed, both kinds together."""
    numbers = {"search": preset.search, "select": preset.select}
    return {split: mixed(cases_of(preset, Split(split), n, seed)) for split, n in numbers.items()}


def mixed(kinds: Mapping[str, Sequence[TokenCase]]) -> list[TokenCase]:
    """Equally many cases of every kind, in turn."""
    return [case for turn in zip(*kinds.values(), strict=True) for case in turn]


def grid(
    preset: Preset, model: Any, cases: Mapping[str, Sequence[TokenCase]], calibration: Sequence[TokenCase]
) -> QuantizationTable:
    """The paper's grid: weights, weights and inputs, caches; on one thread."""
    weight = {bits: f"{bits}@{preset.group}" for bits in (8, 4, 3, 2)}
    pairs = [(weight[8], 8), (weight[4], 8), (weight[4], 4)]
    with threads(1):
        return quantization_grid(
            model, cases, weights=tuple(weight.values()), weight_activations=pairs, kv=(8, 4, 3, 2),
            methods=preset.methods, calibration=calibration, batch=preset.batch,
        )  # fmt: skip


def objective_of(
    preset: Preset, model: Any, parts: Mapping[str, Sequence[TokenCase]], bits: int, *, seeded: bool = True
) -> QuantizedLLM:
    """Layer-by-layer bits of weights and caches, in the memory of uniform ones."""
    options = tuple(f"{option}@{preset.group}" for option in preset.options)
    settings: dict[str, Any] = {
        "weight": options, "kv": preset.options, "tokens": preset.tokens, "metric": preset.metric,
        "batch": preset.batch,
    }  # fmt: skip
    free = QuantizedLLM(model, parts, **settings)
    memory = free.space.uniform(weight=f"{bits}@{preset.group}", kv=bits).memory(free.tensors)
    return QuantizedLLM(model, parts, memory=memory, seeded=seeded, **settings)


def searched(
    preset: Preset, model: Any, parts: Mapping[str, Sequence[TokenCase]], seed: int
) -> dict[int, Searched]:
    """All methods within every budget; the profile is measured once, and counted in each.

    Arguments:
        preset: how much.
        model: whose bits are searched.
        parts: SEARCH and SELECT sequences.
        seed: of the searches.
    """
    with threads(1):
        start = time.process_time()
        profile = measure_profile(objective_of(preset, model, parts, max(preset.bits)))
        measured = time.process_time() - start
        return {bits: _within(preset, model, parts, seed, bits, profile, measured) for bits in preset.bits}


def _within(
    preset: Preset, model: Any, parts: Any, seed: int, bits: int, profile: AdditiveProfile, measured: float
) -> Searched:
    objective = objective_of(preset, model, parts, bits)
    space, entries = objective.space, int(profile.allowed.sum()) - len(profile.allowed)
    with objective:
        best = objective.best_uniform()
    allocated = profile.allocate(space.budgets_array).choice.astype(space.dtype)
    plans = {
        UNIFORM: space.uniform(weight=f"{bits}@{preset.group}", kv=bits),
        BEST_UNIFORM: best,
        ADDITIVE: space.decode(space.repair(allocated[None])[0]),
    }
    evaluations = {UNIFORM: 0, BEST_UNIFORM: len(objective.seeds()), ADDITIVE: entries}
    seconds = {UNIFORM: 0.0, BEST_UNIFORM: 0.0, ADDITIVE: measured}
    rivals: list[tuple[str, Algorithm, int]] = [
        (RANDOM, RandomSearch(), preset.draws),
        (EVOLUTION, Evolution(), entries + preset.evaluations),
        (OURS, ExactAllocation(profile), preset.evaluations),
    ]
    for method, algorithm, budget in rivals:
        start = time.process_time()
        # Random search would begin with the uniform plans.
        own = objective_of(preset, model, parts, bits, seeded=False) if method == RANDOM else objective
        result = search(own, algorithm, budget=budget, seed=seed)
        mine = method == OURS
        plans[method] = result.best.plan
        evaluations[method] = result.history.evaluations + entries * mine
        seconds[method] = time.process_time() - start + measured * mine
    notes = result.notes["additive"]
    assert space.memory is not None
    return Searched(plans, evaluations, seconds, space.memory, notes["loss"], notes["joint"], objective.tensors)


def held_out(
    preset: Preset, model: Any, plans: Sequence[BitPlan], cases: Mapping[str, Sequence[TokenCase]]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Observations ``(plans, cases, 3)`` by kind, and those of full precision ``(cases, 3)``; equal plans run once."""
    names = [repr(plan) for plan in plans]
    distinct = dict(zip(names, plans, strict=True))
    place = [list(distinct).index(name) for name in names]
    own, full = {}, {}
    with threads(1), QuantizedLLM(
        model, {"search": next(iter(cases.values()))}, weight=(4,), batch=preset.batch
    ) as objective:  # fmt: skip
        for kind, sequences in cases.items():
            table = objective.observe([BitPlan(), *distinct.values()], Cases.of(sequences))
            own[kind], full[kind] = table[1:][place], table[0]
    return own, full
