"""Evaluation subsets: searched items against random, greedy, clustered and item-response ones, and FlashEval's own.

Real scores of 78 text-to-image models on 5,000 DiffusionDB prompts under four metrics (thu-nics/FlashEval). Subsets are
chosen on the training models of a split; the value is Kendall's tau on its held-out models, opened once. How "ours"
searches is chosen by cross-validation over the training models of each split; what there is to choose from, and its
settings, were found on other random halves of the same 78 models.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.table import Table, paired_lower_bound
from searchlib import Budget, Candidates, Split, search
from searchlib.objectives import eval_subset_baselines as baselines
from searchlib.objectives.eval_subset import EXPLAINED, EvalSubset
from searchlib.objectives.eval_subset_folds import SubsetMethod, choose_method
from searchlib.objectives.rank_agreement import kendall_tau
from searchlib.objectives.score_matrix import ScoreMatrix
from searchlib.objectives.score_noise import ScoreNoise

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = "which items of a benchmark to keep so that they rank models like all of them (FlashEval)"

#: Where the scores lie unless --scores or the environment says otherwise.
SCORES = Path(__file__).parents[2] / "shared" / "data" / "flasheval_diffusiondb.npz"

#: Tie margins of the released code.
MARGINS = {"ImageReward": 3.1008e-5, "HPS": 2.7487e-6, "Aesthetic": 3.8559e-6, "CLIP": 4.6905e-6}

#: Training models of the released split (ranking_different_model/train_id.pth).
RELEASED = (
    23, 20, 47, 15, 61, 57, 13, 37, 71, 49, 9, 66, 11, 43, 53, 40, 24, 51, 69, 54, 77, 17, 30, 38, 7, 26, 0, 59, 12,
    72, 45, 67, 56, 22, 1, 29, 27, 74, 52,
)  # fmt: skip

#: How often the cross-validation deals the training models into three folds.
REPEATS = 2

OURS, PAPERS, LARGER = "ours", "FlashEval", "random, 500 items"
SIZE = 50
TOLERATED = 0.005

#: What the cross-validation chooses from: optimal designs that reckon with more or less noise, and a search with pools.
METHODS: Mapping[str, SubsetMethod] = {
    "design": SubsetMethod(criterion=EXPLAINED),
    "design, more noise": SubsetMethod(criterion=EXPLAINED, noise=ScoreNoise(shrinkage=0.0, scale=1.0, pooling=0.3)),
    "expected tau, pools to a fifth": SubsetMethod(criterion="expected_kendall"),
}
#: An optimal design is made before anything is evaluated; so many exchanges of its items are tried all the same.
CHECKED = 2000

#: The paper's own: tau itself, drawn with replacement, no exchanges, the released schedule.
RELEASED_METHOD = SubsetMethod(criterion="kendall", replacement=True)


@dataclass(frozen=True)
class Preset:
    """How much is run."""

    metrics: tuple[str, ...]
    sizes: tuple[int, ...]
    evaluations: int  # of every search; half of it at sizes other than SIZE
    fold_evaluations: int  # of every search within the cross-validation
    halves: int  # random splits at SIZE items
    other_halves: int  # random splits at the other sizes
    unseen: bool  # whether whole families and solvers are held out too
    draws: int = 100  # random subsets averaged for the random rows


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(("CLIP",), (50,), 12_000, 3_000, 1, 1, False, 20),
    "small": Preset(tuple(MARGINS), (10, 50), 60_000, 10_000, 3, 1, False),
    "paper": Preset(tuple(MARGINS), (5, 10, 50, 100, 200, 500), 200_000, 5_000, 40, 5, True),
}


class Fold(NamedTuple):
    """Models to search on, and models that are opened at the end."""

    kind: str
    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    seed: int


class Scored(NamedTuple):
    """One row of the table on one split."""

    holdout_tau: float
    train_tau: float
    evaluations: float
    cpu_seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="splits side by side (%(default)s)")
    parser.add_argument("--scores", type=Path, default=None, help="score table (default: FlashEval's)")
    group = parser.add_argument_group("preset full: a table of one's own")
    group.add_argument("--size", type=int, default=SIZE, help="items to keep (%(default)s)")
    group.add_argument("--budget", type=int, default=300_000, help="evaluations (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("eval_subset", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        tables = {"own": ScoreMatrix.of(arguments.scores)}
        preset = Preset(("own",), (arguments.size,), arguments.budget, arguments.budget // 5, 10, 1, False)
    else:
        preset = PRESETS[arguments.preset]
        tables = _released_scores(arguments.scores or SCORES, preset.metrics)
    jobs = [
        (metric, fold, sizes) for metric in preset.metrics for fold, sizes in _folds(tables[metric], preset)
    ]
    seeds = arguments.seeds
    calls = (joblib.delayed(_rows)(tables[metric], metric, fold, sizes, preset, seeds) for metric, fold, sizes in jobs)
    results: dict[tuple[str, int, str, str], list[Scored]] = {}
    for (metric, fold, sizes), rows in zip(
        jobs, joblib.Parallel(n_jobs=arguments.jobs, return_as="generator")(calls), strict=True
    ):
        for (size, method), scored in rows.items():
            table.add(f"{metric}, {size} items, {fold.kind}", method, **scored._asdict())
            results.setdefault((metric, size, fold.kind, method), []).append(scored)
        table.progress(f"{metric}, {fold.kind} {fold.name}, {len(sizes)} sizes")
    _claim(table, preset, results)
    if arguments.preset != "full":
        _speed(table, tables[preset.metrics[0]], 100_000 if arguments.preset == "paper" else 20_000)
    return table


def _released_scores(path: Path, metrics: Sequence[str]) -> dict[str, ScoreMatrix]:
    if not path.is_file():
        raise SystemExit(f"the scores of FlashEval are not at {os.path.relpath(path)}; name their file by --scores")
    with np.load(path, allow_pickle=False) as data:
        names, places = [str(name) for name in data["names"]], [str(name) for name in data["metrics"]]
        scores = data["scores"].astype(np.float64)
    return {metric: ScoreMatrix.of(scores[places.index(metric)], models=names) for metric in metrics}


def _folds(scores: ScoreMatrix, preset: Preset) -> Iterator[tuple[Fold, tuple[int, ...]]]:
    """Every split and the sizes that are searched on it."""
    models, released = len(scores.models), tuple(sorted(RELEASED))
    if models == 78 and "|" in scores.models[0]:
        yield _fold("halves", "released", released, models, 0), preset.sizes
    for seed in range(preset.halves):
        train = np.random.default_rng([7, seed]).permutation(models)[: models // 2]
        few = tuple(size for size in preset.sizes if size == SIZE) or preset.sizes
        yield (
            _fold("halves", f"random {seed}", sorted(train.tolist()), models, seed + 1),
            preset.sizes if seed < preset.other_halves else few,
        )
    if not preset.unseen:
        return
    for kind, part in (("unseen family", 0), ("unseen solver", 1)):
        labels = [name.split("|")[part].rstrip("0123456789" if part else "") for name in scores.models]
        for seed, label in enumerate(dict.fromkeys(labels)):
            others = [row for row in range(models) if labels[row] != label]
            yield _fold(kind, label, others, models, 100 + seed), (SIZE,)


def _fold(kind: str, name: str, train: Sequence[int], models: int, seed: int) -> Fold:
    inside = tuple(int(row) for row in train)
    return Fold(kind, name, inside, tuple(row for row in range(models) if row not in set(inside)), seed)


def _rows(
    scores: ScoreMatrix, metric: str, fold: Fold, sizes: Sequence[int], preset: Preset, seeds: int
) -> dict[tuple[int, str], Scored]:
    """All rows of one split; searched ones are means over seeds (one seed at sizes other than SIZE)."""
    margin = MARGINS.get(metric, 0.0)
    rows: dict[tuple[int, str], Scored] = {}
    for size in sizes:
        for name, anchors, evaluations, seconds in _baselines(scores, fold, size, preset, margin):
            rows[size, name] = _scored(scores, fold, anchors, margin, evaluations, seconds)
        few = size != SIZE and len(sizes) > 1
        spent, count = (preset.evaluations // 2, 1) if few else (preset.evaluations, seeds)
        rows[size, PAPERS] = _searches(scores, size, fold, RELEASED_METHOD, spent, margin, count)
        start = time.process_time()
        chosen, _ = choose_method(
            scores.take(fold.train), size, METHODS, budget=preset.fold_evaluations, margin=margin, seed=fold.seed,
            repeats=1 if few else REPEATS,
        )  # fmt: skip
        choosing = time.process_time() - start
        # A design leaves nothing to chance: another seed is the same search.
        count = 1 if METHODS[chosen].criterion == EXPLAINED else count
        ours = _searches(scores, size, fold, METHODS[chosen], spent, margin, count)
        rows[size, OURS] = ours._replace(cpu_seconds=ours.cpu_seconds + choosing)
    larger = _random(scores, fold, 500, preset.draws, margin)
    rows[SIZE if SIZE in sizes else sizes[0], LARGER] = larger
    return rows


def _baselines(
    scores: ScoreMatrix, fold: Fold, size: int, preset: Preset, margin: float
) -> Iterator[tuple[str, list[baselines.Anchors], int, float]]:
    train = scores.filled()[list(fold.train)]
    rng = np.random.default_rng([11, fold.seed])
    sets = preset.evaluations // (1 if size == SIZE else 2)
    choices: Mapping[str, Callable[[], baselines.Anchors]] = {
        "best single items": lambda: baselines.best_single_items(train, size, rng),
        "best random set": lambda: baselines.best_random_set(train, size, rng, sets=sets, margin=margin),
        "greedy mean matching": lambda: baselines.greedy_mean_matching(train, size, rng),
        "k-means medoids": lambda: baselines.kmedoid_items(train, size, rng),
        "item response anchors": lambda: baselines.irt_anchor_items(train, size, rng),
    }
    yield "random", [baselines.random_items(train, size, rng) for _ in range(preset.draws)], 0, 0.0
    for name, choose in choices.items():
        start = time.process_time()
        anchors = choose()
        spent = sets if name == "best random set" else 0
        yield name, [anchors], spent, time.process_time() - start


def _random(scores: ScoreMatrix, fold: Fold, size: int, draws: int, margin: float) -> Scored:
    rng = np.random.default_rng([13, fold.seed])
    train = scores.filled()[list(fold.train)]
    size = min(size, train.shape[1] // 2)
    return _scored(scores, fold, [baselines.random_items(train, size, rng) for _ in range(draws)], margin, 0, 0.0)


def _scored(
    scores: ScoreMatrix, fold: Fold, anchors: Sequence[baselines.Anchors], margin: float, evaluations: int,
    seconds: float,
) -> Scored:  # fmt: skip
    """Mean tau of some choices, on the models that were held out and on those that were not."""
    taus = []
    for models in (fold.test, fold.train):
        part = scores.filled()[list(models)]
        estimates = np.stack([part[:, choice.items] @ choice.weights for choice in anchors])
        taus.append(float(kendall_tau(estimates, part.mean(axis=1), margin).mean()))
    return Scored(taus[0], taus[1], evaluations, seconds)


def _searches(
    scores: ScoreMatrix, size: int, fold: Fold, method: SubsetMethod, evaluations: int, margin: float, seeds: int
) -> Scored:
    """The mean of several searches that differ in their seed."""
    found = [_search(scores, size, fold, method, evaluations, margin, 1000 * fold.seed + seed) for seed in range(seeds)]
    return Scored(*(float(np.mean(column)) for column in zip(*found, strict=True)))


def _search(
    scores: ScoreMatrix, size: int, fold: Fold, method: SubsetMethod, evaluations: int, margin: float, seed: int
) -> Scored:
    start = time.process_time()
    objective = method.objective(scores, size, holdout=fold.test, margin=margin)
    if method.criterion == EXPLAINED:
        evaluations = CHECKED
    result = search(objective, method.algorithm, budget=Budget(evaluations=evaluations), seed=seed, shortlist=1)
    seconds = time.process_time() - start
    kept = np.sort(np.asarray(result.row))
    anchors = baselines.Anchors(kept, np.full(size, 1 / size))
    return _scored(scores, fold, [anchors], margin, result.history.evaluations, seconds)


def _claim(table: Table, preset: Preset, results: Mapping[tuple[str, int, str, str], list[Scored]]) -> None:
    kept = {(metric, size): sorted({m for a, b, k, m in results if (a, b, k) == (metric, size, "halves")})
            for metric in preset.metrics for size in preset.sizes}  # fmt: skip
    test = "paired t over splits into halves (they share models), one-sided 95 %"
    carries = "paper"
    for metric in preset.metrics:
        size = SIZE if SIZE in preset.sizes else preset.sizes[0]
        for rival in kept[metric, size]:
            if rival in (OURS, LARGER):
                continue
            gained = _differences(results, metric, size, OURS, size, rival)
            strict = rival == PAPERS
            bound = paired_lower_bound(gained) if len(gained) > 1 else None
            table.claim(
                f"{metric}, {size} items: ours ranks held-out models "
                + ("better than the paper's own method" if strict else f"at least as well as {rival} (within 0.005)"),
                value=float(np.mean(gained)), bound=bound, n=len(gained), test=test, preset=carries,
                holds=bound is not None and bound > (0.0 if strict else -TOLERATED),
            )  # fmt: skip
        _claim_smallest(table, preset, results, metric, test)
    first = [s for (m, z, k, name), rows in results.items() if name == OURS for s in rows]
    drawn = [s for (m, z, k, name), rows in results.items() if name == "random" for s in rows]
    better = float(np.mean([s.holdout_tau for s in first]) - np.mean([s.holdout_tau for s in drawn]))
    table.claim(
        "ours ranks held-out models better than random subsets of the same size", value=better, n=len(first),
        test="sign of the mean difference", holds=better > 0,
    )  # fmt: skip


def _claim_smallest(
    table: Table, preset: Preset, results: Mapping[tuple[str, int, str, str], list[Scored]], metric: str, test: str
) -> None:
    """The smallest size whose tau is that of 500 random items."""
    base = SIZE if SIZE in preset.sizes else preset.sizes[0]
    found: tuple[int, float, float | None, int] | None = None
    for size in preset.sizes:
        gained = _differences(results, metric, size, OURS, base, LARGER)
        if len(gained) > 1 and paired_lower_bound(gained) > -TOLERATED:
            found = (size, float(np.mean(gained)), paired_lower_bound(gained), len(gained))
            break
    claimed = f"{metric}: 50 searched items rank held-out models like 500 random ones (within 0.005)"
    at_50 = _differences(results, metric, base, OURS, base, LARGER)
    bound = paired_lower_bound(at_50) if len(at_50) > 1 else None
    table.claim(
        claimed + (f"; the smallest size that does is {found[0]}" if found else "; no size searched here does"),
        value=float(np.mean(at_50)), bound=bound, n=len(at_50), test=test, preset="paper",
        holds=bound is not None and bound > -TOLERATED,
    )  # fmt: skip


def _differences(
    results: Mapping[tuple[str, int, str, str], list[Scored]], metric: str, size: int, first: str, other_size: int,
    second: str,
) -> NDArray[np.float64]:  # fmt: skip
    """Held-out taus of one row minus another's, over the splits into halves that both were run on."""
    ours = results.get((metric, size, "halves", first), [])
    theirs = results.get((metric, other_size, "halves", second), [])
    return np.array([a.holdout_tau - b.holdout_tau for a, b in zip(ours, theirs, strict=False)])


