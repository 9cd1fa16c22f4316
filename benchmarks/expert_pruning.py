"""Expert pruning: searched plans against the paper's baselines, its released search and cheap rivals.

A real Mixtral architecture, trained from scratch at small scale (``small_mixtral.py``), not the paper's weights. Every
searched method may evaluate the same number of candidates; what the final choice costs is taken off the search's own
budget. Held-out cases are opened once per finished search.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.speed_clock import threads
from benchmarks.table import Table, paired_lower_bound
from searchlib import Evolution, Nevergrad, Pool, Split, search
from searchlib.objectives import Case, ExpertPruning
from searchlib.objectives.expert_released_loop import ReleasedLoop
from searchlib.report.convergence import best_so_far, plot_convergence
from searchlib.spaces import ExpertMatrices

__all__ = ["DESCRIPTION", "add_arguments", "run", "small_objective"]

DESCRIPTION = "which experts of a mixture-of-experts model to keep, and how to merge them (EEP)"

#: Finalists of every search, scored once more on the SELECT cases.
FINALISTS = 8
BASELINES = ("random", "frequency", "soft activation", "naee")
OURS = ("prune", "prune + merge")


@dataclass(frozen=True)
class Setting:
    """One row group of the table: a task, a model and what is left of its experts."""

    task: str
    keep: int
    top_k: int = 2
    stop_at: int | None = None
    methods: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the table prints it."""
        model = "" if self.stop_at is None else f", model at step {self.stop_at}"
        return f"{self.task}, {self.keep}/8 experts, top-{self.top_k}{model}"


@dataclass(frozen=True)
class Preset:
    """How much is run."""

    steps: int
    settings: tuple[Setting, ...]
    evaluations: int = 402
    search: int = 128
    select: int = 128
    holdout: int = 500


ALL = ("released loop", "released loop + select", "swaps", "nevergrad", *OURS)
GRID = ("sort", "reverse", "count", "shift")
PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(150, (Setting("extremes", 4, methods=ALL),), 60, 32, 32, 64),
    "small": Preset(2500, (Setting("sort", 4, methods=("released loop", *OURS)), Setting("reverse", 4, methods=OURS))),
    "paper": Preset(
        2500,
        (
            *(Setting(task, keep, methods=ALL) for task in GRID for keep in (4, 2)),
            Setting("sort", 7, stop_at=500, methods=OURS),
            Setting("reverse", 7, stop_at=500, methods=OURS),
            *(Setting(task, 8, top_k=1, methods=("merge",)) for task in GRID),
            *(Setting(task, 8, stop_at=500, methods=("merge",)) for task in ("sort", "reverse", "count")),
        ),
    ),
}


