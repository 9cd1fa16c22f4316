"""Spans for a language model of one's own: what the preset ``full`` of the benchmark of sparse attention runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Table
from searchlib import AdditiveProfile, ExactAllocation, measure_profile, search
from searchlib.objectives import Case, SparseAttention, attention_mass_profile
from searchlib.objectives.token_cases import TokenCase
from searchlib.spaces import elastic_rules

__all__ = ["run_full"]


def run_full(table: Table, arguments: argparse.Namespace) -> None:
    """Profile, allocate, search, pick and compare held out, on text or cases of one's own."""
    if not arguments.model or bool(arguments.text) == bool(arguments.cases):
        raise SystemExit("preset full needs --model, and either --text or --cases; see --help")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=arguments.dtype).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    for seed in range(arguments.seeds):
        cases = _text_cases(arguments, tokenizer, seed) if arguments.text else _file_cases(arguments, seed)
        settings: dict[str, Any] = {"density": arguments.density, "sink": arguments.sink, "block": arguments.block}
        if arguments.text:
            *searched, selected, held = _lengths(arguments)
            settings["rules"] = elastic_rules(searched, (selected, held), step=max(1, min(searched) // 2))
        objective = SparseAttention(model, tokenizer, cases, max_rules_per_layer=2, **settings)
        if arguments.profile == "mass":
            profile = AdditiveProfile.of(objective.space, attention_mass_profile(objective))
        else:
            profile = measure_profile(objective)
        result = search(objective, ExactAllocation(profile), budget=arguments.budget, seed=seed)
        assert result.holdout is not None
        task = f"density {arguments.density}"
        for row in result.holdout.rows:
            table.add(task, row.name, holdout=row.value)
        if arguments.plan:
            result.best.save(arguments.plan)


def _lengths(arguments: argparse.Namespace) -> list[int]:
    """Those searched at, then one for SELECT and one for HOLDOUT, as in MoA longer than all."""
    given = sorted(set(arguments.lengths))
    return [*given, given[-1] * 5 // 4, given[-1] * 3 // 2]


def _text_cases(arguments: argparse.Namespace, tokenizer: Any, seed: int) -> dict[str, list[TokenCase]]:
    """Windows of a text, each third of it for one split; the last tokens of a window count."""
    every = tokenizer(Path(arguments.text).read_text(encoding="utf-8"), verbose=False)["input_ids"]
    *searched, selected, held = _lengths(arguments)
    rng, third = np.random.default_rng(seed), len(every) // 3
    wanted = {"search": searched, "select": [selected], "holdout": [held]}
    cases: dict[str, list[TokenCase]] = {}
    for place, (split, lengths) in enumerate(wanted.items()):
        part = every[place * third : (place + 1) * third]
        if len(part) < max(lengths) or min(lengths) <= arguments.response:
            raise SystemExit(
                f"windows of {lengths} tokens, of which {arguments.response} count, do not fit into a third of the "
                f"text ({third} tokens); see --lengths and --response"
            )
        starts = [(n, int(rng.integers(len(part) - n + 1))) for n in lengths for _ in range(arguments.each)]
        windows = [part[start : start + n] for n, start in starts]
        cut = arguments.response
        cases[split] = [TokenCase.answered(window[:-cut], window[-cut:]) for window in windows]
    return cases


def _file_cases(arguments: argparse.Namespace, seed: int) -> dict[str, list[Case]]:
    """Cases of a file of JSON lines with ``prompt`` and ``answer``: half, a quarter and a quarter."""
    lines = Path(arguments.cases).read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines if line.strip()]
    every = [Case(line["prompt"], line["answer"]) for line in read]
    if len(every) < 4:
        raise SystemExit(f"--cases needs at least four cases, but has {len(every)}")
    order = np.random.default_rng(seed).permutation(len(every))
    parts = np.split(order, [len(every) // 2, 3 * len(every) // 4])
    return {
        split: [every[i] for i in part] for split, part in zip(("search", "select", "holdout"), parts, strict=True)
    }
