"""Libraries of optimizers warn about what is none of the user's business."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Without their warnings about population sizes, restarts and flat functions, and without numpy's."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
