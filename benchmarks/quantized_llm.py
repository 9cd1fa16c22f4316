"""Evaluating quantized language models: the paper's grid and findings on a family of small ones, and the search.

Four sizes of real Llama models, trained from scratch on the same text (``small_llamas.py``), not the paper's weights.
Every finding of the paper is a claim with what was measured here, also where it does not hold. HOLDOUT sequences are
looked at only after all searches of a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantization_claims import claim_findings, claim_searches, plain_name
from benchmarks.quantization_runs import (
    METHODS,
    OURS,
    Preset,
    Searched,
    cases_of,
    copied,
    grid,
    held_out,
    mixed,
    model_of,
    searched,
    split_cases,
    weights_of,
)
from benchmarks.small_llamas import Recipe
from benchmarks.table import Table
from searchlib import Split, search
from searchlib.objectives import (
    QuantizationPlan,
    QuantizationTable,
    QuantizedModels,
    TokenCase,
    recommended_bits,
)
from searchlib.objectives.quantizable_layers import LANGUAGE_FULL

__all__ = ["DESCRIPTION", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "how many bits the weights, inputs and caches of language models need (quantized LLMs)"

SEEDS = {"smoke": 1, "small": 2, "paper": 2, "full": 1}

TINY = {"steps": 60, "tokens": 256, "length": 64, "heads": 2}
FAMILY = (
    Recipe(layers=2, heads=2), Recipe(layers=3, heads=4), Recipe(layers=4, heads=6), Recipe(layers=4, heads=8),
)  # fmt: skip
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        tuple(Recipe(layers=layers, **TINY) for layers in (1, 2)), length=64, search=4, select=4, holdout=12, bits=(4,),
        options=(3, 4, 6), evaluations=12, draws=6, tokens=64, methods=("rtn", "gptq"), batch=4,
    ),
    "small": Preset(FAMILY[1:3], holdout=64, evaluations=60),
    # Searching the largest takes as long as all others together.
    "paper": Preset(FAMILY, searched=3),
}  # fmt: skip
#: Of the weights, without scales, in the tables of sizes and bits.
BITS = (16, 8, 4, 3, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    group = parser.add_argument_group("preset full: a model and a text of one's own")
    group.add_argument("--model", metavar="FOLDER", help="folder or name of a transformers causal language model")
    group.add_argument("--text", type=Path, metavar="FILE", help="plain text, cut into sequences")
    group.add_argument("--length", type=int, default=512, help="tokens of a sequence (%(default)s)")
    group.add_argument("--sequences", type=int, default=16, help="for a search; 2 and 6 times as many for SELECT and "
                       "HOLDOUT (%(default)s)")  # fmt: skip
    group.add_argument("--group", type=int, default=128, help="weights that share a scale (%(default)s)")
    group.add_argument("--bits", type=int, nargs="+", default=[4, 3], help="budgets of memory (%(default)s)")
    group.add_argument("--tokens", type=int, default=8192, help="length of the cache that counts (%(default)s)")
    group.add_argument("--budget", type=int, default=100, help="evaluations after the profile (%(default)s)")
    group.add_argument("--batch", type=int, default=4, help="sequences per pass (%(default)s)")
    group.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="rows of the grid")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("quantized_llm", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        _full(table, arguments)
        return table
    preset, seeds = PRESETS[arguments.preset], range(arguments.seeds)
    grids: dict[str, QuantizationTable] = {}
    weights: dict[str, int] = {}
    gains: dict[int, dict[tuple[str, int], dict[str, NDArray[np.float64]]]] = {bits: {} for bits in preset.bits}
    filled: list[float] = []
    for number, recipe in enumerate(preset.sizes):
        model = model_of(recipe)
        name = f"{round(weights_of(model) / 1000)}k"
        weights[name] = weights_of(model)
        left_out = preset.searched is not None and number >= preset.searched
        chosen = () if left_out else seeds
        found = {seed: searched(preset, model, split_cases(preset, seed), seed) for seed in chosen}
        filled += [
            plan.memory(one.tensors) / one.memory
            for budgets in found.values() for one in budgets.values() for plan in one.plans.values()
        ]  # fmt: skip
        cases = cases_of(preset, Split.HOLDOUT, preset.holdout)
        for key, bits, losses in _score(table, preset, name, model, found, cases):
            gains[bits][name, key] = losses
        grids[name] = grid(preset, model, cases, mixed(cases_of(preset, Split.SEARCH, preset.batch)))
        _add_grid(table, name, grids[name])
    for method in preset.methods:
        _add_recommended(table, grids, method)
    claim_findings(table, grids, weights)
    _bigger_at_fewer_bits(table, grids, weights)
    for bits, losses in gains.items():
        claim_searches(table, bits, losses)
    table.claim(
        "every plan that is compared lies within its budget of memory", value=max(filled), bound=1.0, n=len(filled),
        test="largest share of the budget that a plan takes", holds=max(filled) <= 1 + 1e-12,
    )  # fmt: skip
    return table


def _score(
    table: Table, preset: Preset, name: str, model: Any, found: Mapping[int, Mapping[int, Searched]], cases: Any
) -> list[tuple[int, int, dict[str, NDArray[np.float64]]]]:
    """Rows of all plans of a model; held-out losses in bits per sequence, by method, for every seed and budget."""
    told = [(bits, seed, method) for bits in preset.bits for seed in found for method in found[seed][bits].plans]
    own, full = held_out(preset, model, [found[seed][bits].plans[method] for bits, seed, method in told], cases)
    losses: dict[tuple[int, int], dict[str, NDArray[np.float64]]] = {}
    for row, (bits, seed, method) in enumerate(told):
        one = found[seed][bits]
        plan = one.plans[method]
        mean = {kind: own[kind][row].mean(axis=0) for kind in own}
        table.add(
            f"{name}, memory of {bits} bits", method,
            loss=float(np.mean([mean[kind][0] for kind in mean]) / np.log(2)),
            **{f"{kind}_bits": float(mean[kind][0] / np.log(2)) for kind in mean},
            divergence=float(np.mean([mean[kind][1] for kind in mean]) / np.log(2)),
            agreement=float(1 - np.mean([mean[kind][2] for kind in mean])),
            weight_bits=plan.mean_bits(one.tensors), kv_bits=plan.mean_bits(one.tensors, "kv"),
            kilobytes=plan.memory(one.tensors) / 1000,
            evaluations=one.evaluations[method], cpu_seconds=one.seconds[method],
        )  # fmt: skip
        every = np.concatenate([own[kind][row, :, 0] for kind in own]) / np.log(2)
        losses.setdefault((bits, seed), {})[method] = every
    for bits in preset.bits:
        for seed in found:
            one = found[seed][bits]
            table.add(f"{name}, memory of {bits} bits", "additive optimum on SEARCH", promised=one.promised,
                      joint=one.joint)  # fmt: skip
    reference = np.concatenate([full[kind] for kind in full]).mean(axis=0)
    kinds = {f"{kind}_bits": float(full[kind][:, 0].mean() / np.log(2)) for kind in full}
    table.add(f"{name}, memory of {preset.bits[0]} bits", "full precision", loss=reference[0] / np.log(2), **kinds)
    return [(seed, bits, row) for (bits, seed), row in losses.items()]


def _add_grid(table: Table, name: str, rows: QuantizationTable) -> None:
    """One row per plan and method; shares are of full precision's loss on text, copies in bits per character."""
    for row in rows.rows:
        if row.family != "text":
            continue
        other = rows.row(row.name, family="copies", method=row.method)
        full = float(row.full[:, 0].mean())
        share = [number / full for number in row.increase()]
        bits = [number / np.log(2) for number in other.increase()]
        table.add(
            f"{name}, grid", f"{row.method} {plain_name(row.name)}",
            text_bits=row.mean() / np.log(2), text_share=share[0], text_low=share[1], text_high=share[2],
            copies_bits=other.mean() / np.log(2), copies_more=bits[0],
            copies_low=bits[1], copies_high=bits[2], agreement=1 - row.mean("disagreement"),
            copies_agreement=1 - other.mean("disagreement"),
        )  # fmt: skip


