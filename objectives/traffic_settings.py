"""What all rollouts of a traffic network have in common: how long, how often is decided, and what signals may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from searchlib.arguments import real_number, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["NEIGHBORS", "TrafficSettings"]

#: Upstream intersections that a signal looks at (CityLight, arXiv 2406.02126: up to four).
NEIGHBORS = 4


@final
@dataclass(frozen=True, kw_only=True)
class TrafficSettings:
    """How signals are controlled, and what they see.

    Arguments:
        seconds: of traffic from the network's own beginning; CityLight's episodes are an hour.
        decide_every: seconds between two decisions of a signal.
        yellow: seconds of yellow for every link that loses its green.
        clearing: seconds that the next green waits at most, after yellow, for vehicles that still stand inside the
            junction on ways that have lost their green, such as left-turners; without it they and the next to cross can
            block each other for good.
        min_green: seconds that a green lasts at least.
        reach: meters over which queues are measured, upstream from the stop line, as far as no other signal lies
            between: last pieces of lanes are often shorter than the queue on them.
        longest_red: seconds after which a phase somebody waits for is served next, whatever the policy says.

    Raises:
        InvalidSettings: a number that cannot be meant.

    Example:
        >>> TrafficSettings().decisions, TrafficSettings(seconds=900).decisions
        (720, 180)
    """

    seconds: int = 3600
    decide_every: int = 5
    yellow: int = 3
    clearing: int = 10
    min_green: int = 5
    reach: float = 200.0
    longest_red: float = 120.0

    def __post_init__(self) -> None:
        for name in ("seconds", "decide_every", "min_green", "yellow"):
            whole_number(name, getattr(self, name), 1)
        whole_number("clearing", self.clearing, 0)
        for name in ("reach", "longest_red"):
            real_number(name, getattr(self, name), "(0, inf)")
        if self.yellow >= self.decide_every:
            raise InvalidSettings(
                f"yellow must be over before the next decision, but yellow={self.yellow} and "
                f"decide_every={self.decide_every}"
            )

    @property
    def decisions(self) -> int:
        """Of every signal in a rollout."""
        return -(-self.seconds // self.decide_every)
