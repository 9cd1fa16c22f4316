"""A search from the first candidate to the held-out value, in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from searchlib.algorithms.algorithm import Algorithm
from searchlib.arguments import flag
from searchlib.budget import Budget
from searchlib.case_source import CaseSource
from searchlib.evaluation_cache import EvaluationCache
from searchlib.front import Choice
from searchlib.loop import Search
from searchlib.objective import Direction, Objective
from searchlib.progress_bar import ProgressBar
from searchlib.raced_rows import CaseRacing
from searchlib.result import Outcome, Result
from searchlib.space import Space

__all__ = ["completed", "search"]

logger = logging.getLogger("searchlib")


def search(
    objective: Objective | Callable[[Any], Any],
    algorithm: Algorithm | None = None,
    *,
    space: Space | None = None,
    direction: Direction | tuple[Direction, ...] | None = None,
    batched: bool = False,
    budget: int | Budget,
    seed: int = 0,
    study: str | Path | None = None,
    workers: int = 1,
    threads: int = 1,
    timeout: float | None = None,
    batch_size: int | None = None,
    seeds: Any = None,
    shortlist: int | None = None,
    choose: Choice | None = None,
    max_failures: int = 25,
    racing: CaseRacing | None = None,
    cache: str | Path | EvaluationCache | None = None,
    cases: CaseSource | None = None,
    asynchronous: bool = False,
    devices: Sequence[int | str] | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
) -> Result:
    """Find the best candidate that the budget can buy, with an honest held-out value.

    Arguments are those of :class:`Search`; with ``dry_run=True`` only one chunk of candidates is evaluated, to log what
    the whole search will take. Ctrl-C returns the best so far. A line on the terminal or a bar in a notebook says where
    it stands; ``progress=False`` turns it off, ``True`` shows it elsewhere, too.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> search(lambda x: (x - 1) ** 2, space=Real(-5, 5), budget=300).value < 1e-3
        True
    """
    alone = flag("dry_run", dry_run)
    shown = None if progress is None else flag("progress", progress)
    run = Search(
        objective, algorithm, space=space, direction=direction, batched=batched, budget=budget, seed=seed, study=study,
        workers=workers, threads=threads, timeout=timeout, batch_size=batch_size, seeds=seeds, shortlist=shortlist,
        choose=choose, max_failures=max_failures, racing=racing, cache=cache, cases=cases,
        asynchronous=asynchronous, devices=devices,
    )  # fmt: skip
    try:
        if not alone:
            return completed(run, shown)
        with run:
            run.outcome = Outcome.DRY_RUN
            logger.warning("dry run: %s", run.forecast()[1])
            return run.result()
    finally:
        run.close()


def completed(run: Search, shown: bool | None = None) -> Result:
    """Go through a search to its end, saying where it stands where that is ``shown`` (:class:`ProgressBar`)."""
    with run, ProgressBar(shown=shown) as bar:
        for _ in run:
            bar.show(run.standing)
        bar.say("picking the winner")
        run.select()
        bar.show(run.standing)
        bar.say("comparing it on held-out cases")
        return run.result()
