"""How a library sees a space: a list of reals, integers and choices, and the rows that its numbers stand for.

``"native"`` is what a library's documentation recommends for such a space: one variable per gene, a bit per item of a
subset, a level per part of an allocation, and what lies outside is repaired. ``"latent"`` is the space's own relaxation
(scores whose top k are kept, soft-max weights). ``"exponential"`` and ``"divided"`` are two ways to weights that sum to
one: −log u divided by its sum (optuna's FAQ on the Dirichlet distribution), and numbers divided by their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space
from searchlib.spaces import Allocation, Binary, Categorical, Integer, Product, Real, Simplex, Subset

__all__ = ["Codec", "Variable", "codec"]

#: Where the relaxations are not yet saturated.
_LATENT = 3.0


class Variable(NamedTuple):
    """One number: ``kind`` is ``"real"``, ``"integer"`` or ``"choice"``; from ``low`` to ``high``, both included."""

    name: str
    kind: str
    low: float
    high: float


class Codec(NamedTuple):
    """The variables, and of an array ``(n, variables)`` the rows ``(n, d)`` that it stands for."""

    variables: tuple[Variable, ...]
    decode: Callable[[NDArray[np.float64]], Population]


def codec(space: Space, encoding: str) -> Codec:
    """The variables of a space in an encoding."""
    if encoding == "latent":
        return Codec(_reals(space.latent_dimension, -_LATENT, _LATENT), space.from_latent)
    if isinstance(space, Simplex):
        return Codec(_reals(space.dimension, 0.0, 1.0), _exponential if encoding == "exponential" else _divided)
    if isinstance(space, Subset):
        # Bits that are too many or too few: which of the equals stay is a fixed order of no meaning.
        order = np.random.default_rng(0).permutation(space.n) / (2 * space.n)
        bits = tuple(Variable(f"x{i}", "choice", 0, 1) for i in range(space.n))
        return Codec(bits, lambda values: space.from_latent(np.asarray(values) + order))
    if isinstance(space, Allocation):
        levels = tuple(Variable(f"x{i}", "integer", 0, len(space.options) - 1) for i in range(space.dimension))
        return Codec(levels, lambda values: space.repair(np.asarray(values).astype(space.dtype)))
    parts = space.parts if isinstance(space, Product) else (("x", space),)
    return Codec(tuple(variable for name, part in parts for variable in _genes(name, part)), np.asarray)


def _genes(name: str, part: Space) -> list[Variable]:
    if isinstance(part, Categorical):
        kind, low, high = "choice", 0.0, len(part.choices) - 1.0
    elif isinstance(part, Binary):
        kind, low, high = "choice", 0.0, 1.0
    elif isinstance(part, Integer):
        kind, low, high = "integer", float(part.low), float(part.high)
    elif isinstance(part, Real):
        kind, low, high = "real", float(part.low), float(part.high)
    else:
        raise NotImplementedError(f"genes of Binary, Categorical, Integer or Real are known, but got {part!r}")
    return [Variable(f"{name}{i}", kind, low, high) for i in range(part.dimension)]


def _reals(count: int, low: float, high: float) -> tuple[Variable, ...]:
    return tuple(Variable(f"x{i}", "real", low, high) for i in range(count))


def _exponential(values: NDArray[np.float64]) -> Population:
    return _divided(-np.log(np.clip(values, 1e-12, 1 - 1e-12)))


def _divided(values: NDArray[np.float64]) -> Population:
    positive = np.abs(np.asarray(values)) + 1e-12
    return np.asarray(positive / positive.sum(axis=1, keepdims=True))
