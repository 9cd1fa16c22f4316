"""Which variables depend on which: a forest of the strongest pairs, and samples from it."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.on_off_scores import OnOffScores

__all__ = ["DependencyTree"]

#: A pair counts as dependent beyond this quantile of the chi-squared distribution.
_LEVEL = 0.95
#: How many observations the marginals count for beside those that share the parent's option.
_PRIOR = 2.0


@final
class DependencyTree:
    """A distribution over the variables of on-off scores in which each depends on at most one other.

    Chow and Liu, *Approximating discrete probability distributions with dependence trees*, IEEE Trans. Information
    Theory 14 (1968): the spanning tree of the largest mutual information is the likeliest one. As in BMDA (Pelikan and
    Mühlenbein, 1999), pairs whose dependence is not significant (likelihood-ratio test against chi squared) are not
    linked, so that the tree may be a forest.

    Arguments:
        structure: the variables.
        on: observations, shape ``(m, p)`` of bools: which coordinates each has on.
        marginals: shape ``(p,)`` in (0, 1): the probability that each coordinate is on.
    """

    def __init__(self, structure: OnOffScores, on: NDArray[np.bool_], marginals: NDArray[np.float64]) -> None:
        # A coordinate that is a variable of its own has two options here, on and then off.
        self._single = structure.single
        width = np.where(self._single, 2, 1)
        self._on = np.cumsum(width) - width
        self._off = self._on[self._single] + 1
        variable = np.repeat(structure.variable, width)
        self._starts = np.flatnonzero(np.diff(variable, prepend=-1))
        self._stops = np.append(self._starts[1:], len(variable))
        options, self._marginals = np.empty((len(on), len(variable))), np.empty(len(variable))
        options[:, self._on], options[:, self._off] = on, ~on[:, self._single]
        self._marginals[self._on], self._marginals[self._off] = marginals, 1 - marginals[self._single]
        self._joint = options.T @ options
        self.order, self.parents = _forest(self._information(len(on)))

    def _information(self, m: int) -> NDArray[np.float64]:
        """Mutual information of every pair of variables, zero where it is not significant."""
        from scipy.special import chdtri, xlogy

        joint = self._joint / m
        share = np.diagonal(joint)
        positive = np.where(share > 0, share, 1.0)
        terms = xlogy(joint, joint / np.outer(positive, positive))
        information = np.add.reduceat(np.add.reduceat(terms, self._starts, axis=0), self._starts, axis=1)
        seen = np.add.reduceat(np.asarray(share > 0, np.float64), self._starts)
        freedom = np.outer(seen - 1, seen - 1)
        least = chdtri(np.maximum(freedom, 1), 1 - _LEVEL)
        return np.asarray(np.where((freedom > 0) & (2 * m * information > least), information, 0.0))

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Scores of ``n`` samples, shape ``(n, p)``: the candidates with the highest ones follow the distribution."""
        scores = rng.gumbel(size=(n, len(self._marginals)))
        chosen = np.zeros((n, len(self._starts)), np.intp)
        base = np.log(self._marginals)
        for variable in self.order.tolist():
            own, parent = slice(self._starts[variable], self._stops[variable]), self.parents[variable]
            if parent < 0:
                scores[:, own] += base[own]
            else:
                given = self._given(own, slice(self._starts[parent], self._stops[parent]))
                scores[:, own] += given[chosen[:, parent]]
            chosen[:, variable] = scores[:, own].argmax(axis=1)
        drawn = scores[:, self._on]
        drawn[:, self._single] -= scores[:, self._off]
        return drawn

    def _given(self, own: slice, parent: slice) -> NDArray[Any]:
        """Logarithms of the probabilities of a variable's options given each option of its parent."""
        counts = self._joint[parent, own] + _PRIOR * self._marginals[own]
        return np.asarray(np.log(counts / counts.sum(axis=1, keepdims=True)))


def _forest(weights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The maximum-weight spanning forest: variables from the roots on, and the parent of each, -1 for a root."""
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    tree = minimum_spanning_tree(-np.triu(weights, 1))
    _, component = connected_components(tree, directed=False)
    parents = np.full(len(weights), -1, np.intp)
    order: list[NDArray[Any]] = []
    for root in np.unique(component, return_index=True)[1].tolist():
        reached, before = breadth_first_order(tree, root, directed=False)
        order.append(reached)
        parents[reached[1:]] = before[reached[1:]]
    return np.concatenate(order), parents
