"""Spaces whose genes are reals, whole numbers and categories side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population, Space

__all__ = ["MixedGenes"]

#: A whole number of more values than this counts as a real that is rounded: no step of one is worth a margin.
_LEVELS = 256


@final
class MixedGenes:
    """A product of ``Real``, ``Integer``, ``Categorical`` and ``Binary``, however nested, as three flat blocks.

    Reals lie on their own scale (logarithmic where the space's is) as shares of their range, [0, 1]; whole numbers are
    the values themselves, or their logarithms; categories and bits are options. Genes that can take one value only are
    left out. What a space is made of is read off :meth:`searchlib.Space.to_json`.

    Attributes:
        reals: columns of the reals, and of whole numbers with very many values.
        levels: columns of the other whole numbers.
        values: for each of these its values on the scale, ascending.
        options: columns of the categories and bits.
        counts: how many options each of these has.

    Arguments:
        space: what may vary.
        who: the algorithm that asks, for the message.

    Raises:
        MissingOperator: the space has a part of another kind; the message names it.

    Example:
        >>> from searchlib.spaces import Categorical, Product, Real
        >>> genes = MixedGenes(Product(rate=Real(1, 100, log=True), method=Categorical(("a", "b"), length=2)), "It")
        >>> len(genes), genes.rows(np.array([[0.5]]), np.empty((1, 0)), np.array([[0, 1]])).round(6).tolist()
        (3, [[10.0, 0.0, 1.0]])
    """

    def __init__(self, space: Space, who: str) -> None:
        self._space = space
        self._base = space.canonical(space.sample(np.random.default_rng(0), 1))
        reals: list[int] = []
        bounds: list[tuple[float, float, bool, float]] = []
        levels: list[int] = []
        options: list[int] = []
        counts: list[int] = []
        self.values: list[NDArray[np.float64]] = []
        logs: list[bool] = []
        place = 0
        for kind, part in _leaves(space, who):
            if kind in ("Categorical", "Binary"):
                length, count = (part["n"], 2) if kind == "Binary" else (part["length"], len(part["choices"]))
                if count > 1:
                    options += range(place, place + length)
                    counts += [count] * length
            else:
                length, low, high, log = part["length"], part["low"], part["high"], part["log"]
                half = 0.5 if kind == "Integer" else 0.0  # a whole number is the middle of a cell of width 1
                if kind == "Integer" and 1 < high - low + 1 <= _LEVELS:
                    values = np.arange(low, high + 1, dtype=np.float64)
                    levels += range(place, place + length)
                    self.values += [np.log(values) if log else values] * length
                    logs += [log] * length
                elif low < high:
                    reals += range(place, place + length)
                    bounds += [(low - half, high + half, log, half)] * length
            place += length
        self.reals, self.levels = np.array(reals, np.intp), np.array(levels, np.intp)
        self.options, self.counts = np.array(options, np.intp), np.array(counts, np.intp)
        self._level_log = np.array(logs, np.bool_)
        self._low, self._high, log_scale, self._half = np.array(bounds, np.float64).reshape(-1, 4).T
        self._log = log_scale > 0

    def __len__(self) -> int:
        """How many genes vary."""
        return len(self.reals) + len(self.levels) + len(self.options)

    def rows(self, reals: Any, levels: Any, options: Any) -> Population:
        """Canonical rows ``(n, d)`` of shares of ranges ``(n, reals)``, values and options ``(n, ...)``."""
        rows = np.repeat(self._base.astype(np.float64), len(reals), axis=0)
        left, right = self._ends
        inside = np.clip(reals, 0, 1)
        scale = left * (1 - inside) + right * inside  # exact at both ends
        scale[:, self._log] = np.exp(scale[:, self._log])
        rows[:, self.reals] = np.clip(scale, self._low + self._half, self._high - self._half)
        levels = np.array(levels, np.float64)
        levels[:, self._level_log] = np.exp(levels[:, self._level_log])
        rows[:, self.levels] = np.rint(levels)
        rows[:, self.options] = options
        return self._space.canonical(self._space.repair(rows))

    def of(self, population: Population) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """The inverse of :meth:`rows`: shares, values and options of canonical rows."""
        rows = population.astype(np.float64)
        left, right = self._ends
        reals, levels = rows[:, self.reals], rows[:, self.levels]
        reals[:, self._log] = np.log(reals[:, self._log])
        levels[:, self._level_log] = np.log(levels[:, self._level_log])
        return (reals - left) / (right - left), levels, rows[:, self.options].astype(np.intp)

    def one_hot(self, options: NDArray[np.intp]) -> NDArray[np.float64]:
        """Options ``(n, genes)`` as indicators ``(n, genes, most options)``."""
        most = int(self.counts.max(initial=0))
        return np.asarray(options[:, :, None] == np.arange(most), np.float64)

    @property
    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both ends of the reals on their scales."""
        with np.errstate(divide="ignore", invalid="ignore"):
            left, right = np.log(self._low), np.log(self._high)
        return np.where(self._log, left, self._low), np.where(self._log, right, self._high)


def _leaves(space: Space, who: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and fields of the parts of a space, in the order of their columns."""
    try:
        tree = space.to_json()
    except InvalidSettings:
        tree = {"space": type(space).__name__}

    def walk(part: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        kind = part["space"]
        if kind == "Product":
            for _, inner in part["parts"]:
                yield from walk(inner)
        elif kind == "Grouped":
            for _ in range(part["groups"]):
                yield from walk(part["part"])
        elif kind in ("Real", "Integer", "Categorical", "Binary"):
            yield kind, part
        else:
            raise MissingOperator(
                f"{who} searches Real, Integer, Categorical, Binary and what Product and Grouped make of them, but "
                f"{space!r:.200} has a part of {kind}; use LocalSearch or Evolution there"
            )

    return walk(tree)
