"""Which span every attention head gets, as a rule of the sequence's length: MoA's plan."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.json_data import read_json
from searchlib.spaces.arguments import real, whole

__all__ = ["RELEASED_BLOCK", "AttentionPlan", "spans"]

#: Block and sink of the released code, in tokens; what a file means that names neither.
RELEASED_BLOCK = 64

_KEYS = ("alphas", "betas", "sink", "block", "kv_groups")


def spans(alphas: Any, betas: Any, length: int, block: int = 1) -> NDArray[np.int64]:
    """The span of each rule in tokens: ``alpha + beta * length``, up to a multiple of ``block``, within 1..length.

    The one definition of a span: :class:`AttentionPlan`, the budgets of :class:`AttentionConfigs` and the masks of
    :mod:`searchlib.objectives` all use it.

    Arguments:
        alphas, betas: arrays of one shape.
        length: tokens of the whole sequence, at least 1.
        block: tokens per block, at least 1.

    Example:
        >>> spans([-8, 0, 100], [0.5, 0.25, 0.0], 64), spans([-8], [0.5], 64, block=16)
        (array([24, 16, 64]), array([32]))
    """
    exact = np.asarray(alphas, np.float64) + np.asarray(betas, np.float64) * length
    blocks = np.ceil(exact / block - 1e-9)  # 0.1 * 30 is a little more than 3
    return np.clip(blocks * block, 1, length).astype(np.int64)


@final
@dataclass(frozen=True)
class AttentionPlan:
    """A rule ``span = alpha + beta * length`` for every head of every layer (MoA, arXiv 2406.14909, section 3.1).

    *Length* is the number of tokens of the whole sequence: the prompt, and the reply that is to be written. *Span* is
    how many of the newest keys a query sees, its own included: ``alpha + beta * length`` rounded up to a multiple of
    ``block``, and at least 1, at most the length. *Sinks* are the first ``sink`` tokens of the sequence; every query
    sees those before it, in addition to its span. So a head *keeps* ``min(span + sink, length)`` keys, and that is
    what :meth:`density`, :meth:`kv_bytes`, every mask and every budget count. (The released code disagrees with itself:
    sinks lie outside the span in its search and inside in its deployment, and the length is that of the prompt in the
    one and includes 1,024 new tokens in the other.) ``beta = 0`` is a window of StreamingLLM.

    Arguments:
        alphas: tokens, one per head of each layer; may be negative.
        betas: shares of the length, of the same shape.
        sink: tokens at the beginning that stay visible.
        block: spans are multiples of so many tokens.
        kv_groups: query heads per key-value head (1 without grouped queries); they are *consecutive*, as in
            ``transformers``. A key-value head keeps what the widest of its query heads needs.

    Raises:
        InvalidCandidate: shapes that differ, no layer or no head, numbers that are not finite.

    Example:
        >>> plan = AttentionPlan([[0, 16], [8, -8]], [[0.25, 0.0], [0.5, 1.0]], sink=4)
        >>> plan.span(64).tolist(), plan.kept(64).tolist(), plan.density(64)
        ([[16, 16], [40, 56]], [[20, 20], [44, 60]], 0.5625)
        >>> plan.distinct_rules()
        (((0.0, 0.25), (16.0, 0.0)), ((-8.0, 1.0), (8.0, 0.5)))
    """

    alphas: tuple[tuple[float, ...], ...]
    betas: tuple[tuple[float, ...], ...]
    _: KW_ONLY
    sink: int = 0
    block: int = 1
    kv_groups: int = 1

    def __post_init__(self) -> None:
        for name in ("alphas", "betas"):
            object.__setattr__(self, name, _table(name, getattr(self, name)))
        for name, low in (("sink", 0), ("block", 1), ("kv_groups", 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=low))
        shapes = {len(row) for row in (*self.alphas, *self.betas)}
        if len(self.alphas) != len(self.betas) or len(shapes) != 1 or 0 in shapes:
            raise InvalidCandidate(
                f"alphas and betas must hold one number per head, and as many heads in every layer, but alphas have "
                f"{[len(row) for row in self.alphas]} and betas {[len(row) for row in self.betas]}"
            )
        if self.heads % self.kv_groups:
            raise InvalidCandidate(f"kv_groups must divide the {self.heads} heads, but is {self.kv_groups}")

    @classmethod
    def uniform(
        cls, layers: int, heads: int, *, alpha: float = 0.0, beta: float = 0.0, sink: int = 0, block: int = 1,
        kv_groups: int = 1,
    ) -> Self:  # fmt: skip
        """The same rule for every head: a window and sinks (StreamingLLM, arXiv 2309.17453)."""
        rule = [[(alpha, beta)] * heads] * layers
        alphas, betas = ([[pair[i] for pair in row] for row in rule] for i in (0, 1))
        return cls(alphas, betas, sink=sink, block=block, kv_groups=kv_groups)  # type: ignore[arg-type]

    @classmethod
    def dense(cls, layers: int, heads: int, *, kv_groups: int = 1) -> Self:
        """Every head sees everything before it."""
        return cls.uniform(layers, heads, beta=1.0, kv_groups=kv_groups)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.alphas)

    @property
    def heads(self) -> int:
        """Query heads per layer."""
        return len(self.alphas[0])

    def span(self, length: int) -> NDArray[np.int64]:
        """Newest keys that each head sees, its own position included, shape ``(layers, heads)``; sinks come on top."""
        return spans(self.alphas, self.betas, whole("length", length), self.block)

    def kept(self, length: int) -> NDArray[np.int64]:
        """Keys that each head keeps at the last position, sinks included, shape ``(layers, heads)``."""
        return np.minimum(self.span(length) + self.sink, length)

    def density(self, length: int) -> float:
        """The share of the keys before the last position that is kept there, mean over heads."""
        return float(self.kept(length).mean() / length)

    def kv_bytes(self, length: int, head_dim: int, bytes_per_number: float = 2) -> int:
        """Bytes that the keys and values of one sequence need, computed; a key-value head keeps its widest head's."""
        grouped = self.kept(length).reshape(self.layers, -1, self.kv_groups).max(axis=2)
        return round(float(grouped.sum()) * 2 * head_dim * bytes_per_number)

    def rules(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """``(alpha, beta)`` of every head of every layer."""
        return tuple(tuple(zip(a, b, strict=True)) for a, b in zip(self.alphas, self.betas, strict=True))

    def distinct_rules(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """The different rules of each layer, ascending. MoA's kernels need at most two."""
        return tuple(tuple(sorted(set(row))) for row in self.rules())

    def shared(self, kv_groups: int, length: int) -> Self:
        """The plan for grouped queries: of consecutive heads that share a key-value head, all get the widest's rule.

        Arguments:
            kv_groups: query heads per key-value head.
            length: where the spans are compared.
        """
        groups = whole("kv_groups", kv_groups)
        if self.heads % groups:
            raise InvalidCandidate(f"kv_groups must divide the {self.heads} heads, but is {groups}")
        widest = self.span(length).reshape(self.layers, -1, groups).argmax(axis=2)
        chosen = np.repeat(widest + np.arange(0, self.heads, groups), groups, axis=1)
        tables = (np.take_along_axis(np.array(table), chosen, axis=1) for table in (self.alphas, self.betas))
        alphas, betas = (table.tolist() for table in tables)
        return type(self)(alphas, betas, sink=self.sink, block=self.block, kv_groups=groups)

    def to_json(self) -> dict[str, Any]:
        """``alphas`` and ``betas`` as the released code reads them, and what else there is to know."""
        tables = {name: [list(row) for row in getattr(self, name)] for name in ("alphas", "betas")}
        return {**tables, "sink": self.sink, "block": self.block, "kv_groups": self.kv_groups}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The plan of :meth:`to_json`, or one of the released files, which mean blocks and a sink of 64 tokens.

        Raises:
            InvalidCandidate: keys that are missing or unknown, or not such tables.
        """
        unknown = sorted(set(data) - set(_KEYS))
        missing = [key for key in _KEYS[:2] if key not in data]
        if unknown or missing:
            raise InvalidCandidate(f"a plan has the keys {', '.join(_KEYS)}; missing are {missing}, unknown {unknown}")
        extra = {"sink": RELEASED_BLOCK, "block": RELEASED_BLOCK} | {k: data[k] for k in _KEYS[2:] if k in data}
        return cls(data["alphas"], data["betas"], **extra)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file."""
        Path(path).write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of :meth:`save`, or a released one (``moa_alpha_beta.json``)."""
        name = Path(path).name if isinstance(path, str | os.PathLike) else shown(path)
        try:
            data = read_json(path)
        except InvalidSettings as error:
            raise InvalidCandidate(f"{name} holds no plan: {error}") from error
        if not isinstance(data, dict):
            raise InvalidCandidate(f"{name} must hold an object with alphas and betas, not {shown(data)}")
        return cls.from_json(data)


def _table(name: str, rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    try:
        return tuple(tuple(real(name, number) for number in listed(name, row)) for row in listed(name, rows))
    except InvalidSettings as error:
        raise InvalidCandidate(f"{name} must be finite numbers [layers][heads]: {error}") from error
