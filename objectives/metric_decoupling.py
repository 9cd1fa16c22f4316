"""Which metric counts for which layer, and the allocations that follow from it.

MixDQ (arXiv 2405.17873, section 4.2): layers that carry content (cross-attention, feed-forward) are judged by how
similar an image's structure stays, the others by how close the output is; both groups are allocated apart, over a sweep
of how the budget is split, and the candidates are judged by images. ViDiT-Q (arXiv 2406.02540, section 4.3) has a
metric per type of layer: text alignment for cross-attention, temporal consistency for temporal attention, quality for
the rest.

A sweep of how a budget is split between groups is the same as a sweep of how their losses weigh against each other, in
one knapsack that meets the whole budget exactly: at the optimum every group spends until its gain per byte is equal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.additive_profile import AdditiveProfile
from searchlib.arguments import instance, listed, real_number, shown
from searchlib.errors import InvalidSettings

__all__ = ["MIXDQ", "VIDIT_Q", "decoupled_allocations", "decoupled_weights"]

#: By metric the layers it counts for; the first expression that matches a whole name decides.
MIXDQ = {"alignment": r".*\b(ff|attn2)\b.*", "quality": r".*"}
#: Names of diffusers and of the released video transformers.
VIDIT_Q = {
    "alignment": r"(.+\.)?(attn2|cross_attn|attn\.add_\w+)(\..+)?",
    "temporal": r"(.+\.)?(attn_temp|temporal_transformer_blocks\.\d+\.attn1|temp\w*)(\..+)?",
    "quality": r".*",
}


def decoupled_weights(
    profile: AdditiveProfile, assignment: Mapping[str, str], *, tilt: Mapping[str, float] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Weights by which :meth:`~searchlib.AdditiveProfile.combined` lets one metric count for every part.

    Metrics have units of their own; each is divided by what it would lose if all of its parts took their worst option.

    Arguments:
        profile: with the names of its metrics and parts (``layer:kind``).
        assignment: by metric a regular expression of whole names of layers, such as :data:`VIDIT_Q`. Metrics that the
            profile lacks are left out, so that their layers fall to later ones.
        tilt: by metric how much more it counts.

    Raises:
        InvalidSettings: a part that no expression matches.

    Example:
        >>> profile = AdditiveProfile(
        ...     [[[4.0, 0.0]] * 2, [[10.0, 0.0]] * 2], [], [], metrics=("quality", "alignment"),
        ...     part_names=("attn1.to_q:weight", "attn2.to_q:weight"),
        ... )
        >>> decoupled_weights(profile, VIDIT_Q)
        {'quality': array([0.25, 0.  ]), 'alignment': array([0. , 0.1])}
    """
    instance("profile", profile, AdditiveProfile, "an AdditiveProfile")
    instance("assignment", assignment, Mapping, "a mapping from metrics to patterns of names")
    tilt = instance("tilt", {} if tilt is None else tilt, Mapping, "a mapping from metrics to numbers")
    names = [name.rpartition(":")[0] or name for name in profile.part_names or ()]
    if not names:
        raise InvalidSettings("the profile does not name its parts; pass part_names=")
    known = {metric: _pattern(pattern) for metric, pattern in assignment.items() if metric in profile.metrics}
    chosen = [next((metric for metric, own in known.items() if own.fullmatch(name)), None) for name in names]
    if None in chosen:
        raise InvalidSettings(
            f"no metric counts for {names[chosen.index(None)]!r}: the profile has {list(profile.metrics)}, and the "
            f"assignment {dict(assignment)}"
        )
    weights: dict[str, NDArray[np.float64]] = {}
    for number, metric in enumerate(profile.metrics):
        mine = np.array([one == metric for one in chosen])
        allowed = np.where(np.isfinite(profile.loss[number]), profile.loss[number], 0.0)
        worst = float(allowed.max(axis=1)[mine].clip(min=0).sum())
        weights[metric] = mine * real_number("tilt", tilt.get(metric, 1.0), "[0, inf)") / (worst or 1.0)
    return weights


def decoupled_allocations(
    profile: AdditiveProfile,
    assignment: Mapping[str, str],
    *,
    budgets: ArrayLike | None = None,
    tilts: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
) -> NDArray[np.int16]:
    """The distinct allocations of a sweep of how metrics weigh against each other, shape ``(n, parts)``.

    They are candidates for a true evaluation on SELECT cases, as MixDQ judges its candidates by images; as rows of the
    space they can be the ``seeds`` of a search.

    Arguments:
        profile, assignment: as for :func:`decoupled_weights`.
        budgets: as for :meth:`~searchlib.AdditiveProfile.allocate`.
        tilts: how much each metric but the last counts more than by its own scale.
    """
    instance("profile", profile, AdditiveProfile, "an AdditiveProfile")
    instance("assignment", assignment, Mapping, "a mapping from metrics to patterns of names")
    shares = [real_number("each of tilts", tilt, "(0, inf)") for tilt in listed("tilts", tilts)]
    if not shares:
        raise InvalidSettings(f"tilts must be one number or more, but are {shown(tilts)}")
    metrics = [metric for metric in assignment if metric in profile.metrics]
    rows = [
        profile.allocate(budgets, decoupled_weights(profile, assignment, tilt=dict(zip(metrics, tilt, strict=False))))
        for tilt in itertools.product(shares, repeat=max(len(metrics) - 1, 0))
    ]
    return np.unique(np.stack([found.choice for found in rows]).astype(np.int16), axis=0)


def _pattern(given: Any) -> re.Pattern[str]:
    try:
        return re.compile(instance("a pattern of assignment", given, str, "a regular expression"))
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidSettings(f"assignment has {shown(given)}, which is no regular expression: {error}") from error