def _add_recommended(table: Table, grids: Mapping[str, QuantizationTable], method: str) -> None:
    """The largest compression of every kind within 2 % of full precision's loss on text."""
    for name, rows in grids.items():
        text = QuantizationTable(tuple(row for row in rows.rows if row.family == "text"))
        found = recommended_bits(text, 0.02, method=method)
        bits: dict[str, float | None] = {}
        for kind, plan in found.items():
            row = None if plan is None else text.row(plan, method=method)
            key = {"weight": "weight_bits", "kv": "kv_bits"}.get(kind, "w_of_wa_bits")
            option = None if row is None else row.kv if kind == "kv" else row.weight
            bits[key] = None if option is None else float(str(option).partition("@")[0])
            if key == "w_of_wa_bits":
                bits["a_of_wa_bits"] = None if row is None else float(str(row.activation))
        table.add(f"{name}, fewest bits within 2 % on text", method, **bits)


def _bigger_at_fewer_bits(table: Table, grids: Mapping[str, QuantizationTable], weights: Mapping[str, int]) -> None:
    """The family as the paper's tables: which size at which bits is best in the memory of each smaller model."""
    method = "gptq" if any(row.method == "gptq" for row in next(iter(grids.values())).rows) else "rtn"
    for family in ("text", "copies"):
        scores = {}
        for name, rows in grids.items():
            picked = [row for row in rows.rows if (row.family, row.method, row.kind) == (family, method, "weight")]
            scores[name] = (-float(picked[0].full[:, 0].mean()), *(-row.mean() for row in picked))
        sizes = list(weights)
        larger, budgets = 0, []
        for name in sizes[:-1]:
            for bits in (16, 8):
                budgets.append((name, bits))
                free = QuantizedModels({family: scores}, BITS, group=32, parameters=weights)
                memory = float(free.bytes[sizes.index(name) * len(BITS) + BITS.index(bits)])
                objective = QuantizedModels({family: scores}, BITS, memory=memory, group=32, parameters=weights)
                winner, fewer = search(objective, budget=4 * len(sizes) * len(BITS)).best
                assert (winner, fewer) == objective.best()
                larger += weights[winner] > weights[name]
                score = scores[winner][BITS.index(fewer)]
                table.add(
                    f"in the memory of {name} at {bits} bits, {family}", f"{winner} at {fewer} bits",
                    kilobytes=memory / 1000, loss=-score / np.log(2),
                    smaller=-scores[name][BITS.index(bits)] / np.log(2),
                )  # fmt: skip
        table.claim(
            f"in the memory of every smaller model at 16 and 8 bits, a larger one at fewer bits is better on {family}",
            value=larger / len(budgets), bound=1.0, n=len(budgets), preset="paper",
            test=f"share of budgets; weights by {method}, the search equals brute force", holds=larger == len(budgets),
        )  # fmt: skip


