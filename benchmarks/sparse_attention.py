"""MoA: spans of attention heads against the uniform window, and against plans that are cheaper to find.

Small models of the Llama architecture that copy from far back, trained here (:mod:`benchmarks.small_llamas`), one per
seed. Spans are searched on sequences of three lengths, picked on a fourth, and compared on texts of other files, at two
lengths that were searched at and at a longer one that neither the search nor the pick has seen. All rows of a density
have the same budget: the keys that heads keep on average, sinks included.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.attention_runs import (
    DENSE,
    MASS,
    OURS,
    TAYLOR,
    TWO_RULES,
    UNIFORM,
    Found,
    Preset,
    Worth,
    decode_speed,
    found_plans,
    judged,
    measured_bytes,
    model_of,
)
from benchmarks.small_llamas import Recipe
from benchmarks.speed_clock import threads
from benchmarks.table import Table, paired_lower_bound
from searchlib.spaces import AttentionPlan

__all__ = ["DESCRIPTION", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "MoA: a span of its own for every attention head of a language model"

#: Training runs: every seed is a model, with cases of its own.
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 6, "full": 1}

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        searched=(40, 48), selected=56, held=(40, 64), search=2, texts=1, select=4, holdout=4, chunk=16, evaluations=12,
        random=4, reach=2, between=16, decode=(64, 1),
        recipe=Recipe(steps=60, tokens=256, length=64, layers=2, heads=2),
    ),
    "small": Preset(search=4, texts=1, select=16, holdout=16, evaluations=50),
    "paper": Preset(),
}  # fmt: skip

#: What is claimed: the loss increase as a share of uniform's, the relative drop, and the effective contexts' ratio.
SHARE, DROP, TIMES = 1 / 3, 0.05, 3.0
#: A copy distance is within reach where copies are this good, relative to the dense model's.
WITHIN = 0.9
_REACHING = (DENSE, UNIFORM, TAYLOR, OURS)

Results = dict[tuple[float, str], list[tuple[Found, Worth, float | None]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    group = parser.add_argument_group("preset full: a language model of one's own")
    group.add_argument("--model", metavar="NAME", help="name or folder of a transformers causal language model")
    group.add_argument("--text", metavar="FILE", help="plain text; its last tokens of every window are the response")
    group.add_argument("--cases", metavar="FILE", help="JSON lines with prompt and answer, instead of --text")
    group.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192], help="of --text (%(default)s)")
    group.add_argument("--density", type=float, default=0.5, help="share of the keys kept (%(default)s)")
    group.add_argument("--sink", type=int, default=64, help="first tokens that all heads keep (%(default)s)")
    group.add_argument("--block", type=int, default=64, help="spans are multiples of it (%(default)s)")
    group.add_argument("--response", type=int, default=256, help="tokens of --text that count (%(default)s)")
    group.add_argument("--each", type=int, default=8, help="sequences per length and split (%(default)s)")
    group.add_argument("--profile", choices=("masking", "mass"), default="mass",
                       help="head by head, or one pass (%(default)s)")  # fmt: skip
    group.add_argument("--budget", type=int, default=50, help="evaluations (%(default)s)")
    group.add_argument("--dtype", default="auto", help="of the weights (%(default)s)")
    group.add_argument("--plan", metavar="FILE", help="where to save the plan found, as MoA's released code reads it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("sparse_attention", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        from benchmarks.attention_full import run_full

        run_full(table, arguments)
        return table
    preset, results = PRESETS[arguments.preset], Results()
    with threads(1):
        for seed in range(arguments.seeds):
            _seed(table, preset, seed, results)
    _claim_budgets(table, preset, results)
    _claim_losses(table, preset, results, arguments.seeds)
    _claim_drop(table, preset, results, arguments.seeds)
    _claim_reach(table, preset, results, arguments.seeds)
    return table


def _seed(table: Table, preset: Preset, seed: int, results: Results) -> None:
    """All rows of one model."""
    model = model_of(preset, seed)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    dense = Found(AttentionPlan.dense(layers, heads), 0, 0.0)
    worth = judged(model, preset, seed, dense.plan, reach=True)
    reference = worth.by_distance
    _add(table, preset, model, (1.0, DENSE), dense, worth, reference, results)
    for density, name, own in found_plans(model, preset, seed):
        worth = judged(model, preset, seed, own.plan, reach=name in _REACHING)
        _add(table, preset, model, (density, name), own, worth, reference, results)
    two = results[(preset.densities[-1], TWO_RULES)][-1][0].plan
    speed = decode_speed(model, preset, two)
    table.add(
        f"decoding at {preset.decode[0]} tokens, {preset.decode[1]} sequences",
        f"{TWO_RULES}, density {preset.densities[-1]}",
        dense_per_second=speed["dense"], grouped_per_second=speed["grouped"],
        speedup=speed["grouped"] / speed["dense"],
    )  # fmt: skip


def _add(
    table: Table, preset: Preset, model: Any, key: tuple[float, str], found: Found, worth: Worth,
    reference: NDArray[np.float64], results: Results,
) -> None:  # fmt: skip
    density, name = key
    longest, plan = preset.held[-1], found.plan
    few = max(map(len, plan.distinct_rules())) <= 2
    reach = float(reach_of(preset, worth.by_distance, reference)) if len(worth.by_distance) else None
    metrics: dict[str, float | None] = {}
    for place, length in enumerate(preset.held):
        metrics[f"copies_{length}"] = float(worth.copies[place])
        metrics[f"random_{length}"] = float(worth.random[place])
        metrics[f"perplexity_{length}"] = float(np.exp(worth.texts[place]))
    table.add(
        "dense" if name == DENSE else f"density {density}", name, **metrics,
        accuracy=float(worth.accuracy[-1]), effective_context=reach,
        kept=float(plan.kept(longest).mean()),
        kv_kib=plan.kv_bytes(longest, model.config.head_dim) / 1024,
        kv_measured_kib=measured_bytes(model, plan, longest) / 1024 if few else None,
        evaluations=found.evaluations, cpu_seconds=found.cpu_seconds,
    )  # fmt: skip
    results.setdefault(key, []).append((found, worth, reach))


def reach_of(preset: Preset, accuracy: NDArray[np.float64], dense: NDArray[np.float64]) -> int:
    """The largest copy distance up to which all are within reach; 0 where not even the shortest is."""
    lost = np.flatnonzero(accuracy < WITHIN * dense)
    count = int(lost[0]) if len(lost) else len(accuracy)
    return preset.distances[count - 1] if count else 0


def _claim_budgets(table: Table, preset: Preset, results: Results) -> None:
    excess = [
        found.plan.density(preset.held[-1]) - density
        for (density, _), seeds in results.items() for found, *_ in seeds
    ]  # fmt: skip
    # One token: the uniform window is rounded up to whole ones.
    table.claim(
        "every row keeps no more of the keys than its density allows, sinks included (held-out length)",
        value=max(excess), bound=1 / preset.held[-1], n=len(excess), test="largest excess over rows and seeds",
        holds=max(excess) <= 1 / preset.held[-1] and len(excess) > 1,
    )  # fmt: skip


def _claim_losses(table: Table, preset: Preset, results: Results, seeds: int) -> None:
    """At the tightest density, at the held-out length."""
    density = preset.densities[-1]
    dense = results[(1.0, DENSE)]

    def rise(name: str, kind: str) -> NDArray[np.float64]:
        """The loss increase over dense of every seed."""
        pairs = zip(results[(density, name)], dense, strict=True)
        return np.array([getattr(row[1], kind)[-1] - getattr(own[1], kind)[-1] for row, own in pairs])

    for kind, what in (("copies", "copies of text"), ("random", "copies of random characters")):
        ours, uniform = rise(OURS, kind), rise(UNIFORM, kind)
        share = ours.mean() / uniform.mean()
        _claim(table, f"density {density}: the loss increase on {what} is at most a third of the uniform window's",
               SHARE * uniform - ours, f"a third of uniform's minus ours; ours is {share:.3f} of uniform's",
               seeds)  # fmt: skip
        for name in (TAYLOR, MASS):
            _claim(table, f"density {density}: the loss increase on {what} is below that of: {name}",
                   rise(name, kind) - ours, "theirs minus ours", seeds)  # fmt: skip
    _claim(table, f"density {density}: the loss increase on plain text is at most the uniform window's",
           rise(UNIFORM, "texts") - rise(OURS, "texts"), "theirs minus ours", seeds)  # fmt: skip


def _claim_drop(table: Table, preset: Preset, results: Results, seeds: int) -> None:
    """At the loosest density, relative to the dense model."""
    density = preset.densities[0]
    pairs = list(zip(results[(density, OURS)], results[(1.0, DENSE)], strict=True))
    accuracy = np.array([1 - row[1].accuracy[-1] / dense[1].accuracy[-1] for row, dense in pairs])
    perplexity = np.array([np.expm1(row[1].texts[-1] - dense[1].texts[-1]) for row, dense in pairs])
    for what, drop in (("copy accuracy drops", accuracy), ("perplexity of plain text rises", perplexity)):
        _claim(table, f"density {density}: {what} by at most {DROP:.0%} of the dense model's", DROP - drop,
               f"{DROP} minus the change, whose mean is {drop.mean():.4f}", seeds)  # fmt: skip


def _claim_reach(table: Table, preset: Preset, results: Results, seeds: int) -> None:
    """Effective contexts at equal mean span."""
    for density in reversed(preset.densities):
        ours, uniform = (
            np.array([reach or 0.0 for *_, reach in results[(density, name)]]) for name in (OURS, UNIFORM)
        )
        limit = preset.distances[-1]
        _claim(table, f"density {density}: effective context is at least three times the uniform window's",
               ours - TIMES * uniform, f"ours minus {TIMES:g} times uniform's; ours {_listed(ours)}, uniform's "
               f"{_listed(uniform)}, no distance beyond {limit} was tried", seeds, strict=False)  # fmt: skip


def _claim(
    table: Table, sentence: str, gains: NDArray[np.float64], what: str, seeds: int, *, strict: bool = True
) -> None:
    """Gains, one per training seed, are above 0 (or not below it)."""
    bound = paired_lower_bound(gains) if seeds > 1 else float(gains[0])
    table.claim(
        f"{sentence} (held out)", value=float(gains.mean()), bound=bound, n=seeds, preset="paper",
        test=f"{what}; one-sided 95 % t over training seeds", holds=bound > 0 or (not strict and bound >= 0),
    )  # fmt: skip


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
