"""Which of several possible children looks best to a linear model, and how far that model is to be trusted."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.linear_model import LinearModel
from searchlib.space import Population, Space

__all__ = ["Screen"]

#: The share of screened children stays within these limits, so that both kinds keep being tried.
_LEAST, _MOST = 0.1, 0.9
#: Weight of the slopes of the model where values are exact; where they are noisy it is the number of features.
_RIDGE = 1.0


@final
class Screen:
    """Learns how values depend on the features of a space, and how often children that look good are good.

    On features of on-off choices the model holds what every single change is worth, averaged over where it was tried:
    an additive probe that costs no evaluation of its own. Children are either blind or screened; the share of screened
    ones follows the success rates of both, as in adaptive pursuit (Thierens, GECCO 2005), so that a model that misleads
    costs little.

    Arguments:
        space: what may vary.
        width: number of features.
        noisy: whether values are noisy; then the slopes are held as small as if noise explained half of what is seen.
    """

    def __init__(self, space: Space, width: int, noisy: bool) -> None:
        self._space = space
        self._model = LinearModel(width, float(max(width, 1)) if noisy else _RIDGE)
        self._marks = bytearray()  # of every candidate asked: 0 blind, 1 screened, 2 no child
        self._tries, self._wins = np.ones(2), np.ones(2)

    @property
    def share(self) -> float:
        """The share of children that should be screened."""
        rate = self._wins / self._tries
        return float(np.clip(rate[1] / rate.sum(), _LEAST, _MOST))

    def mark(self, kinds: NDArray[np.integer[Any]]) -> None:
        """Note of the next candidates asked, in the order of ids: 0 blind, 1 screened, 2 no child."""
        self._marks.extend(kinds.astype(np.uint8).tobytes())

    def learn(self, ids: NDArray[np.int64], rows: Population, values: NDArray[Any], won: NDArray[np.bool_]) -> None:
        """Learn from values, and from which children ``won`` over their parent."""
        self._model.add(self._space.features(rows), values)
        own = ids >= 0
        kinds = np.frombuffer(bytes(self._marks), np.uint8)[ids[own]]
        self._tries += np.bincount(kinds, minlength=3)[:2]
        self._wins += np.bincount(kinds, weights=won[own], minlength=3)[:2]

    def predict(self, rows: Population) -> NDArray[np.float64]:
        """Expected values, shape ``(n,)``."""
        return self._model.predict(self._space.features(rows))
