"""Spaces whose relaxation holds one on-off score per option, and which of these scores exclude each other."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import MissingOperator
from searchlib.space import Population, Space

__all__ = ["OnOffScores"]

#: Samples of the space that show its structure.
_SAMPLES = 512


@final
class OnOffScores:
    """The latent coordinates of a combinatorial space as random variables.

    A relaxation of on-off scores is one whose :meth:`Space.to_latent` gives +1 for what a candidate has and -1 for what
    it has not: the bits of ``Binary``, the items of ``Subset``, the options of ``Categorical`` and ``Allocation``, and
    what is built of them. Which coordinates belong to one gene is read off samples of the space: neighboring
    coordinates of which always the same number is on. Where that number is one, they are the options of one categorical
    *variable*; every other coordinate is a variable of its own, on or off.

    Attributes:
        variable: shape ``(p,)``, the number of the variable of every coordinate, ascending.
        single: shape ``(p,)``, whether the coordinate is the only one of its variable, on or off.
        marginals: shape ``(p,)``, the share of the space's own samples that have the coordinate on.

    Arguments:
        space: what may vary.
        who: the algorithm that asks, for the message.

    Raises:
        MissingOperator: a latent coordinate is not an on-off score.
    """

    def __init__(self, space: Space, who: str) -> None:
        self._space = space
        rows = space.sample(np.random.default_rng(0), _SAMPLES)
        latent = space.to_latent(rows)
        real = np.flatnonzero((np.abs(latent) != 1).any(axis=0))
        if len(real):
            raise MissingOperator(
                f"{who} needs a relaxation of on-off scores (Binary, Subset, Categorical, Allocation and what is built "
                f"of them), but latent coordinates {real[:5].tolist()} of {space!r:.200} are numbers; use CMAES, "
                f"LocalSearch or Evolution there"
            )
        on = latent > 0
        first, last = _options(on)
        starts = np.ones(on.shape[1], np.bool_)
        self.single = np.ones(on.shape[1], np.bool_)
        for begin, end in zip(first.tolist(), last.tolist(), strict=True):
            starts[begin + 1 : end + 1] = False
            self.single[begin : end + 1] = False
        self.variable: NDArray[np.intp] = np.cumsum(starts) - 1
        self.marginals: NDArray[np.float64] = (on.sum(axis=0) + 0.5) / (_SAMPLES + 1)

    def of(self, population: Population) -> NDArray[np.bool_]:
        """Which coordinates each row has on, shape ``(n, p)``."""
        return np.asarray(self._space.to_latent(population) > 0)

    def rows(self, scores: NDArray[np.float64]) -> Population:
        """Canonical rows of the candidates with the highest scores."""
        return self._space.canonical(self._space.from_latent(scores))


def _options(on: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """First and last coordinates of the stretches of which exactly one is on in every sample."""
    varied = np.flatnonzero(on.any(axis=0) & ~on.all(axis=0))
    # Where the running count of two places differs by the same number in all samples, what lies between is constant.
    count = np.cumsum(np.concatenate([np.zeros((len(on), 1), np.int64), on[:, varied]], axis=1), axis=1)
    relative = np.ascontiguousarray((count - count[:1]).T)
    _, place = np.unique(relative, axis=0, return_inverse=True)
    seen: dict[int, int] = {}
    stretches: list[tuple[int, int]] = []
    for end, key in enumerate(place.ravel().tolist()):
        begin = seen.get(key)
        if begin is not None and count[0, end] - count[0, begin] == 1:
            stretches.append((int(varied[begin]), int(varied[end - 1])))
        seen[key] = end
    first, last = np.array(stretches, np.intp).reshape(-1, 2).T
    return first, last