class Outcome(NamedTuple):
    """What one search with one seed brought."""

    holdout_accuracy: float
    search_accuracy: float
    evaluations: int
    cpu_seconds: float
    curve: NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="searches side by side (%(default)s)")
    group = parser.add_argument_group("preset full")
    group.add_argument("--model", help="name or path of a transformers mixture-of-experts checkpoint")
    group.add_argument("--cases", type=Path, help="JSON lines with prompt, answer and, for multiple choice, options")
    group.add_argument("--keep", type=int, help="experts to keep per layer")
    group.add_argument("--groups", type=int, help="layer groups (by default one per layer)")
    group.add_argument("--budget", type=int, default=402, help="evaluations (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("expert_pruning", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        return _run_full(table, arguments)
    preset = PRESETS[arguments.preset]
    results: dict[tuple[str, str], list[Outcome]] = {}
    references = {setting: _references(preset, setting) for setting in preset.settings}
    jobs = [
        (setting, method, seed)
        for setting in preset.settings for method in setting.methods for seed in range(arguments.seeds)
    ]  # fmt: skip
    calls = (joblib.delayed(_searched)(preset, *job) for job in jobs)
    outcomes = iter(joblib.Parallel(n_jobs=arguments.jobs, return_as="generator")(calls))
    for setting in preset.settings:
        for name, draws in references[setting].items():
            for accuracy in draws:
                table.add(setting.name, name, holdout_accuracy=accuracy)
        for method in setting.methods:
            for _ in range(arguments.seeds):
                outcome = next(outcomes)
                results.setdefault((setting.name, method), []).append(outcome)
                fields = {name: value for name, value in outcome._asdict().items() if name != "curve"}
                table.add(setting.name, method, **fields)
    _claim(table, preset, results, references)
    _plot(arguments.out, preset.settings[0], results, table)
    return table


def small_objective(
    preset: Preset,
    setting: Setting,
    *,
    phases: tuple[Any, ...] = ("prune", "merge"),
    compare_with: tuple[str, ...] | None = (),
) -> ExpertPruning:
    """The objective of a setting, on the small model."""
    from benchmarks import small_mixtral

    counts = {Split.SEARCH: preset.search, Split.SELECT: preset.select, Split.HOLDOUT: preset.holdout}
    cases = {split: small_mixtral.cases(setting.task, n, split) for split, n in counts.items()}
    loader = partial(small_mixtral.load, preset.steps, stop_at=setting.stop_at)
    return ExpertPruning(
        loader, None, cases, keep=setting.keep, top_k=setting.top_k, phases=phases, end=small_mixtral.END,
        compare_with=compare_with,
    )  # fmt: skip


def _references(preset: Preset, setting: Setting) -> dict[str, list[float]]:
    """Held-out accuracies of what needs no search; several for "random"."""
    # One thread, as in a search: on two, tensors this small take minutes while other work keeps the cores busy.
    with threads(1), small_objective(preset, setting, compare_with=None) as objective:
        cases = objective.cases(Split.HOLDOUT)

        def draws(name: str) -> list[float]:
            if name != "random":
                return [float(objective.evaluate_reference(name, cases).mean())]
            return [float(objective.score(kept, cases)[0].mean()) for kept in objective.random_draws()]

        return {name: draws(name) for name in objective.references()}


def _searched(preset: Preset, setting: Setting, method: str, seed: int) -> Outcome:
    start = time.process_time()
    if method.startswith("released loop"):
        outcome = _released(preset, setting, seed, FINALISTS if method.endswith("select") else 0)
    else:
        phases = ("prune",) if method in ("prune", "swaps", "nevergrad") else ("prune", "merge")
        objective = small_objective(preset, setting, phases=phases)
        algorithm: Any = {
            "swaps": Evolution(population=4, offspring=1, crossover_rate=0.0, mutation_pool=Pool(at_least=1)),
            "nevergrad": Nevergrad("NGOpt"),
        }.get(method)
        budget = preset.evaluations - FINALISTS
        result = search(objective, algorithm, budget=budget, seed=seed, shortlist=FINALISTS, batch_size=4)
        assert result.holdout is not None
        curve = best_so_far(result.history, "maximize")
        outcome = Outcome(result.holdout.value, float(curve[-1]), result.history.evaluations + FINALISTS, 0.0, curve)
    return outcome._replace(cpu_seconds=time.process_time() - start)


def _released(preset: Preset, setting: Setting, seed: int, finalists: int) -> Outcome:
    total = preset.evaluations - finalists
    loop = ReleasedLoop(total=total, discrete=round(total * 101 / 402), initial=min(31, total // 2))
    with threads(1), small_objective(preset, setting) as objective:

        def accuracy(matrices: ExpertMatrices, split: Split = Split.SEARCH) -> float:
            return float(objective.score(matrices, objective.cases(split))[0].mean())

        shape = {"experts": objective.space.experts, "keep": setting.keep, "groups": objective.space.groups}
        best_first, accuracies = loop.search(accuracy, **shape, rng=np.random.default_rng(seed))
        winner = best_first[0]
        if finalists:
            winner = max(best_first[:finalists], key=lambda matrices: accuracy(matrices, Split.SELECT))
        curve = np.maximum.accumulate(accuracies)
        return Outcome(accuracy(winner, Split.HOLDOUT), float(curve[-1]), preset.evaluations, 0.0, curve)


def _claim(
    table: Table,
    preset: Preset,
    results: Mapping[tuple[str, str], list[Outcome]],
    references: Mapping[Setting, Mapping[str, list[float]]],
) -> None:
    def values(setting: Setting, method: str) -> NDArray[np.float64]:
        return np.array([outcome.holdout_accuracy for outcome in results[setting.name, method]])

    if table.preset == "smoke":
        (setting,) = preset.settings
        spent = {outcome.evaluations for method in setting.methods for outcome in results[setting.name, method]}
        table.claim("every search spends exactly its budget", value=max(spent), bound=preset.evaluations,
                    n=len(setting.methods), test="count", holds=spent == {preset.evaluations})  # fmt: skip
        return
    grid = [setting for setting in preset.settings if set(OURS) <= set(setting.methods) and setting.stop_at is None]
    for ours in OURS:
        for baseline in BASELINES:
            pairs = [values(setting, ours).mean() - np.mean(references[setting][baseline]) for setting in grid]
            _claim_better(table, f"searched {ours} beats {baseline} on held-out accuracy", pairs,
                          "paired t over (task, keep), each the mean over seeds")  # fmt: skip
        for rival in ("released loop", "released loop + select", "swaps", "nevergrad"):
            rows = [setting for setting in grid if rival in setting.methods]
            pairs = [difference for setting in rows for difference in values(setting, ours) - values(setting, rival)]
            if rows:
                _claim_better(table, f"searched {ours} beats {rival} at equal evaluations", pairs,
                              "paired t over (task, keep, seed)")  # fmt: skip
    if table.preset != "paper":
        # Not the luckiest draw: how good the model is, and with it what pruning leaves, depends on the processor.
        margins = [values(setting, OURS[1]).min() - np.mean(references[setting]["random"]) for setting in grid]
        table.claim("every prune + merge search beats the mean of 30 random draws", value=float(min(margins)),
                    bound=0.0, n=len(grid) * table.seeds, test="least difference", holds=min(margins) > 0)  # fmt: skip
        return
    for setting in preset.settings:
        if setting in grid:
            continue
        full = "full" if setting.top_k == 2 else "full, fewer active"
        for method in setting.methods:
            pairs = values(setting, method) - references[setting][full][0]
            _claim_better(table, f"{method} beats the {full.replace('full', 'full model')} ({setting.name})", pairs,
                          "paired t over seeds")  # fmt: skip


def _claim_better(table: Table, sentence: str, differences: Any, test: str) -> None:
    bound = paired_lower_bound(differences)
    # Fewer settings than the paper preset's show the comparison, but cannot be held to a significance.
    table.claim(sentence, value=float(np.mean(differences)), bound=0.0, interval=(bound, None), n=len(differences),
                test=f"one-sided 95 % bound, {test}", preset="paper", holds=bound > 0)  # fmt: skip


def _plot(out: Path, setting: Setting, results: Mapping[tuple[str, str], list[Outcome]], table: Table) -> None:
    curves = {method: [outcome.curve for outcome in results[setting.name, method]] for method in setting.methods}
    axes = plot_convergence(curves, ylabel="best accuracy on the search cases")
    axes.set_title(setting.name)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{table.benchmark}.png"
    axes.figure.savefig(path, dpi=120)
    table.progress(f"plot saved as {path}")


def _run_full(table: Table, arguments: argparse.Namespace) -> Table:
    """The user's own checkpoint; of the budget, the released share prunes."""
    for name in ("model", "cases", "keep"):
        if getattr(arguments, name) is None:
            raise SystemExit(f"--preset full needs --{name}")
    objective = ExpertPruning(
        arguments.model, cases=list(_read(arguments.cases)), keep=arguments.keep, groups=arguments.groups
    )
    task = f"{Path(arguments.model).name}, keep {arguments.keep}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        start = time.process_time()
        result = search(objective, budget=arguments.budget - FINALISTS, seed=seed, shortlist=FINALISTS,
                        study=arguments.out / f"expert_pruning-{seed}.db")  # fmt: skip
        assert result.holdout is not None
        for row in result.holdout.rows[1:] if seed == 0 else ():
            table.add(task, row.name, holdout_accuracy=row.value)
        table.add(task, OURS[1], holdout_accuracy=result.holdout.value, search_accuracy=result.value,
                  evaluations=arguments.budget, cpu_seconds=time.process_time() - start)  # fmt: skip
        result.best.save(arguments.out / f"plan-{seed}")
    return table


def _read(path: Path) -> Iterator[Case]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            options = fields.get("options")
            yield Case(fields["prompt"], fields["answer"], None if options is None else tuple(options))
