"""Speed: searchlib against the released expert search, other engines and the memory's own limit.

Every figure is a ratio against the obvious alternative, measured in the same run, the two taking turns. Ratios are of
CPU seconds, which other jobs on the computer disturb least; the wall clock's are in the table beside them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from benchmarks import speed_allocation, speed_apply, speed_candidates, speed_classes, speed_engine, speed_strategies
from benchmarks.small_mixtral import SMOKE_STEPS
from benchmarks.speed_allocation import Allocations, AllocationSize
from benchmarks.speed_apply import Applied, ApplySize
from benchmarks.speed_candidates import GENERATE, PREFILL, CandidatesSize, Scored
from benchmarks.speed_classes import ClassSize
from benchmarks.speed_clock import claim_at_least, claim_at_most, threads
from benchmarks.speed_engine import EngineSize
from benchmarks.speed_strategies import StrategySize
from benchmarks.table import Table

__all__ = ["DESCRIPTION", "PARTS", "add_arguments", "run"]

DESCRIPTION = "time and memory of applying, scoring and proposing candidates, against the obvious alternatives"


@dataclass(frozen=True)
class Preset:
    """How much is measured; ``repetitions`` at least, more where there are more seeds."""

    apply: ApplySize
    candidates: CandidatesSize
    engine: EngineSize
    allocation: AllocationSize = AllocationSize()  # noqa: RUF009  frozen
    strategy: StrategySize = StrategySize()  # noqa: RUF009  frozen
    classes: ClassSize = ClassSize()  # noqa: RUF009  frozen
    repetitions: int = 5


_TINY = ApplySize(2, hidden=32, intermediate=48, candidates=8, dtype=torch.float32)
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(_TINY, CandidatesSize(SMOKE_STEPS, "extremes", 32, 40, 2), EngineSize(1_000, 200),
                    AllocationSize(64, 4, limit=1.0), StrategySize(30_000, 16),
                    ClassSize(60, 40, 20, ("genetic",)), repetitions=2),
    "small": Preset(ApplySize(1), CandidatesSize(), EngineSize()),
    "paper": Preset(ApplySize(2), CandidatesSize(candidates=402, generated=20), EngineSize()),
    # All of Mixtral 8x7B: 45 billion weights, of which the released way needs two and a half copies.
    "full": Preset(ApplySize(32), CandidatesSize(candidates=402, generated=20), EngineSize()),
}  # fmt: skip


PARTS = ("engine", "classes", "allocation", "strategies", "candidates")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads (%(default)s, as a search)")
    parser.add_argument(
        "--layers", type=int, metavar="N", help="Mixtral layers to apply candidates to; each takes 7 GB at the peak"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (may be repeated)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark; every repetition is another seed."""
    preset = PRESETS[arguments.preset]
    repetitions = max(preset.repetitions, arguments.seeds)
    table, parts, claims = Table("speed", arguments.preset, repetitions), arguments.part or PARTS, []
    # The engine comes first: the large model leaves a process behind that is slower to get memory.
    if "engine" in parts:
        engines, imports = speed_engine.measure(table, preset.engine, repetitions), speed_engine.import_seconds(table)
        claims.append(lambda: _claim_engine(table, engines, min(imports), len(imports)))
    if "classes" in parts:
        classes = speed_classes.measure(table, preset.classes, repetitions)
        claims.append(lambda: _claim_classes(table, classes))
    if "allocation" in parts:
        allocated = speed_allocation.measure(table, preset.allocation, repetitions)
        claims.append(lambda: _claim_allocating(table, allocated))
    with threads(arguments.threads):
        if "strategies" in parts:
            strategies = speed_strategies.measure(table, preset.strategy, repetitions)
            claims.append(lambda: _claim_strategies(table, strategies))
        if "candidates" in parts:
            size = preset.apply if arguments.layers is None else replace(preset.apply, layers=arguments.layers)
            scored = speed_candidates.measure(table, preset.candidates, repetitions)
            applied = speed_apply.measure(table, size, scored.histories)
            _claim_sanity(table, applied, scored, preset.candidates.cases, size.dtype)
            claims += [lambda: _claim_applying(table, applied), lambda: _claim_scoring(table, scored)]
    for claim in claims if arguments.preset != "smoke" else ():
        claim()
    return table


