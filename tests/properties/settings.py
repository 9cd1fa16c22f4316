"""How many cases the properties are tried on: few in every run of the tests, thousands with ``make soak``."""

import os

from hypothesis import HealthCheck, settings

__all__ = ["MANY", "cases"]

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"


def cases(few, many):
    """Settings of a property: the same cases in every run, kept nowhere."""
    return settings(
        max_examples=many if MANY else few, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
