"""Where a running search stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

__all__ = ["Standing", "duration"]


@final
@dataclass(frozen=True)
class Standing:
    """What can be said of a search at any moment, at no cost.

    Arguments:
        evaluations: distinct candidates evaluated.
        planned: evaluations in all, as far as the budget says; infinite where nobody knows.
        best: best value on the SEARCH cases so far, in the objective's own direction; NaN before the first.
        selected: the best value on the SELECT cases, which the short list meets when the search is over or its result
            asked for; NaN before, and None where the objective has no such cases.
        failed: candidates that failed.
        duplicates: candidates that were answered because they, or the same, had been evaluated before.
        raced: cells that a race has saved.
        hits: candidates that an evaluation cache has answered.
        seconds: time in batches so far, and how long the rest will take; infinite where nobody knows.

    Example:
        >>> print(Standing(30, 100, 0.4712, failed=2, duplicates=5, seconds=(6.0, 14.0)))
        30/100  best 0.4712  2 failed  5 duplicates  14 s left
        >>> Standing(100, 100, 0.4712, selected=math.nan).found, Standing(100, 100, 0.4712, selected=0.4506).found
        ('best 0.4712 on SEARCH', 'best 0.4506 on SELECT')
    """

    evaluations: int
    planned: float
    best: float
    failed: int = 0
    duplicates: int = 0
    raced: int = 0
    hits: int = 0
    seconds: tuple[float, float] = (0.0, math.inf)
    selected: float | None = None

    def __str__(self) -> str:
        whole = f"/{self.planned:.0f}" if math.isfinite(self.planned) else ""
        left = f"{duration(self.seconds[1])} left" if math.isfinite(self.seconds[1]) else ""
        return "  ".join(part for part in (f"{self.evaluations}{whole}", self.found, left) if part)

    @property
    def _best(self) -> str:
        if self.selected is not None and not math.isnan(self.selected):
            return f"best {self.selected:.4g} on SELECT"
        where = "" if self.selected is None else " on SEARCH"
        return "" if math.isnan(self.best) else f"best {self.best:.4g}{where}"

    @property
    def found(self) -> str:
        """The best value, on which cases where there are several kinds, and what went wrong or was saved."""
        counts = ((self.failed, "failed"), (self.duplicates, "duplicates"), (self.hits, "from the cache"))
        parts = [self._best] if self._best else []
        parts += [f"{count} {what}" for count, what in counts if count]
        return "  ".join(parts + [f"{self.raced} cells saved by racing"] * bool(self.raced))


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(5.04), duration(75), duration(4000), duration(200_000)
        ('5 s', '1 min 15 s', '1 h 6 min', '2 d 7 h')
    """
    whole = round(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
