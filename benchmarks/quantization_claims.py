"""What the benchmark of quantized language models says: the paper's findings and the worth of searching, with tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantization_runs import ADDITIVE, BEST_UNIFORM, EVOLUTION, OURS, RANDOM, UNIFORM
from benchmarks.small_llamas import VOCABULARY, text
from benchmarks.table import Table, paired_lower_bound
from searchlib.objectives import QuantizationTable, recommended_bits
from searchlib.objectives.uniform_grid import GridRow

__all__ = ["claim_findings", "claim_searches", "plain_name"]

#: What "near-lossless" means: the paper's 2 % of full precision.
NEAR = 0.02
#: "Not better": larger models may lose less per tenfold size by at most this share of full precision's loss.
MARGIN = 0.01

Grids = Mapping[str, QuantizationTable]


def claim_findings(table: Table, grids: Grids, weights: Mapping[str, int]) -> None:
    """The paper's findings, in the order of its summary; those of one model are of the largest."""
    largest = list(grids)[-1]
    methods = list(dict.fromkeys(row.method for row in grids[largest].rows))
    for plan in ("W4", "W4A8", "KV4"):
        for method in methods:
            _near_lossless(table, grids, largest, plan, method)
    for plan in ("W3", "KV3"):
        row = _row(grids[largest], plan)
        share, low, high = _share(row)
        _say(table, f"{plan} loses more than {NEAR:.0%} on text ({largest}, rtn)", share, NEAR, (low, high), row,
             "paired 95 % t interval over sequences; its lower end", low > NEAR)  # fmt: skip
    for plan in ("W2", "W4A4"):
        for method in methods:
            if _has(grids[largest], plan, method):
                _collapses(table, grids[largest], largest, plan, method)
    for plan in ("W3", "W2"):
        _slope(table, grids, weights, f"larger models tolerate {plan} better: its loss on text falls with size",
               lambda rows, plan=plan: _relative(_row(rows, plan)), falls=True)  # type: ignore[misc]
    for plan in ("KV3", "KV2"):
        _slope(table, grids, weights, f"larger models tolerate {plan} better: its loss on text falls with size",
               lambda rows, plan=plan: _relative(_row(rows, plan)), falls=True)  # type: ignore[misc]
    _slope(table, grids, weights, "larger models do not tolerate inputs of 4 bits better (W4A4 over W4A8, text)",
           lambda rows: _relative(_row(rows, "W4A4")) - _relative(_row(rows, "W4A8")), falls=False)  # fmt: skip
    for plan in ("KV3", "KV2"):
        _copies_suffer(table, grids, largest, plan)
    _caches_are_for_copies(table, grids, largest)
    for method in methods:
        _recommended(table, grids, largest, method)


def claim_searches(
    table: Table, bits: int, losses: Mapping[tuple[str, int], Mapping[str, NDArray[np.float64]]]
) -> None:
    """Ours against each rival at equal memory, held out.

    Arguments:
        table: takes the claims.
        bits: of the uniform plan whose memory is the budget.
        losses: by (model, seed) and method, per sequence in bits per character, of text and of copies alike.
    """
    for rival in (UNIFORM, BEST_UNIFORM, RANDOM, ADDITIVE, EVOLUTION):
        gains = np.stack([found[rival] - found[OURS] for found in losses.values()])
        over = {"sequences": gains.mean(axis=0), "models and seeds": gains.mean(axis=1)}
        for what, values in over.items():
            bound = paired_lower_bound(values) if len(values) > 1 else float(values[0])
            table.claim(
                f"memory of {bits} bits: searched bits lose less than {rival} (bits per character, over {what})",
                value=float(values.mean()), bound=bound, n=len(values), holds=bound > 0, preset="paper",
                test=f"paired one-sided 95 % t over {what}, held out",
            )  # fmt: skip


def _near_lossless(table: Table, grids: Grids, name: str, plan: str, method: str) -> None:
    if not _has(grids[name], plan, method):
        return
    row = _row(grids[name], plan, method)
    share, low, high = _share(row)
    within = [other for other, rows in grids.items() if _share(_row(rows, plan, method))[2] <= NEAR]
    told = f"; so it is for {', '.join(within) or 'no size'}"
    _say(table, f"{plan} by {method} is within {NEAR:.0%} of full precision on text ({name}{told})", share, NEAR,
         (low, high), row, "paired 95 % t interval over sequences; its upper end", high <= NEAR)  # fmt: skip


def _collapses(table: Table, rows: QuantizationTable, name: str, plan: str, method: str) -> None:
    """At least half of what the model knows more than the frequencies of characters is gone."""
    row = _row(rows, plan, method)
    lost = row.observations[:, 0] - row.full[:, 0]
    known = _unigram() - float(row.full[:, 0].mean())
    low, high = (number / known for number in row.increase()[1:])
    _say(table, f"{plan} by {method} collapses: it loses half of the gain over character frequencies on text ({name})",
         float(lost.mean()) / known, 0.5, (low, high), row, "paired 95 % t interval over sequences; its lower end",
         low > 0.5)  # fmt: skip


