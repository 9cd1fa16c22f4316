"""How much of a benchmark score would come out otherwise for another model: noise that a subset must average out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings

__all__ = ["ScoreNoise"]


@final
@dataclass(frozen=True, kw_only=True)
class ScoreNoise:
    """A factor model of a score table: what the leading directions over models explain is systematic, the rest noise.

    A subset that is chosen on the scores as they are fits their noise, and ranks other models worse than those it was
    chosen on. This splits item-centered scores into a part of low rank (truncated singular value decomposition) and a
    remainder. The remainder is taken back by ``shrinkage``, and its variance, item by item, is the noise that
    :func:`~searchlib.objectives.rank_agreement.expected_kendall` reckons with. The defaults were chosen on random
    halves of the DiffusionDB scores of FlashEval; :func:`~searchlib.objectives.eval_subset_folds.choose_method`
    chooses anew for other tables.

    Arguments:
        rank: number of systematic directions, as a share of the models in (0, 1).
        shrinkage: share of the remainder that is dropped from the scores, in [0, 1].
        scale: how many standard deviations of the estimated noise one counts, positive.
        pooling: how far the noise of every item is drawn to that of all items, in [0, 1]; few models show it roughly.

    Example:
        >>> scores = np.random.default_rng(0).normal(size=(12, 40))
        >>> systematic, variance = ScoreNoise().split(scores)
        >>> systematic.shape, variance.shape
        ((12, 40), (40,))
    """

    rank: float = 0.36
    shrinkage: float = 0.5
    scale: float = 2.0
    pooling: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.rank < 1:
            raise InvalidSettings(f"ScoreNoise(rank=…) is a share of the models in (0, 1), but is {self.rank!r}")
        if not 0 <= self.shrinkage <= 1:
            raise InvalidSettings(f"ScoreNoise(shrinkage=…) must lie in [0, 1], but is {self.shrinkage!r}")
        if not 0 <= self.pooling <= 1:
            raise InvalidSettings(f"ScoreNoise(pooling=…) must lie in [0, 1], but is {self.pooling!r}")
        if not 0 < self.scale < math.inf:
            raise InvalidSettings(f"ScoreNoise(scale=…) must be greater than 0, but is {self.scale!r}")

    def split(self, scores: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The shrunk scores, item-centered, and the noise variance of every item in units of the scores squared.

        Arguments:
            scores: shape ``(models, items)``, complete, at least 3 models.

        Returns:
            shapes ``(models, items)`` and ``(items,)``. No item counts as less noisy than a twentieth of the mean, nor
            than a millionth of the differences between models.
        """
        models = len(scores)
        rank = min(max(1, round(self.rank * models)), models - 2)
        if rank < 1:
            raise InvalidSettings(f"noise needs at least 3 models to be seen, but there are {models}")
        if np.isnan(scores).any():
            raise InvalidSettings("ScoreNoise splits complete scores, but some are missing; pass ScoreMatrix.filled()")
        centered = scores - scores.mean(axis=0)
        # The Gram matrix over models is small; its eigenvectors are the left singular vectors.
        directions = np.linalg.eigh(centered @ centered.T)[1][:, -rank:]
        systematic = directions @ (directions.T @ centered)
        remainder = centered - systematic
        variance = (remainder**2).sum(axis=0) / (models - 1 - rank)
        variance = (1 - self.pooling) * variance + self.pooling * variance.mean()
        # A table without noise has a remainder of rounding errors only, or none.
        floor = max(0.05 * float(variance.mean()), 1e-12 * float((centered**2).mean()))
        return systematic + (1 - self.shrinkage) * remainder, self.scale**2 * np.maximum(variance, floor)