def _speed(table: Table, scores: ScoreMatrix, sets: int) -> None:
    """Scoring many subsets at once against one at a time, and against only reading the scores they gather."""
    objective = EvalSubset(scores, SIZE, holdout=[m for m in range(78) if m not in RELEASED], criterion="kendall")
    population = objective.space.sample(np.random.default_rng(0), sets)
    cases = objective.cases(Split.SEARCH)

    def batched() -> None:
        for start in range(0, sets, objective.chunk_rows):
            rows = population[start : start + objective.chunk_rows]
            objective.aggregate(objective.evaluate(Candidates(objective.space, rows), cases))

    def gathered() -> None:
        for start in range(0, sets, objective.chunk_rows):
            objective.means(population[start : start + objective.chunk_rows])

    train = scores.scores[sorted(RELEASED)]
    full, few = train.mean(axis=1), 500

    def one_at_a_time() -> None:
        for row in population[:few]:
            stats.kendalltau(train[:, row].mean(axis=1), full)

    seconds = {name: min(_timed(call) for _ in range(3)) / count for name, call, count in (
        ("batched", batched, sets), ("gather only", gathered, sets), ("scipy loop", one_at_a_time, few))}  # fmt: skip
    for name, per_set in seconds.items():
        table.add(f"speed, {sets} sets of {SIZE} x 39 models", name, microseconds_per_set=1e6 * per_set)
    ratio = seconds["scipy loop"] / seconds["batched"]
    table.claim(
        f"scoring {sets} subsets is at least 100 times as fast as a loop over scipy's kendalltau", value=ratio,
        bound=100.0, n=3, test="best of 3, CPU time", holds=ratio >= 100, preset="paper",
    )  # fmt: skip
    table.claim(
        "scoring a subset takes less than 10 times as long as reading the scores it gathers",
        value=seconds["batched"] / seconds["gather only"], bound=10.0, n=3, test="best of 3, CPU time",
        holds=seconds["batched"] < 10 * seconds["gather only"],
    )  # fmt: skip


def _timed(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
