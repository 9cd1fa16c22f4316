"""The grid of *Evaluating Quantized Large Language Models* (arXiv 2402.18158) as one call, and what follows from it.

Every cell is a uniform plan: all weights, all inputs or all caches with so many bits. Values come with intervals over
cases, and what is recommended is decided by them: the fewest bits of each kind whose loss is within a share of full
precision's, with the upper end of the paired interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from searchlib.arguments import instance
from searchlib.cases import Cases
from searchlib.errors import InvalidSettings
from searchlib.objectives.answer_cases import Case
from searchlib.objectives.channel_balancing import ChannelBalancing
from searchlib.objectives.quantizable_layers import LANGUAGE_FULL
from searchlib.objectives.quantized_llm import ROUNDINGS, QuantizedLLM
from searchlib.objectives.token_cases import TokenCase, token_cases
from searchlib.objectives.token_losses import METRICS
from searchlib.spaces import BitPlan
from searchlib.spaces.bit_plan import FULL, Bits, Option

__all__ = ["GridRow", "QuantizationTable", "quantization_grid", "recommended_bits"]

#: Ways to quantize, and what of the grid each applies to: round to nearest; after SmoothQuant's scales; AWQ; GPTQ.
METHODS = {
    "rtn": ("weight", "weight and activation", "kv", "weight and kv"),
    "smoothquant": ("weight and activation",),
    "awq": ("weight", "weight and activation", "weight and kv"),
    "gptq": ("weight", "weight and activation", "weight and kv"),
}
#: What a row of the grid varies, as the paper's tables are called.
KINDS = ("weight", "weight and activation", "kv", "weight and kv")


@final
@dataclass(frozen=True, eq=False)
class GridRow:
    """One uniform plan on one family of cases.

    Arguments:
        family: of the cases.
        method: one of :data:`METHODS`.
        kind: one of :data:`KINDS`.
        weight, activation, kv: the options.
        observations: of every case: loss, divergence, disagreement, shape ``(cases, 3)``.
        full: those of the full-precision model.
    """

    family: str
    method: str
    kind: str
    weight: Option
    activation: Option
    kv: Option
    observations: NDArray[np.float64]
    full: NDArray[np.float64]

    @property
    def name(self) -> str:
        """As the papers write it: W4A8, KV4; with the group size where there is one."""
        return _name(self.weight, self.activation, self.kv)

    def mean(self, metric: str = "nll") -> float:
        """The mean over cases."""
        return float(self.observations[:, METRICS.index(metric)].mean())

    def increase(self, metric: str = "nll", *, level: float = 0.95) -> tuple[float, float, float]:
        """How much larger than full precision's the mean is, and its paired interval (Student's t over cases)."""
        column = METRICS.index(metric)
        apart = self.observations[:, column] - self.full[:, column]
        n, mean = len(apart), float(apart.mean())
        half = math.inf if n < 2 else float(stdtrit(n - 1, (1 + level) / 2) * apart.std(ddof=1) / math.sqrt(n))
        return mean, mean - half, mean + half


@final
@dataclass(frozen=True, eq=False)
class QuantizationTable:
    """The rows of a grid.

    Example:
        >>> from searchlib import Split
        >>> objective = QuantizedLLM.smoke()
        >>> table = quantization_grid(objective.model, objective.cases(Split.HOLDOUT).payload,
        ...                           weights=(8, 2), weight_activations=(), kv=(4,))
        >>> [row.name for row in table.rows]
        ['W8', 'W2', 'KV4']
    """

    rows: tuple[GridRow, ...]

    def row(self, name: str, *, family: str | None = None, method: str = "rtn") -> GridRow:
        """The row of a plan, such as ``"W4A8"``."""
        for row in self.rows:
            if row.name == name and row.method == method and family in (None, row.family):
                return row
        raise InvalidSettings(f"there is no row {name!r} by {method!r}, only {sorted({row.name for row in self.rows})}")

    def to_json(self, metric: str = "nll") -> list[dict[str, Any]]:
        """One mapping per row: what it is, its mean, and its increase over full precision with the interval."""
        told = []
        for row in self.rows:
            increase, low, high = row.increase(metric)
            told.append({
                "family": row.family, "method": row.method, "plan": row.name, "metric": metric, "n": len(row.full),
                "mean": row.mean(metric), "full": float(row.full[:, METRICS.index(metric)].mean()),
                "increase": increase, "interval": [_finite(low), _finite(high)],
            })  # fmt: skip
        return told

    def __str__(self) -> str:
        lines = [f"{'family':12}  {'method':12}  {'plan':14}  {'loss':>9}  increase over full precision"]
        for row in self.rows:
            increase, low, high = row.increase()
            lines.append(f"{row.family:12}  {row.method:12}  {row.name:14}  {row.mean():9.4f}  "
                         f"{increase:+.4f} [{low:+.4f}, {high:+.4f}]")  # fmt: skip
        return "\n".join(lines)


def quantization_grid(
    model: Any,
    cases: Sequence[TokenCase | Case] | Mapping[str, Sequence[TokenCase | Case]],
    *,
    tokenizer: Any = None,
    weights: Sequence[Option] = (8, 4, 3, 2),
    weight_activations: Sequence[tuple[Option, Option]] = ((8, 8), (4, 8), (4, 4)),
    kv: Sequence[Option] = (8, 4, 3, 2),
    weight_kv: Sequence[tuple[Option, Option]] = (),
    methods: Sequence[str] = ("rtn",),
    calibration: Sequence[TokenCase | Case] = (),
    full: str = LANGUAGE_FULL,
    batch: int = 16,
) -> QuantizationTable:
    """Evaluate uniform plans on families of cases.

    Arguments:
        model: a transformers causal language model; it is bit-identical afterwards.
        cases: sequences, or sequences by the name of their family (task).
        tokenizer: for questions and answers that are strings.
        weights: options of all weights, inputs and caches in full precision.
        weight_activations: pairs of options of weights and inputs.
        kv: options of all caches.
        weight_kv: pairs of options of weights and caches.
        methods: of :data:`METHODS`, which says what each applies to.
        calibration: what channels are balanced and weights rounded on; by default the first cases of the first family,
            which then are no longer held out.
        full: expression of the layers that stay in full precision.
        batch: sequences per pass.

    Raises:
        InvalidSettings: an unknown method, or no cases.
    """
    families = dict(cases) if isinstance(cases, Mapping) else {"cases": cases}
    if not families or not all(families.values()):
        raise InvalidSettings("there must be cases: TokenCase values, or several of them by the name of a family")
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise InvalidSettings(f"methods must be among {list(METHODS)}, but one is {unknown[0]!r}")
    wanted = [
        *(("weight", (option, FULL, FULL)) for option in weights),
        *(("weight and activation", (weight, activation, FULL)) for weight, activation in weight_activations),
        *(("kv", (FULL, FULL, option)) for option in kv),
        *(("weight and kv", (weight, FULL, option)) for weight, option in weight_kv),
    ]  # fmt: skip
    known = list(calibration) or list(next(iter(families.values())))
    rows: list[GridRow] = []
    for method in methods:
        settings: dict[str, Any] = {"balancing": ChannelBalancing(0.5) if method == "smoothquant" else None}
        settings["rounding"] = method if method in ROUNDINGS else "nearest"
        chosen = [pair for pair in wanted if pair[0] in METHODS[method]]
        with QuantizedLLM(
            model, {"search": known}, tokenizer=tokenizer, weight=(4,), full=full, batch=batch, **settings
        ) as objective:
            for family, sequences in families.items():
                columns = Cases.of(token_cases(sequences, tokenizer))
                plans = [_uniform(objective, options) for _, options in chosen]
                found = objective.observe([BitPlan(), *plans], columns)
                rows += [
                    GridRow(family, method, kind, *options, own, found[0])
                    for (kind, options), own in zip(chosen, found[1:], strict=True)
                ]
    return QuantizationTable(tuple(rows))


def recommended_bits(
    table: QuantizationTable, within: float = 0.02, *, metric: str = "nll", method: str = "rtn"
) -> dict[str, str | None]:
    """The fewest bits of every kind with which the metric grows by at most a share of full precision's.

    The upper end of the paired 95 % interval counts, and on every family: what is recommended is known to be good
    enough, not only not known to be bad. Plans are tried from few bits to many.

    Arguments:
        table: from :func:`quantization_grid`.
        within: the share, as the paper's 0.02. For ``"disagreement"``, which is 0 in full precision, the bound itself.
        metric: ``"nll"`` or ``"disagreement"``.
        method: of :data:`METHODS`.

    Returns:
        by kind the name of a plan, or None where none is good enough.
    """
    instance("table", table, QuantizationTable, "a QuantizationTable")
    chosen: dict[str, str | None] = {}
    for kind in KINDS:
        rows = [row for row in table.rows if row.kind == kind and row.method == method]
        if not rows:
            continue
        names = sorted({row.name for row in rows}, key=lambda name: _bits(next(r for r in rows if r.name == name)))
        good = [name for name in names if all(_is_within(row, within, metric) for row in rows if row.name == name)]
        chosen[kind] = good[0] if good else None
    return chosen


def _is_within(row: GridRow, within: float, metric: str) -> bool:
    full = float(row.full[:, METRICS.index(metric)].mean())
    return row.increase(metric)[2] <= within * (full if metric == "nll" else 1.0)


def _bits(row: GridRow) -> tuple[float, ...]:
    """Fewest first: the sum of all kinds, then the weight, then as few scales as possible."""
    options = [Bits.of(option) for option in (row.weight, row.activation, row.kv)]
    groups = [-(option.group or math.inf) for option in options]
    return sum(option.bits for option in options), options[0].bits, *groups


def _uniform(objective: QuantizedLLM, options: tuple[Option, Option, Option]) -> BitPlan:
    weight, activation, kv = options
    return objective.space.uniform(weight=weight, activation=activation, kv=kv)


def _name(weight: Option, activation: Option, kv: Option) -> str:
    parts = [("W", weight), ("A", activation), ("KV", kv)]
    return "".join(f"{letter}{option}" for letter, option in parts if option != FULL) or "full precision"


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