def _slope(
    table: Table, grids: Grids, weights: Mapping[str, int], sentence: str,
    value: Callable[[QuantizationTable], NDArray[np.float64]], *, falls: bool,
) -> None:  # fmt: skip
    """How a share of loss changes per tenfold size: a line through all sizes, for every sequence."""
    if len(grids) < 2:
        return
    size = np.log10([weights[name] for name in grids])
    apart = size - size.mean()
    slopes = apart @ np.stack([value(rows) for rows in grids.values()]) / (apart**2).sum()
    bound = -paired_lower_bound(-slopes) if falls else paired_lower_bound(slopes)
    limit = 0.0 if falls else -MARGIN
    table.claim(
        sentence, value=float(slopes.mean()), bound=bound, n=len(slopes), preset="paper",
        test=f"slope of the share per tenfold size; one-sided 95 % t over sequences, against {limit:g}",
        holds=bound < 0 if falls else bound >= limit,
    )  # fmt: skip


def _copies_suffer(table: Table, grids: Grids, name: str, plan: str) -> None:
    """More bits per character are lost where characters come from far back."""
    far, near = (_lost(_row(grids[name], plan, family=family)) for family in ("copies", "text"))
    apart, low = _apart(far, near)
    _say(table, f"{plan} costs copies from far back more than text ({name}, rtn, bits per character)", apart, 0.0,
         (low, None), _row(grids[name], plan), "Welch's one-sided 95 % t over sequences", low > 0)  # fmt: skip


def _caches_are_for_copies(table: Table, grids: Grids, name: str) -> None:
    """Copies lose more per bit lost on text through the cache than through the weights."""
    ratios = []
    rng = np.random.default_rng(0)
    lost = {(plan, kind): _lost(_row(grids[name], plan, family=kind))
            for plan in ("KV3", "W3") for kind in ("copies", "text")}  # fmt: skip
    n = len(lost["W3", "text"])
    for picks in rng.integers(n, size=(2000, 2, n)):
        mean = {key: float(values[picks[int(key[1] == "text")]].mean()) for key, values in lost.items()}
        ratios.append(mean["KV3", "copies"] / mean["KV3", "text"] - mean["W3", "copies"] / mean["W3", "text"])
    low = float(np.quantile(ratios, 0.05))
    mean = {key: float(values.mean()) for key, values in lost.items()}
    value = mean["KV3", "copies"] / mean["KV3", "text"] - mean["W3", "copies"] / mean["W3", "text"]
    _say(table, f"for the same loss on text, KV3 costs copies more than W3 does ({name}, difference of ratios)", value,
         0.0, (low, None), _row(grids[name], "KV3"), "one-sided 95 % bootstrap over sequences", low > 0)  # fmt: skip


def _recommended(table: Table, grids: Grids, name: str, method: str) -> None:
    rows = QuantizationTable(tuple(row for row in grids[name].rows if row.family == "text"))
    found = recommended_bits(rows, NEAR, method=method)
    expected = {"weight": "W4", "weight and activation": "W4A8", "kv": "KV4"}
    plain = {kind: None if plan is None else plain_name(plan) for kind, plan in found.items()}
    agree = [plain[kind] == expected[kind] for kind in plain]
    told = ", ".join(plan or "none" for plan in plain.values())
    table.claim(
        f"the fewest bits within {NEAR:.0%} on text by {method} are the paper's "
        f"{', '.join(expected[kind] for kind in plain)} ({name}: {told})",
        value=float(np.mean(agree)), bound=1.0, n=len(agree), preset="paper",
        test="share of kinds; the upper end of the paired 95 % interval counts", holds=all(agree),
    )  # fmt: skip


def _say(
    table: Table, sentence: str, value: float, bound: float, interval: tuple[float, float | None], row: GridRow,
    test: str, holds: bool,
) -> None:  # fmt: skip
    table.claim(sentence, value=value, bound=bound, interval=interval, n=len(row.full), test=test, holds=holds,
                preset="paper")  # fmt: skip


def _row(rows: QuantizationTable, plan: str, method: str = "rtn", family: str = "text") -> GridRow:
    """By the paper's name, whatever the group size."""
    return next(
        row for row in rows.rows if (plain_name(row.name), row.method, row.family) == (plan, method, family)
    )  # fmt: skip


def _has(rows: QuantizationTable, plan: str, method: str) -> bool:
    return any((plain_name(row.name), row.method) == (plan, method) for row in rows.rows)


def plain_name(name: str) -> str:
    """A plan as the paper calls it, without group sizes: W4A8."""
    before, _, after = name.partition("@")
    return before + after.lstrip("0123456789")


def _relative(row: GridRow) -> NDArray[np.float64]:
    """What each sequence loses, as a share of full precision's mean loss."""
    return np.asarray((row.observations[:, 0] - row.full[:, 0]) / row.full[:, 0].mean())


def _share(row: GridRow) -> tuple[float, float, float]:
    full = float(row.full[:, 0].mean())
    mean, low, high = row.increase()
    return mean / full, low / full, high / full


def _lost(row: GridRow) -> NDArray[np.float64]:
    return np.asarray((row.observations[:, 0] - row.full[:, 0]) / np.log(2))


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    from scipy import stats

    result = stats.ttest_ind(first, second, equal_var=False, alternative="greater")
    return float(first.mean() - second.mean()), float(result.confidence_interval(0.95).low)


def _unigram() -> float:
    """The loss in nats of knowing how often each character is, nothing else."""
    counts: Sequence[float] = np.bincount(text(), minlength=VOCABULARY).astype(float)
    share = np.asarray(counts) / np.sum(counts)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
