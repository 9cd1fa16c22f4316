"""Several algorithms on one history: each proposes in turn, all of them learn from everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, listed, real_number, shown, whole_number
from searchlib.errors import InvalidSettings
from searchlib.space import Population, distinct

__all__ = ["Portfolio"]

#: Ids under which a member hears of candidates that others proposed: negative, and far from those of strangers.
_OTHERS = -(1 << 41)
#: A candidate is a success where it is among so many best ones.
_ELITE = 8
#: How often a member whose proposals are all known is asked again.
_AGAIN = 4


@final
@dataclass(frozen=True)
class Portfolio(Algorithm):
    """Algorithms that take turns; what one finds, the others start from.

    The first ``warmup`` candidates are shared evenly; from then on each member gets a share of the candidates in
    proportion to how often, lately, its candidates were among the eight best of all that had been told by then (with a
    floor, so that nobody is given up). Every member is told of every candidate: those of the others come to it as
    injections. No candidate is proposed twice.

    Arguments:
        members: two or more algorithms.
        warmup: candidates before shares follow success.
        floor: the least share of a member, in [0, 1 / members].
        memory: how many of a member's latest candidates count.

    Example:
        >>> from searchlib import Evolution, LocalSearch, search
        >>> from searchlib.spaces import Subset
        >>> both = Portfolio((LocalSearch(), Evolution()))
        >>> search(sum, both, space=Subset(40, k=4), budget=200, direction="maximize").best
        (36, 37, 38, 39)
    """

    members: tuple[Algorithm, ...]
    warmup: int = 40
    floor: float = 0.1
    memory: int = 60

    def __post_init__(self) -> None:
        check_field(self, "members", listed)
        if len(self.members) < 2 or not all(isinstance(member, Algorithm) for member in self.members):
            raise InvalidSettings(f"Portfolio(members=…) must be two or more algorithms, but are {shown(self.members)}")
        check_field(self, "warmup", whole_number, 0)
        check_field(self, "memory", whole_number, 1)
        check_field(self, "floor", real_number, f"[0, {1 / len(self.members)}]")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run, for one objective, on spaces that suit all members.

        Raises:
            MissingOperator: the space does not suit a member; the message is that member's.
        """
        problem.require_one_objective(self)
        return _PortfolioRun(self, problem, rng)


@final
class _Member:
    """A run with ids of its own."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.own: dict[int, int] = {}  # our id → the member's
        self.successes: list[bool] = []
        self.asked = 0

    def tell(self, evidence: Evidence) -> None:
        ids = [self.own.pop(index, index if index < 0 else _OTHERS - index) for index in evidence.ids.tolist()]
        self.run.tell(replace(evidence, ids=np.array(ids, np.int64)))


@final
class _PortfolioRun(Run):
    def __init__(self, settings: Portfolio, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._rng, self._noisy = settings, rng.spawn(1)[0], problem.noisy
        streams = rng.spawn(len(settings.members))
        # The seeds are proposed once, here, and told to all.
        bare = replace(problem, seeds=None)
        self._members = [
            _Member(member.start(bare, stream)) for member, stream in zip(settings.members, streams, strict=True)
        ]
        self._archive, self._proposed = Archive(problem.space, 64), Proposed(problem.space)
        self._seeds = self._proposed.claim(distinct(problem.space.canonical(problem.first_rows)))
        self._waiting: list[Evidence] = []
        self._owner: dict[int, int] = {}
        self._elite = [np.inf] * _ELITE
        self._asked = 0
        self._space = problem.space

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._seeds = self._seeds[:n], self._seeds[n:]
        start = self._asked
        self._asked += len(rows)
        parts = [rows]
        for place, count in enumerate(self._counts(n - len(rows))):
            parts += self._from(place, count)
        rows = np.concatenate(parts)
        return Batch(np.arange(start, start + len(rows)), rows)

    def tell(self, evidence: Evidence) -> None:
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        if not self._noisy:
            return self._archive.best(n)
        # Where values are noisy, a member that averages knows better than the luckiest candidate.
        lists = [member.run.recommend(n) for member in self._members]
        rounds = max(map(len, lists), default=0)
        picked = [rows[place : place + 1] for place in range(rounds) for rows in lists]
        return distinct(np.concatenate(picked))[:n] if picked else self._archive.best(n)

    def notes(self) -> Mapping[str, Any]:
        members = [
            {"algorithm": repr(settings), "candidates": member.asked, "among_the_best": sum(member.successes),
             **({"notes": dict(found)} if (found := member.run.notes()) else {})}
            for settings, member in zip(self._settings.members, self._members, strict=True)
        ]  # fmt: skip
        return {"portfolio": members}

    def _counts(self, n: int) -> list[int]:
        """How many of the next ``n`` candidates each member may propose."""
        asked = np.array([member.asked for member in self._members], np.float64)
        shares, counts = self._shares(), [0] * len(asked)
        for _ in range(n):  # whoever is furthest behind its share
            place = int(np.argmax(shares * (asked.sum() + 1) - asked))
            asked[place] += 1
            counts[place] += 1
        return counts

    def _shares(self) -> NDArray[np.float64]:
        k, settings = len(self._members), self._settings
        if self._asked < settings.warmup:
            return np.full(k, 1 / k)
        lately = [member.successes[-settings.memory :] for member in self._members]
        rates = np.array([(1 + sum(each)) / (2 * k + len(each)) for each in lately])
        return np.asarray(settings.floor + (1 - k * settings.floor) * rates / rates.sum())

    def _from(self, place: int, n: int) -> list[Population]:
        """Up to ``n`` candidates of a member that nobody has proposed; of the others where it has no more."""
        found: list[Population] = []
        for offset in range(len(self._members)):
            which = (place + offset) % len(self._members)
            for _ in range(_AGAIN):
                if not n:
                    return found
                batch = self._members[which].run.ask(n)
                if not len(batch):
                    break
                new = self._claimed(which, batch)
                found.append(new)
                n -= len(new)
        return found

    def _claimed(self, which: int, batch: Batch) -> Population:
        """What is new of a member's candidates, under our ids from now on."""
        member = self._members[which]
        places = self._proposed.claim_places(self._space.canonical(batch.population))
        ids = np.arange(self._asked, self._asked + len(places))
        self._asked += len(places)
        member.asked += len(places)
        member.own.update(zip(ids.tolist(), batch.ids[places].tolist(), strict=True))
        self._owner.update(dict.fromkeys(ids.tolist(), which))
        return np.asarray(batch.population[places])

    def _settle(self) -> None:
        """Tell everybody, in the order of ids, whatever order it came in."""
        for evidence in self._waiting:
            self._proposed.note_strangers(evidence)
            self._archive.add(evidence)
            for member in self._members:
                member.tell(evidence)
        told = sorted(
            (int(index), float(value), int(status) == Status.DONE)
            for evidence in self._waiting
            for index, value, status in zip(evidence.ids, evidence.values[:, 0], evidence.status, strict=True)
        )
        self._waiting = []
        self._archive.settle()
        bar = self._elite[-1]  # what a whole batch is measured by
        for index, value, done in told:
            owner = self._owner.pop(index, None)
            if owner is not None:
                self._members[owner].successes.append(done and value <= bar)
        self._elite = sorted(self._elite + [value for _, value, done in told if done])[:_ELITE]