def _full(table: Table, arguments: argparse.Namespace) -> None:
    """A model and a text of one's own: the grid, and the search within every budget."""
    if not (arguments.model and arguments.text):
        raise SystemExit("preset full needs --model and --text; see --help")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto").eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    name, n = Path(arguments.model).name, arguments.sequences
    pieces = _pieces(tokenizer(arguments.text.read_text(encoding="utf-8"))["input_ids"], arguments.length, 9 * n)
    rng = np.random.default_rng(0)
    parts: dict[str, dict[str, list[TokenCase]]] = {}
    for split, rows in zip(("search", "select", "holdout"), np.split(pieces, [n, 3 * n]), strict=True):
        half = len(rows) // 2
        whole = [TokenCase.whole(row.tolist()) for row in rows[:half]]
        parts[split] = {"text": whole, "copies": [copied(row.tolist(), rng) for row in rows[half : 2 * half]]}
    preset = Preset(
        (), length=arguments.length, bits=tuple(arguments.bits), evaluations=arguments.budget, tokens=arguments.tokens,
        methods=tuple(arguments.methods), group=arguments.group, batch=arguments.batch,
    )  # fmt: skip
    together = {split: mixed(parts[split]) for split in ("search", "select")}
    found = {seed: searched(preset, model, together, seed) for seed in range(arguments.seeds)}
    _score(table, preset, name, model, found, parts["holdout"])
    rows = grid(preset, model, parts["holdout"], together["search"])
    _add_grid(table, name, rows)
    for method in preset.methods:
        _add_recommended(table, {name: rows}, method)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed, budgets in found.items():
        for bits, one in budgets.items():
            plan = one.plans[OURS]
            QuantizationPlan(plan, one.tensors, LANGUAGE_FULL).save(arguments.out / f"bits-{bits}-{seed}.json")


def _pieces(tokens: list[int], length: int, count: int) -> NDArray[np.int64]:
    """So many sequences of a text, in random order."""
    if length < 16 or len(tokens) < length * count:
        raise SystemExit(f"the text has {len(tokens)} tokens, but {count} sequences of {length} (at least 16) take "
                         f"{length * count}; pass a longer --text, or a smaller --length or --sequences")  # fmt: skip
    rows = np.array(tokens[: len(tokens) // length * length], np.int64).reshape(-1, length)
    return np.random.default_rng(0).permutation(rows)[:count]
