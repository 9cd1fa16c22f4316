"""The runs behind the benchmark of sparse attention: the rows of one model at one density, and what they are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.small_llamas import Recipe, copies, plain, trained
from benchmarks.speed_clock import timed
from searchlib import AdditiveProfile, Candidates, ExactAllocation, Split, measure_profile, search
from searchlib.objectives import SpanPlan, SparseAttention, attention_mass_profile, taylor_profile
from searchlib.objectives.token_cases import TokenCase
from searchlib.spaces import AttentionPlan

__all__ = [
    "DENSE",
    "HEAD",
    "LAYER",
    "MASKING",
    "MASS",
    "OURS",
    "RANDOM",
    "SINK",
    "TAYLOR",
    "TWO_RULES",
    "UNIFORM",
    "Found",
    "Preset",
    "Worth",
    "copy_cases",
    "decode_speed",
    "found_plans",
    "judged",
    "measured_bytes",
    "model_of",
    "objective_of",
    "profile_of",
    "rules_of",
]

DENSE, UNIFORM = "dense", "uniform window + sinks"
LAYER, HEAD, MASKING = "hetero-layer", "hetero-head, fixed windows", "elastic, masking profile"
MASS, TAYLOR, RANDOM = "elastic, attention mass", "elastic, Taylor", "random, best of {n}"
OURS, TWO_RULES = "ours", "elastic, two rules per layer"

SINK = 4
_KV_NUMBER = 2  # bytes, as in half precision; what is measured is in single precision and halved


@dataclass(frozen=True)
class Preset:
    """How much is run.

    Arguments:
        densities: shares of the keys that heads keep on average, sinks included.
        searched, selected, held: lengths of SEARCH, SELECT and HOLDOUT sequences; the last held one is the headline.
        search, select, holdout: sequences with a copy, per length.
        texts: sequences of plain text beside the SEARCH ones, per length; the same share beside the others.
        chunk: characters of a copy.
        evaluations: of the search.
        random: random plans.
        reach: sequences per copy distance.
        between: characters between two of those distances.
        decode: sequence length, and sequences, for the speed of decoding.
        recipe: of the models.
    """

    densities: tuple[float, ...] = (0.5, 0.25)
    searched: tuple[int, ...] = (128, 192, 256)
    selected: int = 288
    held: tuple[int, ...] = (128, 256, 320)
    search: int = 8
    texts: int = 2
    select: int = 32
    holdout: int = 24
    chunk: int = 40
    evaluations: int = 120
    random: int = 30
    reach: int = 4
    between: int = 12
    decode: tuple[int, int] = (1024, 4)
    recipe: Recipe = Recipe()  # noqa: RUF009  frozen

    @property
    def lengths(self) -> tuple[int, ...]:
        """Where budgets hold."""
        return tuple(sorted({*self.searched, self.selected, *self.held}))

    @property
    def distances(self) -> tuple[int, ...]:
        """Copy distances that are tried, in sequences of the longest length."""
        return tuple(range(self.chunk, self.held[-1] - self.chunk + 1, self.between))


class Found(NamedTuple):
    """A plan, and what it took to find it."""

    plan: AttentionPlan
    evaluations: float
    cpu_seconds: float


class Worth(NamedTuple):
    """What a plan is worth on held-out cases; losses in nats per character."""

    copies: NDArray[np.float64]  # of text; by held length
    random: NDArray[np.float64]  # copies of random characters
    texts: NDArray[np.float64]
    accuracy: NDArray[np.float64]  # of both kinds of copies
    by_distance: NDArray[np.float64]  # accuracy of random copies, by distance


def model_of(preset: Preset, seed: int) -> Any:
    """The model of this training seed."""
    return trained(replace(preset.recipe, seed=seed))


def rules_of(preset: Preset) -> tuple[tuple[float, float], ...]:
    """Few of MoA's rules, and shorter ones: shares of the length, and windows that do not grow or grow faster."""
    shortest = preset.lengths[0]
    shares = [(0.0, beta) for beta in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)]
    return (*shares, (2.0, 0.0), (float(shortest // 8), 0.0), (-float(shortest // 2), 1.0))


def windows_of(preset: Preset) -> tuple[tuple[float, float], ...]:
    """Fixed windows, the widest as long as the longest sequence."""
    return tuple((float(max(2, preset.held[-1] // part)), 0.0) for part in (160, 20, 8, 4, 2, 1))


def copy_cases(
    n: int, length: int, split: str, *, chunk: int, seed: int, distance: int | None = None, odds: float = 0.5
) -> list[TokenCase]:
    """Texts that end with a copy from further up, of which the copied characters count.

    A share ``odds`` of the chunks is of random characters, which nothing but the copied ones can tell.
    """
    rng = np.random.default_rng([seed, length, distance or 0, 7])
    cases = []
    for i in range(n):
        back = int(rng.integers(chunk, length - chunk + 1)) if distance is None else distance
        tokens, known = copies(1, length, split, chunk=chunk, distance=back, seed=1000 * seed + i)
        if i < round(odds * n):
            start = length - chunk
            tokens[0, start:] = rng.integers(33, 127, size=chunk)
            tokens[0, start - back : start - back + chunk] = tokens[0, start:]
        cases.append(TokenCase(tuple(tokens[0].tolist()), tuple(known[0].tolist())))
    return cases


def _texts(n: int, length: int, split: str, seed: int) -> list[TokenCase]:
    return [TokenCase.whole(row.tolist()) for row in plain(n, length, split, seed=seed)]


def objective_of(model: Any, preset: Preset, density: float, seed: int, **settings: Any) -> SparseAttention:
    """The search problem, without held-out cases: :func:`judged` has those."""
    cases: dict[str, list[TokenCase]] = {"search": [], "select": []}
    shares = [("search", length, preset.search, preset.texts) for length in preset.searched]
    ratio = preset.texts / preset.search
    shares.append(("select", preset.selected, preset.select, round(preset.select * ratio)))
    for split, length, copied, texts in shares:
        cases[split] += copy_cases(copied, length, split, chunk=preset.chunk, seed=seed)
        cases[split] += _texts(texts, length, split, seed)
    given = {"rules": rules_of(preset), "lengths": preset.lengths} | settings
    return SparseAttention(model, None, cases, density=density, sink=SINK, seeded=False, **given)


def profile_of(model: Any, preset: Preset, seed: int, **settings: Any) -> tuple[AdditiveProfile, float]:
    """Every rule of every head (or layer) alone, and the processor's seconds; it serves all densities."""
    start = time.process_time()
    profile = measure_profile(objective_of(model, preset, max(preset.densities), seed, **settings))
    return profile, time.process_time() - start


def found_plans(model: Any, preset: Preset, seed: int) -> Iterator[tuple[float, str, Found]]:
    """Every row but dense, per density."""
    clock = time.process_time
    profile, measured = profile_of(model, preset, seed)
    by_layer, layers_measured = profile_of(model, preset, seed, same_per_layer=True)
    fixed: dict[str, Any] = {"rules": windows_of(preset), "lengths": (preset.held[-1],)}
    by_window, windows_measured = profile_of(model, preset, seed, **fixed)
    single: dict[str, tuple[NDArray[np.float64], float]] = {}
    for name, estimate in ((MASS, attention_mass_profile), (TAYLOR, taylor_profile)):
        start = clock()
        table = estimate(objective_of(model, preset, max(preset.densities), seed))
        single[name] = table, clock() - start
    for density in preset.densities:
        def problem(density: float = density, **settings: Any) -> SparseAttention:
            return objective_of(model, preset, density, seed, **settings)

        objective = problem()
        uniform = AttentionPlan.uniform(objective.layers, objective.heads, alpha=-SINK, beta=density, sink=SINK)
        yield density, UNIFORM, Found(uniform, 0, 0.0)
        layered = problem(same_per_layer=True)
        yield density, LAYER, Found(_allocated(layered, by_layer.loss), _entries(by_layer), layers_measured)
        windows = _allocated(problem(**fixed), by_window.loss)
        yield density, HEAD, Found(windows, _entries(by_window), windows_measured)
        rivals = [objective.space.decode(objective.space.nearest(windows))]
        for name, (table, seconds) in single.items():
            rivals.append(_allocated(objective, table))
            yield density, name, Found(rivals[-1], 1, seconds)
        yield density, MASKING, Found(_allocated(objective, profile.loss), _entries(profile), measured)
        two = _allocated(problem(max_rules_per_layer=2), profile.loss)
        rivals.append(two)
        yield density, TWO_RULES, Found(two, _entries(profile), measured)
        start = clock()
        best = _random(objective, preset.random, seed)
        yield density, RANDOM.format(n=preset.random), Found(best, preset.random, clock() - start)
        start = clock()
        result = search(
            objective, ExactAllocation(profile), budget=preset.evaluations, seed=seed, seeds=rivals, shortlist=8
        )
        spent = _entries(profile) + _entries(by_window) + len(single) + preset.evaluations
        rivalry = windows_measured + sum(seconds for _, seconds in single.values())
        yield density, OURS, Found(result.best.plan, spent, measured + rivalry + clock() - start)


def _entries(profile: AdditiveProfile) -> int:
    """How many plans were evaluated for a profile; its base is one of them."""
    _, parts, options = profile.loss.shape
    return parts * (options - 1) + 1


def _allocated(objective: SparseAttention, loss: NDArray[np.float64]) -> AttentionPlan:
    return objective.space.decode(AdditiveProfile.of(objective.space, loss).allocate().choice)


def _random(objective: SparseAttention, n: int, seed: int) -> AttentionPlan:
    rows = objective.space.sample(np.random.default_rng(seed), n)
    with objective:
        values = objective.evaluate(Candidates(objective.space, rows), objective.cases(Split.SELECT)).mean(axis=1)
    return objective.space.decode(rows[values.argmin()])


@lru_cache(maxsize=8)
def _held_out(preset: Preset, seed: int) -> Mapping[str, Sequence[Sequence[TokenCase]]]:
    def every(odds: float) -> list[list[TokenCase]]:
        return [
            copy_cases(preset.holdout, n, "holdout", chunk=preset.chunk, seed=seed, odds=odds) for n in preset.held
        ]

    return {
        "copies": every(0),
        "random": every(1),
        "texts": [_texts(max(2, preset.holdout // 2), n, "holdout", seed) for n in preset.held],
        "reach": [
            copy_cases(preset.reach, preset.held[-1], "holdout", chunk=preset.chunk, seed=seed, distance=back, odds=1)
            for back in preset.distances
        ],
    }


def judged(model: Any, preset: Preset, seed: int, plan: AttentionPlan, *, reach: bool) -> Worth:
    """Held-out losses and accuracies of a plan, at every length."""
    groups = _held_out(preset, seed)
    parts = [*groups["copies"], *groups["random"], *groups["texts"], *(groups["reach"] if reach else ())]
    every = [case for part in parts for case in part]
    # What is scored here is no search: the cases only have to be somewhere.
    objective = SparseAttention(model, None, {"search": every}, density=None, rules=((0.0, 1.0),), sink=SINK)
    with objective:
        losses, right = objective.score(plan, objective.cases(Split.SEARCH))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    loss, accuracy = (np.array([part.mean() for part in np.split(values, ends)]) for values in (losses, right))
    count = len(preset.held)
    (copied, random, texts), right = loss[: 3 * count].reshape(3, count), accuracy[: 2 * count].reshape(2, count)
    return Worth(copied, random, texts, right.mean(axis=0), accuracy[3 * count :])


def measured_bytes(model: Any, plan: AttentionPlan, length: int) -> float:
    """What a grouped cache holds after a sequence of this length, measured, as in half precision."""
    found = SpanPlan(plan)
    cache = found.cache(model, length)
    with torch.inference_mode(), found.attached(model, length):
        model(torch.ones((1, length), dtype=torch.long), past_key_values=cache, use_cache=True)
    return cache.stored_bytes * _KV_NUMBER / next(model.parameters()).element_size()


def decode_speed(model: Any, preset: Preset, plan: AttentionPlan, *, tokens: int = 24) -> dict[str, float]:
    """New characters per second after a long prompt: the dense model with its own cache, the plan with groups."""
    from transformers import DynamicCache

    length, batch = preset.decode
    found = SpanPlan(plan)
    prompt = torch.ones((batch, length - tokens), dtype=torch.long)
    caches: dict[str, Any] = {"dense": DynamicCache(), "grouped": found.cache(model, length)}
    contexts: dict[str, Callable[[], Any]] = {
        "dense": lambda: SpanPlan(AttentionPlan.dense(plan.layers, plan.heads)).attached(model),
        "grouped": lambda: found.attached(model, length),
    }

    def step(name: str) -> Callable[[], None]:
        def work() -> None:
            with torch.inference_mode(), contexts[name]():
                model(prompt[:, :1], past_key_values=caches[name], use_cache=True)

        return work

    for name, cache in caches.items():
        with torch.inference_mode(), contexts[name]():
            model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    seconds: dict[str, list[float]] = {name: [] for name in caches}
    for _ in range(tokens):
        for name in caches:
            seconds[name].append(timed(step(name)).cpu_seconds)
    return {name: batch / float(np.median(values)) for name, values in seconds.items()}
