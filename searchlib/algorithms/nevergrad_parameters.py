"""Any space as a parameter of nevergrad's."""

from __future__ import annotations

from typing import Any, final

import nevergrad
import numpy as np
from nevergrad.parametrization._datalayers import ForwardableOperation  # as the bounds of p.Array are made
from nevergrad.parametrization._layering import Level
from numpy.typing import NDArray

from searchlib.space import Space

__all__ = ["latent_array", "to_nevergrad"]


def latent_array(space: Space) -> Any:
    """The space's real relaxation: an unbounded ``p.Array`` of ``latent_dimension`` reals with step 1, from 0."""
    return nevergrad.p.Array(init=np.zeros(space.latent_dimension))


def to_nevergrad(space: Space) -> Any:
    """A parameter whose ``value`` is a candidate: what ``instrumentation`` of nevergrad's optimizers takes.

    Optimizers see the space's real relaxation (:func:`latent_array`); every value is feasible, a typed value as an
    objective gets it. Setting ``value`` to a candidate works too, as does passing the parameter on within
    ``p.Instrumentation`` or ``p.Dict``.

    Arguments:
        space: any space.

    Example:
        >>> from searchlib.spaces import Subset
        >>> optimizer = nevergrad.optimizers.OnePlusOne(to_nevergrad(Subset(8, k=3)), budget=200)
        >>> optimizer.parametrization.random_state.seed(0)
        >>> optimizer.minimize(lambda kept: float(sum(kept))).value
        (0, 1, 2)
    """
    return latent_array(space).add_layer(_Candidate(space))


@final
class _Candidate(ForwardableOperation):  # type: ignore[misc]
    """Shows the reals below it as the candidate that they mean."""

    _LAYER_LEVEL = Level.SCALAR_CASTING  # above the cast to an array, which a candidate need not be

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space

    def _get_name(self) -> str:
        return repr(self._space)

    def forward(self, value: NDArray[np.float64]) -> Any:
        """The candidate of a point."""
        return self._space.decode(self._space.canonical(self._space.from_latent(value[None]))[0])

    def backward(self, value: Any) -> NDArray[np.float64]:
        """A point of the candidate."""
        return np.asarray(self._space.to_latent(self._space.encode([value]))[0])
