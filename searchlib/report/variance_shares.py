"""How much of a value's variance every parameter explains, alone and in pairs."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.report.parameters import parameters
from searchlib.space import Population, Space

__all__ = ["VarianceShares", "variance_shares"]

#: Trees of the forest, the most candidates that it learns from, and the most numbers that these may have in all.
_TREES, _MOST, _NUMBERS = 64, 2000, 128_000
#: Most parameters: more would take minutes, and a thousand candidates say nothing about so many.
_PARAMETERS = 256
#: Fewest candidates that a forest can say something about.
_LEAST = 20
#: Samples of the space that effects are averaged over, and settings of a parameter: alone, and in a pair.
_BACKGROUND, _SETTINGS = (512, 192), (12, 10)
#: Samples for the variance as a whole.
_WHOLE = 4096
#: Rows that the forest predicts at once.
_ROWS_AT_ONCE = 65_536


@final
@dataclass(frozen=True, eq=False)
class VarianceShares:
    """Shares of the variance of a value over a space.

    Arguments:
        names: of the parameters.
        alone: share that each explains by itself, shape ``(p,)``.
        pairs: positions of the parameters of every pair that was looked at.
        together: share that a pair explains beyond its two parameters, shape ``(pairs,)``.
        fit: how much of the variance among candidates that it had not seen (out of bag) the forest explains, at most
            1; below about 0.5 the shares mean little.
    """

    names: tuple[str, ...]
    alone: NDArray[np.float64]
    pairs: tuple[tuple[int, int], ...]
    together: NDArray[np.float64]
    fit: float


def variance_shares(
    space: Space, population: Population, values: NDArray[np.float64], *, strongest: int = 6, seed: int = 0
) -> VarianceShares:
    """Functional analysis of variance of a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014).

    scikit-learn's forest learns the values; the effect of a parameter is the variance of its predictions, averaged over
    samples of the space, when only that parameter is set. (The paper integrates over the trees' boxes instead, which
    needs a space that is one box; the package ``fanova`` is no longer maintained, and optuna's evaluator knows no
    pairs.) Parameters are set independently of each other: where a space ties them together (exactly k of n), the
    forest is asked about candidates that do not exist.

    Arguments:
        space: of the candidates; :func:`searchlib.report.parameters.parameters` says what a parameter is.
        population: candidates, shape ``(n, d)``; of more than 2000 (of wide spaces fewer), evenly spaced ones are used.
        values: shape ``(n,)``, finite.
        strongest: of so many parameters every pair is looked at.
        seed: of the forest and the samples.

    Raises:
        MissingDependency: scikit-learn is not installed.
        InvalidSettings: fewer than 20 candidates, equal values, or more than 256 parameters.

    Example:
        >>> from searchlib.spaces import Real
        >>> space, rng = Real(0.0, 1.0, length=2), np.random.default_rng(0)
        >>> rows = space.sample(rng, 300)
        >>> shares = variance_shares(space, rows, 2 * rows[:, 0] + rows[:, 1])  # needs scikit-learn
        >>> shares.names, shares.alone.round(1).tolist()  # exactly 4/5 and 1/5
        (('0', '1'), [0.8, 0.2])
    """
    if len(values) < _LEAST or not np.isfinite(values).all() or np.ptp(values) == 0:
        raise InvalidSettings(
            f"importance needs {_LEAST} candidates or more with finite values that differ, but got {len(values)} from "
            f"{values.min(initial=np.inf):g} to {values.max(initial=-np.inf):g}"
        )
    rng = np.random.default_rng(seed)
    if space.dimension > _PARAMETERS or len(found := parameters(space)) > _PARAMETERS:
        raise InvalidSettings(
            f"importance is worked out for up to {_PARAMETERS} parameters, but {type(space).__name__} has more"
        )
    columns = sorted({column for each in found for column in each.columns})
    place = {column: number for number, column in enumerate(columns)}
    groups = [np.array([place[column] for column in each.columns]) for each in found]
    most = min(_MOST, len(values), max(_LEAST, _NUMBERS // len(columns)))
    used = np.linspace(0, len(values) - 1, most).astype(int)
    forest = _Forest(space.features(population[used])[:, columns], values[used], seed)
    samples = space.features(space.sample(rng, _WHOLE))[:, columns]
    mixed = samples.copy()
    for group in groups:
        mixed[:, group] = samples[rng.permutation(len(samples))][:, group]
    whole = float(forest(mixed).var()) or 1.0
    alone = np.array([_effect(forest, mixed[: _BACKGROUND[0]], [group], samples, _SETTINGS[0]) for group in groups])
    top = np.sort(np.argsort(-alone, kind="stable")[:strongest]).tolist()
    pairs = tuple(itertools.combinations(top, 2))
    few = mixed[: _BACKGROUND[1]]
    single = {each: _effect(forest, few, [groups[each]], samples, _SETTINGS[1]) for each in top}
    joint = [_effect(forest, few, [groups[a], groups[b]], samples, _SETTINGS[1]) for a, b in pairs]
    beyond = [max(0.0, both - single[a] - single[b]) for (a, b), both in zip(pairs, joint, strict=True)]
    names = tuple(each.name or "value" for each in found)
    return VarianceShares(names, alone / whole, pairs, np.array(beyond) / whole, forest.fit)


@final
class _Forest:
    """Predicts values from features."""

    def __init__(self, features: NDArray[np.float64], values: NDArray[np.float64], seed: int) -> None:
        try:
            from sklearn.ensemble import RandomForestRegressor
        except ImportError as error:
            raise MissingDependency("importance needs scikit-learn: pip install 'searchlib[predictors]'") from error
        tried = min(features.shape[1], max(4, features.shape[1] // 3))  # Breiman's p/3
        self._forest: Any = RandomForestRegressor(
            _TREES, max_features=tried, random_state=seed, n_jobs=1, oob_score=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a candidate that is in every bag says nothing out of bag
            self._forest.fit(features.astype(np.float32), values)
        self.fit = float(self._forest.oob_score_)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = np.array_split(features.astype(np.float32), _parts(len(features)))
        return np.concatenate([self._forest.predict(part) for part in parts])


def _parts(rows: int) -> int:
    return max(1, -(-rows // _ROWS_AT_ONCE))


def _effect(
    forest: _Forest, background: NDArray[np.float64], groups: list[NDArray[np.intp]], samples: NDArray[np.float64],
    most: int,
) -> float:  # fmt: skip
    """Variance of the mean prediction when only the groups of columns are set, to all combinations of settings."""
    settings = [_settings(samples[:, group], most) for group in groups]
    combined = list(itertools.product(*(range(len(rows)) for rows, _ in settings)))
    table = np.repeat(background[None], len(combined), axis=0)
    for number, (group, (rows, _)) in enumerate(zip(groups, settings, strict=True)):
        table[:, :, group] = rows[[places[number] for places in combined]][:, None]
    means = forest(table.reshape(-1, background.shape[1])).reshape(len(combined), -1).mean(axis=1)
    weights = np.array([
        np.prod([weight[place] for place, (_, weight) in zip(places, settings, strict=True)]) for places in combined
    ])  # fmt: skip
    return float(weights @ (means - weights @ means) ** 2)


def _settings(columns: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most so many settings of a parameter and their weights: what it can be, or evenly spaced quantiles."""
    rows, count = np.unique(columns, axis=0, return_counts=True)
    if len(rows) <= 2 * most:
        return rows, count / count.sum()
    if columns.shape[1] == 1:
        rows = np.quantile(columns, (np.arange(most) + 0.5) / most, axis=0)
    else:
        rows = columns[np.linspace(0, len(columns) - 1, most).astype(int)]
    return rows, np.full(most, 1 / most)