def _claim_sanity(table: Table, applied: Applied, scored: Scored, cases: int, dtype: torch.dtype) -> None:
    rounding = 8 * torch.finfo(dtype).eps  # the released way rounds after each of eight additions, searchlib once
    near_tie = 1 / cases  # between two tokens, which may fall either way
    limits = {
        "both ways merge to the same weights, in units of the largest": (applied.difference, rounding),
        "both ways, and generating, say the same accuracy": (scored.difference, near_tie),
    }
    for sentence, (value, bound) in limits.items():
        table.claim(sentence, value=value, bound=bound, n=table.seeds, test="largest difference", holds=value <= bound)


def _claim_applying(table: Table, applied: Applied) -> None:
    for phase, bound in zip(speed_apply.PHASES, (10, 3, 3), strict=True):
        theirs, ours = (applied.cpu_seconds[phase, method] for method in ("released way", "searchlib"))
        sentence = f"applying a candidate ({phase}) is at least {bound} times as fast as the released way"
        claim_at_least(table, sentence, theirs, ours, bound, "CPU seconds")
    if applied.lazy_layers is not None:
        value = applied.lazy_layers
        table.claim("merging lazily, forward pass included, takes at most one layer of extra memory", value=value,
                    bound=1, n=1, test="peak resident memory, in layers", holds=value <= 1)  # fmt: skip


def _claim_scoring(table: Table, scored: Scored) -> None:
    ours = scored.cpu_seconds["searchlib"]
    sentence = f"a search scores candidates at least twice as fast as the {GENERATE}"
    claim_at_least(table, sentence, scored.cpu_seconds[GENERATE], ours, 2, "CPU seconds")
    # The release generates. Lent this library's scoring by one prefill, what remains of its overhead is less than the
    # forward pass itself, which both then share.
    sentence = f"it is still faster than the {PREFILL}, which borrows our scoring"
    claim_at_least(table, sentence, scored.cpu_seconds[PREFILL], ours, 1, "CPU seconds")


def _claim_engine(
    table: Table, engines: Mapping[str, Mapping[str, list[float]]], importing: float, imports: int
) -> None:  # fmt: skip
    ours = engines["searchlib"]["cpu"]
    claim_at_most(table, "the engine costs at most 10 µs per candidate", ours, 10, "CPU microseconds")
    journal = engines["searchlib, journal"]["wall"]
    claim_at_most(table, "with a journal it costs at most 50 µs per candidate", journal, 50, "microseconds")
    claim_at_least(table, "the engine is faster than pymoo's", engines["pymoo GA"]["cpu"], ours, 1, "CPU seconds")
    table.claim("importing searchlib costs little more than numpy", value=importing, bound=0.15, n=imports,
                test="CPU seconds, the best of them", holds=importing <= 0.15)  # fmt: skip


def _claim_classes(table: Table, classes: Mapping[tuple[str, str], Mapping[str, list[float]]]) -> None:
    """Of every class and space, the rival that is fastest in the mean."""
    for (kind, space), spent in classes.items():
        ours, *others = spent.values()
        fastest = min(others, key=lambda times: sum(times))
        rival = next(name for name, times in spent.items() if times is fastest)
        sentence = f"asking and telling takes at most a fifth of what {rival}'s takes ({kind}, {space})"
        claim_at_least(table, sentence, fastest, ours, 5, "CPU seconds")


def _claim_strategies(table: Table, spent: Mapping[str, list[float]]) -> None:
    what = "a generation of an evolution strategy over a million weights"
    if speed_strategies.EVOTORCH in spent:
        ours = spent[speed_strategies.OURS["snes"]]
        sentence = f"{what} takes at most a fifth of what evotorch's takes (SNES both)"
        claim_at_least(table, sentence, spent[speed_strategies.EVOTORCH], ours, 5, "CPU seconds")
    for method, name in speed_strategies.OURS.items():
        sentence = f"{what} ({method}) takes at most three copies of its members"
        third = [3 * seconds for seconds in spent[speed_strategies.COPY]]
        claim_at_least(table, sentence, third, spent[name], 1, "CPU seconds, three copies over a generation")


def _claim_allocating(table: Table, allocated: Allocations) -> None:
    for method, seconds, what in (
        ("searchlib", 1.0, "1024 heads get 48 rules within 4 budgets"),
        ("searchlib, two rules per layer", 2.0, "with at most two rules per layer it is done"),
    ):
        claim_at_most(table, f"{what} in at most {seconds:g} s", [run[0] for run in allocated[method]], seconds,
                      "CPU seconds")  # fmt: skip
        worst = max(gap for _, gap in allocated[method] if gap is not None)
        table.claim(f"{what} within 0.1 % of the optimum", value=worst, bound=1e-3, n=len(allocated[method]),
                    test="largest gap to a proven bound", holds=worst <= 1e-3)  # fmt: skip
